"""Join the stamps of a run's processes: a row per message sent, a row per message delivered to a subscriber, the books.

A message is (stream, seq); a *pair* is a message and a subscriber that was due to get it. Every pair ends in exactly
one class of `Ledger`. Streams are numbered densely, so joining is addressing, not sorting: pairs are cut into
partitions of neighbouring messages, stamps are spooled to the partition they belong to, each partition is dense arrays.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from toolkit.contract.samples import Flag, Point
from toolkit.measure.clocks import NodeClock
from toolkit.measure.kpis import DELAYS, Hop, hops_of
from toolkit.measure.layout import FOREIGN, UNKNOWN_NS, UNRECORDED, Ints, Layout, Stream, Subscriber, Terms
from toolkit.measure.ledger import Joined, Ledger
from toolkit.measure.partition import NEVER, Partition
from toolkit.measure.spool import RECORD, Records, Spool
from toolkit.measure.stamps import StampsFile
from toolkit.measure.tables import TableWriter

SPOOL_AT = 4_000_000
"""Stamps of a run that are still joined in memory."""


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

    All instants in the tables are on the reference's clock: each node's offset is taken off. What a clock stamped after
    it stepped is counted as happened, at an instant that nobody knows: NULL in the tables. Raises MeasurementError if
    stamps contradict themselves.
    """
    layout = Layout.of(files, streams, subscribers)
    joined = Joined(ledgers={subscriber.name: Ledger() for subscriber in subscribers})
    stamps = sum(len(file) for file in files)
    with tempfile.TemporaryDirectory(prefix=".join-", dir=folder) as scratch:
        spool = Spool(Path(scratch), layout.cuts, in_memory=stamps <= SPOOL_AT)
        for records in _records(files, layout, clocks, joined):
            spool.add(records)
        tables = TableWriter(folder=folder, scratch=Path(scratch), subscribers=[s.name for s in subscribers])
        way = {"gateway": layout.gateways, "hub": bool(layout.hubs)}
        has_stepped = any(clock.until_ns is not None for clock in clocks.values())
        hops = {**hops_of(way), **DELAYS} if has_stepped else {}
        _join_partitions(spool, layout, terms, tables, joined, hops=hops)
        tables.close()
    return joined


def _join_partitions(
    spool: Spool, layout: Layout, terms: Terms, tables: TableWriter, joined: Joined, *, hops: Mapping[str, Hop]
) -> None:
    """`hops`: those to count stepped delays of."""
    tallies = {item.name: np.zeros(len(layout.subscribers), dtype=np.int64) for item in dataclasses.fields(Ledger)}
    lost = Counter[str]()
    bins: dict[str, Counter[int]] = {}
    arrivals_above: dict[int, Ints] = {}
    stepped = Counter[str]()
    # From the last message to the first: whether a message was overtaken is known from those above it.
    for number in reversed(range(len(spool))):
        low, high = int(layout.cuts[number]), int(layout.cuts[number + 1])
        part = Partition(spool.take(number), layout, low, high, terms.joined_ns)
        part.classify(terms, tallies, lost)
        tallies["reordered"] += part.reordered(arrivals_above)
        stepped.update({hop: part.count_stepped(table, delay) for hop, (table, delay, _) in hops.items()})
        for name, instants in part.events().items():
            seconds, counts = np.unique(instants // 1_000_000_000, return_counts=True)
            bins.setdefault(name, Counter()).update(dict(zip(seconds.tolist(), counts.tolist(), strict=True)))
        joined.messages += int(np.count_nonzero(part.counted & part.sent))
        joined.refused += int(np.count_nonzero(part.counted & part.refused & ~part.sent))
        joined.acknowledged += int(np.count_nonzero(part.counted & (part.t5 != 0)))
        joined.broker_received += int(np.count_nonzero(part.counted & (part.t2 != 0)))
        joined.gateway_received += int(np.count_nonzero(part.counted & (part.gateway_in != 0)))
        joined.gateway_sent += int(np.count_nonzero(part.counted & (part.gateway_out != 0)))
        joined.broker_sent += int(np.count_nonzero(part.t3[part.due & part.lead] != 0))
        joined.hub_received += int(np.count_nonzero(part.hub_in[part.due & part.lead] != 0))
        joined.hub_sent += int(np.count_nonzero(part.hub_out[part.due] != 0))
        joined.excluded += part.excluded
        joined.unrecorded += part.unrecorded
        part.write(number, tables)
        first, last = part.span()
        if last:
            joined.first_ns = min(joined.first_ns or first, first)
            joined.last_ns = max(joined.last_ns, last)
    for i, subscriber in enumerate(layout.subscribers):
        for name, values in tallies.items():
            setattr(joined.ledgers[subscriber.name], name, int(values[i]))
    leads = layout.leads
    joined.broker_lost = sum(
        joined.ledgers[s.name].lost_in_broker for s, lead in zip(layout.subscribers, leads, strict=True) if lead
    )
    stamped = {"publish": joined.broker_received, "broker": joined.broker_sent, "deliver": joined.broker_sent}
    if layout.gateways:
        stamped |= {"uplink": joined.gateway_received, "gateway": joined.gateway_received}
    if layout.hubs:
        stamped |= {"hub": joined.hub_received, "downlink": joined.hub_sent}
    joined.lost = {hop: lost[hop] if seen else None for hop, seen in stamped.items()}
    joined.stepped = {hop: count for hop, count in stepped.items() if count}
    joined.bins = {name: dict(sorted(counts.items())) for name, counts in sorted(bins.items())}


def _records(
    files: Sequence[StampsFile], layout: Layout, clocks: Mapping[str, NodeClock], joined: Joined
) -> Iterator[Records]:
    """Every stamp that counts, with its row, its subscriber and its clock's offset taken off."""
    subscriber_of = _subscriber_of_flow(files, layout)
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
            joined.foreign += int(np.count_nonzero((rows == FOREIGN) & ~probe & ~stale))
            received = block["point"] == Point.RECEIVED
            at_hub = block["point"] == Point.HUB_RECEIVED
            joined.unrecorded += int(np.count_nonzero((rows == UNRECORDED) & received & ~probe & ~stale))
            addressed = received | at_hub | (block["point"] == Point.BROKER_SENT) | (block["point"] == Point.HUB_SENT)
            sub = np.where(addressed, subscriber_of_peer[block["peer"]], -1)
            if file.process in layout.hubs:
                sub[at_hub] = len(layout.subscribers) + layout.hubs.index(file.process)
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
            if layout.shared:  # what several processes took has no order but that of time
                out["order"] = out["at"] // 1000 % NEVER
            if clock and clock.until_ns is not None:
                stepped = at >= clock.until_ns
                out["at"][stepped] = UNKNOWN_NS
                out["aux"][stepped & (aux != 0)] = UNKNOWN_NS
            yield out


def _subscriber_of_flow(files: Sequence[StampsFile], layout: Layout) -> dict[tuple[str, int], int]:
    """Address and port of every subscriber's connections, and of every hub's own, as they themselves report them."""
    flows: dict[tuple[str, int], int] = {}
    for number, hub in enumerate(layout.hubs):
        for file in files:
            if file.process == hub and file.info is not None:
                ends = [file.flow(int(peer)) for peer in file.info.flows]
                flows |= {end: len(layout.subscribers) + number for end in ends if end}
    for file in files:
        if file.info is None or file.role in {"broker", "probe", "publisher", "gateway", "hub"}:
            continue
        of_peer = _subscriber_of_peer(file, {}, layout.subscribers)
        for peer in file.info.flows:
            end = file.flow(int(peer))
            if end and of_peer[int(peer)] >= 0:
                flows[end] = int(of_peer[int(peer)])
    return flows


def _subscriber_of_peer(
    file: StampsFile, of_flow: Mapping[tuple[str, int], int], subscribers: Sequence[Subscriber]
) -> NDArray[np.int32]:
    """Shape (65536,): the subscriber behind each peer number of a file, -1 for none.

    In a broker's file by address and port; in a subscriber's by the logical connection that its
    `facts["connections"]` names (one made again is a new peer), otherwise by the peer number itself.
    """
    table = np.full(1 << 16, -1, dtype=np.int32)
    own = {
        connection: i
        for i, subscriber in enumerate(subscribers)
        for process, connection in subscriber.ends
        if process == file.process
    }
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
