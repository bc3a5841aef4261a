"""Writes to one client of the event loop: at once where the socket takes it, through the transport where not.

uvloop gathers writes until the end of its turn. An event goes out by a system call of its own instead, so that T3 is
the instant of the send, and the first of many subscribers does not wait for the last.
"""

from __future__ import annotations

import asyncio
import os
import socket

from toolkit.node.sending import Sending

_TCP_NOTSENT_LOWAT = 25
"""Of Linux; Python has no name for it before 3.12."""


class Outlet:
    """The sending side of one connection."""

    __slots__ = ("_fd", "transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        sock = transport.get_extra_info("socket")
        # Bytes of a TLS connection have to pass through its transport.
        self._fd = -1 if sock is None or transport.get_extra_info("ssl_object") is not None else sock.fileno()

    def set_sending(self, sending: Sending) -> None:
        """Let the kernel send as was set."""
        sock = self.transport.get_extra_info("socket")
        if sock is not None:
            sending.set_on(sock)

    def limit_unsent(self, most_bytes: int) -> None:
        """Let the kernel keep at most so many bytes beyond what the peer has room for, and the transport no event.

        That of a TLS connection is never empty for long: it may keep as much as the kernel.
        """
        self.transport.set_write_buffer_limits(high=0 if self._fd >= 0 else most_bytes)
        sock = self.transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, most_bytes)

    def write(self, data: bytes) -> None:
        """Send, or queue in the transport what the kernel does not take now; errors end the connection later."""
        transport = self.transport
        if self._fd >= 0 and not transport.is_closing() and not transport.get_write_buffer_size():
            try:
                sent = os.write(self._fd, data)
            except BlockingIOError:
                sent = 0
            except OSError:
                transport.abort()
                return
            if sent == len(data):
                return
            data = data[sent:]
        transport.write(data)
