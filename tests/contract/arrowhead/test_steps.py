"""A consumer and a provider of ours: the run's stamps, and every step of a request through two clouds."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import until
from toolkit.contract.orders import Arrivals, RunOrder, to_json
from toolkit.contract.samples import STAMP, STAMP_BYTES, Point
from toolkit.contract.steps import read_records, request_id, steps_of

from .local_cloud import NODE_PYTHON, SOURCE, LocalCloud, ask, free_port


@pytest.fixture(scope="module")
def clients(
    clouds: tuple[LocalCloud, LocalCloud], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Any]]:
    """A consumer in the first cloud, a provider in the second."""
    folder = tmp_path_factory.mktemp("clients")
    one, two = clouds
    ports = {name: free_port() for name in ("consumer_metrics", "control", "provider", "provider_metrics")}
    common = {
        "PYTHONPATH": str(SOURCE),
        "TOOLKIT_TESTBED": "test",
        "TOOLKIT_NODE": "here",
        "TOOLKIT_SAMPLES_DIR": str(folder),
        "TOOLKIT_CONTROL_PORT": str(ports["control"]),
    }
    environments = {
        "consumer": {
            "TOOLKIT_SERVICE": "consumer",
            "TOOLKIT_METRICS_PORT": str(ports["consumer_metrics"]),
            "TOOLKIT_ARROWHEAD_CLOUD": one.name,
        },
        "provider": {
            "TOOLKIT_SERVICE": "provider",
            "TOOLKIT_METRICS_PORT": str(ports["provider_metrics"]),
            "TOOLKIT_ARROWHEAD_SR_ADDRESS": f"127.0.0.1:{two.ports['service_registry']}",
            "TOOLKIT_ARROWHEAD_PORT": str(ports["provider"]),
            "TOOLKIT_PROVIDER_METADATA": "unit=kelvin",
        },
    }
    processes = {
        name: subprocess.Popen([NODE_PYTHON, "-m", f"toolkit.node.arrowhead.{name}"], env={**common, **environment})
        for name, environment in environments.items()
    }
    try:
        for name in processes:
            until(lambda name=name: ask(ports[f"{name}_metrics"], "GET", "/healthz").status == 200)
        yield {"ports": ports, "folder": folder, "processes": processes}
    finally:
        for process in processes.values():
            process.terminate()
        assert [process.wait(10) for process in processes.values()] == [0, 0]


def play(clients: dict[str, Any], order: RunOrder) -> dict[str, Any]:
    port = clients["ports"]["control"]
    answer = ask(port, "PUT", "/run", body=to_json(order).encode())
    assert answer.status == 200, answer.body
    until(lambda: ask(port, "GET", "/run").json["phase"] == "ready")
    ask(port, "POST", "/run/start", {"at_ns": time.time_ns()})
    until(lambda: ask(port, "GET", "/run").json["phase"] in ("done", "failed"))
    status: dict[str, Any] = ask(port, "GET", "/run").json
    assert status["phase"] == "done", status
    return status


def order_for(cloud: LocalCloud, run: str, **options: Any) -> RunOrder:
    return RunOrder(
        run=run,
        testbed="test",
        role="consumer",
        protocol="arrowhead",
        broker=f"127.0.0.1:{cloud.ports['orchestrator']}",
        streams=[7],
        messages=5,
        payload_bytes=700,
        warmup_messages=1,
        arrivals=Arrivals(kind="rate", rate_per_s=50),
        drain_s=0.1,
        options={"system": "panel-7", "address": "10.20.0.60", **options},
    )


def test_every_step_of_an_intercloud_request(
    clients: dict[str, Any], cloud: LocalCloud, other_cloud: LocalCloud
) -> None:
    order = order_for(cloud, "inter", metadata={"unit": "kelvin"}, consume=True)
    status = play(clients, order)
    assert (status["sent"], status["received"]) == (5, 5)

    info = json.loads((clients["folder"] / "inter/consumer-0.json").read_text())
    assert info["facts"]["outcomes"]["answered"] == 5
    assert info["facts"]["last_problem"] == ""
    stamps = (clients["folder"] / "inter/consumer-0.stamps").read_bytes()
    points = [STAMP.unpack(stamps[i : i + STAMP_BYTES])[0] for i in range(0, len(stamps), STAMP_BYTES)]
    assert sorted(points) == [Point.SENT] * 6 + [Point.ACKED] * 6

    lines = {clients["folder"] / "inter/consumer-0.steps.jsonl": 6}
    for each, system, per_request in (
        (cloud, "service_registry", 2),
        (cloud, "orchestrator", 4),
        (cloud, "gatekeeper", 6),
        (other_cloud, "gatekeeper", 7),
        (other_cloud, "authorization", 4),
        (other_cloud, "service_registry", 4),
        (other_cloud, "orchestrator", 2),
    ):
        lines[each.folder / f"samples/inter/{system}-0.steps.jsonl"] = 6 * per_request
    until(lambda: all(file.exists() and file.read_text().count("\n") == count for file, count in lines.items()))
    steps = steps_of(read_records(line for file in lines for line in file.read_text().splitlines()))
    own = [step for step in steps if step.request == request_id("inter", 7, 3)]
    sequence = [step.step for step in own if "inside" not in step.step]
    assert sequence == [
        "consumer@hall-1 -> orchestrator@hall-1: orchestration",
        "orchestrator@hall-1 -> service_registry@hall-1: query",
        "service_registry@hall-1 query: query",
        "service_registry@hall-1 -> orchestrator@hall-1: query",
        "orchestrator@hall-1 -> gatekeeper@hall-1: init_gsd",
        "gatekeeper@hall-1 query: init_gsd",
        "gatekeeper@hall-1 -> gatekeeper@hall-2: gsd_poll",
        "gatekeeper@hall-2 -> authorization@hall-2: intercloud",
        "authorization@hall-2 query: intercloud",
        "authorization@hall-2 -> gatekeeper@hall-2: intercloud",
        "gatekeeper@hall-2 -> service_registry@hall-2: query",
        "service_registry@hall-2 query: query",
        "service_registry@hall-2 -> gatekeeper@hall-2: query",
        "gatekeeper@hall-2 query: gsd_poll",
        "gatekeeper@hall-2 -> gatekeeper@hall-1: gsd_poll",
        "gatekeeper@hall-1 -> orchestrator@hall-1: init_gsd",
        "orchestrator@hall-1 -> gatekeeper@hall-1: init_icn",
        "gatekeeper@hall-1 query: init_icn",
        "gatekeeper@hall-1 -> gatekeeper@hall-2: icn_proposal",
        "gatekeeper@hall-2 -> authorization@hall-2: intercloud",
        "authorization@hall-2 query: intercloud",
        "authorization@hall-2 -> gatekeeper@hall-2: intercloud",
        "gatekeeper@hall-2 -> orchestrator@hall-2: orchestration",
        "orchestrator@hall-2 -> service_registry@hall-2: query",
        "service_registry@hall-2 query: query",
        "service_registry@hall-2 -> orchestrator@hall-2: query",
        "orchestrator@hall-2 -> gatekeeper@hall-2: orchestration",
        "gatekeeper@hall-2 -> gatekeeper@hall-1: icn_proposal",
        "gatekeeper@hall-1 -> orchestrator@hall-1: init_icn",
        "orchestrator@hall-1 -> consumer@hall-1: orchestration",
    ]
    total_ns = own[-1].end_ns - own[0].start_ns
    assert sum(step.end_ns - step.start_ns for step in own) == total_ns  # without a gap, without overlap


def test_what_is_not_found_is_counted_apart(clients: dict[str, Any], cloud: LocalCloud) -> None:
    status = play(clients, order_for(cloud, "missing", service="Nowhere", flags={"enableInterCloud": False}))
    assert (status["sent"], status["received"]) == (5, 0)
    page = ask(clients["ports"]["consumer_metrics"], "GET", "/metrics").body.decode()
    assert 'toolkit_orchestration_seconds_count{run="missing",outcome="not_found"} 5' in page


def test_orders_that_cannot_be_carried_out(clients: dict[str, Any], cloud: LocalCloud) -> None:
    for change in ({"protocol": "mqtt"}, {"broker": "nowhere"}, {"messages": None}):
        document = json.loads(to_json(order_for(cloud, "wrong"))) | change
        assert ask(clients["ports"]["control"], "PUT", "/run", document).status == 400


def test_a_request_of_any_client_is_traced(cloud: LocalCloud) -> None:
    from .local_cloud import request_form

    assert cloud.orchestrator("POST", "/orchestrator/orchestration", request_form()).status == 200
    file = Path(cloud.folder / "samples/orchestrator-0.steps.jsonl")
    until(lambda: file.exists() and "intracloud" in file.read_text())
    records = read_records(file.read_text().splitlines())
    assert {record.operation for record in records} >= {"orchestration", "query", "intracloud"}


def test_metrics_of_the_systems(cloud: LocalCloud) -> None:
    page = ask(cloud.metrics["service_registry"], "GET", "/metrics").body.decode()
    assert "toolkit_arrowhead_ready 1" in page
    assert 'toolkit_arrowhead_request_seconds_count{operation="query",status="200"}' in page
    assert 'toolkit_arrowhead_query_seconds_bucket{operation="query",le="0.001"}' in page
