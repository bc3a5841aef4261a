"""How the streams and subscribers of a run become rows of messages, pairs, and partitions of neighbouring messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from toolkit.contract.samples import Flag, Point
from toolkit.errors import MeasurementError
from toolkit.measure.stamps import Stamps, StampsFile

Ints: TypeAlias = NDArray[np.int64]

PAIRS_AT_ONCE = 1 << 19
"""Pairs in a partition: about 200 MB at work, whatever the length of the run."""
SPARSE = 4
"""A stream whose numbers spread over more than this times its messages is damaged, not a stream."""
UNKNOWN_NS = 1
"""In place of an instant: stamped, though by a clock that had stepped."""
FOREIGN = -1
"""In place of a row: a message of another run."""
UNRECORDED = -2
"""In place of a row: a message of this run that no publisher recorded to have sent."""


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
    hub: str = ""
    """Process of the hub that it is a customer of."""
    members: tuple[tuple[str, int], ...] = ()
    """Of a group that shares its messages: (process, connection) of each; what one of them got, the group got."""

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Subscriber:
        """As a manifest has it."""
        members = tuple((process, connection) for process, connection in document.get("members", ()))
        return cls(**{**document, "topics": frozenset(document["topics"]), "members": members})

    @property
    def ends(self) -> tuple[tuple[str, int], ...]:
        """(process, connection) of whatever takes its messages."""
        return self.members or ((self.process, self.connection),)


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
    joined_ns: Mapping[str, int] = field(default_factory=dict)
    """Subscriber that came in late -> what was sent before this instant was not due to it."""


@dataclass(frozen=True, slots=True)
class Layout:
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
    hubs: Sequence[str] = ()
    """Processes; hub `h` is addressed as subscriber `len(subscribers) + h`, in the place of all its customers."""
    customers: Sequence[NDArray[np.int32]] = ()
    """Per hub: its customers."""
    gateways: bool = False
    """Whether messages come in through gateways."""

    @classmethod
    def of(cls, files: Sequence[StampsFile], streams: Sequence[Stream], subscribers: Sequence[Subscriber]) -> Layout:
        """Lay a run out; reads what publishers recorded once."""
        ordered = sorted(streams, key=lambda stream: stream.stream)
        ids = np.array([stream.stream for stream in ordered], dtype=np.int64)
        first, counts = _sequence_ranges(files, ids)
        base = np.concatenate(([0], np.cumsum(counts)))
        wanted = np.array([[s.topic in subscriber.topics for subscriber in subscribers] for s in ordered], dtype=bool)
        wanted = wanted.reshape(len(ordered), len(subscribers))
        rank = np.where(wanted, np.cumsum(wanted, axis=1) - 1, -1).astype(np.int32)
        due = [np.flatnonzero(row).astype(np.int32) for row in wanted]
        hubs = sorted({subscriber.hub for subscriber in subscribers} - {""})
        customers = [np.flatnonzero([s.hub == hub for s in subscribers]).astype(np.int32) for hub in hubs]
        gateways = any(file.role == "gateway" for file in files)
        return cls(
            ids, first, base, rank, subscribers, due, _cut(base, wanted.sum(axis=1)), hubs, customers, gateways
        )  # fmt: skip

    @property
    def shared(self) -> bool:
        """Whether what one subscriber gets may be told by several processes."""
        return any(subscriber.members for subscriber in self.subscribers)

    @property
    def leads(self) -> NDArray[np.bool_]:
        """Shape (subscribers,): those that stand for a connection of the broker: of a hub's customers only the first.

        What happens up to the hub happens once for all of its customers.
        """
        lead = np.ones(len(self.subscribers), dtype=bool)
        for customers in self.customers:
            lead[customers[1:]] = False
        return lead

    def rows(self, stamps: Stamps) -> Ints:
        """The row of each stamp's message; or FOREIGN, or UNRECORDED."""
        if not len(self.streams):
            return np.full(len(stamps), FOREIGN, dtype=np.int64)
        at = np.minimum(np.searchsorted(self.streams, stamps["stream"]), len(self.streams) - 1)
        position = stamps["seq"].astype(np.int64) - self.first_seq[at]
        inside = (position >= 0) & (position < np.diff(self.base)[at])
        return np.where(
            self.streams[at] != stamps["stream"], FOREIGN, np.where(inside, self.base[at] + position, UNRECORDED)
        )


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
            f"stream {ids[i]} numbers {seen[i]} messages from {low[i]} to {high[i]}: its publisher's stamps "
            "are damaged; look at raw/ and repeat the run"
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
