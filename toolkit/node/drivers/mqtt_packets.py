"""MQTT 3.1.1 and 5 on the wire, as far as publishing and subscribing need it; values in, bytes out."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK, PINGRESP, DISCONNECT = 2, 3, 4, 5, 6, 7, 9, 13, 14
PINGREQ = b"\xc0\x00"
LARGEST = 268_435_455
"""Bytes after the fixed header."""
FAILED = 0x80
"""Reason codes from here on are failures."""

Version = Literal[4, 5]
"""The protocol level: 4 is MQTT 3.1.1."""

_REFUSALS = {
    1: "does not speak this MQTT version",
    2: "refuses the client id",
    3: "is not available",
    4: "refuses user name or password",
    5: "does not authorise this client",
    0x81: "calls the packet malformed",
    0x84: "does not speak this MQTT version",
    0x85: "refuses the client id",
    0x86: "refuses user name or password",
    0x87: "does not authorise this client",
    0x88: "is not available",
    0x89: "is busy",
    0x8B: "is shutting down",
    0x8E: "gave the session to another client of the same id",
    0x93: "got more messages in flight than it takes",
    0x95: "calls the packet too large",
}

_PROPERTY_BYTES = {
    0x01: 1, 0x02: 4, 0x11: 4, 0x13: 2, 0x17: 1, 0x19: 1, 0x21: 2, 0x22: 2, 0x23: 2, 0x24: 1, 0x25: 1, 0x27: 4,
    0x28: 1, 0x29: 1, 0x2A: 1,
}  # fmt: skip
"""Properties of a fixed length; the others are strings (0x26 two of them) or, 0x0B, a number of 1 to 4 bytes."""
_LONGEST_TEXT = 0xFFFF
_RECEIVE_MAXIMUM = 0x21
_USER_PROPERTY = 0x26
_SUBSCRIPTION_IDENTIFIER = 0x0B


class MalformedError(ConnectionError):
    """The other side does not speak MQTT."""


def why(code: int) -> str:
    """What a broker means by a reason or return code."""
    return _REFUSALS.get(code, f"refuses with code 0x{code:02x}")


def text(value: str) -> bytes:
    """A string with its length; raises ValueError when it is too long or holds NUL."""
    encoded = value.encode()
    if len(encoded) > _LONGEST_TEXT or b"\0" in encoded:
        raise ValueError(f"{value[:40]!r} cannot be a string in MQTT: at most 65535 bytes, no NUL")
    return struct.pack(">H", len(encoded)) + encoded


def length(value: int) -> bytes:
    """A variable byte integer; raises ValueError above `LARGEST`."""
    if value > LARGEST:
        raise ValueError(f"an MQTT packet holds at most {LARGEST} bytes, not {value}")
    encoded = bytearray()
    while True:
        value, low = divmod(value, 128)
        encoded.append(low | 0x80 if value else low)
        if not value:
            return bytes(encoded)


def connect(
    version: Version,
    client_id: str,
    *,
    keep_alive_s: int,
    clean: bool,
    user: str | None = None,
    password: str | None = None,
) -> bytes:
    """CONNECT; a session that is not clean is kept for an hour."""
    flags = (0x02 if clean else 0) | (0x80 if user is not None else 0) | (0x40 if password is not None else 0)
    body = text("MQTT") + bytes((version, flags)) + struct.pack(">H", keep_alive_s)
    if version == 5:  # noqa: PLR2004
        body += b"\x00" if clean else b"\x05\x11" + struct.pack(">I", 3600)
    body += text(client_id)
    for secret in (user, password):
        if secret is not None:
            body += text(secret)
    return b"\x10" + length(len(body)) + body


def publish_head(version: Version, topic: str, payload_bytes: int, qos: int) -> tuple[bytes, bytes]:
    """What stands before the packet id of a PUBLISH, and what stands between it and the payload."""
    name = text(topic)
    after = b"\x00" if version == 5 else b""  # noqa: PLR2004  no properties
    size = len(name) + (2 if qos else 0) + len(after) + payload_bytes
    return bytes((PUBLISH << 4 | qos << 1,)) + length(size) + name, after


def subscribe(version: Version, packet_id: int, topics: Sequence[str], qos: int) -> bytes:
    """SUBSCRIBE to some topics at one QoS."""
    body = struct.pack(">H", packet_id) + (b"\x00" if version == 5 else b"")  # noqa: PLR2004
    body += b"".join(text(topic) + bytes((qos,)) for topic in topics)
    return b"\x82" + length(len(body)) + body


def acknowledgement(kind: int, packet_id: int) -> bytes:
    """PUBACK, PUBREC, PUBREL or PUBCOMP of success; the same in both versions."""
    return bytes((kind << 4 | (2 if kind == PUBREL else 0), 2, packet_id >> 8, packet_id & 0xFF))


def disconnect() -> bytes:
    """DISCONNECT, normal; the same in both versions."""
    return b"\xe0\x00"


@dataclass(frozen=True, slots=True, kw_only=True)
class Connack:
    """The broker's answer to CONNECT."""

    code: int
    receive_maximum: int
    """QoS 1 and 2 messages the broker takes before it has answered."""


def read_connack(version: Version, body: bytes) -> Connack:
    """Raises MalformedError."""
    if len(body) < 2:  # noqa: PLR2004
        raise MalformedError("a CONNACK of less than two bytes")
    properties = read_properties(body, 2) if version == 5 and len(body) > 2 else {}  # noqa: PLR2004
    return Connack(
        code=body[1],
        receive_maximum=int(properties.get(_RECEIVE_MAXIMUM, 0xFFFF)),
    )


def read_suback(version: Version, body: bytes) -> tuple[int, bytes]:
    """(packet id, one reason code per topic); raises MalformedError."""
    if len(body) < 3:  # noqa: PLR2004
        raise MalformedError("a SUBACK of less than three bytes")
    start = 2
    if version == 5:  # noqa: PLR2004
        size, start = read_length(body, 2)
        start += size
    return int.from_bytes(body[:2], "big"), body[start:]


def read_length(data: bytes | bytearray, at: int) -> tuple[int, int]:
    """(value, position after it) of a variable byte integer; (-1, at) while it is incomplete.

    Raises MalformedError for one of more than four bytes.
    """
    value = 0
    for shift in (0, 7, 14, 21):
        position = at + shift // 7
        if position >= len(data):
            return -1, at
        byte = data[position]
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, position + 1
    raise MalformedError("a length of more than four bytes")


def read_properties(data: bytes, at: int) -> dict[int, Any]:
    """The fixed-length properties (as numbers) from `at` on; raises MalformedError for what MQTT 5 does not know."""
    size, position = read_length(data, at)
    end = position + size
    found: dict[int, Any] = {}
    while position < end:
        name = data[position]
        position += 1
        if (fixed := _PROPERTY_BYTES.get(name)) is not None:
            found[name] = int.from_bytes(data[position : position + fixed], "big")
            position += fixed
        elif name == _SUBSCRIPTION_IDENTIFIER:
            found[name], position = read_length(data, position)
        else:
            for _ in range(2 if name == _USER_PROPERTY else 1):
                position += 2 + int.from_bytes(data[position : position + 2], "big")
    if position != end:
        raise MalformedError("properties longer than they say")
    return found


class PacketReader:
    """Cuts a stream of bytes into packets."""

    def __init__(self, largest: int = LARGEST) -> None:
        """`largest`: bytes after the fixed header that are still taken."""
        self._data = bytearray()
        self._largest = largest

    def take(self, data: bytes) -> list[tuple[int, int, bytes]]:
        """(packet type, flags, body) of each packet that `data` completes; raises MalformedError."""
        buffer = self._data
        buffer += data
        size = len(buffer)
        packets: list[tuple[int, int, bytes]] = []
        at = 0
        while at + 1 < size:
            first = buffer[at]
            left = buffer[at + 1]
            start = at + 2
            if left & 0x80:
                left, start = read_length(buffer, at + 1)
                if left < 0:
                    break
                if left > self._largest:
                    raise MalformedError(f"a packet of {left} bytes, where at most {self._largest} are taken")
            end = start + left
            if end > size:
                break
            packets.append((first >> 4, first & 0x0F, bytes(buffer[start:end])))
            at = end
        del buffer[:at]
        return packets
