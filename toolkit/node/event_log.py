"""Prints the lines that the published measurements were read from, for tools that know them.

Instants are milliseconds of the own clock. An event of a run is named by its number, counted from 1 in its stream as
the published publisher did; any other by its payload.
"""

from __future__ import annotations

import binascii
import contextlib
import sys
import time
from typing import TextIO

from toolkit.contract.samples import Flag
from toolkit.node.messages import read_header

_PROBE = int(Flag.PROBE)
_ENCODED_HEADER = 56
"""Characters of base64 that hold the 40-byte header."""
_FLUSH_AFTER_NS = 200_000_000


class EventLog:
    """Lines on stdout, flushed five times a second while there are any, and by `flush`."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self._flushed_ns = 0

    def published(self, seq: int) -> None:
        """A publisher is about to send."""
        self._line(f"Event published to EH: {seq + 1}")

    def arrived(self, payload: str | None) -> None:
        """The Event Handler begins to look at an event."""
        self._of_event("Received message ", _decoded(payload))

    def leaves(self, payload: str | None) -> None:
        """The Event Handler is about to send it to subscribers."""
        self._of_event("Going to send message ", _decoded(payload))

    def received(self, payload: bytes, at_ns: int) -> None:
        """A subscriber has got it."""
        self._of_event("", payload, at_ns)

    def subscription(self, event_type: str, *, begins: bool, done: bool) -> None:
        """A subscriber is about to come or go, or has."""
        verb, preposition = ("subscribe", "to") if begins else ("unsubscribe", "from")
        what = f"{verb.capitalize()}d" if done else f"Going to {verb}"
        self._line(f'{what} {preposition} "{event_type}" event type')

    def flush(self) -> None:
        """Hand over what was printed."""
        with contextlib.suppress(OSError, ValueError):
            self._out.flush()

    def _of_event(self, before: str, payload: bytes, at_ns: int | None = None) -> None:
        header = read_header(payload)
        if header is None:
            self._line(before + payload.decode("utf-8", "replace"), at_ns)
        elif not header[2] & _PROBE:
            self._line(f"{before}{header[1] + 1}", at_ns)

    def _line(self, text: str, at_ns: int | None = None) -> None:
        now_ns = time.time_ns()
        one_line = text.replace("\r", "\\r").replace("\n", "\\n")
        with contextlib.suppress(OSError, ValueError):  # nobody reads them any more
            self._out.write(f"{one_line} at {(at_ns or now_ns) // 1_000_000}\n")
            if not 0 <= now_ns - self._flushed_ns < _FLUSH_AFTER_NS:
                self._flushed_ns = now_ns
                self._out.flush()


def _decoded(payload: str | None) -> bytes:
    """The header of a message of a run; any other payload as it is."""
    text = payload or ""
    with contextlib.suppress(ValueError):  # binascii.Error, or text beyond ASCII
        header = binascii.a2b_base64(text[:_ENCODED_HEADER])
        if read_header(header) is not None:
            return header
    return text.encode()
