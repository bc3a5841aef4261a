"""Finds messages in a stream of bytes by their header, binary or as base64, wherever segments were cut."""

from __future__ import annotations

import binascii
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from toolkit.contract.samples import HEADER_BYTES, MAGIC, VERSION, Header, unpack_header

ENCODED_MAGIC = binascii.b2a_base64(MAGIC + bytes([VERSION, 0]), newline=False)[:6]
"""What every payload begins with as base64: its first six characters do not depend on the header's flags."""
ENCODED_HEADER_BYTES = 56
"""Characters that hold the 40-byte header: 14 whole groups of four."""


def encoded_length(payload_bytes: int) -> int:
    """Characters of base64 for a payload."""
    return (payload_bytes + 2) // 3 * 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """One message in one direction of a connection."""

    header: Header
    first_ns: int
    """When the first byte of its payload was seen."""
    last_ns: int
    """When the last one was."""


@dataclass(slots=True)
class _Open:
    """A message whose end has not come yet."""

    header: Header
    first_ns: int
    end: int
    """Position of the byte behind its last one."""


class MessageFinder:
    """Looks through one direction of one connection, piece after piece.

    A message's end is its start plus the length of its payload, which its header's numbers tell. A header that comes
    sooner ends the message before it.
    """

    __slots__ = ("_carry", "_header_length", "_length_of", "_marks", "_open", "_position", "_text")

    def __init__(self, *, length_of: Callable[[int, int], int], text: bool) -> None:
        """`length_of`: (stream, seq) -> bytes of the payload."""
        self._text = text
        self._length_of = length_of
        self._header_length = ENCODED_HEADER_BYTES if text else HEADER_BYTES
        self._carry = b""
        """What has been seen but may be the beginning of a header."""
        self._marks: list[tuple[int, int]] = []
        """(position, instant) where pieces begin that `_carry` still holds, oldest first."""
        self._position = 0
        """Of the first byte after what has been seen."""
        self._open: _Open | None = None

    def lost_some(self) -> None:
        """Bytes are missing here: nothing that began before can be finished."""
        self._carry = b""
        self._marks = []
        self._open = None

    def take(self, at_ns: int, piece: bytes | memoryview) -> Iterator[Sighting]:
        """Messages that this piece completes, in order."""
        start = self._position - len(self._carry)
        self._marks.append((self._position, at_ns))
        data = self._carry + piece if self._carry else bytes(piece)
        self._position += len(piece)
        magic = ENCODED_MAGIC if self._text else MAGIC
        looked = 0
        while (found := data.find(magic, looked)) >= 0:
            if len(data) - found < self._header_length:
                break
            header = self._header(data, found)
            if header is None:
                looked = found + 1
                continue
            if self._open:
                yield self._close(self._at(min(self._open.end, start + found) - 1))
            length = self._length_of(header.stream, header.seq)
            end = start + found + (encoded_length(length) if self._text else length)
            self._open = _Open(header, self._at(start + found), end)
            looked = found + self._header_length
        if self._open and self._open.end <= self._position:
            yield self._close(self._at(self._open.end - 1))
        keep = len(data) - found if found >= 0 else min(len(magic) - 1, len(data) - looked)
        self._carry = data[len(data) - keep :] if keep > 0 else b""
        oldest = self._position - len(self._carry)
        while len(self._marks) > 1 and self._marks[1][0] <= oldest:
            del self._marks[0]
        if not self._carry:
            self._marks.clear()

    def _header(self, data: bytes, found: int) -> Header | None:
        raw = data[found : found + self._header_length]
        if self._text:
            try:
                raw = binascii.a2b_base64(raw)
            except binascii.Error:
                return None
        return unpack_header(raw)

    def _at(self, position: int) -> int:
        """When the byte at this position was seen."""
        return next((ns for begins, ns in reversed(self._marks) if begins <= position), self._marks[0][1])

    def _close(self, last_ns: int) -> Sighting:
        assert self._open is not None  # noqa: S101
        sighting = Sighting(header=self._open.header, first_ns=self._open.first_ns, last_ns=last_ns)
        self._open = None
        return sighting
