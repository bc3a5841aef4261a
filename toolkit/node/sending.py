"""How the kernel sends on a connection: what it may hold for it, and by which congestion control.

Where nothing is set Linux sizes each connection's buffer by what was ever under way on it, so that no two runs have the
same. A size switches that off. The kernel holds twice that size and rounds up to its next piece (a third more was seen
of 64K): the writer of an event sleeps when as much is not acknowledged yet, and goes on when a third of it is.
"""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DOUBLED = 2
"""Linux takes as much again for its own bookkeeping, and hardly uses it."""
_ALLOWED = Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control")
_NAME_BYTES = 16
_LARGEST = 2**30 - 1
"""What still is a number for the kernel when it has doubled it; no kernel gives as much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """What is set on a connection."""

    buffer_bytes: int = 0
    """SO_SNDBUF; 0 leaves it to the kernel."""
    congestion: str = ""
    """A name of Linux; empty is the node's own."""

    def set_on(self, connection: Any) -> None:
        """Of a socket, or what an event loop has in its place; raises OSError for what the kernel refuses."""
        if self.buffer_bytes:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, min(self.buffer_bytes, _LARGEST))
        if self.congestion:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, self.congestion.encode())

    def refusal(self, error: OSError) -> str:
        """What `set_on` ran into, and what the kernel would take."""
        allowed = ""
        with contextlib.suppress(OSError):
            allowed = f"; it allows {_ALLOWED.read_text().strip()} (sysctl {'.'.join(_ALLOWED.parts[3:])})"
        return f"congestion: the kernel refuses {self.congestion!r} ({error.strerror}){allowed}"

    def effective(self) -> dict[str, Any]:
        """What a connection comes to have, tried on a socket of its own; raises ValueError for what is refused."""
        with socket.socket() as tried:
            try:
                self.set_on(tried)
            except OSError as error:
                raise ValueError(self.refusal(error)) from error
            held = tried.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
            if self.buffer_bytes and held < DOUBLED * self.buffer_bytes:
                raise ValueError(
                    f"send_buffer: the kernel gives at most {held // DOUBLED} bytes of {self.buffer_bytes}; "
                    f"raise sysctl net.core.wmem_max on the node, or ask for less"
                )
            name = tried.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, _NAME_BYTES)
        return {
            "send_buffer_held": held if self.buffer_bytes else 0,
            "congestion": name.rstrip(b"\0").decode(),
        }
