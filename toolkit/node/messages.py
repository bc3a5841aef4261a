"""Messages made and read fast: the same header as `contract.samples`, without an object per message."""

from __future__ import annotations

import struct
import zlib

from toolkit.contract.payloads import fill
from toolkit.contract.samples import HEAD_BYTES, HEADER, HEADER_BYTES, MAGIC, VERSION

_FLAGS = 5
"""Their place in a header."""
_crc32 = zlib.crc32
_pack_head = struct.Struct(HEADER.format.removesuffix("I")).pack
"""All but the checksum."""
_unpack_from = HEADER.unpack_from


class MessageMaker:
    """Makes payloads of at most one size: a header, then a fill that is the same for every message of a seed."""

    def __init__(self, *, payload_bytes: int, seed: int, kind: str = "random") -> None:
        """Raises ValueError for a size that cannot hold the header."""
        if payload_bytes < HEADER_BYTES:
            raise ValueError(f"payloads of {payload_bytes} bytes cannot hold the {HEADER_BYTES}-byte header")
        self.fill = fill(kind, payload_bytes - HEADER_BYTES, seed)

    def header(self, stream: int, seq: int, t0_ns: int, t1_ns: int, flags: int) -> bytes:
        """The 40 bytes that come before `fill`."""
        head = _pack_head(MAGIC, VERSION, flags, HEADER_BYTES, stream, seq, t0_ns, t1_ns)
        return head + _crc32(head).to_bytes(4, "big")


def read_header(payload: bytes) -> tuple[int, int, int, bytes] | None:
    """(stream, seq, flags, the header without its checksum) of a payload; None when it is foreign or damaged."""
    if len(payload) < HEADER_BYTES:
        return None
    magic, version, flags, length, stream, seq, _, _, crc = _unpack_from(payload)
    if magic != MAGIC or version != VERSION or length != HEADER_BYTES:
        return None
    head = payload[:HEAD_BYTES]
    if _crc32(head) != crc:
        return None
    return stream, seq, flags, head


def with_flags(head: bytes, flags: int) -> bytes:
    """A header, with its checksum or without, that says other flags; a checksum is not made anew."""
    return b"%b%c%b" % (head[:_FLAGS], flags, head[_FLAGS + 1 :])


class Seen:
    """Tells first copies from duplicates in one stream, in constant time while messages come in order.

    Remembers the gaps, not the messages. Past `most_gaps` of them the older half is forgotten: a message that comes
    after its gap was forgotten counts as a duplicate.
    """

    __slots__ = ("_gaps", "_most_gaps", "_next", "reordered")

    def __init__(self, most_gaps: int = 1 << 16) -> None:
        self._next = 0
        self._gaps: dict[int, None] = {}
        self._most_gaps = most_gaps
        self.reordered = 0
        """First copies that came after a later message (RFC 4737)."""

    def is_new(self, seq: int) -> bool:
        """Whether this is the first copy of `seq`."""
        if seq == self._next:
            self._next = seq + 1
            return True
        if seq > self._next:
            self._gaps.update(dict.fromkeys(range(max(self._next, seq - self._most_gaps), seq)))
            self._next = seq + 1
            if len(self._gaps) > self._most_gaps:
                self._gaps = dict.fromkeys(list(self._gaps)[len(self._gaps) // 2 :])
            return True
        if seq in self._gaps:
            del self._gaps[seq]
            self.reordered += 1
            return True
        return False
