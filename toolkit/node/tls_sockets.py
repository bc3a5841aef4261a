"""TLS sockets that keep their failures to themselves.

OpenSSL notes errors by thread. With OpenSSL 3.5 Python leaves the note of a connection that broke, and takes the same
thread's next read or write of any other for failed, too: https://github.com/python/cpython/issues/148594.
"""

from __future__ import annotations

import contextlib
import functools
import ssl
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
Method = Callable[Concatenate[ssl.SSLSocket, P], R]

_NO_STORE = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
_NO_FILE = "/dev/null/none"


def _forgetting(method: Method[P, R]) -> Method[P, R]:
    """As that method; where it fails, what OpenSSL has noted for this thread is cleared."""

    @functools.wraps(method)
    def call(connection: ssl.SSLSocket, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(connection, *args, **kwargs)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except OSError:
            with contextlib.suppress(OSError):
                # Python clears the notes where a file cannot be read; it has no function that does nothing else.
                _NO_STORE.load_verify_locations(_NO_FILE)
            raise

    return call


class TlsSocket(ssl.SSLSocket):
    """For `SSLContext.sslsocket_class`, of every context whose sockets share a thread."""

    do_handshake = _forgetting(ssl.SSLSocket.do_handshake)
    read = _forgetting(ssl.SSLSocket.read)
    """Every way of receiving goes by it."""
    send = _forgetting(ssl.SSLSocket.send)
    """`sendall` goes by it."""
