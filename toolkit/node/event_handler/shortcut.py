"""Recognises a publish that differs from the one before on its connection in nothing but the payload.

Parsing head and JSON is most of what an event costs, and a publisher sends the same bytes around each payload. Bytes
that are equal parse equally; so only a payload that needs no parsing either (no quote, no backslash, no control or
non-ASCII character) may differ, and the total length is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from toolkit.node.event_handler.documents import Event, System

_PLAIN = bytes(code for code in range(0x20, 0x7F) if code not in b'"\\')
_MOST_LESSONS = 8
"""A publisher whose requests differ otherwise each time is not learned from for ever."""

Parsed = tuple[System, Event, str | None]


class Shortcut:
    """What is known of the last publish on one connection."""

    __slots__ = ("_begin", "_end", "_lessons", "_prefix", "_suffix", "event", "feedback_uri", "size", "source")

    def __init__(self) -> None:
        self._lessons = 0
        self.size = -1
        """Bytes of a request that may be like the one learned; ask nobody else for a payload."""
        self._begin = 0
        self._end = 0
        self._prefix = b""
        self._suffix = b""
        self.source: System | None = None
        self.event: Event | None = None
        self.feedback_uri: str | None = None

    def learn(self, request: bytes, head_bytes: int, parsed: Parsed, parse: Callable[[bytes], Parsed]) -> None:
        """Remember a whole request (its body begins after `head_bytes`) and what it was parsed to."""
        source, event, feedback_uri = parsed
        if self._lessons >= _MOST_LESSONS or event.timestamp is not None or not event.payload:
            return
        self._lessons += 1
        payload = event.payload.encode()
        start = request.find(b'"' + payload + b'"', head_bytes) + 1
        if not start or payload.translate(None, _PLAIN):
            return
        prefix, suffix = request[:start], request[start + len(payload) :]
        # The proof that these bytes are the payload: with others in their place, nothing but the payload changes.
        other = "0" * len(payload)
        if parse(prefix[head_bytes:] + other.encode() + suffix) != (
            source,
            replace(event, payload=other),
            feedback_uri,
        ):
            return
        self.size, self._prefix, self._suffix = len(request), prefix, suffix
        self._begin, self._end = start, start + len(payload)
        self.source, self.event, self.feedback_uri = source, event, feedback_uri

    def payload(self, request: bytes) -> bytes | None:
        """The payload of a request of `size` bytes that is like the one learned; None for any other."""
        if request.startswith(self._prefix) and request.endswith(self._suffix):
            payload = request[self._begin : self._end]
            if not payload.translate(None, _PLAIN):
                return payload
        return None
