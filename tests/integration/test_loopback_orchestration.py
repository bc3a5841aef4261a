"""Two local clouds as a testbed file asks for them, their processes on this machine's loopback: from file to steps."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.answers import CLOUDS, Scraped, await_rules, unanswered, watching
from tests.clouds_on_loopback import Clouds, clouds_of
from tests.ports import free_port
from toolkit.measure.tables import read_column
from toolkit.model.samples import read_run
from toolkit.report.html import render_report, write_figures
from toolkit.report.table import hop_rows, remarks, run_document
from toolkit.report.text import comma_separated, latex, markdown

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


@pytest.fixture(scope="module")
def clouds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clouds]:
    text = FILE.format(*(free_port() for _ in range(11)))
    with clouds_of(text, tmp_path_factory.mktemp("clouds")) as running:
        running.await_health()
        yield running


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
    assert any(line.startswith("database queries: ") for line in remarks(run_document(run)))
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


def test_every_panel_of_the_arrowhead_page_has_data_of_runs(clouds: Clouds) -> None:
    scraped = [
        Scraped(node=service.nodes[0], service=service.name, role=service.role, port=clouds.metrics_ports[service.name])
        for service in clouds.testbed.services
        if service.name in clouds.metrics_ports
    ]
    with watching(clouds.home / "prometheus", clouds.testbed, scraped) as address:
        begin_s = time.time()
        for _ in range(3):  # a counter that is new has no rate before its second scrape
            clouds.run("intercloud")
        await_rules(address, end_s := time.time())
        assert unanswered(CLOUDS, address, clouds.testbed.name, begin_s, end_s) == []


def test_what_nobody_offers_is_refused_and_counted(clouds: Clouds) -> None:
    run = clouds.run("unknown")
    kpis = run.kpis()
    assert kpis["ledger"]["total"]["refused"] == 3
    assert kpis["ledger"]["closes"]
    assert kpis["hops"]["end_to_end"]["count"] == 0
    (why,) = [line for line in remarks(run_document(run)) if "the last bad answer was 401: " in line]
    assert "The cloud a may not use Nobody" in why


def test_the_steps_are_in_reports_and_known_to_models(clouds: Clouds, tmp_path: Path) -> None:
    run = clouds.run("intracloud")
    document = run_document(run)
    page = render_report([run])
    assert '<svg class="sequence"' in page
    assert "orchestrator@b -&gt; authorization@b: intracloud" in page
    files = write_figures([run], tmp_path, form="svg")
    assert [file.stem for file in files][-1] == "sequence"
    assert files[-1].read_text().count("database ") == 2
    for text in (markdown([document]), comma_separated([document]), latex([document])):
        assert "authorization@b query: intracloud" in text.replace("\\_", "_")
    samples = read_run(run.path)
    assert len(samples.end_to_end) == 10
    assert json.dumps(document)
