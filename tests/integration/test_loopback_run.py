"""Real node processes on this machine's loopback, no containers: from orders to KPIs."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.loopback import Loopback, running
from toolkit.contract.orders import Arrivals
from toolkit.measure.store import RunFolder, list_runs
from toolkit.measure.tables import read_column
from toolkit.report.table import run_document
from toolkit.report.text import markdown
from toolkit.spec.workload import Workload


@pytest.fixture
def loopback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loopback]:
    monkeypatch.setenv("TOOLKIT_HOME", str(tmp_path / ".toolkit"))
    with running(tmp_path) as started:
        yield started


HELLO = Workload(name="hello", messages=2000, warmup_messages=50, drain_s=1.0)


def check_books(run: RunFolder, expected: int) -> dict[str, Any]:
    kpis = run.kpis()
    whole = kpis["ledger"]["total"]
    assert kpis["ledger"]["closes"]
    assert whole["expected"] == expected
    assert run.verify() == []
    return kpis


def test_a_closed_loop_over_the_event_handler(loopback: Loopback):
    [run] = loopback.run(HELLO)
    kpis = check_books(run, 4000)
    assert kpis["faults"] == []
    assert kpis["ledger"]["total"]["delivered"] == 4000
    assert kpis["hops"]["publish"]["count"] == 2000
    assert kpis["counters"]["acknowledged"] == 2000
    for hop in kpis["hops"].values():
        assert hop["lost"] == 0
        assert hop["negative"] == 0
        assert hop["count"] >= 2000
        assert 0 < hop["p50_ms"] < 100
    sums = read_column(run.samples, "(t2_ns - t1_ns) + (t3_ns - t2_ns) + (t4_ns - t3_ns) - (t4_ns - t1_ns)")
    assert not sums.any()
    assert len(sums) == 4000


def test_open_loop_with_several_connections_and_topics(loopback: Loopback):
    workload = Workload(
        name="open", messages=200, connections=2, subscriber_connections=2, topics=3, drain_s=1.0,
        arrivals=Arrivals(kind="poisson", rate_per_s=400.0),
    )  # fmt: skip
    [run] = loopback.run(workload)
    per_stream = -(-200 // 3)
    kpis = check_books(run, 2 * 3 * per_stream * 4)
    assert kpis["ledger"]["total"]["delivered"] == 2 * 3 * per_stream * 4
    assert len(kpis["ledger"]["subscribers"]) == 4
    assert kpis["counters"]["unmatched_flows"] == 0
    assert kpis["hops"]["broker"]["count"] == kpis["ledger"]["total"]["delivered"]


def test_a_subscriber_killed_mid_run_is_named(loopback: Loopback):
    workload = Workload(name="kill", messages=None, duration_s=4.0, drain_s=0.5,
                        arrivals=Arrivals(kind="rate", rate_per_s=200.0))  # fmt: skip
    victim = loopback.processes["sub-2/subscriber-0"]
    timer = threading.Timer(2.5, lambda: victim.send_signal(signal.SIGKILL))
    timer.start()
    [run] = loopback.run(workload)
    timer.join()
    kpis = run.kpis()
    assert kpis["ledger"]["closes"]
    assert "sub-2/subscriber-0 stopped answering during the run; the run went on without it" in kpis["faults"]
    assert not kpis["valid"]
    alive, dead = (kpis["ledger"]["subscribers"][f"sub-{i}/subscriber-0"] for i in (1, 2))
    assert alive["delivered"] == alive["expected"] > 700
    assert 0 < dead["delivered"] < alive["delivered"]
    assert dead["in_flight"] > 0
    [listed] = list_runs("loopback")
    assert listed.verify() == []


@pytest.mark.parametrize("qos", [0, 1])
def test_dds_needs_no_broker_and_has_none_of_its_hops(loopback: Loopback, qos: int):
    domain = 100 + os.getpid() % 100
    workload = Workload(
        name="dds", messages=150, subscriber_connections=2, warmup_messages=5, drain_s=1.0, qos=qos, payload_bytes=100,
        broker="nobody", arrivals=Arrivals(kind="rate", rate_per_s=150.0),
        options={"protocol": "dds", "dds_domain": domain},
    )  # fmt: skip
    [run] = loopback.run(workload)
    kpis = check_books(run, 600)
    assert [fault for fault in kpis["faults"] if "the publisher was late" not in fault] == []
    whole = kpis["ledger"]["total"]
    assert whole["delivered"] > 580 if qos == 0 else whole["delivered"] == 600, "best effort may lose some"
    assert kpis["counters"]["acknowledged"] == 150 * qos
    for hop in ("publish", "broker", "deliver"):
        assert kpis["hops"][hop]["count"] == 0
        assert kpis["hops"][hop]["lost"] is None
    assert kpis["hops"]["end_to_end"]["count"] == whole["delivered"]
    assert not [process for process in kpis["processes"] if process["role"] in {"broker", "probe"}]
    assert f"600 expected = {whole['delivered']} delivered" in markdown([run_document(run)])
