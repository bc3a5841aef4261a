"""Gives an unmodified broker its stamps: finds messages in the packets that enter and leave it, on its own node.

T2 is the packet that brought a message's last byte, T3 the one that took its first byte to a subscriber; both carry the
kernel's stamp of one clock. Blind to TLS, and says so. Its own counters tell what it cost and what it missed.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from toolkit.contract import metrics
from toolkit.contract.orders import RunOrder
from toolkit.contract.payloads import size_of
from toolkit.contract.samples import Flag, Point
from toolkit.contract.settings import ProcessSettings
from toolkit.errors import ToolkitError
from toolkit.node import exposition
from toolkit.node.addresses import is_local, local_addresses
from toolkit.node.capture import Capture
from toolkit.node.control import Control, log
from toolkit.node.flows import Flows
from toolkit.node.live import LiveSender
from toolkit.node.messages import Seen
from toolkit.node.native_counters import NativeCounters, grown
from toolkit.node.segments import SYN, Direction, Piece, address_text, parse_segment
from toolkit.node.sightings import MessageFinder, Sighting
from toolkit.node.stamps import StampWriter

ROLE = "probe"
TEXT_PROTOCOLS = frozenset({"sse", "http", "arrowhead", "xmpp"})
"""Where the payload travels as base64."""
MOST_CONNECTIONS = 20_000
"""Directions of connections that are followed; the oldest are forgotten first."""
_TLS_HANDSHAKE, _TLS_DATA = b"\x16\x03", b"\x17\x03\x03"
_LOOK_S = 0.1
End = tuple[bytes, int]
"""(address, port)"""


@dataclass(slots=True)
class Watched:
    """One direction of one connection of the broker."""

    point: int
    """BROKER_RECEIVED or BROKER_SENT."""
    peer: int
    direction: Direction
    finder: MessageFinder
    seen: dict[int, Seen] = field(default_factory=dict)
    """Per stream: a message sent again on the same connection keeps its first stamp."""
    began: bytes | None = None
    """Its first bytes, once some were seen."""

    @property
    def encrypted(self) -> bool:
        """A TLS handshake, or TLS data where the probe came later."""
        return self.began is not None and self.began.startswith((_TLS_HANDSHAKE, _TLS_DATA))


class Traffic:
    """Packets in, stamps out; knows nothing of sockets, so that tests can feed it."""

    def __init__(
        self, ports: Sequence[int], order: RunOrder, writer: StampWriter, local: frozenset[bytes] = frozenset()
    ) -> None:
        """`local`: addresses of this node; what its clients say to brokers on other nodes is not this broker's."""
        self._ports = frozenset(ports)
        self._local = local
        self._order = order
        self._length_of = size_of(order.payload) if order.payload.sizes else lambda _stream, _seq: order.payload_bytes
        self._writer = writer
        self._watched: dict[tuple[End, End], Watched] = {}
        self.flows = Flows()
        self._peers: dict[End, int] = {}
        self.messages = {int(Point.BROKER_RECEIVED): 0, int(Point.BROKER_SENT): 0}
        self.payload_bytes = dict.fromkeys(self.messages, 0)
        self.duplicates = 0
        self.encrypted = 0
        self._closed_repeated = 0
        self._closed_gaps = 0

    @property
    def repeated(self) -> int:
        """Segments that brought nothing new."""
        return self._closed_repeated + sum(w.direction.repeated for w in self._watched.values())

    @property
    def gaps(self) -> int:
        """Stretches that were never seen."""
        return self._closed_gaps + sum(w.direction.gaps for w in self._watched.values())

    def take(self, at_ns: int, packet: memoryview) -> None:
        """Work in one packet, from its IP header on."""
        segment = parse_segment(packet)
        if segment is None or not (self._is_broker(segment.destination) or self._is_broker(segment.source)):
            return  # the filter knows ports alone, and lets a few others through before it is in place
        key = segment.source, segment.destination
        watched = self._watched.get(key)
        if watched is None or segment.flags & SYN:
            watched = self._watch(key, fresh=bool(segment.flags & SYN))
        self._find(watched, watched.direction.take(segment, at_ns))

    def _is_broker(self, end: End) -> bool:
        return end[1] in self._ports and is_local(end[0], self._local)

    def finish(self) -> None:
        """Nothing more will come: look through what waited for missing segments."""
        for watched in self._watched.values():
            self._find(watched, watched.direction.rest())

    def _find(self, watched: Watched, pieces: Iterable[Piece | None]) -> None:
        for piece in pieces:
            if piece is None:
                watched.finder.lost_some()
                continue
            at_ns, data = piece
            if watched.began is None:
                self._begin(watched, bytes(data[:3]))
            if not watched.encrypted:
                for sighting in watched.finder.take(at_ns, data):
                    self._stamp(watched, sighting)

    def _watch(self, key: tuple[End, End], *, fresh: bool) -> Watched:
        source, destination = key
        inbound = self._is_broker(destination)
        far = source if inbound else destination
        if fresh and inbound:
            self._peers.pop(far, None)
        peer = self._peers.get(far)
        if peer is None:
            peer = self._peers[far] = self.flows.add(len(self._peers), address_text(far[0]), far[1])
        if old := self._watched.pop(key, None):
            self._forget(old)
        while len(self._watched) >= MOST_CONNECTIONS:
            self._forget(self._watched.pop(next(iter(self._watched))))
        text = self._order.protocol in TEXT_PROTOCOLS
        watched = self._watched[key] = Watched(
            point=int(Point.BROKER_RECEIVED if inbound else Point.BROKER_SENT),
            peer=peer,
            direction=Direction(),
            finder=MessageFinder(length_of=self._length_of, text=text),
        )
        return watched

    def _forget(self, watched: Watched) -> None:
        self._closed_repeated += watched.direction.repeated
        self._closed_gaps += watched.direction.gaps

    def _begin(self, watched: Watched, first: bytes) -> None:
        """TLS shows itself in a connection's first bytes."""
        watched.began = first
        if watched.encrypted:
            self.encrypted += watched.point == Point.BROKER_RECEIVED

    def _stamp(self, watched: Watched, sighting: Sighting) -> None:
        header = sighting.header
        if header.flags & Flag.PROBE:
            return
        seen = watched.seen.get(header.stream)
        if seen is None:
            seen = watched.seen[header.stream] = Seen()
        if not seen.is_new(header.seq):
            self.duplicates += 1
            return
        received = watched.point == Point.BROKER_RECEIVED
        at_ns = sighting.last_ns if received else sighting.first_ns
        if self._writer.recording:
            self._writer.add(watched.point, header.flags, watched.peer, header.stream, header.seq, at_ns)
        self.messages[watched.point] += 1
        self.payload_bytes[watched.point] += self._length_of(header.stream, header.seq)


@dataclass(slots=True)
class Totals:
    """What this process has counted since its start; metrics never fall when a new run begins."""

    packets: int = 0
    lost: int = 0
    repeated: int = 0
    gaps: int = 0
    encrypted: int = 0
    received: int = 0
    sent: int = 0
    received_bytes: int = 0
    sent_bytes: int = 0

    def plus(self, capture: Capture | None, traffic: Traffic | None) -> Totals:
        """With what the run that is on has counted so far."""
        if capture is None or traffic is None:
            return self
        received, sent = int(Point.BROKER_RECEIVED), int(Point.BROKER_SENT)
        return Totals(
            packets=self.packets + capture.seen,
            lost=self.lost + capture.lost,
            repeated=self.repeated + traffic.repeated,
            gaps=self.gaps + traffic.gaps,
            encrypted=self.encrypted + traffic.encrypted,
            received=self.received + traffic.messages[received],
            sent=self.sent + traffic.messages[sent],
            received_bytes=self.received_bytes + traffic.payload_bytes[received],
            sent_bytes=self.sent_bytes + traffic.payload_bytes[sent],
        )


class Probe:
    """The process: orders in, one `Traffic` per run."""

    def __init__(self, settings: ProcessSettings, ports: Sequence[int], native: NativeCounters | None = None) -> None:
        self._settings = settings
        self._ports = ports
        self._native = native
        self._totals = Totals()
        self._capture: Capture | None = None
        self._traffic: Traffic | None = None
        self.control = Control(settings, ROLE, readings=self.readings, check=self._check)

    def readings(self) -> Iterable[exposition.Reading]:
        """What `/metrics` shows."""
        totals = self._totals.plus(self._capture, self._traffic)
        usage = resource.getrusage(resource.RUSAGE_SELF)
        own: list[exposition.Reading] = [
            (metrics.PROBE_PACKETS, (), totals.packets),
            (metrics.PROBE_LOST, (), totals.lost),
            (metrics.PROBE_REPEATED, (), totals.repeated),
            (metrics.PROBE_GAPS, (), totals.gaps),
            (metrics.PROBE_ENCRYPTED, (), totals.encrypted),
            (metrics.PROBE_CPU, (), usage.ru_utime + usage.ru_stime),
            (metrics.BROKER_RECEIVED, (), totals.received),
            (metrics.BROKER_SENT, (), totals.sent),
            (metrics.BROKER_RECEIVED_BYTES, (), totals.received_bytes),
            (metrics.BROKER_SENT_BYTES, (), totals.sent_bytes),
        ]
        return [*own, *(self._native.readings() if self._native else ())]

    def carry_out(self, order: RunOrder) -> None:
        """One order from preparing to done or failed."""
        error: str | None = None
        writer: StampWriter | None = None
        try:
            writer = StampWriter(self._settings, order, live=LiveSender.from_environment(self._settings))
            traffic = Traffic(self._ports, order, writer, local_addresses())
            writer.flows_for_live(traffic.flows.by_peer)
            before = self._native.first() if self._native else {}
            capture = Capture(self._ports)
            self._traffic, self._capture = traffic, capture
            self.control.enter("ready")
            self._look(capture, traffic)
            self.control.enter("draining")
            self._drain(capture, traffic, order.drain_s)
            error = self._finish(writer, capture, traffic, before)
        except (OSError, ToolkitError) as problem:
            error = f"{self._settings.service} on {self._settings.node}: {problem}"
            if writer is not None:
                writer.close(counts={}, flows={}, facts={}, error=error)
        self.control.enter("failed" if error else "done", error)

    def _look(self, capture: Capture, traffic: Traffic) -> None:
        counted_s = time.monotonic()
        while not self.control.stopping:
            for at_ns, packet in capture.packets(_LOOK_S):
                traffic.take(at_ns, packet)
            if time.monotonic() - counted_s > 1:
                counted_s = time.monotonic()
                capture.count()
                self.control.counts.received = traffic.messages[int(Point.BROKER_RECEIVED)]
                self.control.counts.sent = traffic.messages[int(Point.BROKER_SENT)]
            if self.control.phase == "ready" and self.control.started() is not None:
                self.control.enter("running")

    def _drain(self, capture: Capture, traffic: Traffic, drain_s: float) -> None:
        """Take what the kernel still holds; blocks that are not full come after their retire time."""
        until_s = time.monotonic() + min(max(drain_s, 0.2), 5.0)
        while (left_s := until_s - time.monotonic()) > 0:
            for at_ns, packet in capture.packets(min(left_s, _LOOK_S)):
                traffic.take(at_ns, packet)
        traffic.finish()

    def _finish(self, writer: StampWriter, capture: Capture, traffic: Traffic, before: Mapping[str, int]) -> str | None:
        capture.count()
        counts = {
            "received": traffic.messages[int(Point.BROKER_RECEIVED)],
            "sent": traffic.messages[int(Point.BROKER_SENT)],
            "duplicate": traffic.duplicates,
            "packets": capture.seen,
            "packets_lost": capture.lost,
            "segments_repeated": traffic.repeated,
            "gaps": traffic.gaps,
            "encrypted_connections": traffic.encrypted,
        }
        facts: dict[str, Any] = {"ports": list(self._ports), "partial": bool(capture.lost or traffic.gaps)}
        if self._native:
            after = self._native.read(settled=True)
            counts |= {f"native_{name}": growth for name, growth in grown(before, after).items()}
        if traffic.encrypted:
            facts["blind"] = f"{traffic.encrypted} connections are TLS: the probe cannot see messages in them"
        self._totals = self._totals.plus(capture, traffic)
        self._capture = self._traffic = None
        capture.close()
        return writer.close(counts=counts, flows=traffic.flows.by_peer, facts=facts).error

    def _check(self, order: RunOrder) -> None:
        if order.payload_bytes < 1:
            raise ValueError("payload_bytes must be at least 1")


def main(environ: Mapping[str, str] = os.environ) -> int:
    """Serve orders until SIGTERM; TOOLKIT_PROBE_PORTS names the broker's ports."""
    sys.setswitchinterval(1e-4)
    settings = ProcessSettings.from_environment(environ)
    try:
        ports = [int(port) for port in environ.get("TOOLKIT_PROBE_PORTS", "1883").split(",") if port]
        native = NativeCounters.from_environment(environ)
        probe = Probe(settings, ports, native)
    except (ToolkitError, ValueError, KeyError, OSError) as error:
        log("failed", settings, ROLE, error=str(error) or type(error).__name__)
        return 1
    if native:
        native.start()
    probe.control.serve()
    log("serving", settings, ROLE, ports=ports)
    while (order := probe.control.next_order()) is not None:
        probe.carry_out(order)
    probe.control.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
