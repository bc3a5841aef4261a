"""Packets become the bytes of a TCP connection in order, each with the instant it was seen."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

_WORDS = struct.Struct(">HHI")
"""Source port, destination port, sequence number."""
_WRAP = 1 << 32
_HALF = 1 << 31
_TCP = 6
FIN, SYN, RST = 1, 2, 4


@dataclass(slots=True)
class Segment:
    """One TCP segment with data, or one that opens or ends a connection."""

    source: tuple[bytes, int]
    """(address, port)"""
    destination: tuple[bytes, int]
    sequence: int
    flags: int
    data: memoryview


def parse_segment(packet: memoryview) -> Segment | None:
    """Read a packet from its IP header on; None for anything that is not a whole TCP header over IPv4 or IPv6."""
    try:
        if packet[0] >> 4 == 4:  # noqa: PLR2004
            start = (packet[0] & 15) * 4
            end = int.from_bytes(packet[2:4], "big") or len(packet)  # 0 where the kernel merged more than 64 kB
            protocol, source, destination = packet[9], packet[12:16], packet[16:20]
        else:
            start = 40
            length = int.from_bytes(packet[4:6], "big")
            end = start + length if length else len(packet)
            protocol, source, destination = packet[6], packet[8:24], packet[24:40]
        if protocol != _TCP:
            return None
        source_port, destination_port, sequence = _WORDS.unpack_from(packet, start)
        data = packet[start + (packet[start + 12] >> 4) * 4 : end]
        flags = packet[start + 13]
    except (IndexError, struct.error):
        return None
    return Segment((bytes(source), source_port), (bytes(destination), destination_port), sequence, flags, data)


def address_text(address: bytes) -> str:
    """How people and sockets write an address."""
    return socket.inet_ntop(socket.AF_INET if len(address) == 4 else socket.AF_INET6, address)  # noqa: PLR2004


MOST_WAITING = 64
"""Segments held while one before them is missing: as many as a window in flight; then it is given up."""
WAIT_NS = 1_000_000_000
"""A missing segment that has not come after this was lost to the capture, not to the connection."""

Piece = tuple[int, bytes | memoryview]
"""(instant in ns, bytes)"""
GAP = None
"""Stands between pieces where bytes are missing for good."""


class Direction:
    """One direction of one connection: takes segments as they come, gives bytes in their order, each byte once."""

    __slots__ = ("_next", "_waiting", "gaps", "repeated")

    def __init__(self) -> None:
        self._next: int | None = None
        self._waiting: dict[int, tuple[int, bytes]] = {}
        self.gaps = 0
        """Stretches the capture never saw."""
        self.repeated = 0
        """Segments that brought nothing new: retransmissions, and second sights of one packet."""

    def take(self, segment: Segment, at_ns: int) -> list[Piece | None]:
        """Bytes that are next in order, with GAP where some are missing.

        Bytes that waited for a retransmission get the instant of that retransmission: only then could they be read.
        """
        if segment.flags & SYN:
            self._next = (segment.sequence + 1) % _WRAP
            self._waiting.clear()
            return [GAP]
        if not segment.data:
            return []
        if self._next is None:
            self._next = segment.sequence
        pieces: list[Piece | None] = []
        ahead = self._ahead(segment.sequence)
        if ahead > 0:
            self._waiting.setdefault(segment.sequence, (at_ns, bytes(segment.data)))
        elif new := segment.data[-ahead:]:
            self._next = (self._next + len(new)) % _WRAP
            pieces.append((at_ns, new))
        else:
            self.repeated += 1
        while self._waiting:
            self._unwait(pieces, at_ns)
            if not self._waiting or not self._given_up(at_ns):
                break
            self._skip(pieces)
        return pieces

    def rest(self) -> list[Piece | None]:
        """What still waits, when nothing more will come."""
        pieces: list[Piece | None] = []
        while self._waiting:
            self._skip(pieces)
            self._unwait(pieces, 0)
        return pieces

    def _skip(self, pieces: list[Piece | None]) -> None:
        self._next = min(self._waiting, key=self._ahead)
        self.gaps += 1
        pieces.append(GAP)

    def _ahead(self, sequence: int) -> int:
        """How many bytes before this one are still missing; negative where it has been seen."""
        distance = (sequence - (self._next or 0)) % _WRAP
        return distance - _WRAP if distance >= _HALF else distance

    def _unwait(self, pieces: list[Piece | None], at_ns: int) -> None:
        for sequence in sorted(self._waiting, key=self._ahead):
            ahead = self._ahead(sequence)
            if ahead > 0:
                return
            seen_ns, data = self._waiting.pop(sequence)
            new = data[-ahead:] if ahead else data
            if new:
                self._next = ((self._next or 0) + len(new)) % _WRAP
                pieces.append((max(seen_ns, at_ns), new))
            else:
                self.repeated += 1

    def _given_up(self, at_ns: int) -> bool:
        oldest_ns = min(seen_ns for seen_ns, _ in self._waiting.values())
        return len(self._waiting) > MOST_WAITING or at_ns - oldest_ns > WAIT_NS
