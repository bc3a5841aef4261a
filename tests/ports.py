"""Ports for processes that tests start: below those the kernel hands to outgoing connections, never the same twice."""

from __future__ import annotations

import itertools
import os
import socket

FIRST, SPAN = 20_000, 3_000
"""Each parallel worker has a span of its own; the kernel's own ports begin at 32768."""
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 4
_ports = itertools.cycle(range(FIRST + _worker * SPAN, FIRST + (_worker + 1) * SPAN))
_offset = os.getpid() % SPAN
for _ in range(_offset):
    next(_ports)


def free_port() -> int:
    """A port that nothing uses on this machine right now, for TCP and UDP."""
    for port in _ports:
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            try:
                tcp.bind(("0.0.0.0", port))
                udp.bind(("0.0.0.0", port))
            except OSError:
                continue
        return port
    raise AssertionError("no free port")
