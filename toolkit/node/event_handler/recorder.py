"""The broker's stamps in a run: T2 when a message came in whole, T3 just before it goes out to each subscriber."""

from __future__ import annotations

import binascii
import struct
import threading
from typing import Protocol

from toolkit.contract.samples import Flag, Point
from toolkit.node.flows import Flows
from toolkit.node.messages import read_header
from toolkit.node.stamps import StampWriter

_RECEIVED, _SENT = int(Point.BROKER_RECEIVED), int(Point.BROKER_SENT)
_PROBE = int(Flag.PROBE)
_ENCODED_HEADER = 56
"""Characters of base64 that hold the 40-byte header."""
_ENCODED_STREAM = 16
"""The first of them, the same in each message of a stream: magic, version, flags, length and stream."""
_ENCODED_SEQ = slice(_ENCODED_STREAM, _ENCODED_STREAM + 12)
"""Those that follow: the sequence number and a byte more."""
_read_seq = struct.Struct(">Qx").unpack
_MOST_STREAMS = 4096
_a2b = binascii.a2b_base64


class Peer(Protocol):
    """The other end of a flow; either what came from it is stamped or what went to it."""

    mark: int
    """Point and number of its stamps in the present run, at their places in the first word of a stamp."""
    marked_in: int
    """Which run that is."""

    def remote(self) -> tuple[str, int]:
        """Its address and port."""


Passage = tuple[str | bytes, list[tuple[Peer, int]]]
"""One event on its way through the broker: its payload, who it went to and T3 of each."""
Identity = tuple[int, int]
"""(flags and stream at their places in the first word of a stamp, seq)"""
_LEFT_OUT: Identity = (-1, 0)


class Recorder:
    """Belongs to one thread; `on` only during a run.

    Beside the sockets only instants are noted; a stamp is made when its event has been answered.
    """

    def __init__(self) -> None:
        self.on = False
        self._writer: StampWriter | None = None
        self._streams: dict[str | bytes, int] = {}
        """How payloads of a stream begin -> flags and stream; where the whole header was right once."""
        self.flows = Flows()
        self._run_number = 0
        """Changes with each run, so that peers know when their mark is stale."""
        self.received = 0
        self.sent = 0
        self.foreign = 0

    def begin(self, writer: StampWriter) -> None:
        """Stamp from now on."""
        self.flows = Flows()
        self._run_number += 1
        self.received = self.sent = self.foreign = 0
        self._streams.clear()
        writer.flows_for_live(self.flows.by_peer)
        self._writer = writer
        self.on = writer.recording

    def end(self) -> None:
        """Stamp no more."""
        self.on = False
        self._writer = None

    def stamp(self, passage: Passage, publisher: Peer, at_ns: int) -> None:
        """T2 and every T3 so far; messages that are not of a run, and probes, are left out."""
        writer = self._writer
        if writer is None:
            return
        payload, sent = passage
        identity = self._identity(payload)
        if identity is None:
            self.foreign += 1
            return
        bits, seq = identity
        if bits < 0:
            return
        run, words = self._run_number, writer.words
        mark = publisher.mark if publisher.marked_in == run else self._mark(publisher, _RECEIVED)
        words += (bits | mark, seq, at_ns, 0)
        for peer, sent_ns in sent:
            mark = peer.mark if peer.marked_in == run else self._mark(peer, _SENT)
            words += (bits | mark, seq, sent_ns, 0)
        self.received += 1
        self.sent += len(sent)

    def stamp_later(self, passage: Passage, peer: Peer, at_ns: int) -> None:
        """T3 of a subscriber that had to wait."""
        writer = self._writer
        identity = self._identity(passage[0]) if writer is not None else None
        if writer is None or identity is None or identity[0] < 0:
            return
        bits, seq = identity
        writer.words += (bits | self._mark(peer, _SENT), seq, at_ns, 0)
        self.sent += 1

    def _identity(self, payload: str | bytes) -> Identity | None:
        """Who a message is; of one that begins as others of its stream did, only the number is read."""
        bits = self._streams.get(payload[:_ENCODED_STREAM])
        if bits is not None:
            try:
                return bits, _read_seq(_a2b(payload[_ENCODED_SEQ]))[0]
            except (ValueError, struct.error):  # not base64, or too short
                pass
        try:
            header = read_header(_a2b(payload[:_ENCODED_HEADER]))
        except ValueError:  # binascii.Error, or text beyond ASCII
            header = None
        if header is None:
            return None
        stream, seq, flags, _ = header
        if flags & _PROBE:
            return _LEFT_OUT
        if len(self._streams) >= _MOST_STREAMS:
            self._streams.clear()
        bits = self._streams[payload[:_ENCODED_STREAM]] = flags << 8 | stream << 32
        return bits, seq

    def _mark(self, peer: Peer, point: int) -> int:
        if peer.marked_in != self._run_number:
            peer.mark = point | self.flows.add(0, *peer.remote()) << 16
            peer.marked_in = self._run_number
        return peer.mark


class SharedRecorder(Recorder):
    """The same for several threads, which stamp one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self._turn = threading.RLock()

    def begin(self, writer: StampWriter) -> None:
        """Stamp from now on."""
        with self._turn:
            super().begin(writer)

    def end(self) -> None:
        """Stamp no more."""
        with self._turn:
            super().end()

    def stamp(self, passage: Passage, publisher: Peer, at_ns: int) -> None:
        """T2 and every T3 so far."""
        with self._turn:
            super().stamp(passage, publisher, at_ns)

    def stamp_later(self, passage: Passage, peer: Peer, at_ns: int) -> None:
        """T3 of a notification."""
        with self._turn:
            super().stamp_later(passage, peer, at_ns)
