"""The client's half of HTTP/1.1, as far as publish/subscribe needs it: heads, bodies by length or in chunks."""

from __future__ import annotations

_MOST_HEAD_BYTES = 64 * 1024
_LONGEST_PLAIN_SIZE = 8


class HttpError(ConnectionError):
    """The other side does not speak HTTP/1.1 as we know it."""


def read_head(buffer: bytearray) -> tuple[int, dict[str, str]] | None:
    """Take (status, headers by lower-case name) off the front of `buffer`; None while it is incomplete."""
    end = buffer.find(b"\r\n\r\n")
    if end < 0:
        if len(buffer) > _MOST_HEAD_BYTES:
            raise HttpError(f"a response head of more than {_MOST_HEAD_BYTES} bytes")
        return None
    first, *lines = buffer[:end].decode("latin-1").split("\r\n")
    parts = first.split(" ", 2)
    if len(parts) < 2 or not parts[0].startswith("HTTP/1.") or not parts[1].isdigit():  # noqa: PLR2004
        raise HttpError(f"not a response: {first[:80]!r}")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    del buffer[: end + 4]
    return int(parts[1]), headers


class ChunkedBody:
    """Takes chunk framing off a stream, whatever way the network cut it."""

    def __init__(self) -> None:
        self._left = 0
        self._after_data = False
        self.ended = False

    @property
    def between(self) -> bool:
        """Whether what comes next is the size of a chunk."""
        return not self._left and not self._after_data

    def take(self, source: bytearray, target: bytearray) -> None:
        """Move what is complete from `source` to the end of `target`."""
        if not self._left and not self._after_data:
            _take_whole_chunks(source, target)
        while source and not self.ended:
            if self._left:
                piece = source[: self._left]
                target += piece
                del source[: len(piece)]
                self._left -= len(piece)
                self._after_data = self._left == 0
                continue
            if self._after_data:
                if len(source) < 2:  # noqa: PLR2004
                    return
                del source[:2]
                self._after_data = False
                continue
            end = source.find(b"\r\n")
            if end < 0:
                if len(source) > 1024:  # noqa: PLR2004
                    raise HttpError("a chunk size of more than 1024 bytes")
                return
            try:
                self._left = int(bytes(source[:end]).partition(b";")[0], 16)
            except ValueError as error:
                raise HttpError(f"not a chunk size: {bytes(source[:40])!r}") from error
            del source[: end + 2]
            self.ended = self._left == 0


def _take_whole_chunks(source: bytearray, target: bytearray) -> None:
    """The usual case, without moving the rest of the buffer for each chunk; leaves anything unusual alone."""
    at = 0
    while at < (end := source.find(b"\r\n", at)) <= at + _LONGEST_PLAIN_SIZE:
        try:
            size = int(source[at:end], 16)
        except ValueError:
            break
        if size <= 0 or len(source) < end + size + 4:
            break
        target += source[end + 2 : end + 2 + size]
        at = end + size + 4
    del source[:at]


class Responses:
    """Whole responses off a keep-alive connection, in order."""

    def __init__(self) -> None:
        self._in = bytearray()
        self._head: tuple[int, dict[str, str]] | None = None
        self._chunks: ChunkedBody | None = None
        self._body = bytearray()
        self._usual = b""
        self.closing = False
        """The server said that this connection ends here."""

    def take(self, data: bytes) -> list[tuple[int, bytes]]:
        """(status, body) of each response that `data` completed."""
        if data == self._usual and not self._in and self._head is None:
            return [(200, b"")]
        if not self._in and self._head is None and data.startswith(b"HTTP/1.1 200 ") and data.count(b"HTTP/1.1") == 1:
            whole = data
        else:
            whole = b""
        self._in += data
        responses = []
        while (response := self._next()) is not None:
            responses.append(response)
        if whole and responses == [(200, b"")] and not self._in and self._head is None and not self.closing:
            self._usual = whole
        return responses

    def _next(self) -> tuple[int, bytes] | None:
        if self._head is None:
            self._head = read_head(self._in)
            if self._head is None:
                return None
            self._chunks = ChunkedBody() if "chunked" in self._head[1].get("transfer-encoding", "").lower() else None
        status, headers = self._head
        if self._chunks is not None:
            self._chunks.take(self._in, self._body)
            if not self._chunks.ended or len(self._in) < 2:  # noqa: PLR2004  the empty trailer
                return None
            del self._in[:2]
        else:
            length = int(headers.get("content-length", "0") or "0")
            if len(self._in) < length:
                return None
            self._body += self._in[:length]
            del self._in[:length]
        self.closing = self.closing or headers.get("connection", "").lower() == "close"
        body = bytes(self._body)
        self._body.clear()
        self._head = None
        return status, body
