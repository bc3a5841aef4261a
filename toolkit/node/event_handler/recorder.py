"""The broker's stamps in a run: T2 when a message came in whole, T3 just before it goes out to each subscriber."""

from __future__ import annotations

import binascii
import threading
from typing import Protocol

from toolkit.contract.samples import Flag, Point
from toolkit.node.flows import Flows
from toolkit.node.messages import read_header
from toolkit.node.stamps import Add, StampWriter

_RECEIVED, _SENT = int(Point.BROKER_RECEIVED), int(Point.BROKER_SENT)
_PROBE = int(Flag.PROBE)
_ENCODED_HEADER = 56
"""Characters of base64 that hold the 40-byte header."""
_a2b = binascii.a2b_base64


Identity = tuple[int, int, int]
"""(stream, seq, flags)"""
_UNREAD: Identity = (-1, -1, -1)


class Peer(Protocol):
    """The other end of a flow, with its number in the present run."""

    peer: int
    peer_run: int

    def remote(self) -> tuple[str, int]:
        """Its address and port."""


class Passage:
    """One event on its way through the broker: instants are noted at once, stamps are made when all is sent."""

    __slots__ = ("at_ns", "identity", "payload", "publisher", "sent")

    def __init__(self, payload: str | bytes | None, publisher: Peer, at_ns: int) -> None:
        self.payload = payload
        self.publisher = publisher
        self.at_ns = at_ns
        self.sent: list[tuple[Peer, int]] = []
        """Who it went to, and T3 of each."""
        self.identity: Identity | None = _UNREAD
        """Who the message is; None where it is not of a run."""


class Recorder:
    """Belongs to one thread; `on` only during a run."""

    def __init__(self) -> None:
        self.on = False
        self._note: Add | None = None
        self.flows = Flows()
        self._run_number = 0
        """Changes with each run, so that peers know when their number is stale."""
        self.received = 0
        self.sent = 0
        self.foreign = 0

    def begin(self, writer: StampWriter) -> None:
        """Stamp from now on."""
        self.flows = Flows()
        self._run_number += 1
        self.received = self.sent = self.foreign = 0
        writer.flows_for_live(self.flows.by_peer)
        self._note = writer.add
        self.on = writer.recording

    def end(self) -> None:
        """Stamp no more."""
        self.on = False
        self._note = None

    def stamp(self, passage: Passage) -> None:
        """Write T2 and every T3 so far; messages that are not of a run, and probes, are left out."""
        passage.identity = identity = self._identify(passage.payload)
        note = self._note
        if identity is None or note is None:
            return
        stream, seq, flags = identity
        run = self._run_number
        publisher, sent = passage.publisher, passage.sent
        self.received += 1
        self.sent += len(sent)
        note(
            _RECEIVED,
            flags,
            publisher.peer if publisher.peer_run == run else self._number(publisher),
            stream,
            seq,
            passage.at_ns,
        )
        for peer, at_ns in sent:
            note(_SENT, flags, peer.peer if peer.peer_run == run else self._number(peer), stream, seq, at_ns)

    def stamp_later(self, passage: Passage, peer: Peer, at_ns: int) -> None:
        """T3 of a subscriber that had to wait."""
        if passage.identity is _UNREAD:
            passage.sent.append((peer, at_ns))
        elif passage.identity is not None and self._note is not None:
            stream, seq, flags = passage.identity
            self.sent += 1
            self._note(_SENT, flags, self._number(peer), stream, seq, at_ns)

    def _identify(self, payload: str | bytes | None) -> Identity | None:
        if payload is None:
            return None
        try:
            header = read_header(_a2b(payload[:_ENCODED_HEADER]))
        except ValueError:  # binascii.Error, or text beyond ASCII
            header = None
        if header is None:
            self.foreign += 1
            return None
        return None if header[2] & _PROBE else header

    def _number(self, peer: Peer) -> int:
        if peer.peer_run != self._run_number:
            peer.peer_run = self._run_number
            peer.peer = self.flows.add(0, *peer.remote())
        return peer.peer


class SharedRecorder(Recorder):
    """The same for several threads, which stamp one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self._turn = threading.Lock()

    def begin(self, writer: StampWriter) -> None:
        """Stamp from now on."""
        with self._turn:
            super().begin(writer)

    def end(self) -> None:
        """Stamp no more."""
        with self._turn:
            super().end()

    def stamp(self, passage: Passage) -> None:
        """Write T2 and every T3 so far."""
        with self._turn:
            super().stamp(passage)

    def stamp_later(self, passage: Passage, peer: Peer, at_ns: int) -> None:
        """T3 of a notification."""
        with self._turn:
            super().stamp_later(passage, peer, at_ns)
