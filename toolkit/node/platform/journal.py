"""What one end of the platform notes: counters since its start, and stamps while a run is on."""

from __future__ import annotations

from collections import Counter
from typing import Protocol

from toolkit.contract.orders import RunOrder
from toolkit.contract.samples import Flag
from toolkit.node.flows import Flows
from toolkit.node.messages import read_header
from toolkit.node.stamps import StampWriter

Identity = tuple[int, int, int]
"""(stream, seq, flags)"""
_PROBE = int(Flag.PROBE)


class Peer(Protocol):
    """The other end of a connection, with its number in the present run."""

    peer: int
    peer_run: int

    def flow(self) -> tuple[str, int]:
        """The address and port that tell the connection apart."""


class Journal:
    """Belongs to the event loop's thread; `on` only during a run."""

    def __init__(self) -> None:
        self.on = False
        self.received = 0
        self.sent = 0
        self.reconnects = 0
        """Connections to brokers that were lost."""
        self.dropped: Counter[str] = Counter()
        """Reason -> messages (of a hub: deliveries), since the start."""
        self.run = ""
        self.flows = Flows()
        self._writer: StampWriter | None = None
        self._run_number = 0
        self._before: dict[str, int] = {}

    def begin(self, writer: StampWriter, order: RunOrder) -> None:
        """Stamp from now on."""
        self.flows = Flows()
        self._run_number += 1
        writer.flows_for_live(self.flows.by_peer)
        self._writer = writer
        self.run = order.run
        self._before = self._totals()
        self.on = writer.recording

    def end(self) -> dict[str, int]:
        """Stamp no more; the counters of the run."""
        self.on = False
        self._writer = None
        return {name: value - self._before.get(name, 0) for name, value in self._totals().items()}

    def _totals(self) -> dict[str, int]:
        dropped = {f"dropped_{reason}": count for reason, count in self.dropped.items()}
        return {"received": self.received, "sent": self.sent, "reconnects": self.reconnects, **dropped}

    def identity(self, payload: bytes) -> Identity | None:
        """Who a message is; None outside of runs, for probes and for what is not ours."""
        if not self.on:
            return None
        header = read_header(payload)
        return None if header is None or header[2] & _PROBE else header[:3]

    def stamp(self, point: int, identity: Identity, peer: Peer, at_ns: int) -> None:
        """Note that a message passed."""
        if self._writer is not None:
            stream, seq, flags = identity
            self._writer.add(point, flags, self._number(peer), stream, seq, at_ns)

    def _number(self, peer: Peer) -> int:
        if peer.peer_run != self._run_number:
            peer.peer_run = self._run_number
            peer.peer = self.flows.add(0, *peer.flow())
        return peer.peer
