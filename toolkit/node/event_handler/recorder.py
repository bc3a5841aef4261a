"""The broker's stamps in a run: T2 when a message came in whole, T3 just before it goes out to each subscriber."""

from __future__ import annotations

import binascii
import time

from toolkit.contract.samples import Flag, Point
from toolkit.node.flows import Flows
from toolkit.node.messages import read_header
from toolkit.node.stamps import StampWriter

Identity = tuple[int, int, int]
"""(stream, seq, flags) of a message of ours."""

_RECEIVED, _SENT = int(Point.BROKER_RECEIVED), int(Point.BROKER_SENT)
_PROBE = int(Flag.PROBE)
_ENCODED_HEADER = 56
"""Characters of base64 that hold the 40-byte header."""
_time_ns = time.time_ns


class Recorder:
    """Belongs to the event loop's thread; idle unless a run is on."""

    def __init__(self) -> None:
        self.writer: StampWriter | None = None
        self.flows = Flows()
        self.run_number = 0
        """Changes with each run, so that connections know when their peer number is stale."""
        self.received = 0
        self.sent = 0
        self.foreign = 0

    def begin(self, writer: StampWriter) -> None:
        """Stamp from now on."""
        self.flows = Flows()
        self.run_number += 1
        self.received = self.sent = self.foreign = 0
        writer.flows_for_live(self.flows.by_peer)
        self.writer = writer if writer.recording else None

    def end(self) -> None:
        """Stamp no more."""
        self.writer = None

    def identify(self, payload: str | None) -> Identity | None:
        """Whose message this is; None for messages that are not of a run, and for probes."""
        if payload is None:
            return None
        try:
            header = read_header(binascii.a2b_base64(payload[:_ENCODED_HEADER]))
        except ValueError:  # binascii.Error, or text beyond ASCII
            header = None
        if header is None:
            self.foreign += 1
            return None
        return None if header[2] & _PROBE else header

    def stamp_received(self, identity: Identity, peer: int, at_ns: int) -> None:
        """T2."""
        stream, seq, flags = identity
        self.received += 1
        if self.writer is not None:
            self.writer.add(_RECEIVED, flags, peer, stream, seq, at_ns)

    def stamp_sent(self, identity: Identity, peer: int, at_ns: int) -> None:
        """T3 of one subscriber; called after the write so that nothing comes between the clock and the socket."""
        stream, seq, flags = identity
        self.sent += 1
        if self.writer is not None:
            self.writer.add(_SENT, flags, peer, stream, seq, at_ns)
