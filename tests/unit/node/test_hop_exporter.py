from __future__ import annotations

import itertools
import json
import os
import random
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.ports import await_port
from toolkit.contract import metrics
from toolkit.contract.samples import STAMP, Flag, Point
from toolkit.node import hop_exporter
from toolkit.node.hop_exporter import HopJoiner

MS = 1_000_000
SUBSCRIBER = ("10.0.0.4", 40001)
OTHER = ("10.0.0.5", 40002)


def datagram(*stamps: tuple[Any, ...], run: str = "r1", flows: dict[int, tuple[str, int]] | None = None) -> bytes:
    head = {"run": run, "flows": {str(peer): list(end) for peer, end in (flows or {}).items()}}
    packed = (STAMP.pack(point, flags, peer, 7, seq, at, aux) for point, peer, seq, at, aux, flags in stamps)
    return json.dumps(head).encode() + b"\n" + b"".join(packed)


def one_message(seq: int, start_ns: int) -> list[bytes]:
    """T0 1 ms before T1; publish 2 ms, broker 3 ms and 4 ms for its two copies, deliver 4 ms."""
    flows = {0: SUBSCRIBER, 1: OTHER}
    at = start_ns
    return [
        datagram((Point.SENT, 0, seq, at, at - MS, 0)),
        datagram((Point.ACKED, 0, seq, at + 5 * MS, 0, 0)),
        datagram((Point.BROKER_RECEIVED, 0, seq, at + 2 * MS, 0, 0)),
        datagram(
            (Point.BROKER_SENT, 0, seq, at + 5 * MS, 0, 0), (Point.BROKER_SENT, 1, seq, at + 6 * MS, 0, 0), flows=flows
        ),
        datagram((Point.RECEIVED, 3, seq, at + 9 * MS, 0, 0), flows={3: SUBSCRIBER}),
        datagram((Point.RECEIVED, 0, seq, at + 10 * MS, 0, 0), flows={0: OTHER}),
    ]


def samples(page: str) -> dict[tuple[str, str], float]:
    """(sample's name, hop) -> value."""
    return {
        (sample.name.removeprefix("toolkit_"), sample.labels.get("hop", "")): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if not sample.name.endswith("_bucket")
    }


def test_every_order_of_arrival_gives_the_same_hops() -> None:
    expected = {
        "publish": (1, 2e-3), "broker": (2, 7e-3), "deliver": (2, 8e-3), "transport": (2, 19e-3),
        "acknowledge": (1, 5e-3),
    }  # fmt: skip
    for order in itertools.permutations(one_message(0, 10**18)):
        joiner = HopJoiner()
        for data in order:
            joiner.take(data, 0.0)
        families = joiner.families()
        hops = families[metrics.HOP_DELAY]
        assert {hop: (h.count, pytest.approx(h.total)) for (_, hop), h in hops.items()} == expected
        assert families[metrics.END_TO_END_DELAY]["r1",].total == pytest.approx(21e-3)


def test_duplicates_and_retransmissions_count_once() -> None:
    joiner = HopJoiner()
    for data in one_message(0, 10**18) * 3:
        joiner.take(data, 0.0)
    seen = samples(joiner.page(0.0))
    assert seen["hop_delay_seconds_count", "deliver"] == 2
    assert seen["hop_sampled_total", ""] == 21


def test_negative_hops_are_counted_apart_and_never_in_the_histogram() -> None:
    joiner = HopJoiner()
    joiner.take(datagram((Point.SENT, 0, 0, 10 * MS, 0, 0), (Point.BROKER_RECEIVED, 0, 0, 9 * MS, 0, 0)), 0.0)
    seen = samples(joiner.page(0.0))
    assert seen["hop_negative_total", "publish"] == 1
    assert seen["hop_delay_seconds_count", "publish"] == 0
    joiner.take(datagram((Point.SENT, 0, 1, 10 * MS, 0, 0), (Point.BROKER_RECEIVED, 0, 1, 11 * MS, 0, 0)), 0.0)
    seen = samples(joiner.page(0.0))
    assert (seen["hop_negative_total", "publish"], seen["hop_delay_seconds_count", "publish"]) == (1, 1)


def test_a_way_over_gateway_and_hub_has_all_its_hops() -> None:
    joiner = HopJoiner()
    points = [
        Point.SENT, Point.GATEWAY_RECEIVED, Point.GATEWAY_SENT, Point.BROKER_RECEIVED, Point.BROKER_SENT,
        Point.HUB_RECEIVED, Point.HUB_SENT, Point.RECEIVED,
    ]  # fmt: skip
    stamps = [(point, 0, 0, 10**18 + n * n * MS, 0, 0) for n, point in enumerate(points)]
    joiner.take(datagram(*stamps), 0.0)
    seen = samples(joiner.page(0.0))
    hops = ["uplink", "gateway", "publish", "broker", "deliver", "hub", "downlink"]
    assert [round(seen["hop_delay_seconds_sum", hop] * 1000) for hop in hops] == [1, 3, 5, 7, 9, 11, 13]
    assert seen["hop_delay_seconds_sum", "transport"] == pytest.approx(0.049)


def test_warm_up_and_probes_are_left_out() -> None:
    joiner = HopJoiner()
    for flag in (Flag.WARMUP, Flag.PROBE):
        joiner.take(datagram((Point.SENT, 0, 0, MS, 0, flag), (Point.BROKER_RECEIVED, 0, 0, 2 * MS, 0, flag)), 0.0)
    assert samples(joiner.page(0.0))["hop_sampled_total", ""] == 0


def test_memory_is_bounded_by_number_and_age_and_what_is_given_up_is_counted() -> None:
    joiner = HopJoiner(most_pending=10, give_up_s=15.0)
    for seq in range(100):
        joiner.take(datagram((Point.SENT, 0, seq, MS, 0, 0)), float(seq) / 100)
    seen = samples(joiner.page(1.0))
    assert seen["exporter_pending_messages", ""] == 10
    assert seen["hop_unmatched_total", ""] == 90
    seen = samples(joiner.page(20.0))
    assert seen["exporter_pending_messages", ""] == 0
    assert seen["hop_unmatched_total", ""] == 100


def test_runs_are_bounded_so_that_the_page_is() -> None:
    joiner = HopJoiner()
    for number in range(40):
        joiner.take(datagram((Point.SENT, 0, 0, MS, 0, 0), run=f"r{number}"), 0.0)
    page = joiner.page(0.0)
    assert 'run="r39"' in page
    assert 'run="r23"' not in page
    assert samples(page)["exporter_runs", ""] == hop_exporter.MOST_RUNS


@pytest.mark.parametrize(
    "hostile",
    [b"", b"\n", b"{}\n", b"[]\n" + bytes(32), b"not json\n", b'{"run": "r"}\nshort', b'{"run":"r","flows":{"x":[]}}\n',
     b'{"run":"r","flows":[1]}\n', b'{"run":"r","flows":{"0":["a","b"]}}\n', os.urandom(700)],
)  # fmt: skip
def test_what_is_no_datagram_of_stamps_is_counted_and_harmless(hostile: bytes) -> None:
    joiner = HopJoiner()
    joiner.take(hostile, 0.0)
    assert samples(joiner.page(0.0))["exporter_datagrams_refused_total", ""] == 1


def test_lost_datagrams_lose_hops_but_never_make_wrong_ones() -> None:
    luck = random.Random(4)
    joiner = HopJoiner()
    for seq in range(300):
        for data in one_message(seq, 10**18 + seq * MS):
            if luck.random() < 0.7:
                joiner.take(data, 0.0)
    seen = samples(joiner.page(0.0))
    for hop, mean in (("publish", 2e-3), ("acknowledge", 5e-3), ("deliver", 4e-3)):
        assert 0 < seen["hop_delay_seconds_count", hop] < 600
        assert seen["hop_delay_seconds_sum", hop] / seen["hop_delay_seconds_count", hop] == pytest.approx(mean)


def test_the_process_serves_what_it_was_sent(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, socket.socket() as tcp:
        udp.bind(("127.0.0.1", 0))
        tcp.bind(("127.0.0.1", 0))
        stamps_port, metrics_port = udp.getsockname()[1], tcp.getsockname()[1]
    environ = {**os.environ, "TOOLKIT_METRICS_PORT": str(metrics_port), "TOOLKIT_STAMPS_PORT": str(stamps_port)}
    process = subprocess.Popen([sys.executable, "-m", "toolkit.node.hop_exporter"], env=environ)
    try:
        await_port(metrics_port)
        fetch(metrics_port, "/healthz")  # served once it can take stamps, which a port that listens does not say
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for data in one_message(0, 10**18):
                sender.sendto(data, ("127.0.0.1", stamps_port))
        page = ""
        for _ in range(50):
            page = fetch(metrics_port, "/metrics")
            if 'hop="deliver"' in page:
                break
            time.sleep(0.1)
        assert samples(page)["hop_delay_seconds_count", "deliver"] == 2
        assert fetch(metrics_port, "/healthz") == "ok\n"
    finally:
        process.terminate()
    assert process.wait(10) == 0


def fetch(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
        return answer.read().decode()


def test_schedule_delay_and_closed_books_are_exposed() -> None:
    joiner = hop_exporter.HopJoiner()
    head = json.dumps({"run": "r", "flows": {}}).encode() + b"\n"
    joiner.take(head + STAMP.pack(Point.SENT, 0, 0, 1, 0, 5_000_000, 2_000_000), 1.0)
    handle = hop_exporter.books_handler(joiner)
    assert handle("PUT", "/books", b'{"run": "r", "qos": 1, "expected": 200, "lost": 3}').status == 200
    assert handle("PUT", "/books", b'{"run": "r"}').status == 400
    assert handle("GET", "/books", b"").status == 404
    page = joiner.page(2.0)
    assert 'toolkit_schedule_delay_seconds_sum{run="r"} 0.003' in page
    assert 'toolkit_messages_expected_total{run="r",qos="1"} 200' in page
    assert 'toolkit_messages_lost_total{run="r",qos="1"} 3' in page
