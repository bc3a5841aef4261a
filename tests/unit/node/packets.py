"""Packets made by hand, from their IP header on, and a writer that only remembers."""

from __future__ import annotations

import base64
import socket
import struct
from typing import Any

from toolkit.contract.orders import RunOrder
from toolkit.contract.samples import Header, pack_header

BROKER = ("10.0.0.1", 1883)
PUBLISHER = ("10.0.0.2", 50001)
SUBSCRIBER = ("10.0.0.3", 50002)
SYN, ACK, PUSH = 2, 16, 8
End = tuple[str, int]


def packet(
    source: End, destination: End, sequence: int, data: bytes = b"", flags: int = ACK | PUSH, *, merged: bool = False
) -> memoryview:
    """One TCP segment over IPv4 or IPv6, with 12 bytes of options; `merged`: longer than its length field can say."""
    tcp = struct.pack(">HHIIBBHHH", source[1], destination[1], sequence % 2**32, 0, 8 << 4, flags, 1000, 0, 0) + bytes(
        12
    )
    if ":" in source[0]:
        ends = socket.inet_pton(socket.AF_INET6, source[0]) + socket.inet_pton(socket.AF_INET6, destination[0])
        return memoryview(struct.pack(">IHBB", 6 << 28, len(tcp) + len(data), 6, 64) + ends + tcp + data)
    ends = socket.inet_aton(source[0]) + socket.inet_aton(destination[0])
    length = 0 if merged else 20 + len(tcp) + len(data)
    return memoryview(struct.pack(">BBHHHBBH", 0x45, 0, length, 0, 0, 64, 6, 0) + ends + tcp + data)


def message(seq: int, payload_bytes: int = 100, *, stream: int = 7, flags: int = 0) -> bytes:
    """A payload of ours; its filling is not random, so that failures can be read."""
    return pack_header(Header(stream=stream, seq=seq, t0_ns=1, t1_ns=2, flags=flags)) + b"." * (payload_bytes - 40)


def mqtt(seq: int, payload_bytes: int = 100) -> bytes:
    """A PUBLISH packet around a message."""
    body = b"\0\1t" + message(seq, payload_bytes)
    return bytes([0x30, len(body) & 0x7F | 0x80, len(body) >> 7]) + body


def sse(seq: int, payload_bytes: int = 100) -> bytes:
    """An event of a stream, in a chunk of its own."""
    text = b"event: t\ndata: " + base64.b64encode(message(seq, payload_bytes)) + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(text), text)


def order(protocol: str = "mqtt", payload_bytes: int = 100) -> RunOrder:
    return RunOrder(run="r1", testbed="t", role="probe", protocol=protocol, payload_bytes=payload_bytes)


class Remembering:
    """Stands where a StampWriter does."""

    recording = True

    def __init__(self) -> None:
        self.stamps: list[tuple[int, ...]] = []

    def add(self, point: int, flags: int, peer: int, stream: int, seq: int, at_ns: int, aux_ns: int = 0) -> None:
        self.stamps.append((point, peer, stream, seq, at_ns))

    def at(self, point: int) -> dict[int, int]:
        """seq -> ns"""
        return {seq: at_ns for p, _, _, seq, at_ns in self.stamps if p == point}


def fed(traffic: Any, packets: list[tuple[int, memoryview]]) -> Any:
    for at_ns, one in packets:
        traffic.take(at_ns, one)
    return traffic
