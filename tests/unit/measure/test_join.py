"""What was put into a made-up run comes out of the join: counts exactly, times to the nanosecond."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import START_NS, Fate, Message, Oracle

from toolkit.contract.samples import STAMP, Point
from toolkit.errors import MeasurementError
from toolkit.measure import join as join_module
from toolkit.measure import layout as layout_module
from toolkit.measure.clocks import ClockReading, node_clock
from toolkit.measure.join import join
from toolkit.measure.kpis import HOPS, nearest_rank, summarise
from toolkit.measure.layout import Terms
from toolkit.measure.ledger import CLASSES, Joined
from toolkit.measure.stamps import read_files
from toolkit.measure.tables import connect, read_column


def measure(oracle: Oracle, folder: Path, **changes) -> Joined:
    oracle.write(folder / "raw")
    clocks = {
        node: node_clock(
            node,
            [
                ClockReading(at_ns=START_NS + s * 10**9, monotonic_ns=s * 10**9, offset_ns=skew, root_delay_ns=0,
                             root_dispersion_ns=0)
                for s in range(3)
            ],
        )
        for node, skew in oracle.skews_ns.items()
    }  # fmt: skip
    given = {"clocks": clocks, "terms": oracle.terms, "folder": folder} | changes
    return join(read_files(folder / "raw"), oracle.streams, oracle.subscriptions, **given)


def check(oracle: Oracle, joined: Joined, folder: Path) -> None:
    names = (*CLASSES, "expected", "duplicates", "reordered")
    for i, subscriber in enumerate(oracle.subscriptions):
        ledger, books = joined.ledgers[subscriber.name], oracle.books(i)
        assert {n: getattr(ledger, n) for n in names} == {n: books.get(n, 0) for n in names}
        assert ledger.closes
        assert ledger.redelivered == ledger.duplicates
        if oracle.has_broker:
            where = ledger.lost_before_broker + ledger.lost_in_broker + ledger.lost_after_broker
            assert where == ledger.dropped
    for hop, (table, expression, rows) in HOPS.items():
        measured = np.sort(read_column(folder / f"{table}.parquet", expression, rows))
        assert measured.tolist() == oracle.delays(hop).tolist(), hop


fates = st.builds(
    Fate,
    outcome=st.sampled_from(["delivered"] * 6 + ["late", "lost_after", "lost_in"]),
    copies=st.sampled_from([1, 1, 1, 2, 4]),
    delay_ns=st.tuples(st.integers(1, 5_000_000), st.integers(1, 5_000_000)),
)


@st.composite
def oracles(draw: st.DrawFn) -> Oracle:
    subscribers = draw(st.integers(1, 3))
    message = st.builds(
        Message,
        outcome=st.sampled_from(["sent"] * 8 + ["refused", "lost_before"]),
        acked=st.booleans(),
        publish_ns=st.integers(1, 3_000_000),
        behind_ns=st.integers(0, 1_000_000),
        warm_up=st.sampled_from([False] * 9 + [True]),
        fates=st.lists(fates, min_size=subscribers, max_size=subscribers),
    )
    messages = draw(st.lists(st.lists(message, min_size=0, max_size=12), min_size=1, max_size=4))
    skews = draw(
        st.fixed_dictionaries({}, optional={n: st.integers(-(10**10), 10**10) for n in ("pub", "eh", "sub-0")})
    )
    return Oracle(messages=messages, subscribers=subscribers, qos=draw(st.sampled_from([0, 1])), skews_ns=skews)


@settings(max_examples=60, deadline=None)
@given(oracle=oracles(), pairs=st.sampled_from([1, 3, 1 << 19]))
def test_every_outcome_is_measured_back(oracle: Oracle, pairs: int):
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout_module, "PAIRS_AT_ONCE", pairs)
        patch.setattr(join_module, "SPOOL_AT", 0 if pairs == 3 else 4_000_000)
        check(oracle, measure(oracle, Path(name)), Path(name))


def regular(n: int, subscribers: int = 2, **changes) -> Oracle:
    rng = np.random.default_rng(7)

    def fate() -> Fate:
        outcome = str(rng.choice(["delivered", "late", "lost_in", "lost_after"], p=[0.94, 0.02, 0.02, 0.02]))
        return Fate(
            outcome=outcome, copies=1 + int(rng.random() < 0.05), delay_ns=(60_000, int(rng.integers(10**4, 10**7)))
        )

    messages = [[Message(fates=[fate() for _ in range(subscribers)]) for _ in range(n)] for _ in range(2)]
    return Oracle(messages=messages, subscribers=subscribers, **changes)


def test_partitions_and_spool_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    oracle = regular(3000)
    whole = measure(oracle, tmp_path)
    check(oracle, whole, tmp_path)
    other = tmp_path / "spooled"
    monkeypatch.setattr(layout_module, "PAIRS_AT_ONCE", 700)
    monkeypatch.setattr(join_module, "SPOOL_AT", 0)
    parts = measure(oracle, other)
    assert parts == whole
    with connect() as db:
        for table in ("messages", "samples"):
            queries = [f"FROM '{folder}/{table}.parquet' ORDER BY ALL" for folder in (tmp_path, other)]
            rows = [db.execute(query).fetchall() for query in queries]
            assert rows[0] == rows[1]
    assert not list(other.glob(".join-*"))


def test_hops_add_up_to_transport_end_to_end(tmp_path: Path):
    measure(regular(200), tmp_path)
    hops = read_column(tmp_path / "samples.parquet", "(t2_ns - t1_ns) + (t3_ns - t2_ns) + (t4_ns - t3_ns)")
    assert hops.tolist() == read_column(tmp_path / "samples.parquet", "t4_ns - t1_ns").tolist()


def test_an_uncorrected_skew_shows_as_negative_delays(tmp_path: Path):
    oracle = regular(100, skews_ns={"sub-0": -50_000_000, "sub-1": -50_000_000})
    measure(oracle, tmp_path, clocks={})
    summary = summarise(read_column(tmp_path / "samples.parquet", "t4_ns - t3_ns", "NOT late"), bound_ns=1000)
    assert summary.negative == summary.count == summary.beyond_bound > 150
    assert summary.p50_ms is not None
    assert summary.p50_ms < -40


def test_without_a_broker_only_end_to_end_is_known(tmp_path: Path):
    joined = measure(regular(50, has_broker=False), tmp_path)
    assert joined.lost == {"publish": None, "broker": None, "deliver": None}
    assert len(read_column(tmp_path / "samples.parquet", "t3_ns - t2_ns")) == 0
    assert len(read_column(tmp_path / "samples.parquet", "t4_ns - t1_ns")) > 80


def test_a_killed_subscriber_leaves_messages_in_flight_not_dropped(tmp_path: Path):
    oracle = Oracle(messages=[[Message(fates=[Fate(), Fate()]) for _ in range(1000)]], subscribers=2)
    oracle.write(tmp_path / "raw")
    dead = tmp_path / "raw" / "sub-1"
    (dead / "subscriber-0.json").unlink()
    file = dead / "subscriber-0.stamps"
    file.write_bytes(file.read_bytes()[: 400 * 32 + 11])
    until = {"sub-1/subscriber-0": START_NS + 400 * 1_000_000}
    joined = join(
        read_files(tmp_path / "raw"), oracle.streams, oracle.subscriptions, clocks={}, folder=tmp_path,
        terms=Terms(loss_timeout_ns=10**9, settle_ns=10_000_000, watched_until_ns=until),
    )  # fmt: skip
    alive, killed = joined.ledgers["sub-0/subscriber-0"], joined.ledgers["sub-1/subscriber-0"]
    assert (alive.delivered, alive.in_flight) == (1000, 0)
    assert (killed.delivered, killed.dropped, killed.in_flight) == (400, 0, 600)
    assert joined.unmatched_flows == 1000  # nobody says whose the broker's second flow was


def test_what_was_sent_before_a_subscriber_came_in_is_not_due_to_it(tmp_path: Path):
    lost = [Fate(outcome="lost_in")]
    messages = [Message(fates=[Fate(), Fate()] if number % 10 else [*lost, *lost]) for number in range(1000)]
    messages[5] = messages[905] = Message(outcome="refused")
    oracle = Oracle(messages=[messages], subscribers=2)
    since = START_NS + 600 * oracle.interval_ns
    terms = Terms(loss_timeout_ns=10**9, joined_ns={"sub-1/subscriber-0": since})
    joined = measure(oracle, tmp_path, terms=terms)
    early, late = joined.ledgers["sub-0/subscriber-0"], joined.ledgers["sub-1/subscriber-0"]
    assert (early.expected, early.delivered, early.dropped, early.refused) == (1000, 898, 100, 2)
    assert (late.expected, late.delivered, late.dropped, late.refused) == (400, 359, 40, 1)
    assert early.closes
    assert late.closes
    assert len(read_column(tmp_path / "samples.parquet", "t4_ns - t1_ns")) == 898 + 359


def test_stamps_of_other_runs_probes_and_unrecorded_messages_are_counted_apart(tmp_path: Path):
    oracle = regular(10, subscribers=1)
    oracle.write(tmp_path / "raw")
    with (tmp_path / "raw" / "sub-0" / "subscriber-0.stamps").open("ab") as file:
        file.write(STAMP.pack(Point.RECEIVED, 0, 0, 77, 0, START_NS, 0))
        file.write(STAMP.pack(Point.RECEIVED, 8, 0, 1000, 1 << 62, START_NS, 0))
        file.write(STAMP.pack(Point.RECEIVED, 0, 0, 1000, 10, START_NS, 0))
    joined = join(
        read_files(tmp_path / "raw"),
        oracle.streams,
        oracle.subscriptions,
        clocks={},
        terms=oracle.terms,
        folder=tmp_path,
    )
    assert (joined.foreign, joined.excluded, joined.unrecorded) == (1, 1, 1)
    assert joined.total.expected == 20


def test_a_damaged_stream_is_named(tmp_path: Path):
    oracle = regular(10, subscribers=1)
    oracle.write(tmp_path / "raw")
    with (tmp_path / "raw" / "pub" / "publisher-0.stamps").open("ab") as file:
        file.write(STAMP.pack(Point.SENT, 0, 0, 1000, 1 << 40, START_NS, START_NS))
    with pytest.raises(MeasurementError, match="stream 1000 numbers 11 messages from 0 to 1099511627776"):
        measure_written(oracle, tmp_path)


def measure_written(oracle: Oracle, folder: Path) -> Joined:
    return join(
        read_files(folder / "raw"), oracle.streams, oracle.subscriptions, clocks={}, terms=oracle.terms, folder=folder
    )


def test_an_empty_run_gives_empty_tables(tmp_path: Path):
    joined = measure(Oracle(messages=[[]], subscribers=1), tmp_path)
    assert joined.total.expected == 0
    assert joined.total.closes


@given(st.lists(st.integers(-(10**12), 10**12), min_size=1, max_size=300), st.sampled_from([0.5, 0.9, 0.99, 0.999]))
def test_nearest_rank_is_the_smallest_value_that_q_of_all_do_not_exceed(values: list[int], q: float):
    ordered = np.sort(np.array(values, dtype=np.int64))
    rank = nearest_rank(ordered, q)
    assert np.count_nonzero(ordered <= rank) >= q * len(values) - 1e-9
    smaller = ordered[ordered < rank]
    assert len(smaller) < q * len(values)
