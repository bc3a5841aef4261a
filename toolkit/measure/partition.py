"""One partition of a join: neighbouring messages and their pairs as dense arrays, put into classes and written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from toolkit.contract.samples import Flag, Point
from toolkit.measure.layout import UNKNOWN_NS, Layout, Terms
from toolkit.measure.spool import Records
from toolkit.measure.tables import TableWriter

Ints: TypeAlias = NDArray[np.int64]
Mask: TypeAlias = NDArray[np.bool_]

NEVER = (1 << 40) - 1
"""Arrival order of a copy that never came."""


class Partition:
    """Neighbouring messages and their pairs as dense arrays; 0 ns stands for "never", UNKNOWN_NS for "some time"."""

    def __init__(
        self, records: Records, layout: Layout, first: int, end: int, joined_ns: Mapping[str, int] | None = None
    ) -> None:
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
        self.gateway_in = self._earliest(records, point == Point.GATEWAY_RECEIVED, row, size)
        self.gateway_out = self._earliest(records, point == Point.GATEWAY_SENT, row, size)
        self._fill_pairs(records, joined_ns)

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
    def _earliest(records: Records, mask: Mask, row: Ints, size: int) -> Ints:
        """The first instant of each message; by time, since several brokers may have stamped it."""
        out = np.zeros(size, dtype=np.int64)
        order = np.argsort(records["at"][mask], kind="stable")
        _keep_first(out, row[mask][order], records["at"][mask][order])
        return out

    def _pairs(self, records: Records) -> Ints:
        """The pair of each addressed stamp; -1 where the subscriber was not due to get the message."""
        if not len(self.streams):
            return np.full(len(records), -1, dtype=np.int64)
        segment = np.searchsorted(self.low, records["row"], side="right") - 1
        rank = self.layout.rank[self.streams[segment], records["sub"]]
        pair = self.pair_base[segment] + rank * self.length[segment] + records["row"] - self.low[segment]
        return np.where(rank >= 0, pair, -1)

    def _fill_pairs(self, records: Records, joined_ns: Mapping[str, int] | None) -> None:
        size = len(self.block)
        self.t4 = np.zeros(size, dtype=np.int64)
        self.order = np.full(size, NEVER, dtype=np.int64)
        self.due: Mask = self.counted[self.pair_row]
        self.lead: Mask = self.layout.leads[self.sub]
        self.t3 = self._earliest_of_pairs(records, Point.BROKER_SENT)
        self.hub_in = self._earliest_of_pairs(records, Point.HUB_RECEIVED)
        self.hub_out = self._earliest_of_pairs(records, Point.HUB_SENT)
        receipts = records[records["point"] == Point.RECEIVED]
        if self.layout.shared:
            receipts = receipts[np.argsort(receipts["order"], kind="stable")]
        pair = self._pairs(receipts)
        receipts, pair = receipts[pair >= 0], pair[pair >= 0]
        _keep_first(self.t4, pair, receipts["at"])
        _keep_first(self.order, pair, receipts["order"])
        if joined_ns:
            self._leave_out_earlier(records, joined_ns)
        known = self.due[pair]
        self.unrecorded = int(np.count_nonzero(~(self.sent | self.refused)[self.pair_row[pair]]))
        self.copies = np.bincount(pair[known], minlength=size)
        again = known & (receipts["order"] != self.order[pair])
        self.redeliveries = np.bincount(pair[again & ((receipts["flags"] & Flag.REDELIVERED) != 0)], minlength=size)

    def _leave_out_earlier(self, records: Records, joined_ns: Mapping[str, int]) -> None:
        """What was offered before a subscriber came in was not due to it, even if it came."""
        offered = np.zeros(len(self.t1), dtype=np.int64)
        refused = records["point"] == Point.REFUSED
        _keep_first(offered, records["row"][refused] - self.first, records["at"][refused])
        offered = np.where(self.sent, self.t1, offered)[self.pair_row]
        since = np.array([joined_ns.get(s.name, 0) for s in self.layout.subscribers], dtype=np.int64)[self.sub]
        self.due &= (offered >= since) | ((offered == UNKNOWN_NS) & (self.t4 != 0))

    def _earliest_of_pairs(self, records: Records, point: Point) -> Ints:
        """The first instant of each pair at a point; what a hub got, all of its customers were to get."""
        out = np.zeros(len(self.block), dtype=np.int64)
        mine = records[records["point"] == point]
        parts = [mine[mine["sub"] < len(self.layout.subscribers)]]
        for hub, customers in enumerate(self.layout.customers):
            at_hub = mine[mine["sub"] == len(self.layout.subscribers) + hub]
            for customer in customers:
                copy = at_hub.copy()
                copy["sub"] = customer
                parts.append(copy)
        mine = np.concatenate(parts)
        pair = self._pairs(mine)
        by_time = np.argsort(mine["at"], kind="stable")
        by_time = by_time[pair[by_time] >= 0]
        _keep_first(out, pair[by_time], mine["at"][by_time])
        return out

    def classify(self, terms: Terms, tallies: dict[str, Ints], lost: Counter[str]) -> None:
        """Put every pair into its class."""
        row, due = self.pair_row, self.due
        arrived = self.t4 != 0
        untimed = self.t1[row] == UNKNOWN_NS
        in_time = arrived & (untimed | (self.t4 - self.t1[row] <= terms.loss_timeout_ns))
        missing = due & ~arrived
        refused = missing & ~self.sent[row]
        end = np.iinfo(np.int64).max
        watched = [
            min(terms.watched_until_ns.get(process, end) for process, _ in subscriber.ends)
            for subscriber in self.layout.subscribers
        ]
        until = np.array(watched, dtype=np.int64)[self.sub]
        open_still = missing & ~refused
        in_flight = open_still & ((self.t1[row] > until - terms.settle_ns) | (untimed & (until < end)))
        unconfirmed = open_still & ~in_flight & (terms.qos > 0) & (self.t5[row] == 0)
        dropped = open_still & ~in_flight & ~unconfirmed
        masks = {
            "expected": due, "delivered": due & in_time, "late": due & arrived & ~in_time, "dropped": dropped,
            "refused": refused, "unconfirmed": unconfirmed, "in_flight": in_flight,
            **self._last_seen(dropped),
        }  # fmt: skip
        self.late, self.dropped = masks["late"], dropped
        for name, mask in masks.items():
            tallies[name] += self._by_subscriber(mask.astype(np.int64))
        tallies["duplicates"] += self._by_subscriber(np.maximum(self.copies - 1, 0))
        tallies["redelivered"] += self._by_subscriber(self.redeliveries)
        message = self.counted & self.sent
        at_gateway, off_gateway = self.gateway_in != 0, self.gateway_out != 0
        reached, left, at_hub, off_hub = self.t2[row] != 0, self.t3 != 0, self.hub_in != 0, self.hub_out != 0
        handed_over = arrived | at_hub | off_hub
        lost["uplink"] += int(np.count_nonzero(message & ~at_gateway))
        lost["gateway"] += int(np.count_nonzero(message & at_gateway & ~off_gateway))
        lost["publish"] += int(np.count_nonzero(message & (off_gateway | (not self.layout.gateways)) & (self.t2 == 0)))
        lost["broker"] += int(np.count_nonzero(due & reached & ~left & ~handed_over))
        lost["deliver"] += int(np.count_nonzero(due & left & ~handed_over))
        lost["hub"] += int(np.count_nonzero(due & at_hub & ~off_hub & ~arrived))
        lost["downlink"] += int(np.count_nonzero(due & off_hub & ~arrived))

    def _last_seen(self, dropped: Mask) -> dict[str, Mask]:
        """The dropped by the last place that stamped them, from the end of the way to its beginning."""
        row = self.pair_row
        way = (
            ("lost_after_hub", self.hub_out != 0),
            ("lost_in_hub", self.hub_in != 0),
            ("lost_after_broker", self.t3 != 0),
            ("lost_in_broker", self.t2[row] != 0),
            ("lost_before_broker", (self.gateway_out[row] != 0) | (not self.layout.gateways)),
            ("lost_in_gateway", self.gateway_in[row] != 0),
            ("lost_before_gateway", np.ones(len(row), dtype=bool)),
        )
        found, left = {}, dropped
        for place, stamped in way:
            found[place] = left & stamped
            left = left & ~stamped
        return found

    def _by_subscriber(self, values: Ints) -> Ints:
        counts = np.bincount(self.sub, weights=values, minlength=len(self.layout.subscribers))
        return np.asarray(counts, dtype=np.int64)

    def reordered(self, above: dict[int, Ints]) -> Ints:
        """First copies, per subscriber, that arrived after a higher number of their stream (RFC 4737: reordered).

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

    def count_stepped(self, table: str, delay: str) -> int:
        """How many delays (as `kpis.HOPS` writes them) have both ends stamped, one by a clock that had stepped."""
        of_message = {name: getattr(self, name) for name in ("t0", "t1", "t2", "t5", "gateway_in", "gateway_out")}
        if table == "messages":
            instants, counts = of_message, self.counted & (self.sent | ~self.refused)
        else:
            of_message = {name: values[self.pair_row] for name, values in of_message.items()}
            of_pair = {name: getattr(self, name) for name in ("t3", "t4", "hub_in", "hub_out")}
            instants, counts = of_message | of_pair, self.due & (self.t4 != 0) & ~self.late
        one, other = (instants[end.removesuffix("_ns")] for end in delay.split(" - "))
        unknown = (one == UNKNOWN_NS) | (other == UNKNOWN_NS)
        return int(np.count_nonzero(counts & unknown & (one != 0) & (other != 0)))

    def events(self) -> dict[str, Ints]:
        """Instants of everything that happened to counted messages, for rates; second 0 is that of unknown instants."""
        message = self.counted & self.sent
        return {
            "offered": self.t0[message],
            "sent": self.t1[message],
            "accepted": self.t5[self.counted & (self.t5 != 0)],
            "broker_in": self.t2[self.counted & (self.t2 != 0)],
            "broker_out": self.t3[self.due & self.lead & (self.t3 != 0)],
            "gateway_in": self.gateway_in[self.counted & (self.gateway_in != 0)],
            "gateway_out": self.gateway_out[self.counted & (self.gateway_out != 0)],
            "hub_in": self.hub_in[self.due & self.lead & (self.hub_in != 0)],
            "hub_out": self.hub_out[self.due & (self.hub_out != 0)],
            "dropped": self.t1[self.pair_row[self.dropped]],
            "delivered": self.t4[self.due & (self.t4 != 0) & ~self.late],
        }

    def span(self) -> tuple[int, int]:
        """First T1 and last instant of the counted messages, as far as known; zeros without any."""
        sent = self.t1[self.counted & self.sent & (self.t1 != UNKNOWN_NS)]
        if not len(sent):
            return 0, 0
        return int(sent.min()), int(max(sent.max(), self.t4[self.due].max(initial=0)))

    def write(self, number: int, tables: TableWriter) -> None:
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
                "gateway_in_ns": self.gateway_in[rows], "gateway_out_ns": self.gateway_out[rows],
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
                "t4_ns": self.t4[pairs], "gateway_in_ns": self.gateway_in[row], "gateway_out_ns": self.gateway_out[row],
                "hub_in_ns": self.hub_in[pairs], "hub_out_ns": self.hub_out[pairs], "late": self.late[pairs],
                "copies": np.minimum(self.copies[pairs], 65535).astype(np.uint16),
            },
        )  # fmt: skip


def _keep_first(target: Ints, index: Ints, values: Ints) -> None:
    """`target[index] = values`, where the first of several values for one index stays."""
    target[index[::-1]] = values[::-1]
