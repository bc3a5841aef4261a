"""The message header and the stamp record: how a message is known again at every hop.

A message starts with a 40-byte header, big-endian: magic, version, flags, header length, stream, seq, t0, t1, crc32.
Each process on its way writes 32-byte stamps, little-endian, to `<service>-<instance>.stamps`; beside it
`<service>-<instance>.json` says who wrote them (`StampsInfo`).
"""

from __future__ import annotations

import array
import itertools
import operator
import struct
import sys
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

MAGIC = b"\xf5TK\xfa"
"""Invalid UTF-8, so that no text contains it; a capture looks for these four bytes."""
VERSION = 1
HEADER = struct.Struct(">4sBBHIQqqI")
HEADER_BYTES = HEADER.size
HEAD_BYTES = HEADER_BYTES - 4
"""The header without its checksum."""
STAMP = struct.Struct("<BBHIQqq")
STAMP_BYTES = STAMP.size
STAMP_WORDS = STAMP_BYTES // 8
"""A stamp as 64-bit words."""
_WHOLE_STAMP = struct.Struct(f"{STAMP_BYTES}s")
STAMP_DTYPE = [
    ("point", "u1"),
    ("flags", "u1"),
    ("peer", "<u2"),
    ("stream", "<u4"),
    ("seq", "<u8"),
    ("at_ns", "<i8"),
    ("aux_ns", "<i8"),
]
"""numpy's description of `STAMP`."""


class Point(IntEnum):
    """Where on its way a message was stamped; T0 to T5 as in docs/measuring.md."""

    SENT = 1
    """T1 in `at_ns`, the intended instant T0 in `aux_ns`."""
    ACKED = 2
    """T5: PUBACK, confirm, receipt, HTTP 200."""
    BROKER_RECEIVED = 3
    """T2: the last byte of the message reached the broker."""
    BROKER_SENT = 4
    """T3: the first byte to one subscriber left; `peer` counts the broker's flows."""
    RECEIVED = 5
    """T4: first statement after the read; `peer` counts the connections of this process."""
    REFUSED = 6
    """The client would not take the message (queue full, not connected); never offered."""
    GATEWAY_RECEIVED = 7
    GATEWAY_SENT = 8
    HUB_RECEIVED = 9
    HUB_SENT = 10


class Flag(IntEnum):
    """Bits in the header's and the stamp's `flags`."""

    WARMUP = 1
    RETAINED = 2
    REDELIVERED = 4
    PROBE = 8
    """A message sent before the start to see that the way is open; never counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a message says of itself; instants in ns since the epoch on the publisher's clock."""

    stream: int
    seq: int
    t0_ns: int
    t1_ns: int
    flags: int = 0


def pack_header(header: Header) -> bytes:
    """The 40 bytes a payload starts with."""
    head = HEADER.pack(
        MAGIC, VERSION, header.flags, HEADER_BYTES, header.stream, header.seq, header.t0_ns, header.t1_ns, 0
    )[:-4]
    return head + zlib.crc32(head).to_bytes(4, "big")


def unpack_header(payload: bytes | memoryview) -> Header | None:
    """The header of a payload; None when the message is foreign or damaged (counted, never raised)."""
    if len(payload) < HEADER_BYTES:
        return None
    magic, version, flags, length, stream, seq, t0, t1, crc = HEADER.unpack_from(payload)
    if magic != MAGIC or version != VERSION or length != HEADER_BYTES:
        return None
    if zlib.crc32(bytes(payload[:HEAD_BYTES])) != crc:
        return None
    return Header(stream=stream, seq=seq, t0_ns=t0, t1_ns=t1, flags=flags)


_IDENTITY = ((1, 5, 1), (4, 8, 4), (8, 12, 8))
"""(place in a stamp, place in a header, bytes): flags, stream, seq."""
_INSTANTS = ((16, 28, 8), (24, 20, 8))
"""The same of T1 and T0."""


def sent_stamps(headers: bytes | bytearray, peer: int) -> bytearray:
    """Stamps of messages sent, made of their headers one after the other."""
    stamps = bytearray(STAMP.pack(Point.SENT, 0, peer, 0, 0, 0, 0) * (len(headers) // HEADER_BYTES))
    _copy(headers, HEADER_BYTES, stamps, _IDENTITY + _INSTANTS)
    return stamps


def received_as(peer: int) -> int:
    """The first word of a stamp of a message received, without the message's flags and stream."""
    return int(Point.RECEIVED) | peer << 16


def received_stamps(
    heads: Sequence[bytes], firsts: Sequence[int], instants_ns: Sequence[int], counts: Sequence[int]
) -> bytearray:
    """Stamps of messages received, made of what is known of each read.

    That is the headers without checksums of its messages, one after the other, the first word of their stamps, the
    instant, and how many messages it brought.
    """
    words = array.array("Q", bytes(STAMP_BYTES * len(heads)))
    words[0::STAMP_WORDS] = array.array("Q", firsts)
    words[2::STAMP_WORDS] = array.array("Q", instants_ns)
    if sys.byteorder == "big":
        words.byteswap()
    stamps, headers = bytearray(words), b"".join(heads)
    if len(headers) > HEAD_BYTES * len(heads):  # otherwise one message each
        of_reads = itertools.chain.from_iterable(_WHOLE_STAMP.iter_unpack(stamps))
        stamps = bytearray().join(map(operator.mul, of_reads, counts))
    _copy(headers, HEAD_BYTES, stamps, _IDENTITY)
    return stamps


def _copy(
    headers: bytes | bytearray, header_bytes: int, stamps: bytearray, fields: tuple[tuple[int, int, int], ...]
) -> None:
    """Byte by byte of all messages at once, since taking each message apart would take ten times as long."""
    zeros = bytes(len(stamps) // STAMP_BYTES)
    for to, source, size in fields:
        for byte in range(size):
            column = headers[source + size - 1 - byte :: header_bytes]
            if column != zeros:  # as the upper bytes of most numbers are
                stamps[to + byte :: STAMP_BYTES] = column


@dataclass(frozen=True, slots=True, kw_only=True)
class StampsInfo:
    """Who wrote a file of stamps; the JSON document beside it."""

    run: str
    testbed: str
    node: str
    service: str
    role: str
    instance: int
    stamps: int
    counts: dict[str, int]
    """Of this process, for the ledger: sent, refused, acked, received, foreign, duplicate, dropped_<reason> …"""
    flows: dict[str, list[Any]]
    """peer -> [address, port] of the other (broker) or own (subscriber) end, so that both sides' peers meet."""
    clock: dict[str, Any]
    """`resolution_ns`, `read_cost_ns`, and `steps`: [[monotonic_ns, size_ns], …] seen while running."""
    facts: dict[str, Any]
    """Library versions, granted QoS, effective settings read back; `connections`: peer -> logical connection of a
    client (one made again, or one more of a protocol that needs several, is a new peer of the same connection)."""
    error: str | None = None
