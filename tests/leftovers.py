"""Look for what tests may have left on this machine: containers, networks, volumes of testbeds. `--remove` takes them.

Only testbeds whose name begins with `test-` are looked at, so that nobody's own testbed is touched. Exits with 1 and a
list when something was there; cached images and the store of node images are no leftovers.
"""

from __future__ import annotations

import subprocess
import sys

LABEL = "org.toolkit.testbed"
OURS = "test-"
KINDS = {
    "container": (["ps", "-a"], "{{.Names}}", ["rm", "-f", "-v"]),
    "network": (["network", "ls"], "{{.Name}}", ["network", "rm"]),
    "volume": (["volume", "ls"], "{{.Name}}", ["volume", "rm", "-f"]),
}


def main() -> int:
    """List, and with --remove take away."""
    found = False
    for kind, (listing, name, removal) in KINDS.items():
        form = f'{name} {{{{.Label "{LABEL}"}}}}'
        lines = _docker([*listing, "--filter", f"label={LABEL}", "--format", form]).splitlines()
        names = [line.split()[0] for line in lines if line.split()[1].startswith(OURS)]
        if names:
            found = True
            print(f"left behind: {kind} {' '.join(names)}")
            if "--remove" in sys.argv:
                _docker([*removal, *names])
    return 1 if found else 0


def _docker(arguments: list[str]) -> str:
    return subprocess.run(["docker", *arguments], capture_output=True, check=True, text=True).stdout


if __name__ == "__main__":
    sys.exit(main())
