"""AMQP 0.9.1 on the wire, as far as publishing and subscribing need it; values in, bytes out."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import NamedTuple

PROTOCOL = b"AMQP\x00\x00\x09\x01"
METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
END = b"\xce"
OVERHEAD = 8
"""Bytes of a frame beside its payload."""
CHANNEL = 1

START, START_OK, TUNE, TUNE_OK, OPEN, OPEN_OK = 0x000A000A, 0x000A000B, 0x000A001E, 0x000A001F, 0x000A0028, 0x000A0029
CLOSE, BLOCKED, UNBLOCKED = 0x000A0032, 0x000A003C, 0x000A003D
CHANNEL_OPEN, CHANNEL_OPEN_OK, CHANNEL_CLOSE = 0x0014000A, 0x0014000B, 0x00140028
DECLARE, DECLARE_OK, BIND, BIND_OK = 0x0032000A, 0x0032000B, 0x00320014, 0x00320015
QOS, QOS_OK, CONSUME, CONSUME_OK, CANCEL = 0x003C000A, 0x003C000B, 0x003C0014, 0x003C0015, 0x003C001E
PUBLISH, RETURN, DELIVER, ACK, NACK = 0x003C0028, 0x003C0032, 0x003C003C, 0x003C0050, 0x003C0078
CONFIRM, CONFIRM_OK = 0x0055000A, 0x0055000B
"""Class and method number in one."""

_BASIC = 60
_DELIVERY_MODE = 0x1000
_LONGEST_SHORT = 255
_FRAME = struct.Struct(">BHI")


class MalformedError(ConnectionError):
    """The other side does not speak AMQP 0.9.1."""


class Frame(NamedTuple):
    """One frame as it arrived."""

    kind: int
    method: int
    """0 unless it is a method."""
    body: bytes
    """Without class and method numbers."""


def short(value: str) -> bytes:
    """A short string; raises ValueError above 255 bytes."""
    encoded = value.encode()
    if len(encoded) > _LONGEST_SHORT:
        raise ValueError(f"{value[:40]!r} is longer than the 255 bytes that a name has in AMQP")
    return bytes((len(encoded),)) + encoded


def long(value: bytes) -> bytes:
    """A long string."""
    return struct.pack(">I", len(value)) + value


def table(values: Mapping[str, bool | int | str | Mapping[str, bool]]) -> bytes:
    """A field table."""
    out = b""
    for name, value in values.items():
        if isinstance(value, bool):
            field = b"t" + bytes((value,))
        elif isinstance(value, int):
            field = b"l" + struct.pack(">q", value)
        elif isinstance(value, str):
            field = b"S" + long(value.encode())
        else:
            field = b"F" + table(value)
        out += short(name) + field
    return long(out)


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    """One frame."""
    return _FRAME.pack(kind, channel, len(payload)) + payload + END


def method(number: int, arguments: bytes = b"", *, channel: int = CHANNEL) -> bytes:
    """One method frame."""
    return frame(METHOD, channel, struct.pack(">I", number) + arguments)


def start_ok(user: str, password: str) -> bytes:
    """Connection.StartOk by PLAIN; asks to be told when the broker blocks publishers or refuses the password."""
    names = ("connection.blocked", "authentication_failure_close", "basic.nack", "publisher_confirms")
    capabilities = dict.fromkeys(names, True)
    properties = table({"product": "toolkit", "capabilities": capabilities})
    response = b"\0" + user.encode() + b"\0" + password.encode()
    return method(START_OK, properties + short("PLAIN") + long(response) + short("en_US"), channel=0)


def declare(queue: str, *, durable: bool, exclusive: bool, arguments: Mapping[str, int | str]) -> bytes:
    """Queue.Declare; one that is exclusive is gone with its connection, another that is not durable with its last."""
    bits = (2 if durable else 8) | (4 if exclusive else 0)
    return method(DECLARE, b"\0\0" + short(queue) + bytes((bits,)) + table(arguments))


def bind(queue: str, exchange: str, key: str) -> bytes:
    """Queue.Bind."""
    return method(BIND, b"\0\0" + short(queue) + short(exchange) + short(key) + b"\0" + table({}))


def consume(queue: str, tag: str, *, acknowledged: bool) -> bytes:
    """Basic.Consume."""
    return method(CONSUME, b"\0\0" + short(queue) + short(tag) + bytes((0 if acknowledged else 2,)) + table({}))


def publish_parts(
    exchange: str, key: str, fill: bytes, *, header_bytes: int, persistent: bool, frame_max: int
) -> tuple[bytes, bytes]:
    """What stands before and after the changing header of each message on one routing key.

    A body larger than a frame goes into several.
    """
    size = header_bytes + len(fill)
    before = method(PUBLISH, b"\0\0" + short(exchange) + short(key) + b"\0")
    properties = struct.pack(">HB", _DELIVERY_MODE, 2 if persistent else 1)
    before += frame(HEADER, CHANNEL, struct.pack(">HHQ", _BASIC, 0, size) + properties)
    room = frame_max - OVERHEAD
    first = fill[: max(room - header_bytes, 0)]
    before += _FRAME.pack(BODY, CHANNEL, header_bytes + len(first))
    after = first + END
    for at in range(len(first), len(fill), room):
        after += frame(BODY, CHANNEL, fill[at : at + room])
    return before, after


def acknowledgement(tag: int) -> bytes:
    """Basic.Ack of everything up to a delivery tag."""
    return b"\x01\x00\x01\x00\x00\x00\x0d\x00\x3c\x00\x50" + struct.pack(">QB", tag, 1) + END


def read_short(data: bytes, at: int) -> tuple[str, int]:
    """(short string, position after it)."""
    end = at + 1 + data[at]
    return data[at + 1 : end].decode("utf-8", "replace"), end


def read_close(body: bytes) -> tuple[int, str]:
    """(reply code, text) of a Connection.Close, Channel.Close or Basic.Return."""
    return int.from_bytes(body[:2], "big"), read_short(body, 2)[0]


class FrameReader:
    """Cuts a stream of bytes into frames."""

    def __init__(self) -> None:
        self._data = bytearray()

    def take(self, data: bytes) -> list[Frame]:
        """Each frame that `data` completes; raises MalformedError."""
        buffer = self._data
        buffer += data
        if buffer[:4] == b"AMQP":
            raise MalformedError(f"the broker speaks another AMQP: {bytes(buffer[:8])!r}")
        size = len(buffer)
        frames: list[Frame] = []
        at = 0
        while size - at >= OVERHEAD:
            kind = buffer[at]
            end = at + 7 + int.from_bytes(buffer[at + 3 : at + 7], "big")
            if end >= size:
                break
            if buffer[end] != END[0]:
                raise MalformedError("a frame without its end")
            if kind == METHOD:
                frames.append(
                    Frame(kind, int.from_bytes(buffer[at + 7 : at + 11], "big"), bytes(buffer[at + 11 : end]))
                )
            else:
                frames.append(Frame(kind, 0, bytes(buffer[at + 7 : end])))
            at = end + 1
        del buffer[:at]
        return frames
