"""How many connections a process may have, read from the system before it opens the first."""

from __future__ import annotations

import contextlib
import resource
from pathlib import Path

MOST = 65_536
PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")
_OWN = 32
"""Descriptors of a process beside its connections: control and metrics ports, files, events."""


def allow_descriptors() -> None:
    """As many as the system lets the process have, up to `MOST`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


def check_connections(count: int, *, entrances: int = 1, ports: Path = PORTS) -> None:
    """Raise ValueError where this process cannot have so many connections to a broker of so many entrances."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _OWN
    if count > files:
        raise ValueError(
            f"{count} connections need as many file descriptors, and this process may have {max(files, 0)}; "
            "raise its limit (ulimit -n), or give them to more processes (replicas)"
        )
    try:
        low, high = map(int, ports.read_text().split())
    except (OSError, ValueError):
        return
    if count > (high - low + 1) * entrances:
        raise ValueError(
            f"{count} connections need as many ports, and this node has {high - low + 1} for each address of a broker "
            f"({ports}); widen the range, or put publishers and subscribers on more nodes"
        )
