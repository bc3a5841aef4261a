"""The hop probe beside real brokers: one that has stamps of its own to compare with, and one that has none."""

from __future__ import annotations

import os
import statistics

import pytest

from toolkit.contract.orders import RunOrder
from toolkit.contract.samples import Point

from .processes import Bench, NodeProcess, play

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="looking at packets needs root (CAP_NET_RAW)")
MS = 1_000_000


def watch(bench: Bench, port: int, run: str, protocol: str, payload_bytes: int, **environment: str) -> NodeProcess:
    probe = bench.launch("hop_probe", "broker-probe", TOOLKIT_PROBE_PORTS=str(port), **environment)
    order = RunOrder(run=run, testbed="unit", role="probe", protocol=protocol, payload_bytes=payload_bytes, drain_s=0.3)
    probe.order(order)
    probe.wait_for("ready")
    probe.start(0)
    return probe


def finish(probe: NodeProcess) -> None:
    probe.stop()
    probe.wait_for("done")


def stamps_by_flow(process: NodeProcess, run: str, point: Point) -> dict[tuple[str, int, int, int], int]:
    """(address, port of the far end, stream, seq) -> ns"""
    flows = process.info(run).flows
    return {
        (*flows[str(peer)], stream, seq): at_ns
        for p, _, peer, stream, seq, at_ns, _ in process.stamps(run)
        if p == point
    }


def test_its_stamps_and_the_event_handlers_agree_within_the_schedulers_noise(bench: Bench) -> None:
    broker = bench.event_handler()
    publisher, subscriber = bench.publisher(), bench.subscriber()
    probe = watch(bench, broker.port, "r1", "sse", 71)
    play(broker, [publisher], [subscriber], run="r1", broker=f"127.0.0.1:{broker.port}", messages=400,
         payload_bytes=71, subscriber_connections=2)  # fmt: skip
    finish(probe)

    assert probe.info("r1").counts["packets_lost"] == 0
    assert probe.info("r1").facts["partial"] is False
    arrived = stamps_by_flow(probe, "r1", Point.BROKER_RECEIVED)
    told = {key[2:]: at_ns for key, at_ns in stamps_by_flow(broker, "r1", Point.BROKER_RECEIVED).items()}
    assert {key[2:] for key in arrived} == set(told)
    before_read = [told[key[2:]] - at_ns for key, at_ns in arrived.items()]
    assert min(before_read) > 0, "the kernel has the packet before the broker reads it"
    assert statistics.median(before_read) < 1 * MS

    left = stamps_by_flow(probe, "r1", Point.BROKER_SENT)
    sent = stamps_by_flow(broker, "r1", Point.BROKER_SENT)
    assert set(left) == set(sent), "the same copies to the same connections"
    after_write = [left[key] - sent[key] for key in left]
    assert min(after_write) > 0, "the broker stamps before it writes"
    assert statistics.median(after_write) < 1 * MS


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_broker_without_stamps_gets_both_for_every_copy(bench: Bench, mosquitto: int, qos: int) -> None:
    publisher, subscriber = bench.publisher(), bench.subscriber()
    probe = watch(bench, mosquitto, "m", "mqtt", 120, TOOLKIT_PROBE_NATIVE=f"mqtt:{mosquitto}")
    play(None, [publisher], [subscriber], run="m", protocol="mqtt", broker=f"127.0.0.1:{mosquitto}", qos=qos,
         messages=300, payload_bytes=120, subscriber_connections=2)  # fmt: skip
    finish(probe)

    arrived = stamps_by_flow(probe, "m", Point.BROKER_RECEIVED)
    left = stamps_by_flow(probe, "m", Point.BROKER_SENT)
    received = stamps_by_flow(subscriber, "m", Point.RECEIVED)
    assert len(arrived) == 300
    assert set(left) == set(received), "flows of probe and subscriber meet"
    came = {key[2:]: at_ns for key, at_ns in arrived.items()}
    for key, at_ns in left.items():
        assert came[key[2:]] < at_ns < received[key]
    counts = probe.info("m").counts
    assert (counts["received"], counts["sent"], counts["native_dropped"]) == (300, 600, 0)
    assert "toolkit_broker_messages_sent_total 600\n" in probe.metrics()
