"""Two local clouds as a testbed file asks for them, their processes on this machine's loopback: from file to steps."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.ports import free_port
from toolkit.controller.control import HttpControl
from toolkit.controller.experiment import run_experiment
from toolkit.controller.stage import Limits
from toolkit.events import Event
from toolkit.measure.collect import FolderCollector
from toolkit.measure.store import RunFolder
from toolkit.measure.tables import read_column
from toolkit.model.samples import read_run
from toolkit.provisioning.local_clouds import DATA_DIR, SEED_DIR
from toolkit.provisioning.render import ImageReference, metrics_port, render_bundles
from toolkit.report.html import render_report
from toolkit.report.table import hop_rows, run_document
from toolkit.report.text import comma_separated, latex, markdown
from toolkit.spec.experiment import plain_experiment
from toolkit.spec.load import load_testbed
from toolkit.spec.testbed import Testbed
from toolkit.state import Deployment, Host, SshAccess

ROOT = Path(__file__).parents[2]
FILE = """
name: clouds
nodes: {{cloud-a: {{}}, cloud-b: {{}}, con: {{}}, pro: {{}}}}
clouds:
  a: {{filler_entries: 5}}
  b: {{filler_entries: 5}}
services:
  registry-a: {{role: service-registry, cloud: a, on: cloud-a, settings: {{port: {0}}}}}
  authorization-a: {{role: authorization, cloud: a, on: cloud-a, settings: {{port: {1}}}}}
  orchestrator-a: {{role: orchestrator, cloud: a, on: cloud-a, settings: {{port: {2}}}}}
  gatekeeper-a: {{role: gatekeeper, cloud: a, on: cloud-a, settings: {{port: {3}, outbound_port: {4}}}}}
  registry-b: {{role: service-registry, cloud: b, on: cloud-b, settings: {{port: {5}}}}}
  authorization-b: {{role: authorization, cloud: b, on: cloud-b, settings: {{port: {6}}}}}
  orchestrator-b: {{role: orchestrator, cloud: b, on: cloud-b, settings: {{port: {7}}}}}
  gatekeeper-b: {{role: gatekeeper, cloud: b, on: cloud-b, settings: {{port: {8}, outbound_port: {9}}}}}
  thermometer: {{role: provider, cloud: b, on: pro, settings: {{system: therm-1, port: {10}}}}}
  near: {{role: consumer, cloud: b, on: con}}
  far: {{role: consumer, cloud: a, on: con}}
workloads:
  intracloud: {{consumers: near, messages: 10, arrivals: {{rate: 20/s}}, payload: 700B}}
  intercloud:
    consumers: far
    messages: 10
    warmup: 2
    arrivals: {{rate: 20/s}}
    reference: [{{source: thesis, mean: 4566.6, max: 10103}}]
    asserts: {{lost: == 0, mean_ms: <= 60s}}
  unknown: {{consumers: far, messages: 3, arrivals: closed, options: {{service: Nobody, metadata: {{}}}}}}
"""


@dataclass
class Clouds:
    testbed: Testbed
    deployment: Deployment
    control_ports: dict[tuple[str, int], int]
    home: Path

    def run(self, workload: str) -> RunFolder:
        events: list[Event] = []
        control = HttpControl(
            lambda p: http.client.HTTPConnection("127.0.0.1", self.control_ports[p.service, p.control_port], timeout=5),
            lambda node: time.time_ns(),
        )
        outcome = run_experiment(
            self.testbed,
            self.deployment,
            plain_experiment(self.testbed.workloads[workload]),
            control=lambda _: control,
            collector=lambda _: FolderCollector({node.name: self.home / node.name for node in self.testbed.nodes}),
            emit=events.append,
            limits=Limits(start_ahead_s=0.3, poll_s=0.1, dead_after=2),
        )
        return outcome.runs[0]


class AnyImage(dict[tuple[str, str], ImageReference]):
    def __missing__(self, key: tuple[str, str]) -> ImageReference:
        return ImageReference(reference=key[0], content="content")


@pytest.fixture(scope="module")
def clouds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clouds]:
    """Every container of the bundles as a process with the same command and variables, but for paths and ports."""
    home = tmp_path_factory.mktemp("clouds")
    file = home / "testbed.yml"
    file.write_text(FILE.format(*(free_port() for _ in range(11))))
    testbed = load_testbed(file)
    hosts = {
        node.name: Host(
            node=node.name, provider="container", type="container", address="127.0.0.1", architecture="amd64",
            ssh=SshAccess(address="127.0.0.1", known_hosts=""), facts={"shared_clock": True},
        )
        for node in testbed.nodes
    }  # fmt: skip
    processes: list[subprocess.Popen[bytes]] = []
    control_ports, metrics_ports = {}, {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOOLKIT_HOME", str(home / ".toolkit"))
        try:
            for node, bundle in render_bundles(testbed, hosts, AnyImage()).items():
                (home / node).mkdir()
                for written in bundle.files:
                    (home / node / written.path).parent.mkdir(parents=True, exist_ok=True)
                    (home / node / written.path).write_text(written.content)
                for container in bundle.containers:
                    if container.image != "arrowhead":
                        continue
                    service = next(s for s in testbed.services if s.name == container.service)
                    control, metrics = free_port(), free_port()
                    control_ports[service.name, metrics_port(testbed, service, 0) + 1] = control
                    metrics_ports[service.name] = metrics
                    environment = container.environment | {
                        "PATH": os.environ["PATH"],
                        "PYTHONPATH": str(ROOT),
                        "TOOLKIT_METRICS_PORT": str(metrics),
                        "TOOLKIT_CONTROL_PORT": str(control),
                        "TOOLKIT_SAMPLES_DIR": str(home / node),
                    }
                    for name, value in environment.items():
                        here = value.replace(DATA_DIR, str(home / node / "data"))
                        environment[name] = here.replace(SEED_DIR, str(home / node / f"etc/{service.name}"))
                    log = (home / f"{service.name}.log").open("wb")
                    processes.append(
                        subprocess.Popen(
                            [sys.executable, "-m", *container.command], env=environment, stdout=log, stderr=log
                        )
                    )
                    log.close()
            await_health(metrics_ports, home)
            deployment = Deployment(name="clouds", file=str(file), stage="deployed", hosts=hosts)
            yield Clouds(testbed, deployment, control_ports, home)
        finally:
            for process in processes:
                process.send_signal(signal.SIGTERM)
            for process in processes:
                process.wait(15)


def await_health(ports: dict[str, int], home: Path) -> None:
    deadline = time.monotonic() + 120
    for service, port in ports.items():
        while True:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            with contextlib.suppress(OSError), contextlib.closing(connection):
                connection.request("GET", "/healthz")
                if connection.getresponse().status == 200:
                    break
            assert time.monotonic() < deadline, (home / f"{service}.log").read_text()
            time.sleep(0.05)


def faults_of(kpis: dict[str, Any]) -> list[str]:
    """Without lateness, which is this machine's and not what is tried here."""
    return [fault for fault in kpis["faults"] if "was late" not in fault]


def test_within_a_cloud_each_step_is_recorded(clouds: Clouds) -> None:
    run = clouds.run("intracloud")
    kpis = run.kpis()
    assert faults_of(kpis) == []
    assert kpis["ledger"]["total"]["delivered"] == 10
    assert kpis["request_bytes"] == 700
    names = [step["name"] for step in kpis["sequence"] if step["kind"] != "inside"]
    assert names == [
        "consumer@b -> orchestrator@b: orchestration",
        "orchestrator@b -> service_registry@b: query",
        "service_registry@b query: query",
        "service_registry@b -> orchestrator@b: query",
        "orchestrator@b -> authorization@b: intracloud",
        "authorization@b query: intracloud",
        "authorization@b -> orchestrator@b: intracloud",
        "orchestrator@b -> consumer@b: orchestration",
    ]
    assert all(step["requests"] == 10 for step in kpis["sequence"])
    steps = sum(kpis["hops"][step["name"]]["mean_ms"] for step in kpis["sequence"])
    assert steps == pytest.approx(kpis["hops"]["end_to_end"]["mean_ms"], rel=0.001)
    assert run.verify() == []


def test_between_clouds_discovery_and_negotiation_are_recorded(clouds: Clouds) -> None:
    run = clouds.run("intercloud")
    kpis = run.kpis()
    assert faults_of(kpis) == []
    assert kpis["ledger"]["total"] | {"expected": 10, "delivered": 10, "lost": 0} == kpis["ledger"]["total"]
    messages = [step["operation"] for step in kpis["sequence"] if step["kind"] == "message"]
    assert [operation for i, operation in enumerate(messages) if operation not in messages[:i]] == [
        "orchestration", "query", "init_gsd", "gsd_poll", "intercloud", "init_icn", "icn_proposal",
    ]  # fmt: skip
    assert len(messages) == 22
    assert "gatekeeper@b -> authorization@b: intercloud (2)" in kpis["hops"]
    assert len(read_column(run.requests, "t5_ns - t1_ns")) == 10
    rows = [row[0] for row in hop_rows(run_document(run))]
    assert rows[:3] == ["end to end", "  thesis", "consumer@a -> orchestrator@a: orchestration"]


def test_what_nobody_offers_is_refused_and_counted(clouds: Clouds) -> None:
    kpis = clouds.run("unknown").kpis()
    assert kpis["ledger"]["total"]["refused"] == 3
    assert kpis["ledger"]["closes"]
    assert kpis["hops"]["end_to_end"]["count"] == 0


def test_the_steps_are_in_reports_and_known_to_models(clouds: Clouds) -> None:
    run = clouds.run("intracloud")
    document = run_document(run)
    page = render_report([run])
    assert '<svg class="sequence"' in page
    assert "orchestrator@b -&gt; authorization@b: intracloud" in page
    for text in (markdown([document]), comma_separated([document]), latex([document])):
        assert "authorization@b query: intracloud" in text.replace("\\_", "_")
    samples = read_run(run.path)
    assert len(samples.end_to_end) == 10
    assert json.dumps(document)
