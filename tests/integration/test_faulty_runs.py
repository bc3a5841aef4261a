"""Runs over Mosquitto that go wrong: each ends with its samples saved, the fault named, and the books right."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.integration.loopback import Loopback, running
from tests.mosquitto import Mosquitto
from tests.relay import Relay
from tests.waiting import until
from toolkit.contract.orders import Arrivals
from toolkit.measure.store import RunFolder
from toolkit.measure.tables import read_column
from toolkit.node.drivers import mqtt_packets
from toolkit.node.native_counters import NativeCounters, grown
from toolkit.report.table import run_document
from toolkit.report.text import markdown
from toolkit.spec.workload import Workload

pytestmark = pytest.mark.timeout(120)
RATE = 100
PUBACK = b"\x40"
SENT = 300
STEADY = Workload(
    name="faulty", messages=SENT, qos=1, payload_bytes=100, drain_s=2.0,
    arrivals=Arrivals(kind="rate", rate_per_s=float(RATE)), options={"protocol": "mqtt"},
)  # fmt: skip


@pytest.fixture(scope="module")
def mosquitto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with Mosquitto(tmp_path_factory.mktemp("mosquitto"), "sys_interval 1") as broker:
        yield broker.port


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mosquitto: int) -> Iterator[Loopback]:
    monkeypatch.setenv("TOOLKIT_HOME", str(tmp_path / ".toolkit"))
    with running(tmp_path, broker=mosquitto) as started:
        yield started


def during(lab: Loopback, workload: Workload, *moments: tuple[int, Callable[[], object]]) -> RunFolder:
    """One run, with something done once so many messages have been sent; 0: before the first."""

    def act() -> None:
        until(lambda: any(event.state == "started" for event in lab.events))
        for sent, action in moments:
            lab.await_sent(sent)
            action()

    acting = threading.Thread(target=act)
    acting.start()
    try:
        [run] = lab.run(workload)
    finally:
        acting.join()
    return run


def for_a_while(lasts_s: float, begin: Callable[[], object], end: Callable[[], object]) -> Callable[[], None]:
    """What to do for a fault that lasts so long."""

    def act() -> None:
        begin()
        time.sleep(lasts_s)
        end()

    return act


def checked(run: RunFolder, *, fault: str | None) -> dict[str, Any]:
    """The KPIs of a run that is saved, sealed, and whose books close; its report names the fault."""
    assert run.verify() == []
    kpis = run.kpis()
    assert kpis["ledger"]["closes"]
    if fault is not None:
        assert not kpis["valid"]
        assert any(fault in words for words in kpis["faults"]), kpis["faults"]
        assert fault in markdown([run_document(run)])
    assert kpis["hops"]["end_to_end"]["count"] == kpis["ledger"]["total"]["delivered"]
    assert kpis["hops"]["end_to_end"]["negative"] == 0
    return kpis


def through(relay: Relay, workload: Workload, **options: Any) -> Workload:
    return dataclasses.replace(workload, options={**workload.options, "port": relay.port, **options})


def test_what_was_not_acknowledged_comes_again_and_counts_once(lab: Loopback, mosquitto: int) -> None:
    """QoS 1, a kept session: acknowledgements get lost, then the connection; the broker repeats what it had sent."""
    relay = Relay(mosquitto)
    workload = through(relay, STEADY, session="persistent")
    run = during(lab, workload, (100, lambda: relay.swallow(PUBACK)), (150, relay.cut))
    relay.close()
    kpis = checked(run, fault="subscriber-0 lost its connection")
    whole = kpis["ledger"]["total"]
    assert whole["duplicates"] > 0
    assert whole["redelivered"] == whole["duplicates"]
    assert whole["delivered"] + whole["refused"] + whole["unconfirmed"] == whole["expected"] == 2 * SENT
    assert whole["delivered"] > SENT


def test_a_subscriber_that_comes_back_late_has_lost_what_was_sent_meanwhile(lab: Loopback, mosquitto: int) -> None:
    """QoS 0, no session: what passes while nobody is there is lost, not late, and to nobody else."""
    relay = Relay(mosquitto)
    run = during(lab, through(relay, dataclasses.replace(STEADY, qos=0)), (100, lambda: relay.cut(b"tk-sub")))
    relay.close()
    kpis = checked(run, fault="subscriber-0 lost its connection")
    for ledger in kpis["ledger"]["subscribers"].values():
        assert ledger["dropped"] > 0
        assert ledger["late"] == ledger["duplicates"] == 0
        assert ledger["delivered"] + ledger["dropped"] + ledger["refused"] == SENT


def test_a_subscriber_that_comes_in_late_is_due_what_was_sent_after_that(lab: Loopback) -> None:
    [run] = lab.run(dataclasses.replace(STEADY, join={"sub-2": 1.0}))
    kpis = checked(run, fault=None)
    early, late = (kpis["ledger"]["subscribers"][f"sub-{i}/subscriber-0"] for i in (1, 2))
    assert early["delivered"] == early["expected"] == SENT
    assert 0 < late["expected"] < SENT - RATE // 4
    assert late["delivered"] == late["expected"], "nothing is lost, and nothing was due before"
    assert "sub-2/subscriber-0 came in" in markdown([run_document(run)])


def test_what_is_published_before_anybody_subscribes_is_nobodys_loss(lab: Loopback) -> None:
    [run] = lab.run(dataclasses.replace(STEADY, join={"subscriber": 1.0}))
    kpis = checked(run, fault=None)
    assert kpis["counters"]["acknowledged"] == SENT
    for ledger in kpis["ledger"]["subscribers"].values():
        assert 0 < ledger["delivered"] == ledger["expected"] < SENT - RATE // 4


def test_what_an_old_session_still_holds_is_foreign_to_the_run(lab: Loopback, mosquitto: int) -> None:
    """Twenty messages of another day wait in the session that a subscriber goes on with."""
    for name, packets in (
        ("tk-sub-sub-1-subscriber-0-0", [mqtt_packets.subscribe(4, 1, ["old/#"], 1)]),
        ("somebody", [b"".join(_old_message(number)) for number in range(20)]),
    ):
        with socket.create_connection(("127.0.0.1", mosquitto)) as client:
            client.sendall(mqtt_packets.connect(4, name, keep_alive_s=0, clean=name == "somebody"))
            client.recv(16)
            for packet in packets:
                client.sendall(packet)
                client.recv(16)
            client.sendall(mqtt_packets.disconnect())
    [run] = lab.run(dataclasses.replace(STEADY, options={**STEADY.options, "session": "persistent"}))
    kpis = checked(run, fault=None)
    assert kpis["ledger"]["total"]["delivered"] == kpis["ledger"]["total"]["expected"] == 2 * SENT
    foreign = {p["process"]: p["counts"]["foreign"] for p in kpis["processes"] if p["role"] == "subscriber"}
    assert foreign == {"sub-1/subscriber-0": 20, "sub-2/subscriber-0": 0}


def _old_message(number: int) -> tuple[bytes, bytes, bytes]:
    head, after = mqtt_packets.publish_head(4, "old/topic", 60, 1)
    return head + (number + 1).to_bytes(2, "big"), after, b"\xf5TK\xfa" + bytes(56)


def test_a_subscriber_that_never_comes_in_is_named_and_due_nothing(lab: Loopback) -> None:
    [run] = lab.run(dataclasses.replace(STEADY, join={"sub-2": 600.0}))
    kpis = checked(run, fault="sub-2/subscriber-0 never came in")
    early, late = (kpis["ledger"]["subscribers"][f"sub-{i}/subscriber-0"] for i in (1, 2))
    assert (early["delivered"], late["expected"]) == (SENT, 0)


def test_a_killed_publisher_is_named_and_what_it_sent_is_counted(lab: Loopback) -> None:
    victim = lab.processes["pub/publisher-0"]
    run = during(lab, STEADY, (150, lambda: victim.send_signal(signal.SIGKILL)))
    kpis = checked(run, fault="pub/publisher-0")
    whole = kpis["ledger"]["total"]
    assert 0 < whole["delivered"] <= whole["expected"] < 2 * SENT
    assert whole["dropped"] == whole["late"] == 0


def test_a_subscriber_that_stands_still_costs_nobody_else_and_the_broker_counts_what_the_books_do(
    lab: Loopback, mosquitto: int
) -> None:
    """QoS 0: sockets fill up, then Mosquitto's queue for this subscriber; it drops the rest, and says how much."""
    counters = NativeCounters("mqtt", mosquitto)
    counters.start()
    until(lambda: "dropped" in counters.first())  # each number comes in a packet of its own
    before = counters.first()
    burst = dataclasses.replace(
        STEADY, messages=8000, qos=0, payload_bytes=4096, arrivals=Arrivals(kind="rate", rate_per_s=2000.0),
        options={**STEADY.options, "receive_buffer_bytes": 1 << 16},
    )  # fmt: skip
    victim = lab.processes["sub-2/subscriber-0"]
    run = during(
        lab, burst,
        (1000, lambda: victim.send_signal(signal.SIGSTOP)),
        (7000, lambda: victim.send_signal(signal.SIGCONT)),
    )  # fmt: skip
    kpis = checked(run, fault=None)
    free, stopped = (kpis["ledger"]["subscribers"][f"sub-{i}/subscriber-0"] for i in (1, 2))
    assert kpis["counters"]["refused"] == 0, "the publisher was let go on"
    assert free["delivered"] == free["expected"] == 8000
    assert stopped["dropped"] > 0
    assert stopped["delivered"] + stopped["dropped"] == 8000
    assert stopped["late"] == stopped["duplicates"] == 0
    assert grown(before, counters.read(settled=True))["dropped"] == stopped["dropped"]
    waited = {
        i: read_column(run.samples, "t4_ns - t1_ns", f"subscriber = 'sub-{i}/subscriber-0'") / 1e9 for i in (1, 2)
    }
    assert np.median(waited[1]) < 1, "who stands still delays nobody else"
    assert waited[2].max() > 1.5, "what was in the sockets came when it went on"


def test_two_clients_of_one_name_are_named_while_the_run_goes_on(lab: Loopback, mosquitto: int) -> None:
    """The other one enters again a second after it was thrown out, as clients commonly do."""
    name = "tk-sub-sub-2-subscriber-0-0"
    over = threading.Event()

    def rival() -> None:
        while not over.wait(1.0):
            with socket.create_connection(("127.0.0.1", mosquitto), timeout=0.2) as client:
                client.sendall(mqtt_packets.connect(4, name, keep_alive_s=0, clean=True))
                while not over.is_set():
                    try:
                        if not client.recv(4096):
                            break
                    except TimeoutError:
                        continue
                    except ConnectionError:
                        break

    fighting = threading.Thread(target=rival)
    run = during(lab, dataclasses.replace(STEADY, messages=1000), (0, fighting.start))
    over.set()
    fighting.join()
    kpis = checked(run, fault=f"does somebody else enter by the name {name} too")
    assert any("connections in a row were lost within 3 s of being taken" in fault for fault in kpis["faults"])
    other, fought = (kpis["ledger"]["subscribers"][f"sub-{i}/subscriber-0"] for i in (1, 2))
    assert other["delivered"] == other["expected"] == 1000
    assert 0 < fought["delivered"] < 1000
    assert fought["duplicates"] == 0


def test_empty_and_foreign_messages_are_counted_and_pass(lab: Loopback, mosquitto: int) -> None:
    """Somebody else publishes nothing, and nonsense, to the run's own topic."""

    def intrude() -> None:
        topic = lab.deployment and _topic(lab)
        with socket.create_connection(("127.0.0.1", mosquitto)) as stranger:
            stranger.sendall(mqtt_packets.connect(4, "stranger", keep_alive_s=0, clean=True))
            stranger.recv(16)
            for payload in (b"", b"nonsense", b"\xf5TK\xfa" + bytes(60)):
                head, _ = mqtt_packets.publish_head(4, topic, len(payload), 0)
                stranger.sendall(head + payload)
            stranger.sendall(mqtt_packets.disconnect())

    run = during(lab, STEADY, (100, intrude))
    kpis = checked(run, fault=None)
    assert kpis["ledger"]["total"]["delivered"] == 2 * SENT
    foreign = [p["counts"]["foreign"] for p in kpis["processes"] if p["role"] == "subscriber"]
    assert foreign == [3, 3]


def _topic(lab: Loopback) -> str:
    import json

    [manifest] = lab.home.glob(".toolkit/*/runs/*/manifest.json")
    return str(json.loads(manifest.read_text())["streams"][0]["topic"])


def test_subscribers_that_share_get_each_message_once_together(lab: Loopback) -> None:
    workload = dataclasses.replace(STEADY, options={**STEADY.options, "share": True}, subscriber_connections=2)
    [run] = lab.run(workload)
    kpis = checked(run, fault=None)
    assert [words for words in kpis["faults"] if "the publisher was late" not in words] == []
    whole = kpis["ledger"]["total"]
    assert whole["delivered"] == whole["expected"] == SENT
    assert whole["duplicates"] == 0
    assert list(kpis["ledger"]["subscribers"]) == ["subscriber (shared by 4)"]
    got = {p["process"]: p["counts"]["received"] for p in kpis["processes"] if p["role"] == "subscriber"}
    assert sum(got.values()) == SENT
    assert min(got.values()) > 0, "both processes took part"


def test_many_topics_and_many_subscribers(lab: Loopback) -> None:
    topics, subscribers = 10_000, 500
    every = dataclasses.replace(STEADY, arrivals=Arrivals(kind="closed"))
    [run] = lab.run(dataclasses.replace(every, messages=topics, topics=topics))
    whole = checked(run, fault=None)["ledger"]["total"]
    assert whole["delivered"] == whole["expected"] == 2 * topics
    [run] = lab.run(dataclasses.replace(every, messages=5, subscriber_connections=subscribers))
    kpis = checked(run, fault=None)
    assert kpis["ledger"]["total"]["delivered"] == 2 * subscribers * 5
    assert len(kpis["ledger"]["subscribers"]) == 2 * subscribers


def test_messages_that_go_round_between_brokers_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bridge that the other broker does not know for one: it gets back what it passed on."""
    monkeypatch.setenv("TOOLKIT_HOME", str(tmp_path / ".toolkit"))
    with Mosquitto(tmp_path, "log_type all") as other:
        bridge = (
            "connection round", f"address 127.0.0.1:{other.port}", "try_private false",
            "bridge_protocol_version mqttv311", "notifications false", "topic # both 0",
        )  # fmt: skip
        with Mosquitto(tmp_path, *bridge) as one:
            until(lambda: "Sending SUBACK" in other.log(), instead=other.log)
            with running(tmp_path, broker=one.port) as lab:
                [run] = lab.run(dataclasses.replace(STEADY, qos=0, messages=100))
    whole = checked(run, fault="copies came that nobody had lost: does a message pass brokers in a circle")["ledger"]
    assert whole["total"]["delivered"] == 200
    assert whole["total"]["duplicates"] >= 200


def test_huge_payloads_come_whole(lab: Loopback) -> None:
    workload = dataclasses.replace(
        STEADY, messages=5, payload_bytes=8 << 20, arrivals=Arrivals(kind="closed"), drain_s=5.0
    )
    [run] = lab.run(workload)
    kpis = checked(run, fault=None)
    assert kpis["ledger"]["total"]["delivered"] == 10
    assert kpis["counters"]["acknowledged"] == 5


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("iptables") is None, reason="needs root and iptables")
def test_a_way_that_goes_dead_without_a_word_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packets to the broker vanish for 2.5 s, nothing is reset: the publisher gives up after its own time."""
    from tests.unit.node.test_capture_hardships import in_a_network_of_its_own

    monkeypatch.setenv("TOOLKIT_HOME", str(tmp_path / ".toolkit"))

    def play() -> None:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        with Mosquitto(tmp_path) as broker, running(tmp_path, broker=broker.port) as lab:
            rule = ["INPUT", "-p", "tcp", "--dport", str(broker.port), "-j", "DROP"]
            patient = {**STEADY.options, "session": "persistent", "dead_after_s": 1}
            run = during(
                lab,
                dataclasses.replace(STEADY, messages=600, drain_s=4.0, options=patient),
                (100, for_a_while(2.5, lambda: subprocess.run(["iptables", "-A", *rule], check=True),
                                  lambda: subprocess.run(["iptables", "-D", *rule], check=True))),
            )  # fmt: skip
            kpis = checked(run, fault="pub/publisher-0 lost its connection")
        whole = kpis["ledger"]["total"]
        assert whole["unconfirmed"] + whole["refused"] > 0
        assert whole["dropped"] == 0, "nothing that the broker acknowledged was lost"
        assert whole["delivered"] > SENT
        assert whole["delivered"] + whole["unconfirmed"] + whole["refused"] == whole["expected"] == 1200

    in_a_network_of_its_own(play)
