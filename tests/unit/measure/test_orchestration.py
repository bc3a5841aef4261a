"""Runs of orchestration requests from made-up records: what is counted, and what a clock that stepped leaves out."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from figures import paths_of_numbers

from toolkit.contract.orders import Arrivals
from toolkit.contract.samples import STAMP, Flag, Point, StampsInfo
from toolkit.contract.steps import StepRecord, request_id
from toolkit.measure.compute import compute
from toolkit.measure.orchestration import read_delays
from toolkit.measure.store import RunFolder
from toolkit.model.samples import read_run
from toolkit.report.table import remarks, run_document
from toolkit.spec.conditions import wrong_condition
from toolkit.spec.plain import plain
from toolkit.spec.workload import Workload

S, MS = 10**9, 10**6
START_NS = 1_800_000_000 * S
REQUESTS = 20
SYSTEMS = {"con": "consumer", "cloud": "orchestrator", "far": "service_registry"}
"""Node -> the system that it runs."""
WHOLE, THERE, BACK = "end_to_end", "consumer@a -> orchestrator@a: orchestration", "orchestrator@a -> consumer@a"
QUERY = "service_registry@a query: query"


def record(seq: int, call: str, kind: Any, system: str, operation: str, start_ns: int, end_ns: int) -> StepRecord:
    request = request_id("r", 7, seq)
    return StepRecord(
        request=request, call=request + call, kind=kind, system=system, cloud="a", operation=operation,
        start_ns=start_ns, end_ns=end_ns,
    )  # fmt: skip


def records_of(seq: int) -> dict[str, list[StepRecord]]:
    """One request: 2 ms to the Orchestrator, 1 ms inside, a look-up of 3 ms in between, 2 ms back."""
    at = START_NS + seq * S // 10
    asked, told = at + 3 * MS, at + 8 * MS
    return {
        "con": [record(seq, "", "call", "consumer", "orchestration", at, at + 11 * MS)],
        "cloud": [
            record(seq, "", "serve", "orchestrator", "orchestration", at + 2 * MS, at + 9 * MS),
            record(seq, "/1", "call", "orchestrator", "query", asked, told),
        ],
        "far": [
            record(seq, "/1", "serve", "service_registry", "query", asked + MS, told - MS),
            record(seq, "/1", "query", "service_registry", "query", asked + MS, told - MS),
        ],
    }


def measured(folder: Path, *, stepped: str = "", at_ns: int = 0, size_ns: int = 0) -> RunFolder:
    """A run's folder as `toolkit run` leaves it; `stepped`: the node whose clock steps so long after the start."""
    run = RunFolder(folder)

    def shown(node: str, true_ns: int) -> int:
        return true_ns + (size_ns if node == stepped and true_ns >= START_NS + at_ns else 0)

    for node, system in SYSTEMS.items():
        raw = run.raw / node
        raw.mkdir(parents=True)
        lines = []
        for seq in range(REQUESTS):
            for each in records_of(seq)[node]:
                start_ns, end_ns = shown(node, each.start_ns), shown(node, each.end_ns)
                lines.append(dataclasses.replace(each, start_ns=start_ns, end_ns=end_ns).to_json() + "\n")
        (raw / f"{system}-0.steps.jsonl").write_text("".join(lines))
        readings = []
        for second in range(-5, REQUESTS // 10 + 4):
            true_ns = START_NS + second * S + 123_456
            reading = {"at_ns": shown(node, true_ns), "monotonic_ns": 500 * S + true_ns - START_NS, "offset_ns": 0}
            readings.append(json.dumps(reading | {"root_delay_ns": 60_000, "root_dispersion_ns": 10_000}) + "\n")
        (raw / "clock.jsonl").write_text("".join(readings))
    stamps = []
    for seq in range(REQUESTS):
        (call,) = records_of(seq)["con"]
        sent, answered = shown("con", call.start_ns), shown("con", call.end_ns)
        stamps.append(STAMP.pack(Point.SENT, 0, 0, 7, seq, sent, sent))
        stamps.append(STAMP.pack(Point.ACKED, 0, 0, 7, seq, answered, 0))
    stamps.insert(0, STAMP.pack(Point.SENT, Flag.WARMUP, 0, 7, 999, START_NS - S, START_NS - S))
    (run.raw / "con" / "consumer-0.stamps").write_bytes(b"".join(stamps))
    info = StampsInfo(
        run="r", testbed="t", node="con", service="consumer", role="consumer", instance=0, stamps=len(stamps),
        counts={}, flows={}, clock={"resolution_ns": 1, "read_cost_ns": 80, "steps": []},
        facts={"outcomes": {"answered": REQUESTS}, "request_bytes": 690},
    )  # fmt: skip
    (run.raw / "con" / "consumer-0.json").write_text(json.dumps(dataclasses.asdict(info)))
    workload = Workload(name="made-up", consumers="consumer", messages=REQUESTS, arrivals=Arrivals(kind="rate"))
    manifest = {
        "run": "r", "status": "complete", "problems": [], "workload": plain(workload), "parameters": {},
        "testbed": {"name": "t", "twin": False}, "started_at": START_NS / S - 2, "ended_at": START_NS / S + 5,
        "nodes": {node: {} for node in SYSTEMS}, "orders": {"con/consumer-0": {"role": "consumer"}},
        "services": [
            {"role": system.replace("_", "-"), "cloud": "a", "nodes": [node]} for node, system in SYSTEMS.items()
        ],
    }  # fmt: skip
    run.write("manifest.json", manifest)
    compute(run)
    return run


def test_every_step_has_its_time_and_they_add_up(tmp_path: Path) -> None:
    kpis = measured(tmp_path / "r").kpis()
    assert kpis["faults"] == []
    assert kpis["hops"][WHOLE]["count"] == REQUESTS
    assert kpis["hops"][WHOLE]["mean_ms"] == pytest.approx(11)
    assert kpis["hops"][QUERY]["mean_ms"] == pytest.approx(3)
    assert sum(step["mean_ms"] for step in kpis["sequence"]) == pytest.approx(11)
    assert [step["kind"] for step in kpis["sequence"]] == [
        "message", "inside", "message", "query", "message", "message",
    ]  # fmt: skip
    assert all(summary["stepped"] == 0 for summary in kpis["hops"].values())


@pytest.mark.parametrize("size_ns", [3_600 * S, -400 * MS])
@pytest.mark.parametrize(
    ("node", "spoilt", "whole"),
    [("con", "consumer@a", True), ("cloud", "orchestrator@a", False), ("far", "service_registry@a", False)],
)
def test_a_step_of_a_clock_leaves_out_the_steps_it_touches(
    tmp_path: Path, node: str, spoilt: str, size_ns: int, *, whole: bool
) -> None:
    run = measured(tmp_path / "r", stepped=node, at_ns=1_030 * MS, size_ns=size_ns)
    kpis = run.kpis()
    assert [fault for fault in kpis["faults"] if fault.startswith(f"the clock of {node} stepped by")]
    assert not [fault for fault in kpis["faults"] if "worse than they said" in fault]
    assert kpis["ledger"]["total"]["delivered"] == REQUESTS
    true_ms = measured(tmp_path / "true" / "r").kpis()["hops"]
    for name, summary in kpis["hops"].items():
        touched = whole if name == WHOLE else spoilt in name
        assert summary["count"] + summary["stepped"] == REQUESTS, name
        assert bool(summary["stepped"]) is touched, name
        assert summary["count"] > 0
        assert summary["mean_ms"] == pytest.approx(true_ms[name]["mean_ms"])
        assert len(read_delays(run, name)) == summary["count"]
    document = run_document(run)
    left_out = [line for line in remarks(document) if "are left out" in line]
    assert len(left_out) == sum(1 for summary in kpis["hops"].values() if summary["stepped"])
    assert (kpis["throughput"]["sent_per_s"] is None) is whole
    assert kpis["throughput"]["delivered"]["count"] == REQUESTS
    samples = read_run(run.path)
    assert samples.left_out == max(summary["stepped"] for summary in kpis["hops"].values())
    assert samples.end_to_end.mean() == pytest.approx(11)


def test_every_figure_of_requests_may_stand_in_a_condition(tmp_path: Path) -> None:
    found = list(paths_of_numbers(measured(tmp_path / "r").kpis()))
    assert {"hops.end_to_end.p99_ms", "throughput.span_s"} < set(found)
    assert any(path.startswith("hops.") and ": " in path for path in found)
    workload = Workload(name="made-up", consumers="consumer")
    assert [path for path in found if not path.startswith("schema") and wrong_condition(workload, path, "== 0")] == []
