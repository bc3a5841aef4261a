"""Takes server-sent events that differ in nothing but their data off a chunked stream, without parsing each.

A publisher's events have the same type and length: what surrounds the data is the same bytes each time, and bytes that
are equal parse equally.
"""

from __future__ import annotations

_END = b"\n\n\r\n"
"""Of the event, then of its chunk."""
_LONGEST_SIZE = 10


class EqualEvents:
    """The shape of an event seen before: one chunk with one event of one line of data, and nothing but its type."""

    __slots__ = ("_before", "_length")

    def __init__(self) -> None:
        self._before = b""
        self._length = 0

    def take(self, source: bytearray) -> list[bytes]:
        """The data of each event of this shape at the front of `source`, which begins with a chunk; takes them off."""
        length, before = self._length, self._before
        if not length or len(source) < length:
            return []
        stream = bytes(source)
        begin, end = len(before), length - len(_END)
        found: list[bytes] = []
        at = 0
        while stream.startswith(before, at) and stream.startswith(_END, at + end):
            data = stream[at + begin : at + end]
            if b"\n" in data or b"\r" in data:
                break
            found.append(data)
            at += length
        del source[:at]
        return found

    def learn(self, source: bytearray) -> None:
        """Look at the chunk at the front of `source`, if it is whole."""
        line_end = source.find(b"\r\n", 0, _LONGEST_SIZE)
        try:
            length = line_end + 2 + int(source[: max(line_end, 0)], 16) + 2
        except ValueError:
            return
        if len(source) < length:
            return
        event = source[line_end + 2 : length]
        data = event.find(b"\ndata: ")
        alone = event.startswith(b"event:") and event.endswith(_END) and event.count(b"\n", 0, -2) == 3  # noqa: PLR2004
        if alone and 0 < data == event.find(b"\n"):
            self._before, self._length = bytes(source[: line_end + 2 + data + 7]), length
