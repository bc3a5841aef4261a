"""Ports for processes that tests start: below those the kernel hands to outgoing connections, never the same twice."""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import time
from typing import Any

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


def await_port(port: int, *, process: subprocess.Popen[Any] | None = None, within_s: float = 30.0) -> None:
    """Return as soon as something listens there; raises AssertionError where nothing does, or `process` has ended."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        ended = process and process.poll()
        assert ended is None, f"the process that was to listen on {port} ended with {ended}"
        time.sleep(0.02)
    raise AssertionError(f"nothing listens on {port} within {within_s} s")
