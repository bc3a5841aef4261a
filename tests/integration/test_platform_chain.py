"""Devices, gateway, Mosquitto, hub and customers on this machine's loopback, no containers: from orders to KPIs."""

from __future__ import annotations

import dataclasses
import http.client
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.answers import CHAIN as CHAIN_RUN
from tests.answers import Scraped, await_rules, unanswered, watching
from tests.folders import FolderCollector
from tests.mosquitto import Mosquitto
from tests.unit.node.processes import Bench, NodeProcess, free_port
from toolkit.contract.orders import Arrivals
from toolkit.controller.control import HttpControl
from toolkit.controller.experiment import run_experiment
from toolkit.controller.stage import Limits
from toolkit.measure.ledger import PLACES
from toolkit.measure.store import RunFolder
from toolkit.measure.tables import read_column
from toolkit.spec.experiment import plain_experiment
from toolkit.spec.testbed import Image, Link, Node, Service, Testbed
from toolkit.spec.workload import Workload
from toolkit.state import Deployment, Host, SshAccess

NODES = {"eh": "broker", "gw": "gateway", "hub": "hub", "dev": "publisher", "cust-1": "subscriber",
         "cust-2": "subscriber"}  # fmt: skip
IMAGES = {"broker": "mosquitto", "gateway": "gateway", "hub": "hub", "publisher": "client", "subscriber": "client"}
CHAIN = Workload(
    name="chain",
    gateway="gateway",
    hub="hub",
    connections=3,
    messages=200,
    topics=2,
    qos=1,
    drain_s=1.0,
    payload_bytes=71,
)
WAY = ["uplink", "gateway", "publish", "broker", "deliver", "hub", "downlink", "end_to_end"]


@dataclass
class Chain:
    home: Path
    bench: Bench
    broker: Mosquitto
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    processes: dict[str, NodeProcess] = field(default_factory=dict)

    def start(self, *, watched: bool = False, **hub: Any) -> None:
        ports = {role: {"mqtt_port": free_port(), "http_port": free_port()} for role in ("gateway", "hub")}
        self.settings = {"gateway": ports["gateway"], "hub": ports["hub"] | hub}
        live: dict[str, str] = {}
        if watched:
            stamps = str(free_port())
            live["TOOLKIT_HOP_EXPORTER"] = f"127.0.0.1:{stamps}"
            self.processes["base/hop-exporter-0"] = self.bench.launch(
                "hop_exporter", "hop-exporter", node="base", TOOLKIT_STAMPS_PORT=stamps
            )
        up = {"upstream": self.broker.port, "protocol": "mqtt"}
        for node, role in NODES.items():
            if role == "broker":
                process = self.bench.launch(
                    "hop_probe", "broker-probe", node=node, TOOLKIT_PROBE_PORTS=str(self.broker.port),
                    TOOLKIT_PROBE_SYS="0", **live,
                )  # fmt: skip
                self.processes[f"{node}/broker-probe-0"] = process
            elif role in {"gateway", "hub"}:
                front = self.bench.front(role, **up, node=node, settings=self.settings[role], **live)
                self.processes[f"{node}/{role}-0"] = front.process
            else:
                self.processes[f"{node}/{role}-0"] = self.bench.launch(role, role, node=node, **live)

    def run(self, workload: Workload) -> RunFolder:
        workload = dataclasses.replace(workload, options={**workload.options, "port": self.broker.port})
        control = HttpControl(
            lambda process: http.client.HTTPConnection(
                "127.0.0.1", self.processes[process.name].settings.control_port, timeout=5
            ),
            lambda _: time.time_ns(),
        )
        [run] = run_experiment(
            self.testbed(),
            self.deployment(),
            plain_experiment(workload),
            control=lambda _: control,
            collector=lambda _: FolderCollector({node: self.home / "samples" / node for node in NODES}),
            emit=lambda _: None,
            limits=Limits(start_ahead_s=0.3, poll_s=0.1),
        ).runs
        return run

    def testbed(self) -> Testbed:
        nodes = tuple(
            Node(name=n, kind="host", provider="container", architecture=None, cpus=None, memory_bytes=None,
                 link=Link())
            for n in NODES
        )  # fmt: skip
        services = tuple(
            Service(
                name=role,
                role=role,
                image=Image(name=image),
                nodes=tuple(node for node in NODES if NODES[node] == role),
                settings=self.settings.get(role, {}),
            )
            for role, image in IMAGES.items()
        )
        return Testbed(name="chain", file=self.home / "testbed.yml", nodes=nodes, services=services)

    def deployment(self) -> Deployment:
        hosts = {
            node: Host(
                node=node, provider="container", type="container", address="127.0.0.1", architecture="amd64",
                ssh=SshAccess(address="127.0.0.1", known_hosts="/dev/null"), facts={"shared_clock": True},
            )
            for node in NODES
        }  # fmt: skip
        return Deployment(name="chain", file="testbed.yml", stage="deployed", hosts=hosts)


@pytest.fixture
def chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Chain]:
    monkeypatch.setenv("TOOLKIT_HOME", str(tmp_path / ".toolkit"))
    made = Chain(tmp_path, Bench(tmp_path), Mosquitto(tmp_path))
    yield made
    made.bench.close()
    made.broker.stop()


def books(run: RunFolder) -> tuple[dict[str, Any], dict[str, Any]]:
    """KPIs and the sum of the ledgers, with what must hold of every run."""
    kpis = run.kpis()
    whole = kpis["ledger"]["total"]
    assert kpis["ledger"]["closes"]
    assert whole["dropped"] == sum(whole[place] for place in PLACES)
    assert kpis["counters"]["unmatched_flows"] == 0
    assert kpis["counters"]["foreign"] == 0
    assert run.verify() == []
    return kpis, whole


def test_every_hop_from_device_to_customer(chain: Chain):
    chain.start()
    run = chain.run(dataclasses.replace(CHAIN, warmup_messages=3, arrivals=Arrivals(kind="rate", rate_per_s=200.0)))
    kpis, whole = books(run)
    timing = ("the publisher was late", "the clock of")  # a busy machine's, and nothing of ours
    assert [fault for fault in kpis["faults"] if not fault.startswith(timing)] == []
    assert whole["delivered"] == whole["expected"] == 3 * 200 * 2
    assert list(kpis["hops"]) == WAY
    for name, hop in kpis["hops"].items():
        assert hop["count"] == (600 if name in {"uplink", "gateway", "publish"} else 1200), name
        assert hop["lost"] == hop["negative"] == 0, name
        assert 0 < hop["p50_ms"] < 1000, name
    counters = kpis["counters"]
    assert [counters[f"{end}_{way}"] for end in ("gateway", "broker", "hub") for way in ("received", "sent")] == [
        600, 600, 600, 600, 600, 1200,
    ]  # fmt: skip
    parts = "(gateway_in_ns - t1_ns) + (gateway_out_ns - gateway_in_ns) + (t2_ns - gateway_out_ns) + (t3_ns - t2_ns)"
    parts += " + (hub_in_ns - t3_ns) + (hub_out_ns - hub_in_ns) + (t4_ns - hub_out_ns)"
    difference = read_column(run.samples, f"{parts} - (t4_ns - t1_ns)")
    assert len(difference) == 1200
    assert not difference.any()
    assert read_column(run.messages, "t5_ns - gateway_out_ns").min() > 0


def test_drops_at_the_hub_are_found_there_and_nowhere_else(chain: Chain):
    chain.start(queue_limit=50, send_buffer=4096)
    slow = dataclasses.replace(CHAIN, qos=0, connections=2, messages=1500, topics=1, drain_s=2.0,
                               options={"consume_delay_s": 0.002},
                               arrivals=Arrivals(kind="rate", rate_per_s=1500.0))  # fmt: skip
    kpis, whole = books(chain.run(slow))
    [hub] = [process for process in kpis["processes"] if process["role"] == "hub"]
    assert whole["expected"] == 6000
    assert 0 < whole["dropped"] < 6000
    assert whole["lost_in_hub"] == hub["counts"]["dropped_queue_full"] == kpis["hops"]["hub"]["lost"]
    assert whole["lost_in_hub"] + whole["lost_after_hub"] == whole["dropped"]
    assert kpis["counters"]["gateway_received"] == kpis["counters"]["hub_received"] == 3000


def test_every_panel_of_gateway_hub_and_probe_has_data_of_a_run(chain: Chain):
    chain.start(watched=True, queue_limit=50, send_buffer=4096)
    long = dataclasses.replace(CHAIN, qos=0, messages=2400, topics=1, drain_s=2.0,
                               options={"consume_delay_s": 0.004},
                               arrivals=Arrivals(kind="rate", rate_per_s=400.0))  # fmt: skip
    scraped = [
        Scraped(node=each.split("/")[0], service=process.settings.service, port=process.settings.metrics_port,
                role={"hop-exporter": "monitor", "broker-probe": "probe"}.get(*[process.settings.service] * 2))
        for each, process in chain.processes.items()
    ]  # fmt: skip
    with watching(chain.home / "prometheus", chain.testbed(), scraped) as address:
        begin_s = time.time()
        chain.run(long)
        await_rules(address, end_s := time.time())
        assert unanswered(CHAIN_RUN, address, "chain", begin_s, end_s) == []


@pytest.mark.parametrize("qos", [0, 1])
def test_a_broker_that_starts_again_costs_what_the_books_say(chain: Chain, qos: int):
    chain.start()

    def again() -> None:
        chain.processes["dev/publisher-0"].wait_until_sent(300, within_s=60)
        chain.broker.stop()
        time.sleep(0.5)
        chain.broker.start()

    restarting = threading.Thread(target=again)
    restarting.start()
    run = chain.run(
        dataclasses.replace(CHAIN, qos=qos, messages=None, duration_s=4.0, topics=1, drain_s=3.0,
                            arrivals=Arrivals(kind="rate", rate_per_s=100.0))
    )  # fmt: skip
    restarting.join()
    kpis, whole = books(run)
    assert whole["expected"] == 3 * 400 * 2
    assert whole["delivered"] + whole["dropped"] == whole["expected"]
    hub = next(process for process in kpis["processes"] if process["role"] == "hub")
    assert hub["facts"]["flows"] == 2 + 2  # customers, and two connections to the broker one after the other
    assert hub["counts"]["reconnects"] == 1
    assert {f"{end} lost its connection once during the run" for end in ("gw/gateway-0", "hub/hub-0")} <= set(
        kpis["faults"]
    )
    assert whole["refused"] == 0  # the gateway goes on taking messages in
    assert kpis["counters"]["gateway_received"] == 1200
    assert kpis["counters"]["gateway_sent"] == 1200
    assert whole["lost_in_gateway"] == whole["lost_before_gateway"] == whole["lost_in_hub"] == 0
    if qos:
        assert kpis["counters"]["acknowledged"] == 1200
        assert whole["lost_before_broker"] == 0  # what the broker did not answer was sent again
