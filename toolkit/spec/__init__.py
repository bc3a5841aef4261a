"""What was asked for: the testbed file and its workloads."""
