"""Runs whose subscriber, broker, disk or operator gives up in the middle: what was measured is saved, no more."""

from __future__ import annotations

import _thread
import dataclasses
import resource
import signal
from pathlib import Path

import pytest

from tests.integration.loopback import Loopback, running
from tests.integration.test_faulty_runs import RATE, SENT, STEADY, checked, during, for_a_while
from tests.integration.test_faulty_runs import lab as lab  # noqa: PLC0414  a fixture
from tests.integration.test_faulty_runs import mosquitto as mosquitto  # noqa: PLC0414
from tests.mosquitto import Mosquitto
from toolkit.contract.orders import Arrivals
from toolkit.measure.store import list_runs

pytestmark = pytest.mark.timeout(120)


def test_what_the_broker_drops_for_a_slow_subscriber_is_counted_as_its_own(lab: Loopback) -> None:
    """QoS 1; a subscriber stands still for 3,750 messages: its queue of 1,000 runs over, and the other's does not."""
    rate, sent = 1500, 6000
    slow = lab.processes["sub-1/subscriber-0"]
    run = during(
        lab,
        dataclasses.replace(STEADY, messages=sent, arrivals=Arrivals(kind="rate", rate_per_s=float(rate))),
        (750, lambda: slow.send_signal(signal.SIGSTOP)),
        (4500, lambda: slow.send_signal(signal.SIGCONT)),
    )
    kpis = checked(run, fault=None)
    one, other = (kpis["ledger"]["subscribers"][f"sub-{i}/subscriber-0"] for i in (1, 2))
    assert other["delivered"] == other["expected"]
    assert one["dropped"] > 0
    assert one["delivered"] + one["dropped"] + one["refused"] + one["unconfirmed"] == one["expected"] == sent
    assert kpis["hops"]["end_to_end"]["max_ms"] > 1000
    assert kpis["ledger"]["total"]["lost"] == one["dropped"]


def test_a_broker_that_is_killed_and_started_again_is_in_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOOLKIT_HOME", str(tmp_path / ".toolkit"))
    with Mosquitto(tmp_path) as broker, running(tmp_path, broker=broker.port) as lab:
        workload = dataclasses.replace(STEADY, messages=500, drain_s=3.0)
        run = during(lab, workload, (100, for_a_while(0.5, broker.kill, broker.start)))
    kpis = checked(run, fault="lost its connection")
    whole = kpis["ledger"]["total"]
    assert whole["refused"] > 0
    assert whole["delivered"] > RATE
    parts = ("delivered", "late", "dropped", "refused", "unconfirmed", "in_flight")
    assert sum(whole[part] for part in parts) == whole["expected"] == 1000


def test_a_run_that_is_interrupted_is_saved_with_what_there_was(lab: Loopback) -> None:
    with pytest.raises(KeyboardInterrupt):
        during(lab, STEADY, (150, _thread.interrupt_main))
    [run] = list_runs("loopback")
    assert run.manifest()["status"] == "interrupted"
    kpis = checked(run, fault="the run is interrupted")
    whole = kpis["ledger"]["total"]
    assert 0 < whole["delivered"] <= whole["expected"] < 2 * SENT
    assert whole["dropped"] == whole["late"] == 0


def test_a_disk_that_takes_no_more_ends_a_subscribers_part_and_no_message_counts_as_lost(lab: Loopback) -> None:
    full = lab.processes["sub-1/subscriber-0"]
    room = 60 * 32
    run = during(
        lab, STEADY, (0, lambda: resource.prlimit(full.pid, resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY)))
    )
    kpis = checked(run, fault="sub-1/subscriber-0: cannot write stamps to")
    one, other = (kpis["ledger"]["subscribers"][f"sub-{i}/subscriber-0"] for i in (1, 2))
    assert other["delivered"] == SENT
    assert 0 < one["delivered"] <= 60
    assert one["dropped"] == one["late"] == 0
    assert one["delivered"] + one["in_flight"] == SENT
