"""Join the stamps of a run's processes: one row per message sent, one per message delivered to a subscriber, and the books.

A message is (stream, seq); a *pair* is a message and a subscriber that was due to get it. Every pair ends in exactly one
class of `Ledger`. Streams are numbered densely, so joining is addressing, not sorting: pairs are cut into partitions of
neighbouring messages, stamps are spooled to the partition they belong to, and each partition is dense arrays.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from toolkit.contract.samples import Flag, Point
from toolkit.errors import MeasurementError
from toolkit.measure.clocks import NodeClock
from toolkit.measure.stamps import Stamps, StampsFile
from toolkit.measure.tables import TableWriter

Ints: TypeAlias = NDArray[np.int64]
Mask: TypeAlias = NDArray[np.bool_]

PAIRS_AT_ONCE = 1 << 19
"""Pairs in a partition: about 200 MB at work, whatever the length of the run."""
SPOOL_AT = 4_000_000
"""Stamps of a run that are still joined in memory."""
SPARSE = 4
"""A stream whose numbers spread over more than this times its messages is damaged, not a stream."""
NEVER = (1 << 40) - 1
"""Arrival order of a copy that never came."""
RECORD = np.dtype(
    [("row", "<i8"), ("at", "<i8"), ("aux", "<i8"), ("order", "<i8"), ("sub", "<i4"), ("point", "u1"), ("flags", "u1")]
)
"""A stamp on its way to its partition; `row` numbers all messages of the run, `order` all arrivals at one process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """What one connection of a publisher sends to one topic."""

    stream: int
    topic: str
    process: str
    """`node/service-instance`"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscriber:
    """One connection of a subscribing process, and what it is due to get."""

    name: str
    process: str
    connection: int
    topics: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What decides between the classes."""

    qos: int = 0
    loss_timeout_ns: int = 30_000_000_000
    """A first copy that needs longer than this from T1 is late, and late is lost."""
    settle_ns: int = 2_000_000_000
    """A message sent closer than this to the end of a subscriber's watching has no outcome yet."""
    watched_until_ns: Mapping[str, int] = field(default_factory=dict)
    """Process -> when watching its subscribers ended; absent: watched to the end."""


@dataclass(slots=True, kw_only=True)
class Ledger:
    """Where every message due to a subscriber ended; the classes exclude each other and add up to `expected`."""

    expected: int = 0
    delivered: int = 0
    """First copy within the loss timeout."""
    late: int = 0
    """First copy after the loss timeout."""
    dropped: int = 0
    """Sent at QoS 0, or acknowledged at QoS 1 and 2, and never delivered."""
    refused: int = 0
    """The client did not take it; never offered to the broker."""
    unconfirmed: int = 0
    """Sent at QoS 1 or 2, neither acknowledged nor delivered: nobody's promise broken."""
    in_flight: int = 0
    """Its waiting time was not over when watching ended (interrupted runs, killed subscribers)."""
    duplicates: int = 0
    """Second and later copies; beside the classes."""
    redelivered: int = 0
    """Of the duplicates, those the broker marked as such."""
    reordered: int = 0
    """First copies that came after one with a higher number (RFC 4737); beside the classes."""
    lost_before_broker: int = 0
    """Of the dropped, those that no broker stamped as received."""
    lost_in_broker: int = 0
    """Of the dropped, those received and never sent on to this subscriber."""
    lost_after_broker: int = 0

    @property
    def classified(self) -> int:
        """The sum of the classes."""
        return self.delivered + self.late + self.dropped + self.refused + self.unconfirmed + self.in_flight

    @property
    def closes(self) -> bool:
        """Whether every pair is in exactly one class."""
        return self.classified == self.expected


CLASSES = ("delivered", "late", "dropped", "refused", "unconfirmed", "in_flight")


def total(ledgers: Iterable[Ledger]) -> Ledger:
    """The sum over subscribers."""
    out = Ledger()
    for ledger in ledgers:
        for item in dataclasses.fields(Ledger):
            setattr(out, item.name, getattr(out, item.name) + getattr(ledger, item.name))
    return out


@dataclass(slots=True, kw_only=True)
class Joined:
    """What a join found, beside the two tables it wrote."""

    ledgers: dict[str, Ledger]
    """By subscriber."""
    messages: int = 0
    """Counted messages that were sent (without warm-up and probes)."""
    refused: int = 0
    acknowledged: int = 0
    broker_received: int = 0
    broker_sent: int = 0
    excluded: int = 0
    """Stamps of warm-up, probe and retained messages."""
    foreign: int = 0
    """Stamps of streams that are not of this run."""
    unrecorded: int = 0
    """Received, though no publisher recorded to have sent it (a killed publisher's last ones)."""
    unmatched_flows: int = 0
    """Broker sends on flows that belong to no subscriber."""
    lost: dict[str, int | None] = field(default_factory=dict)
    """Hop -> messages that entered and did not leave it; None where the hop has no stamps."""
    bins: dict[str, dict[int, int]] = field(default_factory=dict)
    """offered, sent, accepted, broker_in, broker_out, delivered -> second since the epoch -> events in it."""
    first_ns: int = 0
    last_ns: int = 0

    @property
    def total(self) -> Ledger:
        """The sum over subscribers."""
        return total(self.ledgers.values())


def join(
    files: Sequence[StampsFile],
    streams: Sequence[Stream],
    subscribers: Sequence[Subscriber],
    *,
    clocks: Mapping[str, NodeClock],
    terms: Terms,
    folder: Path,
) -> Joined:
    """Write `messages.parquet` and `samples.parquet` into `folder` and close the books.

    All instants in the tables are on the reference's clock: each node's offset is taken off. Raises MeasurementError if
    stamps contradict themselves.
    """
    layout = _Layout.of(files, streams, subscribers)
    joined = Joined(ledgers={subscriber.name: Ledger() for subscriber in subscribers})
    stamps = sum(len(file) for file in files)
    with tempfile.TemporaryDirectory(prefix=".join-", dir=folder) as scratch:
        spool = _Spool(Path(scratch), layout.cuts, in_memory=stamps <= SPOOL_AT)
        for records in _records(files, layout, clocks, joined):
            spool.add(records)
        tables = TableWriter(folder=folder, scratch=Path(scratch), subscribers=[s.name for s in subscribers])
        _join_partitions(spool, layout, terms, tables, joined)
        tables.close()
    return joined


@dataclass(frozen=True, slots=True)
class _Layout:
    """How streams and subscribers become rows, pairs and partitions."""

    streams: Ints
    """Ids, ascending."""
    first_seq: Ints
    base: Ints
    """First row of each stream, and the number of rows at the end."""
    rank: NDArray[np.int32]
    """Shape (streams, subscribers): place of a subscriber among those due to get the stream, or -1."""
    subscribers: Sequence[Subscriber]
    due: Sequence[NDArray[np.int32]]
    """Per stream: the subscribers due to get it."""
    cuts: Ints
    """Rows at which partitions begin, and the number of rows at the end."""

    @classmethod
    def of(cls, files: Sequence[StampsFile], streams: Sequence[Stream], subscribers: Sequence[Subscriber]) -> _Layout:
        ordered = sorted(streams, key=lambda stream: stream.stream)
        ids = np.array([stream.stream for stream in ordered], dtype=np.int64)
        first, counts = _sequence_ranges(files, ids)
        base = np.concatenate(([0], np.cumsum(counts)))
        wanted = np.array([[s.topic in subscriber.topics for subscriber in subscribers] for s in ordered], dtype=bool)
        wanted = wanted.reshape(len(ordered), len(subscribers))
        rank = np.where(wanted, np.cumsum(wanted, axis=1) - 1, -1).astype(np.int32)
        due = [np.flatnonzero(row).astype(np.int32) for row in wanted]
        return cls(ids, first, base, rank, subscribers, due, _cut(base, wanted.sum(axis=1)))

    def rows(self, stamps: Stamps) -> Ints:
        """The row of each stamp's message; -1: of another run, -2: of this run but never recorded as sent."""
        if not len(self.streams):
            return np.full(len(stamps), -1, dtype=np.int64)
        at = np.minimum(np.searchsorted(self.streams, stamps["stream"]), len(self.streams) - 1)
        position = stamps["seq"].astype(np.int64) - self.first_seq[at]
        inside = (position >= 0) & (position < np.diff(self.base)[at])
        return np.where(self.streams[at] != stamps["stream"], -1, np.where(inside, self.base[at] + position, -2))


def _sequence_ranges(files: Sequence[StampsFile], ids: Ints) -> tuple[Ints, Ints]:
    """First number and number of numbers of each stream, from what publishers sent or refused."""
    low = np.full(len(ids), np.iinfo(np.int64).max)
    high = np.full(len(ids), -1)
    seen = np.zeros(len(ids), dtype=np.int64)
    for file in files:
        for block in file.blocks():
            mine = block[
                ((block["point"] == Point.SENT) | (block["point"] == Point.REFUSED))
                & ((block["flags"] & Flag.PROBE) == 0)
            ]
            if not len(mine) or not len(ids):
                continue
            at = np.minimum(np.searchsorted(ids, mine["stream"]), len(ids) - 1)
            known = ids[at] == mine["stream"]
            at, seq = at[known], mine["seq"][known].astype(np.int64)
            np.minimum.at(low, at, seq)
            np.maximum.at(high, at, seq)
            seen += np.bincount(at, minlength=len(ids))
    counts = np.where(high >= 0, high - np.minimum(low, high) + 1, 0)
    for i in np.flatnonzero(counts > SPARSE * seen + 1000):
        raise MeasurementError(
            f"stream {ids[i]} numbers {seen[i]} messages from {low[i]} to {high[i]}: its publisher's stamps are damaged; "
            "look at raw/ and repeat the run"
        )
    return np.where(high >= 0, low, 0), counts


def _cut(base: Ints, due: Ints) -> Ints:
    """Rows at which to begin a partition, so that each holds about PAIRS_AT_ONCE pairs of neighbouring messages."""
    per_row = np.maximum(due, 1)
    weight = np.concatenate(([0], np.cumsum(np.diff(base) * per_row)))
    marks = np.arange(0, weight[-1], PAIRS_AT_ONCE)
    stream = np.minimum(np.searchsorted(weight, marks, side="right") - 1, len(per_row) - 1)
    rows = base[stream] + (marks - weight[stream]) // per_row[stream] if len(per_row) else marks
    ends = np.array([base[0], base[-1]], dtype=np.int64)
    return np.unique(np.concatenate((rows, ends))).astype(np.int64) if base[-1] else ends


def _records(
    files: Sequence[StampsFile], layout: _Layout, clocks: Mapping[str, NodeClock], joined: Joined
) -> Iterator[NDArray[np.void]]:
    """Every stamp that counts, with its row, its subscriber and its clock's offset taken off."""
    subscriber_of = _subscriber_of_flow(files, layout.subscribers)
    stamped_by_broker = any(file.role == "broker" and len(file) for file in files)
    for file in files:
        if file.role == "probe" and stamped_by_broker:
            continue  # two witnesses of the same hop: the broker's own word counts, the probe's stays in raw/
        subscriber_of_peer = _subscriber_of_peer(file, subscriber_of, layout.subscribers)
        clock = clocks.get(file.node)
        arrived = 0
        for block in file.blocks():
            order = np.arange(arrived, arrived + len(block))
            arrived += len(block)
            rows = layout.rows(block)
            probe = (block["flags"] & Flag.PROBE) != 0
            stale = (block["flags"] & Flag.RETAINED) != 0
            joined.excluded += int(np.count_nonzero(probe | stale))
            joined.foreign += int(np.count_nonzero((rows == -1) & ~probe & ~stale))
            received = block["point"] == Point.RECEIVED
            joined.unrecorded += int(np.count_nonzero((rows == -2) & received & ~probe & ~stale))
            addressed = received | (block["point"] == Point.BROKER_SENT)
            sub = np.where(addressed, subscriber_of_peer[block["peer"]], -1)
            stray = addressed & (sub < 0) & (rows >= 0) & ~probe & ~stale
            joined.unmatched_flows += int(np.count_nonzero(stray))
            keep = (rows >= 0) & ~probe & ~stale & ~stray
            out = np.empty(int(np.count_nonzero(keep)), dtype=RECORD)
            out["row"], out["sub"], out["order"] = rows[keep], sub[keep], order[keep]
            out["point"], out["flags"] = block["point"][keep], block["flags"][keep]
            at, aux = block["at_ns"][keep], block["aux_ns"][keep]
            offset = clock.offset_at_ns(at) if clock else 0
            out["at"] = at - offset
            out["aux"] = np.where(aux != 0, aux - offset, 0)
            yield out


def _subscriber_of_flow(files: Sequence[StampsFile], subscribers: Sequence[Subscriber]) -> dict[tuple[str, int], int]:
    """Address and port of every subscriber's connections, as subscribers themselves report them."""
    flows = {}
    for file in files:
        if file.info is None or file.role in {"broker", "probe", "publisher"}:
            continue
        of_peer = _subscriber_of_peer(file, {}, subscribers)
        for peer in file.info.flows:
            end = file.flow(int(peer))
            if end and of_peer[int(peer)] >= 0:
                flows[end] = int(of_peer[int(peer)])
    return flows


def _subscriber_of_peer(
    file: StampsFile, of_flow: Mapping[tuple[str, int], int], subscribers: Sequence[Subscriber]
) -> NDArray[np.int32]:
    """Shape (65536,): the subscriber behind each peer number of a file, -1 for none.

    In a broker's file by address and port; in a subscriber's by the logical connection that `facts["connections"]` names
    (a connection made again is a new peer), otherwise by the peer number itself.
    """
    table = np.full(1 << 16, -1, dtype=np.int32)
    own = {s.connection: i for i, s in enumerate(subscribers) if s.process == file.process}
    if len(own) == 1:
        table[:] = next(iter(own.values()))
    elif own:
        for connection, index in own.items():
            table[connection] = index
        for peer, connection in (file.info.facts.get("connections") or {} if file.info else {}).items():
            table[int(peer)] = own.get(int(connection), -1)
    else:
        for peer in file.info.flows if file.info else {}:
            end = file.flow(int(peer))
            table[int(peer)] = of_flow.get(end, -1) if end else -1
    return table


class _Spool:
    """Stamps on their way to their partitions: kept in memory, or in a file per partition."""

    def __init__(self, folder: Path, cuts: Ints, *, in_memory: bool) -> None:
        self._folder = folder
        self._cuts = cuts
        self._kept: dict[int, list[NDArray[np.void]]] | None = {} if in_memory else None

    def __len__(self) -> int:
        return len(self._cuts) - 1

    def add(self, records: NDArray[np.void]) -> None:
        partition = np.searchsorted(self._cuts, records["row"], side="right") - 1
        for number in np.unique(partition):
            mine = records[partition == number]
            if self._kept is not None:
                self._kept.setdefault(int(number), []).append(mine)
            else:
                with (self._folder / f"{number}.stamps").open("ab") as file:
                    mine.tofile(file)

    def take(self, number: int) -> NDArray[np.void]:
        """A partition's stamps, in the order they were added; gone from the spool afterwards."""
        if self._kept is not None:
            return np.concatenate(self._kept.pop(number, [np.empty(0, dtype=RECORD)]))
        file = self._folder / f"{number}.stamps"
        records = np.fromfile(file, dtype=RECORD) if file.is_file() else np.empty(0, dtype=RECORD)
        file.unlink(missing_ok=True)
        return records


def _join_partitions(spool: _Spool, layout: _Layout, terms: Terms, tables: TableWriter, joined: Joined) -> None:
    tallies = {item.name: np.zeros(len(layout.subscribers), dtype=np.int64) for item in dataclasses.fields(Ledger)}
    lost = Counter[str]()
    bins: dict[str, Counter[int]] = {}
    arrivals_above: dict[int, Ints] = {}
    # From the last message to the first: whether a message was overtaken is known from those above it.
    for number in reversed(range(len(spool))):
        part = _Partition(spool.take(number), layout, int(layout.cuts[number]), int(layout.cuts[number + 1]))
        part.classify(terms, tallies, lost)
        tallies["reordered"] += part.reordered(arrivals_above)
        for name, instants in part.events().items():
            seconds, counts = np.unique(instants // 1_000_000_000, return_counts=True)
            bins.setdefault(name, Counter()).update(dict(zip(seconds.tolist(), counts.tolist(), strict=True)))
        joined.messages += int(np.count_nonzero(part.counted & part.sent))
        joined.refused += int(np.count_nonzero(part.counted & part.refused & ~part.sent))
        joined.acknowledged += int(np.count_nonzero(part.counted & (part.t5 != 0)))
        joined.broker_received += int(np.count_nonzero(part.counted & (part.t2 != 0)))
        joined.broker_sent += int(np.count_nonzero(part.t3[part.due] != 0))
        joined.excluded += part.excluded
        joined.unrecorded += part.unrecorded
        part.write(number, tables, terms)
        first, last = part.span()
        if last:
            joined.first_ns = min(joined.first_ns or first, first)
            joined.last_ns = max(joined.last_ns, last)
    for i, subscriber in enumerate(layout.subscribers):
        for name, values in tallies.items():
            setattr(joined.ledgers[subscriber.name], name, int(values[i]))
    stamped = {"publish": joined.broker_received, "broker": joined.broker_sent, "deliver": joined.broker_sent}
    joined.lost = {hop: lost[hop] if seen else None for hop, seen in stamped.items()}
    joined.bins = {name: dict(sorted(counts.items())) for name, counts in sorted(bins.items())}


class _Partition:
    """Neighbouring messages and their pairs as dense arrays; 0 ns stands for "never"."""

    def __init__(self, records: NDArray[np.void], layout: _Layout, first: int, end: int) -> None:
        self.layout, self.first = layout, first
        self._lay_out(first, end)
        size = end - first
        point, row = records["point"], records["row"] - first
        self.t0, self.t1 = np.zeros(size, dtype=np.int64), np.zeros(size, dtype=np.int64)
        sent = point == Point.SENT
        _keep_first(self.t1, row[sent], records["at"][sent])
        _keep_first(self.t0, row[sent], np.where(records["aux"][sent] != 0, records["aux"][sent], records["at"][sent]))
        flags = np.zeros(size, dtype=np.uint8)
        offered = sent | (point == Point.REFUSED)
        flags[row[offered]] = records["flags"][offered]
        self.sent: Mask = self.t1 != 0
        self.refused: Mask = np.zeros(size, dtype=bool)
        self.refused[row[point == Point.REFUSED]] = True
        offered_rows = self.sent | self.refused
        self.counted: Mask = offered_rows & ((flags & Flag.WARMUP) == 0)
        self.excluded = int(np.count_nonzero(offered_rows & ~self.counted))
        self.t2 = self._earliest(records, point == Point.BROKER_RECEIVED, row, size)
        self.t5 = self._earliest(records, point == Point.ACKED, row, size)
        self._fill_pairs(records)

    def _lay_out(self, first: int, end: int) -> None:
        """A block of pairs per (stream, subscriber), in that order, numbers ascending within."""
        base = self.layout.base
        begin = int(np.searchsorted(base, first, side="right")) - 1
        stop = int(np.searchsorted(base, end, side="left"))
        streams = [s for s in range(begin, stop) if base[s + 1] > base[s]]
        self.streams = np.array(streams, dtype=np.int64)
        self.low = np.maximum(base[self.streams], first)
        self.length = np.minimum(base[self.streams + 1], end) - self.low
        due = np.array([len(self.layout.due[s]) for s in streams], dtype=np.int64)
        self.pair_base = np.concatenate(([0], np.cumsum(self.length * due)))
        self.block_segment = np.repeat(np.arange(len(streams)), due)
        self.block_sub = np.concatenate([self.layout.due[s] for s in streams] or [np.empty(0, dtype=np.int32)])
        block_length = self.length[self.block_segment]
        self.block_start = np.concatenate(([0], np.cumsum(block_length)))
        self.block = np.repeat(np.arange(len(self.block_sub)), block_length)
        within = np.arange(len(self.block)) - self.block_start[self.block]
        self.pair_row = within + (self.low - first)[self.block_segment][self.block]
        self.sub = self.block_sub[self.block]

    @staticmethod
    def _earliest(records: NDArray[np.void], mask: Mask, row: Ints, size: int) -> Ints:
        """The first instant of each message; by time, since several brokers may have stamped it."""
        out = np.zeros(size, dtype=np.int64)
        order = np.argsort(records["at"][mask], kind="stable")
        _keep_first(out, row[mask][order], records["at"][mask][order])
        return out

    def _pairs(self, records: NDArray[np.void]) -> Ints:
        """The pair of each addressed stamp; -1 where the subscriber was not due to get the message."""
        if not len(self.streams):
            return np.full(len(records), -1, dtype=np.int64)
        segment = np.searchsorted(self.low, records["row"], side="right") - 1
        rank = self.layout.rank[self.streams[segment], records["sub"]]
        pair = self.pair_base[segment] + rank * self.length[segment] + records["row"] - self.low[segment]
        return np.where(rank >= 0, pair, -1)

    def _fill_pairs(self, records: NDArray[np.void]) -> None:
        size = len(self.block)
        self.t3, self.t4 = np.zeros(size, dtype=np.int64), np.zeros(size, dtype=np.int64)
        self.order = np.full(size, NEVER, dtype=np.int64)
        self.due: Mask = self.counted[self.pair_row]
        sends = records[records["point"] == Point.BROKER_SENT]
        pair = self._pairs(sends)
        by_time = np.argsort(sends["at"], kind="stable")
        by_time = by_time[pair[by_time] >= 0]
        _keep_first(self.t3, pair[by_time], sends["at"][by_time])
        receipts = records[records["point"] == Point.RECEIVED]
        pair = self._pairs(receipts)
        receipts, pair = receipts[pair >= 0], pair[pair >= 0]
        _keep_first(self.t4, pair, receipts["at"])
        _keep_first(self.order, pair, receipts["order"])
        known = self.due[pair]
        self.unrecorded = int(np.count_nonzero(~(self.sent | self.refused)[self.pair_row[pair]]))
        self.copies = np.bincount(pair[known], minlength=size)
        again = known & (receipts["order"] != self.order[pair])
        self.redeliveries = np.bincount(pair[again & ((receipts["flags"] & Flag.REDELIVERED) != 0)], minlength=size)

    def classify(self, terms: Terms, tallies: dict[str, Ints], lost: Counter[str]) -> None:
        """Put every pair into its class."""
        row, due = self.pair_row, self.due
        arrived = self.t4 != 0
        in_time = arrived & (self.t4 - self.t1[row] <= terms.loss_timeout_ns)
        missing = due & ~arrived
        refused = missing & ~self.sent[row]
        until = np.array(
            [terms.watched_until_ns.get(s.process, np.iinfo(np.int64).max) for s in self.layout.subscribers],
            dtype=np.int64,
        )
        open_still = missing & ~refused
        in_flight = open_still & (self.t1[row] > until[self.sub] - terms.settle_ns)
        unconfirmed = open_still & ~in_flight & (terms.qos > 0) & (self.t5[row] == 0)
        dropped = open_still & ~in_flight & ~unconfirmed
        reached, left = self.t2[row] != 0, self.t3 != 0
        masks = {
            "expected": due, "delivered": due & in_time, "late": due & arrived & ~in_time, "dropped": dropped,
            "refused": refused, "unconfirmed": unconfirmed, "in_flight": in_flight,
            "lost_before_broker": dropped & ~reached & ~left, "lost_in_broker": dropped & reached & ~left,
            "lost_after_broker": dropped & left,
        }  # fmt: skip
        self.late = masks["late"]
        for name, mask in masks.items():
            tallies[name] += self._by_subscriber(mask.astype(np.int64))
        tallies["duplicates"] += self._by_subscriber(np.maximum(self.copies - 1, 0))
        tallies["redelivered"] += self._by_subscriber(self.redeliveries)
        message = self.counted & self.sent
        lost["publish"] += int(np.count_nonzero(message & (self.t2 == 0)))
        lost["broker"] += int(np.count_nonzero(due & reached & ~left & ~arrived))
        lost["deliver"] += int(np.count_nonzero(due & left & ~arrived))

    def _by_subscriber(self, values: Ints) -> Ints:
        counts = np.bincount(self.sub, weights=values, minlength=len(self.layout.subscribers))
        return np.asarray(counts, dtype=np.int64)

    def reordered(self, above: dict[int, Ints]) -> Ints:
        """First copies, per subscriber, that arrived after a higher number of the same stream (RFC 4737, type-P-reordered).

        `above`: stream -> arrival order of the earliest of its messages in later partitions, per subscriber; updated.
        """
        order = np.where(self.due, self.order, NEVER)
        arrived = order != NEVER
        key = order + self.block * (NEVER + 1)  # blocks further right never undercut those further left
        earliest = np.minimum.accumulate(key[::-1])[::-1]
        after = np.append(earliest[1:], np.iinfo(np.int64).max)
        carried = np.full(len(self.block_sub), NEVER, dtype=np.int64)
        for i, stream in enumerate(self.streams.tolist()):
            if stream in above:
                mine = self.block_segment == i
                carried[mine] = above[stream][self.layout.rank[stream, self.block_sub[mine]]]
        overtaken = arrived & ((after < key) | (carried[self.block] < order))
        if len(self.streams):
            stream = int(self.streams[0])  # alone may go on in the partition below
            mine = np.flatnonzero(self.block_segment == 0)
            best = earliest[self.block_start[mine]] - mine * (NEVER + 1)
            above.clear()
            above[stream] = np.minimum(best, carried[mine])
        return self._by_subscriber(overtaken.astype(np.int64))

    def events(self) -> dict[str, Ints]:
        """Instants of everything that happened to counted messages, for rates."""
        message = self.counted & self.sent
        return {
            "offered": self.t0[message],
            "sent": self.t1[message],
            "accepted": self.t5[self.counted & (self.t5 != 0)],
            "broker_in": self.t2[self.counted & (self.t2 != 0)],
            "broker_out": self.t3[self.due & (self.t3 != 0)],
            "delivered": self.t4[self.due & (self.t4 != 0) & ~self.late],
        }

    def span(self) -> tuple[int, int]:
        """First T1 and last instant of the counted messages; zeros without any."""
        sent = self.t1[self.counted & self.sent]
        if not len(sent):
            return 0, 0
        return int(sent.min()), int(max(sent.max(), self.t4[self.due].max(initial=0)))

    def write(self, number: int, tables: TableWriter, terms: Terms) -> None:
        """The rows of this partition."""
        segment = np.repeat(np.arange(len(self.streams)), self.length)
        ids = self.layout.streams[self.streams] if len(self.streams) else np.empty(0, dtype=np.int64)
        seq = (
            np.arange(len(segment)) + self.first - self.layout.base[self.streams][segment]
            + self.layout.first_seq[self.streams][segment]
        )  # fmt: skip
        stream = ids[segment]
        rows = self.counted
        copies = np.bincount(self.pair_row[self.due & (self.t4 != 0)], minlength=len(rows))
        tables.write(
            "messages",
            number,
            {
                "stream": stream[rows].astype(np.uint32), "seq": seq[rows], "t0_ns": self.t0[rows],
                "t1_ns": self.t1[rows], "t2_ns": self.t2[rows], "t5_ns": self.t5[rows],
                "refused": (self.refused & ~self.sent)[rows], "deliveries": copies[rows].astype(np.uint32),
            },
        )  # fmt: skip
        pairs = self.due & (self.t4 != 0)
        row = self.pair_row[pairs]
        tables.write(
            "samples",
            number,
            {
                "stream": stream[row].astype(np.uint32), "seq": seq[row], "subscriber": self.sub[pairs],
                "t0_ns": self.t0[row], "t1_ns": self.t1[row], "t2_ns": self.t2[row], "t3_ns": self.t3[pairs],
                "t4_ns": self.t4[pairs], "late": self.late[pairs],
                "copies": np.minimum(self.copies[pairs], 65535).astype(np.uint16),
            },
        )  # fmt: skip


def _keep_first(target: Ints, index: Ints, values: Ints) -> None:
    """`target[index] = values`, where the first of several values for one index stays."""
    target[index[::-1]] = values[::-1]
