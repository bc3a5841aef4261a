"""A made-up broker under faked clocks, measured through the whole way from raw files to `kpis.json`."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from figures import paths_of_numbers
from oracle import START_NS, Fate, Message, Oracle

from toolkit.contract.orders import Arrivals
from toolkit.contract.samples import STAMP_DTYPE, Point
from toolkit.measure.compute import compute
from toolkit.measure.kpis import HOPS, nearest_rank
from toolkit.measure.ledger import CLASSES
from toolkit.measure.store import RunFolder
from toolkit.measure.tables import read_column
from toolkit.report.table import hop_rows, remarks, run_document
from toolkit.spec.conditions import wrong_condition
from toolkit.spec.plain import plain
from toolkit.spec.workload import Workload

S = 10**9
STAMPS = np.dtype(STAMP_DTYPE)
WITHIN_NS = 50_000
"""How far a time may be off beside the clock bound."""
WANDER_NS = 20_000
"""What a clock goes astray between two readings and comes back from: within its bound, unseen by them."""
ROOT_DELAY_NS, DISPERSION_NS = 60_000, 10_000
NODES = ("pub", "eh", "sub-0", "sub-1")


def played(messages: int = 4000, *, seed: int = 11, late: float = 0.01, **changes: Any) -> Oracle:
    """Two streams at 1,000 messages a second to two subscribers, with every fate a message can have."""
    rng = np.random.default_rng(seed)

    def fate() -> Fate:
        outcome = str(rng.choice(["delivered", "late", "lost_in", "lost_after"], p=[0.96 - late, late, 0.02, 0.02]))
        delay = int(rng.integers(5 * 10**4, 2 * 10**6)), int(rng.integers(10**5, 8 * 10**6))
        return Fate(outcome=outcome, copies=1 + int(rng.random() < 0.03) * int(rng.integers(1, 3)), delay_ns=delay)

    def message(seq: int) -> Message:
        outcome = str(rng.choice(["sent", "lost_before", "refused"], p=[0.97, 0.02, 0.01]))
        publish, behind = int(rng.integers(10**5, 10**6)), int(rng.integers(0, 10**5))
        return Message(
            outcome=outcome, acked=rng.random() < 0.98, publish_ns=publish, behind_ns=behind, warm_up=seq < 50,
            fates=[fate(), fate()],
        )  # fmt: skip

    streams = [[message(seq) for seq in range(messages // 2)] for _ in range(2)]
    return Oracle(messages=streams, subscribers=2, **changes)


def measured(oracle: Oracle, folder: Path, *, stepped: dict[str, tuple[int, int]] | None = None) -> RunFolder:
    """A run's folder as `toolkit run` leaves it; `stepped`: node -> (ns from the start, size in ns) of a clock step."""
    run = RunFolder(folder)
    oracle.write(run.raw)
    last_s = max(len(stream) for stream in oracle.messages) // 1000 + 4
    for node in NODES:
        step_after_ns, size_ns = (stepped or {}).get(node, (1 << 60, 0))
        skew_ns = oracle.skews_ns.get(node, 0)
        lines = []
        for second in range(-10, last_s):
            since_ns = second * S + 123_456
            moved_ns = size_ns if since_ns >= step_after_ns else 0
            line = {
                "at_ns": START_NS + since_ns + skew_ns + moved_ns, "monotonic_ns": 500 * S + since_ns,
                "offset_ns": skew_ns, "root_delay_ns": ROOT_DELAY_NS, "root_dispersion_ns": DISPERSION_NS,
            }  # fmt: skip
            lines.append(json.dumps(line))
        (run.raw / node / "clock.jsonl").write_text("\n".join(lines) + "\n")
        if stepped and node in stepped:
            step_clock(run.raw / node, START_NS + step_after_ns + skew_ns, size_ns, 500 * S + step_after_ns)
    workload = Workload(
        name="made-up", qos=oracle.qos, messages=len(oracle.messages[0]), warmup_messages=50,
        arrivals=Arrivals(kind="rate"), options={"loss_timeout_s": oracle.terms.loss_timeout_ns / S},
    )  # fmt: skip
    manifest = {
        "run": "r", "status": "complete", "problems": [], "workload": plain(workload), "parameters": {}, "orders": {},
        "testbed": {"name": "t", "twin": False}, "started_at": START_NS / S - 2, "ended_at": START_NS / S + last_s,
        "nodes": {node: {} for node in NODES},
        "streams": [dataclasses.asdict(stream) for stream in oracle.streams],
        "subscribers": [{**dataclasses.asdict(s), "topics": sorted(s.topics)} for s in oracle.subscriptions],
    }  # fmt: skip
    run.write("manifest.json", manifest)
    compute(run)
    return run


def step_clock(folder: Path, at_wall_ns: int, size_ns: int, at_monotonic_ns: int) -> None:
    """Move all stamps that a node made from an instant on, and let its process tell of it as a process does."""
    for file in folder.glob("*.stamps"):
        stamps = np.fromfile(file, dtype=STAMPS)
        after = stamps["at_ns"] >= at_wall_ns
        stamps["at_ns"][after] += size_ns
        stamps["aux_ns"][after & (stamps["aux_ns"] >= at_wall_ns)] += size_ns
        stamps.tofile(file)
        info = json.loads(file.with_suffix(".json").read_text())
        info["clock"]["steps"] = [[at_monotonic_ns + 150_000_000, size_ns]]
        file.with_suffix(".json").write_text(json.dumps(info))


def check_books(oracle: Oracle, kpis: dict[str, Any]) -> None:
    names = (*CLASSES, "expected", "duplicates", "reordered")
    for i, subscriber in enumerate(oracle.subscriptions):
        ledger, books = kpis["ledger"]["subscribers"][subscriber.name], oracle.books(i)
        assert {n: ledger[n] for n in names} == {n: books.get(n, 0) for n in names}
    assert kpis["ledger"]["closes"]
    assert all(kpis["ledger"]["total"][name] for name in ("delivered", "dropped", "refused", "duplicates"))
    assert kpis["ledger"]["total"]["reordered"] > 100


@pytest.mark.parametrize("qos", [0, 1])
def test_counts_are_exact_and_times_within_50_us_and_the_bound(tmp_path: Path, qos: int) -> None:
    """The nodes' clocks are off by up to seconds, and by more than chrony knows: as much as the bound allows."""
    oracle = played(qos=qos, skews_ns={"pub": 0, "eh": 3_200_000_000, "sub-0": -41_000_000, "sub-1": 977})
    wrong = {"eh": WANDER_NS, "sub-0": -WANDER_NS}
    known, oracle.skews_ns = oracle.skews_ns, {n: skew + wrong.get(n, 0) for n, skew in oracle.skews_ns.items()}
    run = measured_with_known(oracle, known, tmp_path)
    kpis = run.kpis()
    check_books(oracle, kpis)
    for hop in HOPS:
        summary, true = kpis["hops"][hop], oracle.delays(hop)
        within_ms = (WITHIN_NS / 1e6) + summary["clock_bound_ms"]
        assert summary["count"] == len(true)
        assert summary["clock_bound_ms"] <= 0.1
        assert summary["stepped"] == 0
        for name, q in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0)):
            assert summary[f"{name}_ms"] == pytest.approx(nearest_rank(true, q) / 1e6, abs=within_ms), (hop, name)
        assert summary["mean_ms"] == pytest.approx(true.mean() / 1e6, abs=within_ms)
    assert kpis["hops"]["broker"]["p50_ms"] == nearest_rank(oracle.delays("broker"), 0.5) / 1e6
    assert kpis["faults"] == []


def measured_with_known(oracle: Oracle, known: dict[str, int], folder: Path) -> RunFolder:
    """Stamps by the oracle's skews, clock logs by what was known of them."""
    run = measured(oracle, folder)
    for node in NODES:
        log = run.raw / node / "clock.jsonl"
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        log.write_text("\n".join(json.dumps(line | {"offset_ns": known.get(node, 0)}) for line in lines) + "\n")
    compute(run)
    return run


@pytest.mark.parametrize("size_ns", [3_600 * S, 7_000_000, -7_000_000, -300_000_000])
@pytest.mark.parametrize("node", NODES)
def test_a_step_leaves_out_what_it_touches_and_nothing_else(tmp_path: Path, node: str, size_ns: int) -> None:
    oracle = played(late=0.0)
    at_ns = 1_300_000_000
    run = measured(oracle, tmp_path, stepped={node: (at_ns, size_ns)})
    kpis = run.kpis()
    check_books(oracle, kpis)
    touched = {
        "pub": {"publish", "end_to_end"}, "eh": {"publish", "broker", "deliver"},
        "sub-0": {"deliver", "end_to_end"}, "sub-1": {"deliver", "end_to_end"},
    }[node]  # fmt: skip
    allowed_ms = max(summary["clock_bound_ms"] for summary in kpis["hops"].values()) + WITHIN_NS / 1e6
    for hop, (table, delay, rows) in HOPS.items():
        summary, true = kpis["hops"][hop], oracle.delays(hop)
        delays = read_column(run.path / f"{table}.parquet", delay, rows)
        assert summary["count"] == len(delays)
        if hop in touched:
            assert summary["stepped"] > len(true) / 10
            assert summary["count"] > 0
            assert summary["min_ms"] >= true[0] / 1e6 - allowed_ms
            assert summary["max_ms"] <= true[-1] / 1e6 + allowed_ms
        else:
            assert (summary["stepped"], summary["count"]) == (0, len(true))
        if hop in ("publish", "broker"):
            assert summary["count"] + summary["stepped"] == len(true)
        assert summary["negative"] == summary["beyond_bound"] == 0
    steps = [
        fault for fault in kpis["faults"] if fault.startswith(f"the clock of {node} stepped by {size_ns / 1e6:.3f} ms")
    ]
    assert len(steps) == 1
    document = run_document(run)
    told = "\n".join(remarks(document))
    assert all(
        f"{kpis['hops'][hop]['stepped']} delays of {hop.replace('_', ' ')} are left out" in told for hop in touched
    )
    assert len(hop_rows(document)) == 4


def test_what_was_late_is_unknown_after_a_step_and_counts_as_delivered(tmp_path: Path) -> None:
    oracle = played()
    kpis = measured(oracle, tmp_path, stepped={"pub": (1_300_000_000, 5 * S)}).kpis()
    for i, subscriber in enumerate(oracle.subscriptions):
        ledger, books = kpis["ledger"]["subscribers"][subscriber.name], oracle.books(i)
        assert ledger["delivered"] + ledger["late"] == books["delivered"] + books["late"]
        assert 0 < ledger["late"] < books["late"]
        assert all(ledger[n] == books.get(n, 0) for n in ("expected", "dropped", "refused", "duplicates", "reordered"))


def test_rates_of_a_stepped_clock_are_unknown(tmp_path: Path) -> None:
    run = measured(played(), tmp_path, stepped={"sub-0": (1_300_000_000, 5 * S)})
    throughput = run.kpis()["throughput"]
    assert throughput["sent_per_s"] is throughput["delivered_per_s"] is None
    assert set(throughput["delivered"]) == {"count", "stepped"}
    assert "mean_per_s" in throughput["sent"]


def test_a_broker_of_two_nodes_has_the_clock_bound_of_both(tmp_path: Path) -> None:
    """A cluster: each message comes in at one node and leaves at the other."""
    run = measured(played(400), tmp_path)
    alone = run.kpis()["hops"]["broker"]
    shutil.copytree(run.raw / "eh", run.raw / "eh-2")
    for node, point in (("eh", Point.BROKER_RECEIVED), ("eh-2", Point.BROKER_SENT)):
        file = run.raw / node / "broker-0.stamps"
        stamps = np.fromfile(file, dtype=STAMPS)
        stamps[stamps["point"] == point].tofile(file)
    manifest = run.manifest() | {"services": [{"image": "rabbitmq", "nodes": ["eh", "eh-2"]}]}
    run.write("manifest.json", manifest)
    clustered = compute(run)["hops"]["broker"]
    assert (clustered["count"], clustered["p50_ms"]) == (alone["count"], alone["p50_ms"])
    of_each_ns = DISPERSION_NS + ROOT_DELAY_NS / 2
    assert clustered["clock_bound_ms"] == pytest.approx(2 * of_each_ns / 1e6, abs=1e-4)
    assert alone["clock_bound_ms"] < 1e-4


def test_a_step_before_the_run_leaves_out_nothing(tmp_path: Path) -> None:
    oracle = played()
    run = measured(oracle, tmp_path)
    log = run.raw / "sub-0" / "clock.jsonl"
    first = json.loads(log.read_text().splitlines()[0])
    boot = [first | {"at_ns": 5 * S + s * S, "monotonic_ns": 10 * S + s * S, "offset_ns": -START_NS} for s in range(3)]
    log.write_text("\n".join(json.dumps(line) for line in boot) + "\n" + log.read_text())
    compute(run)
    check_books(oracle, run.kpis())
    assert run.kpis()["faults"] == []
    assert run.kpis()["hops"]["end_to_end"]["count"] == len(oracle.delays("end_to_end"))


def test_what_a_publisher_that_stood_still_held_up_is_in_the_figures(tmp_path: Path) -> None:
    """1,000 messages a second, each delivered within 1 ms; every 10 s the publisher stands still for 1 s.

    A tenth of the messages waited, evenly from 0 to 1 s: p50 is the delivery alone, p95 half a second more, p99 0.9 s.
    """
    path = 1_000_000
    messages = [
        Message(
            publish_ns=path // 2,
            behind_ns=1_000_000_000 - seq % 10_000 * 1_000_000 if seq % 10_000 < 1000 else 0,
            fates=[Fate(delay_ns=(path // 4, path // 4))] * 2,
        )
        for seq in range(20_000)
    ]
    kpis = measured(Oracle(messages=[messages], subscribers=2), tmp_path).kpis()
    end_to_end, transport = kpis["hops"]["end_to_end"], kpis["delays"]["transport"]
    assert end_to_end["p50_ms"] == pytest.approx(1.0)
    assert end_to_end["p95_ms"] == pytest.approx(501.0, abs=2)
    assert end_to_end["p99_ms"] == pytest.approx(901.0, abs=2)
    assert transport["p99_ms"] == pytest.approx(1.0), "what tools report that forget when a message was due"
    assert any("the publisher was late" in fault for fault in kpis["faults"])


def test_every_figure_of_a_run_may_stand_in_a_condition(tmp_path: Path) -> None:
    run = measured(played(400), tmp_path, stepped={"sub-0": (100_000_000, 5 * S)})
    found = list(paths_of_numbers(run.kpis()))
    assert {"ledger.total.lost", "hops.broker.p99_ms", "throughput.delivered.stepped", "counters.foreign"} < set(found)
    workload = Workload(name="made-up")
    assert [path for path in found if not path.startswith("schema") and wrong_condition(workload, path, "== 0")] == []
