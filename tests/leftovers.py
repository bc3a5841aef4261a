"""Look for what tests may have left on this machine: containers, networks, volumes, virtual machines, their links.

`--remove` takes them away.

Only testbeds whose name begins with `test-` are looked at, so that nobody's own testbed is touched. Exits with 1 and a
list when something was there; cached images and the store of node images are no leftovers.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

LABEL = "org.toolkit.testbed"
OURS = "test-"
KINDS = {
    "container": (["ps", "-a"], "{{.Names}}", ["rm", "-f", "-v"]),
    "network": (["network", "ls"], "{{.Name}}", ["network", "rm"]),
    "volume": (["volume", "ls"], "{{.Name}}", ["volume", "rm", "-f"]),
}


VM_MARK = b"toolkit-vm,,"
"""Begins the `-name` of a virtual machine's process; the testbed and the node follow."""


def main() -> int:
    """List, and with --remove take away."""
    removing = "--remove" in sys.argv
    found = {kind: _labelled(listing, name) for kind, (listing, name, _) in KINDS.items()}
    machines, links = _machines(), _links()
    if removing:
        for kind, (_, _, removal) in KINDS.items():  # containers first: networks and volumes are free then
            if found[kind]:
                _docker([*removal, *found[kind]])
        for pid in machines:
            _as_root("kill", "-KILL", str(pid))
        for link in links:
            _as_root("ip", "link", "delete", "dev", link)
    left = {**found, "virtual machine": list(machines.values()), "link": links}
    for kind, names in left.items():
        if names:
            sys.stdout.write(f"left behind: {kind} {' '.join(names)}\n")
    return 1 if any(left.values()) else 0


def _labelled(listing: list[str], name: str) -> list[str]:
    form = f'{name} {{{{.Label "{LABEL}"}}}}'
    lines = _docker([*listing, "--filter", f"label={LABEL}", "--format", form]).splitlines()
    return [line.split()[0] for line in lines if line.split()[1].startswith(OURS)]


def _machines() -> dict[int, str]:
    """Process -> testbed,,node."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            program, *arguments = entry.read_bytes().split(b"\0")
        except OSError:
            continue  # it has ended
        name = next((a for a in arguments if a.startswith(VM_MARK + OURS.encode())), None)
        if name and b"qemu-system" in program:
            found[int(entry.parent.name)] = name.removeprefix(VM_MARK).decode()
    return found


def _links() -> list[str]:
    """Taps and bridges whose alias names a test's testbed, taps first."""
    answer = subprocess.run(["ip", "-json", "link", "show"], capture_output=True, check=True, text=True).stdout
    ours = [link for link in json.loads(answer) if link.get("ifalias", "").startswith(f"{LABEL}={OURS}")]
    return [link["ifname"] for link in sorted(ours, key=lambda link: "/" not in link["ifalias"])]


def _as_root(*command: str) -> None:
    subprocess.run([*([] if os.geteuid() == 0 else ["sudo", "-n"]), *command], check=False)


def _docker(arguments: list[str]) -> str:
    return subprocess.run(["docker", *arguments], capture_output=True, check=True, text=True).stdout


if __name__ == "__main__":
    sys.exit(main())
