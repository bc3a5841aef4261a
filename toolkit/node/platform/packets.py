"""The server's half of MQTT 3.1.1 and 5 on the wire: what clients send is read, what they are answered is written."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from toolkit.node.drivers.mqtt_packets import MalformedError, Version, length, read_length, read_properties, text

CONNECT, SUBSCRIBE, UNSUBSCRIBE, PINGREQ = 1, 8, 10, 12
PINGRESP = b"\xd0\x00"
MOST_QOS = 1
ACCEPTED = 0
BAD_VERSION: dict[Version, int] = {4: 1, 5: 0x84}
BAD_CLIENT_ID: dict[Version, int] = {4: 2, 5: 0x85}
UNAVAILABLE: dict[Version, int] = {4: 3, 5: 0x88}
REFUSED_FILTER: dict[Version, int] = {4: 0x80, 5: 0x83}
NOT_AUTHORISED, QOS_NOT_SUPPORTED, RETAIN_NOT_SUPPORTED, QUOTA_EXCEEDED = 0x87, 0x9B, 0x9A, 0x97
KEEP_ALIVE_TIMEOUT, MALFORMED, PROTOCOL_ERROR, SHUTTING_DOWN = 0x8D, 0x81, 0x82, 0x8B
_WILL, _WILL_QOS, _PASSWORD, _USER = 0x04, 0x18, 0x40, 0x80
_RECEIVE_MAXIMUM, _MAXIMUM_QOS, _RETAIN_AVAILABLE, _SHARED_AVAILABLE, _ASSIGNED_ID = 0x21, 0x24, 0x25, 0x2A, 0x12
_NO_LIMIT = 0xFFFF


@dataclass(frozen=True, slots=True, kw_only=True)
class Will:
    """What is to be published if the client vanishes."""

    topic: str
    payload: bytes
    qos: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Connect:
    """What a client asks for."""

    version: Version
    client_id: str
    keep_alive_s: int
    clean: bool
    receive_maximum: int
    """QoS 1 messages it takes before it has answered."""
    will: Will | None


class UnknownVersionError(MalformedError):
    """A CONNECT of a version of MQTT that is not spoken here."""


def read_connect(body: bytes) -> Connect:
    """Raises MalformedError (UnknownVersionError for MQTT 3.1 and whatever comes after 5)."""
    try:
        name, at = _bytes(body, 0)
        level, flags = body[at], body[at + 1]
        keep_alive_s = int.from_bytes(body[at + 2 : at + 4], "big")
        at += 4
        if name != b"MQTT" or level not in (4, 5):
            raise UnknownVersionError(f"{name!r} {level} is not MQTT 3.1.1 or 5")
        version: Version = 5 if level == 5 else 4  # noqa: PLR2004
        asked: dict[int, int] = {}
        if version == 5:  # noqa: PLR2004
            asked = read_properties(body, at)
            at = _after_properties(body, at)
        client_id, at = _text(body, at)
        will = None
        if flags & _WILL:
            if version == 5:  # noqa: PLR2004
                at = _after_properties(body, at)
            topic, at = _text(body, at)
            payload, at = _bytes(body, at)
            will = Will(topic=topic, payload=payload, qos=min((flags & _WILL_QOS) >> 3, MOST_QOS))
        for flag in (_USER, _PASSWORD):
            if flags & flag:
                _, at = _bytes(body, at)
        if flags & 1 or at != len(body):
            raise MalformedError("a CONNECT with a reserved flag, or bytes after its end")
    except (IndexError, UnicodeDecodeError) as error:
        raise MalformedError(f"a CONNECT that is cut short or no UTF-8: {error}") from error
    return Connect(
        version=version,
        client_id=client_id,
        keep_alive_s=keep_alive_s,
        clean=bool(flags & 0x02),
        receive_maximum=int(asked.get(_RECEIVE_MAXIMUM, _NO_LIMIT)) or _NO_LIMIT,
        will=will,
    )


def connack(version: Version, code: int, *, receive_maximum: int = 0, assigned_id: str = "") -> bytes:
    """CONNACK without a session; in MQTT 5 with what is not to be had here: QoS 2, retained, shared subscriptions."""
    if version == 4:  # noqa: PLR2004
        return bytes((0x20, 2, 0, code))
    properties = b""
    if code == ACCEPTED:
        properties = bytes((_MAXIMUM_QOS, MOST_QOS, _RETAIN_AVAILABLE, 0, _SHARED_AVAILABLE, 0))
        properties += struct.pack(">BH", _RECEIVE_MAXIMUM, receive_maximum)
        if assigned_id:
            properties += bytes((_ASSIGNED_ID,)) + text(assigned_id)
    body = bytes((0, code)) + length(len(properties)) + properties
    return b"\x20" + length(len(body)) + body


def read_publish(version: Version, flags: int, body: bytes) -> tuple[bytes, int, int, bytes]:
    """(topic, QoS, packet id, payload); raises MalformedError."""
    qos = flags >> 1 & 3
    try:
        at = 2 + (body[0] << 8 | body[1])
        topic = body[2:at]
        packet_id = 0
        if qos:
            packet_id = body[at] << 8 | body[at + 1]
            at += 2
        if version == 5:  # noqa: PLR2004
            size, at = read_length(body, at)
            at += size
    except IndexError as error:
        raise MalformedError("a PUBLISH that is cut short") from error
    if at > len(body) or qos == 3 or (qos and not packet_id):  # noqa: PLR2004
        raise MalformedError("a PUBLISH that is cut short, of QoS 3, or without a packet id")
    return topic, qos, packet_id, body[at:]


def puback(version: Version, packet_id: int, code: int = 0) -> bytes:
    """PUBACK; only MQTT 5 can say that it failed."""
    if code and version == 5:  # noqa: PLR2004
        return bytes((0x40, 3, packet_id >> 8, packet_id & 0xFF, code))
    return bytes((0x40, 2, packet_id >> 8, packet_id & 0xFF))


def read_subscribe(version: Version, body: bytes, *, options: bool) -> tuple[int, list[tuple[str, int]]]:
    """(packet id, [(filter, QoS)]) of a SUBSCRIBE, or without `options` of an UNSUBSCRIBE; raises MalformedError."""
    try:
        packet_id = int.from_bytes(body[:2], "big")
        at = _after_properties(body, 2) if version == 5 else 2  # noqa: PLR2004
        wanted: list[tuple[str, int]] = []
        while at < len(body):
            name, at = _text(body, at)
            qos = 0
            if options:
                qos = body[at] & 3
                at += 1
            wanted.append((name, qos))
    except (IndexError, UnicodeDecodeError) as error:
        raise MalformedError("a subscription that is cut short or no UTF-8") from error
    if not wanted or not packet_id or len(body) < at:
        raise MalformedError("a subscription to nothing, or without a packet id")
    return packet_id, wanted


def suback(version: Version, packet_id: int, codes: Sequence[int]) -> bytes:
    """SUBACK: a granted QoS or a refusal for each filter."""
    body = packet_id.to_bytes(2, "big") + (b"\x00" if version == 5 else b"") + bytes(codes)  # noqa: PLR2004
    return b"\x90" + length(len(body)) + body


def unsuback(version: Version, packet_id: int, filters: int) -> bytes:
    """UNSUBACK of success."""
    body = packet_id.to_bytes(2, "big")
    if version == 5:  # noqa: PLR2004
        body += bytes(1 + filters)
    return b"\xb0" + length(len(body)) + body


def disconnect(code: int) -> bytes:
    """DISCONNECT from the server, which only MQTT 5 has."""
    return bytes((0xE0, 2, code, 0))


def is_topic(name: str) -> bool:
    """Whether something can be published to it."""
    return bool(name) and not {"+", "#", "\0"} & set(name)


def is_filter(name: str) -> bool:
    """Whether it can be subscribed to; shared subscriptions cannot."""
    levels = name.split("/")
    return (
        bool(name)
        and "\0" not in name
        and levels[0] != "$share"
        and all("+" not in level or level == "+" for level in levels)
        and all("#" not in level or (level == "#" and i == len(levels) - 1) for i, level in enumerate(levels))
    )


def _bytes(body: bytes, at: int) -> tuple[bytes, int]:
    end = at + 2 + (body[at] << 8 | body[at + 1])
    if end > len(body):
        raise IndexError(f"{end} of {len(body)} bytes")
    return body[at + 2 : end], end


def _text(body: bytes, at: int) -> tuple[str, int]:
    found, end = _bytes(body, at)
    return found.decode(), end


def _after_properties(body: bytes, at: int) -> int:
    size, start = read_length(body, at)
    if size < 0 or start + size > len(body):
        raise MalformedError("properties longer than their packet")
    return start + size
