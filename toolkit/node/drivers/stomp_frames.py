"""STOMP 1.2 on the wire, as far as publishing and subscribing need it; values in, bytes out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

_ESCAPES = {"\\": "\\\\", "\r": "\\r", "\n": "\\n", ":": "\\c"}
_UNESCAPES = {b"\\\\": b"\\", b"\\r": b"\r", b"\\n": b"\n", b"\\c": b":"}
_LARGEST_HEAD = 64 * 1024
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_PLAIN = {"CONNECT", "CONNECTED"}
"""Frames whose headers are not escaped, so that STOMP 1.0 could read them."""


class MalformedError(ConnectionError):
    """The other side does not speak STOMP 1.2."""


class Frame(NamedTuple):
    """One frame as it arrived."""

    command: bytes
    headers: dict[bytes, bytes]
    """Of a header that comes twice the first counts."""
    body: bytes

    @property
    def complaint(self) -> str:
        """What an ERROR frame says."""
        said = self.headers.get(b"message", b"") + b" " + self.body[:200]
        return " ".join(said.decode("utf-8", "replace").split())


def escape(value: str) -> str:
    """A header's name or value as STOMP 1.2 writes it."""
    return "".join(_ESCAPES.get(letter, letter) for letter in value)


def frame(command: str, headers: Mapping[str, str]) -> bytes:
    """A frame without a body."""
    return head(command, headers) + b"\0"


def head(command: str, headers: Mapping[str, str]) -> bytes:
    """What stands before a body."""
    write = str if command in _PLAIN else escape
    lines = [f"{write(name)}:{write(value)}" for name, value in headers.items()]
    return "\n".join([command, *lines, "", ""]).encode()


class FrameReader:
    """Cuts a stream of bytes into frames; end-of-lines between them are heart-beats."""

    def __init__(self) -> None:
        self._data = bytearray()

    def take(self, data: bytes) -> list[Frame]:
        """Each frame that `data` completes; raises MalformedError."""
        buffer = self._data
        buffer += data
        frames: list[Frame] = []
        at = 0
        while True:
            while at < len(buffer) and buffer[at] in b"\r\n":
                at += 1
            found = _HEAD_END.search(buffer, at)
            if found is None:
                if len(buffer) - at > _LARGEST_HEAD:
                    raise MalformedError(f"a head of more than {_LARGEST_HEAD} bytes")
                break
            command, headers = _read_head(bytes(buffer[at : found.start()]))
            start = found.end()
            if (length := headers.get(b"content-length")) is not None:
                if not length.isdigit():
                    raise MalformedError(f"a content-length of {length[:20]!r}")
                end = start + int(length)
                if end >= len(buffer):
                    break
                if buffer[end]:
                    raise MalformedError("a body longer than its content-length")
            elif (end := buffer.find(b"\0", start)) < 0:
                break
            frames.append(Frame(command, headers, bytes(buffer[start:end])))
            at = end + 1
        del buffer[:at]
        return frames


def _read_head(text: bytes) -> tuple[bytes, dict[bytes, bytes]]:
    command, *lines = text.replace(b"\r\n", b"\n").split(b"\n")
    headers: dict[bytes, bytes] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon:
            raise MalformedError(f"not a header: {line[:60]!r}")
        headers.setdefault(_unescape(name), _unescape(value))
    return command, headers


def _unescape(text: bytes) -> bytes:
    if b"\\" not in text:
        return text
    return re.sub(rb"\\.", lambda match: _UNESCAPES.get(match[0], match[0]), text)
