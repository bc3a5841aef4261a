"""The server's side of TLS between a transport and a protocol, which tells a client that it is refused, and the log.

asyncio's and uvloop's own close the connection without a word. Under TLS 1.3 a client has finished its handshake by
then and takes that for a system that went away.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from typing import Any, cast

log = logging.getLogger(__name__)

_READ_BYTES = 65_536
_LINGER_S = 1.0
"""How long what a refused client still sends is thrown away, so that it gets to read the alert."""


class TlsServer(asyncio.Transport, asyncio.Protocol):
    """One connection: the protocol of the transport below, and the transport of the protocol above."""

    def __init__(self, above: asyncio.Protocol, context: ssl.SSLContext, *, within_s: float) -> None:
        """A handshake that takes longer than `within_s` ends the connection."""
        super().__init__()
        self._above = above
        self._within_s = within_s
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._below: asyncio.Transport
        self._timer: asyncio.TimerHandle | None = None
        self._begun = False
        """Whether the handshake is done and the protocol above knows of the connection."""
        self._closing = False

    # ------------------------------------------------ from below

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is there."""
        self._below = cast("asyncio.Transport", transport)  # uvloop's own class, not registered as one
        self._timer = asyncio.get_running_loop().call_later(self._within_s, self._below.abort)

    def data_received(self, data: bytes) -> None:
        """Bytes of TLS came in."""
        if self._closing:
            return
        self._incoming.write(data)
        try:
            if not self._begun:
                self._shake_hands()
            while not self._closing:
                plain = self._tls.read(_READ_BYTES)
                if not plain:
                    raise ssl.SSLZeroReturnError  # noqa: TRY301 - either way it says goodbye
                self._above.data_received(plain)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            if not self._above.eof_received():
                self.close()
        except ssl.SSLError as error:
            self._refuse(error)
        self._flush()

    def eof_received(self) -> bool:
        """The client sends no more; close."""
        return bool(self._begun and not self._closing and self._above.eof_received())

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._closing = True
        self._stop_timer()
        if self._begun:
            self._above.connection_lost(exc)

    def pause_writing(self) -> None:
        """The socket takes nothing."""
        if self._begun:
            self._above.pause_writing()

    def resume_writing(self) -> None:
        """The socket takes again."""
        if self._begun:
            self._above.resume_writing()

    # ------------------------------------------------ from above

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send."""
        if data and not self._closing:
            self._tls.write(data)
            self._flush()

    def close(self) -> None:
        """Send what is buffered, say goodbye, close."""
        if self._closing:
            return
        self._closing = True
        with contextlib.suppress(ssl.SSLError):  # that the other side has not said goodbye is no matter
            self._tls.unwrap()
        self._flush()
        self._below.close()

    def abort(self) -> None:
        """Close without a word."""
        self._closing = True
        self._below.abort()

    def is_closing(self) -> bool:
        """Whether nothing more can be sent."""
        return self._closing or self._below.is_closing()

    def can_write_eof(self) -> bool:
        """TLS has no half of a connection."""
        return False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """`peercert` and `ssl_object`; anything else of the transport below."""
        if name == "peercert":
            return self._tls.getpeercert()
        return self._tls if name == "ssl_object" else self._below.get_extra_info(name, default)

    def pause_reading(self) -> None:
        """Take nothing for now."""
        self._below.pause_reading()

    def resume_reading(self) -> None:
        """Take again."""
        self._below.resume_reading()

    # ------------------------------------------------ TLS

    def _shake_hands(self) -> None:
        self._tls.do_handshake()
        self._stop_timer()
        self._begun = True
        self._flush()
        self._above.connection_made(self)

    def _refuse(self, error: ssl.SSLError) -> None:
        """Send the alert that OpenSSL has made, and leave time to read it."""
        self._closing = True
        if not self._begun:
            peer = self._below.get_extra_info("peername") or ("?",)
            log.warning("refused a client at %s: %s", peer[0], reason(error))
        self._flush()
        if self._below.can_write_eof():
            self._below.write_eof()
        self._stop_timer()
        self._timer = asyncio.get_running_loop().call_later(_LINGER_S, self._below.abort)

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._below.write(self._outgoing.read())

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def reason(error: ssl.SSLError) -> str:
    """What OpenSSL says in few words, such as `certificate verify failed: self-signed certificate`."""
    words = (error.reason or str(error)).lower().replace("_", " ")
    more = getattr(error, "verify_message", "")
    return f"{words}: {more}" if more else words
