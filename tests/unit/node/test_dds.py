"""DDS between real processes on loopback, no broker: what each QoS promises, large samples, and what never meets."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import lacking
from toolkit.contract.orders import Arrivals, RunOrder, to_json
from toolkit.contract.samples import Point
from toolkit.node.drivers import cyclone

from .processes import Bench, NodeProcess, of_point, play

DOMAIN = 100 + os.getpid() % 100
"""Tests that run side by side must not find each other."""


@pytest.fixture(autouse=True, scope="module")
def cyclone_is_here() -> None:
    try:
        cyclone.library()
    except cyclone.WorkloadError as error:
        lacking(str(error))


def dds(**more: Any) -> dict[str, Any]:
    options = {"dds_domain": DOMAIN, "readers": 1, **more.pop("options", {})}
    return {"protocol": "dds", "options": options, "payload_bytes": 100, **more}


@pytest.mark.parametrize("qos", [0, 1])
def test_every_message_comes_once_and_reliable_ones_are_acknowledged(bench: Bench, qos: int) -> None:
    publisher, subscriber = bench.publisher(), bench.subscriber()
    play(None, [publisher], [subscriber], run="d", qos=qos, messages=150, topics=["a b/c", "ö"], connections=2,
         subscriber_connections=2, arrivals=Arrivals(kind="rate", rate_per_s=150), drain_s=0.5,
         **dds(options={"readers": 2}))  # fmt: skip
    sent, received = publisher.info("d"), subscriber.info("d")
    assert (sent.counts["sent"], sent.counts["acked"]) == (600, 600 * qos)
    assert (received.counts["received"], received.counts["duplicate"]) == (1200, 0)
    assert received.facts["samples_lost"] == 0
    t1 = {stamp[3:5]: stamp[5] for stamp in of_point(publisher.stamps("d"), Point.SENT)}
    arrived = of_point(subscriber.stamps("d"), Point.RECEIVED)
    assert all(stamp[5] > t1[stamp[3:5]] for stamp in arrived)
    for stamp in of_point(publisher.stamps("d"), Point.ACKED):
        assert stamp[5] > t1[stamp[3:5]]


def test_a_closed_loop_waits_for_every_reader_and_large_samples_come_whole(bench: Bench) -> None:
    publisher, subscriber = bench.publisher(), bench.subscriber()
    play(None, [publisher], [subscriber], run="big", qos=1, messages=20, **dds(payload_bytes=300_000))
    assert publisher.info("big").counts["acked"] == 20
    assert subscriber.info("big").counts["received"] == 20
    assert subscriber.info("big").counts["foreign"] == 0


def test_a_killed_subscriber_does_not_stop_the_publisher_and_is_not_acknowledged_for(bench: Bench) -> None:
    publisher, victim = bench.publisher(), bench.subscriber()
    order = RunOrder(run="kill", testbed="unit", role="subscriber", topics=["t"], qos=1, **dds())
    victim.order(order)
    victim.wait_for("ready")
    victim.start(0)
    publisher.order(
        dataclasses.replace(
            order,
            role="publisher",
            streams=[1],
            messages=600,
            drain_s=1,
            arrivals=Arrivals(kind="rate", rate_per_s=300),
        )
    )
    publisher.wait_for("ready")
    publisher.start(time.time_ns())
    publisher.wait_until_sent(200)
    victim.process.kill()
    victim.process.wait()
    bench.processes.remove(victim)
    publisher.wait_for("done", within_s=30)
    info = publisher.info("kill")
    assert info.counts["sent"] == 600
    assert 0 < info.counts["acked"] < 600
    assert info.facts["unanswered"] == 600 - info.counts["acked"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"options": {"dds_domain": DOMAIN + 1, "readers": 1, "connect_timeout_s": 1}}, "found 0 of 1 subscribers"),
        ({"qos": 1}, "found 0 of 1 subscribers within 1 s"),
    ],
)
def test_who_does_not_meet_is_told_why(bench: Bench, change: dict[str, Any], reason: str) -> None:
    """Another domain; a reliable reader of a best-effort writer."""
    publisher, subscriber = bench.publisher(), bench.subscriber()
    order = RunOrder(run="no", testbed="unit", role="publisher", topics=["t"], streams=[1], messages=1,
                     **dds(options={"connect_timeout_s": 1}))  # fmt: skip
    subscriber.order(dataclasses.replace(order, role="subscriber", **change))
    subscriber.wait_for("ready")
    publisher.order(order)
    error = failure_of(publisher)
    assert reason in error
    assert ("1 want another QoS" in error) == ("qos" in change)
    subscriber.stop()


def failure_of(process: NodeProcess) -> str:
    return process.wait_until_failed(within_s=60)


def test_what_dds_does_not_have_is_refused_with_the_reason(bench: Bench) -> None:
    publisher = bench.publisher()
    order = RunOrder(run="q", testbed="unit", role="publisher", topics=["t"], streams=[1], messages=1, **dds())
    for change, reason in (
        ({"qos": 2}, "reliable (QoS 1), not 2"),
        ({"options": {"tls": True}}, "WireGuard"),
        ({"options": {"user": "lab"}}, "knows no user"),
        ({"options": {"dds_domain": 231}}, "0 to 230"),
    ):
        status, body = publisher.ask("PUT", "/run", to_json(dataclasses.replace(order, **change)))  # type: ignore[arg-type]
        assert status == 400
        assert reason in json.loads(body)["error"]


@given(st.lists(st.text(min_size=1, max_size=12), min_size=2, max_size=6, unique=True))
def test_topics_keep_apart_under_the_names_that_the_library_takes(topics: list[str]) -> None:
    names = [cyclone.topic_name(topic) for topic in topics]
    assert len(set(names)) == len(names)
    for name in names:
        assert name.isascii()
        assert name.replace("_", "a").isalnum()
        assert not name[0].isdigit()
