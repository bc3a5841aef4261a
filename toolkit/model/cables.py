"""The cables at a broker: how long a frame keeps one busy, and what is left of a measured hop without them.

A cable is one server: frames leave one after the other. An event comes in whole, in the order of sending. Copies go
out on one connection for each subscriber, and the kernel lets each have only so many bytes in the cable's queue at a
time, so large copies alternate: the first parts of all, then the second ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.model.distributions import FloatArray

QUANTUM_BYTES = 45 * 1514
"""The most that Linux hands over in one piece (64 KiB), in frames of Ethernet."""
SHRINKING = 0.7
"""How much less each connection may have in the queue where there are more: the power of their number."""
_LONE_QUANTUM_BYTES = 100e3
"""Supposed where a single connection was seen, which never shows more than `QUANTUM_BYTES`."""
_SEGMENT_BYTES = 1448
_SHAPED_FRAME_BYTES = 66
"""Ethernet, IP and TCP headers: what the rate of a virtual node counts."""
WIRE_SHARE = 1 + _SHAPED_FRAME_BYTES / _SEGMENT_BYTES
"""Bytes on the wire for each that the kernel holds."""
_REAL_FRAME_BYTES = 90
"""With preamble, checksum and the gap between two frames."""
_BASE64 = {"sse", "http", "rest", "xmpp"}
_AROUND_BYTES = {"sse": (330, 40), "http": (330, 350), "rest": (330, 350), "xmpp": (400, 400), "stomp": (150, 200)}
"""What a protocol puts around a payload on the way in and out; 60 for those that are not here."""
_BURST_BYTES = {"container": 3028.0, "vm": 32.0 * 1024}
"""Of the token buckets that limit virtual nodes; in containers a quarter of a millisecond, at least two frames."""
_UNPACED = {"reno", "cubic"}
_MOST_COPIES = 30_000
_FEW = 20
_HARDLY_EVER = 0.1
"""A cable that is idle before a smaller share of messages is busy all the time."""
_LIKE_ALL = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Cables:
    """Bytes of an event on the wire and the rate of the cable that is busiest with them; a rate of 0 is unknown."""

    in_bytes: float = 0.0
    in_mbps: float = 0.0
    out_bytes: float = 0.0
    """Of one copy."""
    out_mbps: float = 0.0
    quantum_bytes: float = math.inf
    """What a connection may have in the cable's queue where it is alone, see `quantum`; infinite where not known."""
    burst_bytes: float = 0.0
    """What leaves at once after a pause: the bucket of a virtual node's cable; a real one has none."""
    is_paced: bool = True
    """Whether each connection is paced at what it believes its share to be (BBR), or hands over whole pieces (Reno)."""

    @property
    def in_ms(self) -> float:
        """How long an event keeps the cable to the broker busy."""
        return self.in_bytes * 8 / 1000 / self.in_mbps if self.in_mbps else 0.0

    @property
    def out_ms(self) -> float:
        """How long a copy keeps the cable to the subscribers busy."""
        return self.out_bytes * 8 / 1000 / self.out_mbps if self.out_mbps else 0.0

    @property
    def burst_ms(self) -> float:
        """How much sooner copies have left that found a full bucket."""
        return self.burst_bytes * 8 / 1000 / self.out_mbps if self.out_mbps else 0.0

    def quantum(self, copies: int) -> float:
        """Bytes that each of several connections may have in the queue.

        A stand-in for TCP small queues and congestion windows, which follow the rate that a connection believes in:
        66, 37 and 30 kB of each of two, four and six connections were seen. Connections that are not paced have one
        whole piece in the queue, however many they are: the next one follows when the first has left.
        """
        if not self.is_paced:
            return QUANTUM_BYTES
        return min(QUANTUM_BYTES, self.quantum_bytes / math.pow(copies, SHRINKING))

    def parts(self, copies: int) -> int:
        """In how many turns a copy leaves beside others."""
        return max(math.ceil(self.out_bytes / self.quantum(copies) - 1e-9), 1)

    def part_ms(self, copies: int) -> list[float]:
        """How long each turn takes."""
        quantum, parts = self.quantum(copies), self.parts(copies)
        sizes = [quantum] * (parts - 1) + [self.out_bytes - (parts - 1) * quantum]
        return [size * 8 / 1000 / self.out_mbps for size in sizes]


def cables_of(manifest: Mapping[str, Any]) -> Cables:
    """From the links that the testbed's file declares, the payload and the protocol.

    Of the cables that an event crosses, the one with the most to carry counts (a broker's carries every copy, a
    subscriber's those for that node); the others pass frames on while they come in.
    """
    nodes = manifest.get("nodes") or {}
    workload = manifest.get("workload") or {}
    brokers = {
        node
        for service in manifest.get("services") or ()
        if service.get("name") == workload.get("broker")
        for node in service.get("nodes") or ()
    }
    if len(brokers) != 1 or not workload.get("payload_bytes"):
        return Cables()
    (broker,) = brokers
    orders = manifest.get("orders") or {}
    protocol = next((str(order.get("protocol")) for order in orders.values() if order.get("role") == "broker"), "")
    sizes = _sizes(manifest.get("streams") or ()), _sizes(manifest.get("subscribers") or ())
    in_mbps, out_mbps = (_rate(nodes, broker, places) for places in sizes)
    node = nodes.get(broker) or {}
    frame = _SHAPED_FRAME_BYTES if node.get("provider") == "container" else _REAL_FRAME_BYTES
    around = _AROUND_BYTES.get(protocol, (60, 60))
    text = float(workload["payload_bytes"])
    text = 4 * math.ceil(text / 3) if protocol in _BASE64 else text
    in_bytes, out_bytes = (_on_the_wire(text + extra, frame) for extra in around)
    burst = _BURST_BYTES.get(str(node.get("provider")), 0.0)
    if node.get("provider") == "container":
        burst = max(burst, out_mbps * 1e6 / 8 / 4000)
    congestion = (manifest.get("settings") or {}).get(str(workload.get("broker")), {}).get("congestion")
    return Cables(
        in_bytes=in_bytes, in_mbps=in_mbps, out_bytes=out_bytes, out_mbps=out_mbps, burst_bytes=burst,
        is_paced=congestion not in _UNPACED,
    )  # fmt: skip


def _sizes(ends: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """How many publishers' streams or subscribers each node has."""
    places: dict[str, int] = {}
    for end in ends:
        node = str(end.get("process", "")).partition("/")[0]
        places[node] = places.get(node, 0) + 1
    return places


def _rate(nodes: Mapping[str, Any], broker: str, places: Mapping[str, int]) -> float:
    """Mbit/s of the busiest cable, as a server of all that goes between the broker and these nodes; 0 if not known."""
    remote = {node: count for node, count in places.items() if node != broker}
    total = sum(remote.values())
    declared = [_mbps(nodes, broker), *(_mbps(nodes, node) * total / count for node, count in remote.items())]
    known = [rate for rate in declared if rate]
    return min(known) if remote and known else 0.0


def _mbps(nodes: Mapping[str, Any], name: str) -> float:
    return float(((nodes.get(name) or {}).get("link") or {}).get("rate_bps") or 0) / 1e6


def _on_the_wire(text: float, frame: int) -> float:
    return text + frame * math.ceil(text / _SEGMENT_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Freed:
    """A run's hops with the waiting for cables and the passing over them taken out: what a net adds to its servers."""

    cables: Cables
    publish: FloatArray
    """ms, a value for each message."""
    deliver: FloatArray
    """ms, shape (messages, subscribers): from leaving the cable to the arrival, in the order of sending."""
    is_idle: NDArray[np.bool_]
    """Whether a message found the way out empty: what is left of its hops depends on no queue."""
    gap_ms: float = 0.0
    """Between two sendings of a message where nothing held the broker up."""
    held_copies: float = 0.0
    """How many copies the kernel holds for a subscriber when it makes the broker wait; 0 where it never did."""
    answer_ms: float = 0.0
    """From the last sending to the publisher's next message, without the cable; 0 where answers are not known."""


def freed(
    cables: Cables,
    *,
    sent: FloatArray,
    received: FloatArray,
    out: FloatArray,
    arrived: FloatArray,
    answered: FloatArray,
) -> Freed:
    """Of one run: T1, T2, T3 and T4 in ms, those of copies with a column for each place in the order of sending.

    Exact where the cables serve as supposed. A copy cannot arrive before it has passed: where the typical one does,
    the cable is taken to be that much faster (a token bucket's burst; a rate that was declared too low).
    """
    used = slice(0, max(_MOST_COPIES // out.shape[1], 1))
    publish = received - sent
    if cables.in_mbps:
        cables, publish = _without_cable_in(cables, sent, received, used)
    queue_ms = _queue(cables, out, answered)
    leaving, is_idle = out, np.ones(len(out), dtype=bool)
    if _is_never_idle(cables, queue_ms):
        leaving, is_idle = _leaving_a_queue(cables, out, queue_ms, used), ~is_idle
    elif cables.out_mbps:
        cables = _as_seen(cables, out, arrived, answered, used)
        leaving, is_idle = _followed(cables, out, used)
    return Freed(
        cables=cables,
        publish=publish,
        deliver=arrived - leaving,
        is_idle=is_idle,
        gap_ms=_gap(out, is_idle),
        held_copies=_held(out, arrived, cables.out_ms / 4) if cables.out_mbps else 0.0,
        answer_ms=_answer(cables, out, answered, is_idle),
    )


def _without_cable_in(cables: Cables, sent: FloatArray, received: FloatArray, used: slice) -> tuple[Cables, FloatArray]:
    """The cable to the broker as fast as it was seen to be, and what is left of the hop without it."""
    left = (received - sent)[used] - _sojourn(sent[used], cables.in_ms)
    cables = replace(cables, in_mbps=cables.in_mbps / _scale(left, cables.in_ms))
    publish = np.full(len(sent), np.nan)
    publish[used] = received[used] - sent[used] - _sojourn(sent[used], cables.in_ms)
    return cables, publish


def _as_seen(cables: Cables, out: FloatArray, arrived: FloatArray, answered: FloatArray, used: slice) -> Cables:
    """The cable to the subscribers with the quantum that answers show, and as fast as it was seen to be."""
    leaving, is_idle = _followed(cables, out, used)
    if cables.is_paced and cables.parts(out.shape[1]) > 1:
        cables = replace(cables, quantum_bytes=_quantum(cables, out, answered, is_idle))
        leaving, is_idle = _followed(cables, out, used)
    if is_idle.sum() >= _FEW:
        typical = float(np.nanmedian((leaving - out)[is_idle]))
        cables = replace(cables, out_mbps=cables.out_mbps / _scale((arrived - leaving)[is_idle], typical))
    return cables


def _followed(cables: Cables, out: FloatArray, used: slice) -> tuple[FloatArray, NDArray[np.bool_]]:
    """When each copy has left the cable, NaN beyond `used`; which messages found it empty."""
    leaving = np.full(out.shape, np.nan)
    leaving[used] = _leaving(cables, out[used])
    return leaving, _is_idle(out[:, 0], leaving)


def _leaving_a_queue(cables: Cables, out: FloatArray, queue_ms: FloatArray, used: slice) -> FloatArray:
    """The same for a cable that is never idle: each message from what it found there."""
    leaving = np.full(out.shape, np.nan)
    for i, (row, at) in enumerate(zip(out[used], (out[:, 0] + queue_ms)[used], strict=True)):
        leaving[i] = _leaving(cables, row[None], at)
    return leaving


def _gap(out: FloatArray, is_idle: NDArray[np.bool_]) -> float:
    """Typical time between two sendings of a message; where nearly all waited, what the fastest quarter took."""
    gaps = np.diff(out, axis=1)
    if not gaps.size:
        return 0.0
    return float(np.nanmean(gaps[is_idle]) if is_idle.sum() >= _FEW else np.nanquantile(gaps, 0.25))


def pool(runs: Sequence[Freed]) -> Freed:
    """Several runs as one."""
    width = max(run.deliver.shape[1] for run in runs)
    wide = [np.pad(r.deliver, ((0, 0), (0, width - r.deliver.shape[1])), constant_values=np.nan) for r in runs]
    held = [run.held_copies for run in runs if run.held_copies]
    several = [run for run in runs if run.deliver.shape[1] > 1] or list(runs)
    quanta = [run.cables.quantum_bytes for run in runs if math.isfinite(run.cables.quantum_bytes)]
    answers = [run.answer_ms for run in runs if run.answer_ms]
    return Freed(
        cables=replace(
            runs[0].cables,
            in_mbps=float(np.mean([run.cables.in_mbps for run in runs])),
            out_mbps=float(np.mean([run.cables.out_mbps for run in runs])),
            quantum_bytes=float(np.mean(quanta)) if quanta else math.inf,
        ),
        publish=np.concatenate([run.publish for run in runs]),
        deliver=np.concatenate(wide),
        is_idle=np.concatenate([run.is_idle for run in runs]),
        gap_ms=float(np.mean([run.gap_ms for run in several])),
        held_copies=float(np.mean(held)) if held else 0.0,
        answer_ms=float(np.mean(answers)) if answers else 0.0,
    )


def departures(
    out: FloatArray,
    part_ms: Sequence[float],
    burst_ms: float = 0.0,
    *,
    is_paced: bool = True,
    busy_until: float = -math.inf,
) -> FloatArray:
    """When each copy has left a cable that serves the parts of copies one after the other: shape as `out` (ms).

    Before `busy_until` it is busy with what is not in `out`. After a pause of `burst_ms` and more the first `burst_ms`
    take no time.

    A connection's copies leave in order. Where connections are paced first parts go before later ones, the earliest
    sent first; where not, a part is in the queue from when the one before it has left, and leaves as it came.
    """
    left = np.full(out.shape, np.nan)
    lanes = [[(t, int(i)) for i, t in enumerate(column.tolist()) if not math.isnan(t)] for column in out.T]
    for lane in lanes:
        lane.sort(reverse=True)
    part = [0] * len(lanes)
    turn = [0] * len(lanes)
    queued = [0.0] * len(lanes)
    now, credit, count = busy_until, 0.0, 0

    def order(lane: int) -> tuple[float, float, int]:
        begun = part[lane]
        if is_paced:
            return (begun, turn[lane] if begun else lanes[lane][-1][0], lane)
        return (queued[lane] if begun else lanes[lane][-1][0], 0.0, lane)

    open_ = [j for j, lane in enumerate(lanes) if lane]
    while open_:
        ready = [j for j in open_ if part[j] or lanes[j][-1][0] <= now]
        if not ready:
            begin = min(lanes[j][-1][0] for j in open_)
            now, credit = max(begin, now), min(burst_ms, credit + max(begin - now, 0.0))
            continue
        chosen = min(ready, key=order)
        saved = min(credit, part_ms[part[chosen]])
        now, credit = now + part_ms[part[chosen]] - saved, credit - saved
        count += 1
        turn[chosen] = count
        queued[chosen] = now
        part[chosen] += 1
        if part[chosen] == len(part_ms):
            part[chosen] = 0
            left[lanes[chosen].pop()[1], chosen] = now
            if not lanes[chosen]:
                open_.remove(chosen)
    return left


def _queue(cables: Cables, out: FloatArray, answered: FloatArray) -> FloatArray:
    """How much was in the cable's queue when each message was first sent, in ms; NaN where not known.

    Where connections are not paced an answer leaves behind what was there and the first parts of all copies.
    """
    if cables.is_paced or not cables.out_mbps:
        return np.full(len(out), np.nan)
    before: FloatArray = answered - out[:, 0] - np.sum(~np.isnan(out), axis=1) * cables.part_ms(out.shape[1])[0]
    return before


def _is_never_idle(cables: Cables, queue_ms: FloatArray) -> bool:
    """Whether nearly every message found something before it.

    Then each is followed from what it found: a rate that is wrong by a thousandth would otherwise add up.
    """
    known = queue_ms[~np.isnan(queue_ms)]
    return len(known) >= _FEW and bool(np.quantile(known, _HARDLY_EVER) > cables.burst_ms)


def _leaving(cables: Cables, out: FloatArray, busy_until: float = -math.inf) -> FloatArray:
    part_ms = cables.part_ms(out.shape[1])
    return departures(out, part_ms, cables.burst_ms, is_paced=cables.is_paced, busy_until=busy_until)


def _sojourn(begun: FloatArray, service: float) -> FloatArray:
    """Waiting and service of each at one server, first come first served (Lindley); `begun` ascends."""
    steps = np.arange(len(begun)) * service
    ended: FloatArray = np.maximum.accumulate(begun - steps) + steps + service
    return ended - begun


def _scale(left: FloatArray, typical_ms: float) -> float:
    """By how much a cable is faster than computed: what is left of the typical hop must not be below 0."""
    middle = float(np.nanmedian(left))
    return max(1 + middle / typical_ms, 0.01) if middle < 0 else 1.0


def _is_idle(first: FloatArray, leaving: FloatArray) -> NDArray[np.bool_]:
    """Whether all copies of the messages before had left when a message was first sent; False where not followed."""
    last = np.fmax.reduce(leaving, axis=1)
    before = np.concatenate([[-np.inf], np.fmax.accumulate(last)[:-1]])
    return np.asarray((first >= before) & ~np.isnan(last), dtype=bool)


def _held(out: FloatArray, arrived: FloatArray, least_ms: float) -> float:
    """Copies a connection holds when its broker is let go on: those sent and not arrived, one of them half gone."""
    found = []
    for lane in range(out.shape[1] - 1):
        begun, ended = np.sort(out[:, lane]), np.sort(arrived[:, lane])
        after = out[:, lane + 1]
        blocked = after[(after - out[:, lane]) > least_ms]
        inside = np.searchsorted(begun, blocked, side="right") - np.searchsorted(ended, blocked, side="right")
        found += inside[inside > 1].tolist()
    return float(np.mean(found)) - 0.5 if len(found) >= _FEW else 0.0


def _quantum(cables: Cables, out: FloatArray, answered: FloatArray, is_idle: NDArray[np.bool_]) -> float:
    """Of copies that leave in several turns: an answer leaves when the first parts of all have.

    Where the cable is hardly ever empty, the quarter of the answers that were fastest did not wait for room.
    """
    copies = out.shape[1]
    waited = answered - out[:, 0] + cables.burst_ms
    known = waited[is_idle & ~np.isnan(waited)]
    if len(known) >= _FEW:
        first_ms = float(np.median(known)) / copies
    elif np.isfinite(waited).sum() >= _FEW:
        first_ms = float(np.nanquantile(waited, 0.25)) / copies
    else:
        return cables.quantum_bytes
    first = min(first_ms * cables.out_mbps * 1000 / 8, QUANTUM_BYTES)
    return (
        _LONE_QUANTUM_BYTES if copies == 1 and first > _LIKE_ALL * QUANTUM_BYTES else float(first * copies**SHRINKING)
    )


def _answer(cables: Cables, out: FloatArray, answered: FloatArray, is_idle: NDArray[np.bool_]) -> float:
    """Typical time from the last sending to the next message, less what the first parts of all copies take to leave."""
    last = np.fmax.reduce(out, axis=1)
    known = is_idle & ~np.isnan(answered)
    if known.sum() < _FEW:
        return 0.0
    parts = cables.part_ms(out.shape[1])[0] * np.sum(~np.isnan(out), axis=1) if cables.out_mbps else 0.0
    busy_until = out[:, 0] + parts - cables.burst_ms
    return float(max(np.median((answered - np.maximum(last, busy_until))[known]), 0.0))
