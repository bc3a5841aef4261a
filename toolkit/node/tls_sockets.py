"""TLS sockets that keep their failures to themselves.

OpenSSL notes errors by thread. With OpenSSL 3.5 Python leaves the note of a connection that broke, and takes the same
thread's next read or write of any other for failed, too: https://github.com/python/cpython/issues/148594.
"""

from __future__ import annotations

import contextlib
import ssl
from typing import Any

_NO_STORE = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
_NO_FILE = "/dev/null/none"


class TlsSocket(ssl.SSLSocket):
    """For `SSLContext.sslsocket_class`, of every context whose sockets share a thread."""

    def read(self, *arguments: Any) -> Any:
        """As `ssl.SSLSocket.read`, which every way of receiving goes by."""
        try:
            return super().read(*arguments)
        except OSError as error:
            _forget(error)
            raise

    def send(self, *arguments: Any) -> int:
        """As `ssl.SSLSocket.send`, which `sendall` goes by."""
        try:
            return super().send(*arguments)
        except OSError as error:
            _forget(error)
            raise

    def do_handshake(self, block: bool = False) -> None:
        """As `ssl.SSLSocket.do_handshake`."""
        try:
            super().do_handshake(block)
        except OSError as error:
            _forget(error)
            raise


def _forget(error: OSError) -> None:
    """Clear what OpenSSL has noted for this thread."""
    if isinstance(error, ssl.SSLWantReadError | ssl.SSLWantWriteError):
        return
    with contextlib.suppress(OSError):
        # Python clears the notes where a file cannot be read; it has no function that does nothing else.
        _NO_STORE.load_verify_locations(_NO_FILE)
