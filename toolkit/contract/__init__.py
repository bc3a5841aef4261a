"""What the operator's machine and the nodes agree on; standard library only."""
