"""A TCP or TLS connection as drivers use it: opened blocking, never blocking afterwards, Nagle off."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from toolkit.errors import WorkloadError
from toolkit.node.sending import Sending

if TYPE_CHECKING:
    import ssl

_READ_BYTES = 65_536
"""More than a record of TLS holds, so that nothing decrypted is left where no selector sees it."""
_time_ns = time.time_ns


class Wire:
    """Bytes out, bytes in; what the kernel does not take stays in `backlog` until `flush`."""

    def __init__(self, address: str, *, options: Mapping[str, Any], timeout_s: float) -> None:
        """Connect to host:port; raises OSError, or WorkloadError for an address or TLS setting that cannot be."""
        host, port = split_address(address)
        self.address = address
        self._backlog = bytearray()
        plain = _connect(host, port, timeout_s, options)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # A peer that vanished without a word is noticed when what we send stays unanswered for so long.
        plain.setsockopt(
            socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(float(options.get("dead_after_s", 15)) * 1000)
        )
        self._socket: socket.socket = _wrap(plain, host, options) if options.get("tls") else plain

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self._socket.fileno()

    def local(self) -> tuple[str, int]:
        """Address and port of our end."""
        name = self._socket.getsockname()
        return name[0], name[1]

    def blocking(self, timeout_s: float | None) -> None:
        """Wait up to `timeout_s` in `send_all` and `read` (for handshakes); None: never wait again."""
        if timeout_s is None:
            self._socket.setblocking(False)
        else:
            self._socket.settimeout(timeout_s)

    def send(self, data: bytes | bytearray) -> None:
        """Send now what the kernel takes; the rest waits in the backlog. Raises ConnectionError when the way is cut."""
        if self._backlog:
            self._backlog += data
            self.flush()
            return
        try:
            sent = self._socket.send(data)
        except OSError as error:
            if not is_busy(error):
                raise _cut(self.address, error) from error
            sent = 0
        if sent != len(data):
            self._backlog += memoryview(data)[sent:]

    def flush(self) -> None:
        """Offer the backlog again."""
        while self._backlog:
            try:
                sent = self._socket.send(self._backlog)
            except OSError as error:
                if is_busy(error):
                    return
                raise _cut(self.address, error) from error
            del self._backlog[:sent]

    def backlog(self) -> int:
        """Bytes that the kernel has not taken yet."""
        return len(self._backlog)

    def read(self) -> tuple[bytes, int]:
        """(what is there, the instant right after it was read in ns); nothing there gives b"".

        Of TLS it is one record: the next may come later than that instant.
        Raises ConnectionError at the end of the stream.
        """
        try:
            data = self._socket.recv(_READ_BYTES)
            at_ns = _time_ns()
        except OSError as error:
            if is_busy(error):
                return b"", _time_ns()
            if isinstance(error, TimeoutError) and error.errno is None:  # ours; ETIMEDOUT is the kernel giving up
                raise TimeoutError(f"{self.address} does not answer") from error
            raise _cut(self.address, error) from error
        if not data:
            raise ConnectionResetError(f"{self.address} closed the connection")
        return data, at_ns

    def close(self) -> None:
        """Drop the connection."""
        with contextlib.suppress(OSError):
            self._socket.close()


def split_address(address: str) -> tuple[str, int]:
    """Host and port of `host:port` or `[v6]:port`; raises WorkloadError."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise WorkloadError(f"broker {address!r} is not host:port")
    return host.strip("[]"), int(port)


def is_busy(error: OSError) -> bool:
    """Whether a socket that never waits has nothing to give, or takes nothing, just now."""
    # SSLWantReadError and SSLWantWriteError carry no errno of their own; their names spare the import of ssl.
    return isinstance(error, BlockingIOError) or type(error).__name__ in ("SSLWantReadError", "SSLWantWriteError")


def _connect(host: str, port: int, timeout_s: float, options: Mapping[str, Any]) -> socket.socket:
    """As `socket.create_connection`, with what `options` want of the kernel; WorkloadError where it refuses.

    Both have to be set before: what was offered to the other side cannot be taken back (what is over is dropped), and
    a congestion control begins with the first segment.
    """
    received = int(options.get("receive_buffer_bytes", 0))
    sending = Sending(congestion=str(options.get("congestion", "")))
    problem = OSError(f"{host} has no address")
    for family, kind, protocol, _, place in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        plain = socket.socket(family, kind, protocol)
        try:
            plain.settimeout(timeout_s)
            if received:
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, received)
            _set_sending(plain, sending)
            plain.connect(place)
        except OSError as error:
            plain.close()
            problem = error
        except WorkloadError:
            plain.close()
            raise
        else:
            return plain
    raise problem


def _set_sending(plain: socket.socket, sending: Sending) -> None:
    try:
        sending.set_on(plain)
    except OSError as error:
        raise WorkloadError(f"option {sending.refusal(error)}") from error


def _cut(address: str, error: OSError) -> ConnectionError:
    return ConnectionResetError(f"connection to {address} is cut: {error.strerror or error}")


def _wrap(plain: socket.socket, host: str, options: Mapping[str, Any]) -> ssl.SSLSocket:
    import ssl

    from toolkit.node.drivers.tls import client_context

    try:
        return client_context(options).wrap_socket(plain, server_hostname=host)
    except (ssl.SSLError, ssl.CertificateError) as error:
        plain.close()
        raise WorkloadError(f"TLS to {host} failed: {error}") from error
