"""Publish/subscribe over a real XMPP server: what each QoS promises, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.relay import Relay
from toolkit.contract.orders import Arrivals, RunOrder, to_json
from toolkit.contract.samples import Point
from toolkit.provisioning import certificates
from toolkit.provisioning.prosody import prosody_login

from .processes import Bench, of_point, play
from .test_probe_agreement import finish, stamps_by_flow, watch
from .xmpp_server import Prosody

OPEN = Arrivals(kind="rate", rate_per_s=150)


@pytest.fixture(scope="module")
def prosody(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prosody]:
    server = Prosody(tmp_path_factory.mktemp("xmpp"))
    yield server
    server.stop()


@pytest.mark.parametrize("qos", [0, 1])
def test_every_message_comes_once_and_the_probe_sees_each_come_and_go(bench: Bench, prosody: Prosody, qos: int) -> None:
    publisher, subscriber = bench.publisher(), bench.subscriber()
    run, root = f"x{qos}", os.geteuid() == 0
    probe = watch(bench, prosody.port, run, "xmpp", 120, TOOLKIT_PROBE_SYS="0") if root else None
    play(None, [publisher], [subscriber], run=run, protocol="xmpp", broker=f"127.0.0.1:{prosody.port}", qos=qos,
         messages=50, payload_bytes=120, subscriber_connections=2, topics=["a&b", "ö"])  # fmt: skip

    counts, received = publisher.info(run).counts, stamps_by_flow(subscriber, run, Point.RECEIVED)
    assert (counts["sent"], counts["acked"]) == (100, 100 * qos)
    assert subscriber.info(run).counts["received"] == 200
    assert subscriber.info(run).counts["duplicate"] == 0
    assert subscriber.info(run).facts["granted_qos"] == qos
    assert publisher.info(run).facts["sasl"] == "SCRAM-SHA-256"
    if probe is None:
        return
    finish(probe)
    came = {key[2:]: at_ns for key, at_ns in stamps_by_flow(probe, run, Point.BROKER_RECEIVED).items()}
    left = stamps_by_flow(probe, run, Point.BROKER_SENT)
    assert len(came) == 100
    assert set(left) == set(received), "flows of probe and subscriber meet"
    for key, at_ns in left.items():
        assert came[key[2:]] < at_ns < received[key]


def test_a_subscriber_whose_connection_is_lost_misses_nothing_at_qos_1(bench: Bench, prosody: Prosody) -> None:
    relay = Relay(prosody.port)
    publisher, subscriber = bench.publisher(), bench.subscriber()
    order = RunOrder(run="cut", testbed="unit", role="subscriber", protocol="xmpp", topics=["cut"], qos=1,
                     broker=f"127.0.0.1:{relay.port}", payload_bytes=60)  # fmt: skip
    subscriber.order(order)
    subscriber.wait_for("ready")
    subscriber.start(0)
    sending = dataclasses.replace(order, role="publisher", broker=f"127.0.0.1:{prosody.port}", streams=[1],
                                  messages=600, arrivals=OPEN, drain_s=20)  # fmt: skip
    publisher.order(sending)
    publisher.wait_for("ready")
    publisher.start(time.time_ns())
    for received in (100, 200):
        subscriber.wait_until_received(received)
        relay.cut()
    publisher.wait_for("done")
    subscriber.wait_until_received(600)
    subscriber.stop()
    subscriber.wait_for("done")
    relay.close()
    info = subscriber.info("cut")
    assert publisher.info("cut").counts["acked"] == 600
    assert info.counts["received"] == 600
    assert info.counts["reconnects"] == 2
    assert info.facts["resumed"] == 2
    copies = len(of_point(subscriber.stamps("cut"), Point.RECEIVED))
    assert copies == 600 + info.counts["duplicate"], "what was under way may come twice, and is counted"


def test_tls_and_a_password(bench: Bench, tmp_path: Path) -> None:
    master = certificates.make_master()
    cloud = certificates.make_cloud(master, cloud="lab", operator="lab")
    own = certificates.make_system(cloud, system="broker", addresses=["127.0.0.1"])
    files = {"chain": own.chain_pem, "key": own.key_pem, "authority": master.certificate_pem,
             "login": prosody_login("lab", "s3cret, =ö").encode(), "password": "s3cret, =ö\n".encode()}  # fmt: skip
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    server = Prosody(tmp_path, user="lab", certificate=str(tmp_path / "chain"), key=str(tmp_path / "key"),
                     environment={"TOOLKIT_LOGIN_FILE": str(tmp_path / "login")})  # fmt: skip
    secret = {"LAB_FILE": str(tmp_path / "password"), "WRONG": "guess"}
    options = {"tls": True, "ca_file": str(tmp_path / "authority"), "check_hostname": True, "user": "lab",
               "password_variable": "LAB_FILE"}  # fmt: skip
    try:
        publisher, subscriber = bench.publisher(**secret), bench.subscriber(**secret)
        common = {"protocol": "xmpp", "broker": f"127.0.0.1:{server.port}", "qos": 1, "messages": 50}
        play(None, [publisher], [subscriber], run="tls", options=options, **common)
        assert subscriber.info("tls").counts["received"] == 50
        assert publisher.info("tls").counts["acked"] == 50

        refused = RunOrder(run="no", testbed="unit", role="publisher", streams=[1], topics=["t"], payload_bytes=40,
                           **common, options=options | {"password_variable": "WRONG"})  # fmt: skip
        assert_fails(publisher, refused, "refuses user 'lab': not-authorized")
        assert_fails(publisher, dataclasses.replace(refused, options=options | {"ca_file": None}), "TLS to 127.0.0.1")
    finally:
        server.stop()


@pytest.mark.parametrize("qos", [0, 1])
def test_a_message_larger_than_a_stanza_may_be_is_not_sent_for_ever(bench: Bench, tmp_path: Path, qos: int) -> None:
    server = Prosody(tmp_path, max_stanza_size="20K")
    publisher = bench.publisher()
    order = RunOrder(run="big", testbed="unit", role="publisher", protocol="xmpp", topics=["t"], streams=[1], qos=qos,
                     broker=f"127.0.0.1:{server.port}", payload_bytes=30_000, duration_s=60, arrivals=OPEN)  # fmt: skip
    try:
        publisher.order(order)
        if started := publisher.wait_for("ready", "failed", within_s=40).phase == "ready":
            publisher.start(time.time_ns())
        error = publisher.wait_until_failed()
    finally:
        server.stop()
    assert "policy-violation" in error
    assert publisher.info("big").error == error if started else "after a probe" in error


def assert_fails(process, order: RunOrder, reason: str) -> None:
    """The order is taken and then fails for that reason."""
    status, body = process.ask(
        "PUT", "/run", to_json(dataclasses.replace(order, options={**order.options, "connect_timeout_s": 2}))
    )
    assert status == 200, body
    assert reason in process.wait_until_failed()


def test_what_xmpp_does_not_have_is_refused_with_the_reason(bench: Bench) -> None:
    publisher = bench.publisher()
    order = RunOrder(run="q", testbed="unit", role="publisher", protocol="xmpp", broker="127.0.0.1:1", topics=["t"],
                     streams=[1], messages=1)  # fmt: skip
    for change, reason in ({"qos": 2}, "exactly once"), ({"topics": ["a\0b"]}, "characters XML does not have"):
        status, body = publisher.ask("PUT", "/run", to_json(dataclasses.replace(order, **change)))
        assert status == 400
        assert reason in json.loads(body)["error"]
