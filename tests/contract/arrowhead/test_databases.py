"""The same answers with the database servers that a testbed may name; each is started here where it is installed."""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.clouds_on_loopback import clouds_of
from tests.ports import free_port
from toolkit.measure.tables import read_column

from .database_servers import PASSWORD, DatabaseServer
from .local_cloud import ENTRY, GAUGE, PANEL, PRESS_GAUGE, LocalCloud, ask, request_form

SYSTEMS = ("service_registry", "authorization", "orchestrator")
ORCHESTRATE = "/orchestrator/orchestration"
FILE = """
name: served
nodes: {{node: {{}}}}
secrets: {{stores: "${{env.STORES_PASSWORD}}"}}
clouds:
  hall: {{database: "{url}", database_password: stores, filler_entries: 60}}
services:
  registry: {{role: service-registry, cloud: hall, on: node, settings: {{port: {ports[0]}, database_timeout: 2s}}}}
  authorization: {{cloud: hall, on: node, settings: {{port: {ports[1]}, database_timeout: 2s}}}}
  orchestrator: {{cloud: hall, on: node, settings: {{port: {ports[2]}, database_timeout: 2s}}}}
  provider: {{cloud: hall, on: node, settings: {{port: {ports[3]}}}}}
  consumer: {{cloud: hall, on: node}}
workloads:
  steady: {{consumers: consumer, messages: 20, arrivals: {{rate: 20/s}}}}
  away: {{consumers: consumer, messages: 100, arrivals: {{rate: 10/s}}}}
"""


@pytest.mark.databases
def test_a_cloud_on_a_server_that_restarts(database: DatabaseServer, tmp_path: Path) -> None:
    cloud = LocalCloud("served", tmp_path / "cloud", database=database.url)
    cloud.environment = {"TOOLKIT_ARROWHEAD_GATEKEEPER": "0", "TOOLKIT_ARROWHEAD_DATABASE_TIMEOUT_S": "2"}
    cloud.seed(
        registryEntries=[ENTRY],
        intraCloud=[{"consumer": PANEL, "providerList": [PRESS_GAUGE], "serviceList": [GAUGE]}],
        fillerEntries=60,
    )
    # The systems come first and wait for their database; all migrate at the same time.
    cloud.start(*SYSTEMS)
    time.sleep(1)
    database.start()
    try:
        cloud.await_ready(*SYSTEMS, patience_s=60)
        answer = cloud.orchestrator("POST", ORCHESTRATE, request_form())
        assert answer.status == 200, answer.body
        assert answer.json["response"][0]["provider"]["systemName"] == "PressGauge01"
        for name in ("Case", "case", "case ", "Größe 尺寸"):
            provider = {**PRESS_GAUGE, "systemName": "names"}
            entry = {**ENTRY, "providedService": {**GAUGE, "serviceDefinition": name}, "provider": provider}
            assert cloud.service_registry("POST", "/serviceregistry/register", entry).status == 201, name
            again = cloud.service_registry("POST", "/serviceregistry/register", entry)
            assert again.json["exceptionType"] == "DUPLICATE_ENTRY"
        found = cloud.service_registry("PUT", "/serviceregistry/query", {"service": {"serviceDefinition": "case"}})
        assert len(found.json["serviceQueryData"]) == 1
        assert found.json["serviceQueryData"][0]["endOfValidity"] == ENTRY["endOfValidity"]
        stored = [{"service": GAUGE, "consumer": PANEL, "providerSystem": PRESS_GAUGE, "priority": 1}]
        (entry,) = cloud.orchestrator("POST", "/orchestrator/mgmt/store", stored).json
        assert entry["attributes"] == {"unit": "bar"}

        database.stop()
        refused = cloud.service_registry("PUT", "/serviceregistry/query", {"service": GAUGE})
        assert (refused.status, refused.json["exceptionType"]) == (503, "UNAVAILABLE"), refused.body
        refused = cloud.service_registry("POST", "/serviceregistry/register", {**ENTRY, "serviceURI": "x"})
        assert refused.status == 503
        database.start()
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(AssertionError):
                cloud.await_ready(*SYSTEMS, patience_s=1)
                break
            assert time.monotonic() < deadline
        assert cloud.orchestrator("POST", ORCHESTRATE, request_form()).status == 200
        names = cloud.service_registry("PUT", "/serviceregistry/query", {"service": {"serviceDefinition": "case "}})
        assert len(names.json["serviceQueryData"]) == 1
    finally:
        codes = cloud.stop()
    assert set(codes.values()) <= {0}


class Registering(threading.Thread):
    """Registers a new service ten times a second until it is told to stop, and remembers every answer."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.port = port
        self.answers: list[tuple[str, int, Any]] = []
        self.stopping = threading.Event()

    def run(self) -> None:
        number = 0
        while not self.stopping.wait(0.1):
            number += 1
            name = f"Kept{number}"
            entry = {**ENTRY, "providedService": {**GAUGE, "serviceDefinition": name}}
            answer = ask(self.port, "POST", "/serviceregistry/register", entry)
            self.answers.append((name, answer.status, answer.json.get("exceptionType")))


@pytest.mark.databases
def test_a_server_of_the_testbed_file_that_goes_away_meanwhile(database: DatabaseServer, tmp_path: Path) -> None:
    ports = [free_port() for _ in range(4)]
    database.start()
    text = FILE.format(url=database.url.replace(f":{PASSWORD}@", "@"), ports=ports)
    with clouds_of(text, tmp_path, secrets={"stores": PASSWORD}) as clouds:
        clouds.await_health()
        kpis = clouds.run("steady").kpis()
        assert kpis["ledger"]["total"]["delivered"] == 20
        assert kpis["hops"]["service_registry@hall query: query"]["mean_ms"] > 0
        assert kpis["hops"]["authorization@hall query: intracloud"]["mean_ms"] > 0

        registering = Registering(ports[0])
        registering.start()

        def restart() -> None:
            database.stop()
            time.sleep(1.5)
            database.start()

        restarting = threading.Timer(2.0, restart)
        restarting.start()
        run = clouds.run("away")
        restarting.join()
        clouds.await_health()
        registering.stopping.set()
        registering.join()

        total = run.kpis()["ledger"]["total"]
        assert total["expected"] == 100
        assert total["refused"] > 0
        # Every request has an answer: there is nobody who waits in vain.
        assert total["delivered"] + total["refused"] == 100
        late = read_column(run.requests, "seq", "t5_ns IS NOT NULL")
        assert late.min() < 10
        seen = {(status, kind) for _, status, kind in registering.answers}
        assert seen == {(201, None), (503, "UNAVAILABLE")}
        for name, status, _ in registering.answers:
            found = ask(ports[0], "PUT", "/serviceregistry/query", {"service": {"serviceDefinition": name}})
            if status == 201:
                assert len(found.json["serviceQueryData"]) == 1, name
        assert clouds.run("steady").kpis()["ledger"]["total"]["delivered"] == 20
        assert all(process.poll() is None for process in clouds.processes.values())


@pytest.mark.databases
def test_a_server_that_hangs(database: DatabaseServer, tmp_path: Path) -> None:
    cloud = LocalCloud("served", tmp_path / "cloud", database=database.url)
    cloud.environment = {"TOOLKIT_ARROWHEAD_GATEKEEPER": "0", "TOOLKIT_ARROWHEAD_DATABASE_TIMEOUT_S": "1"}
    cloud.seed(registryEntries=[ENTRY])
    database.start()
    cloud.start("service_registry")
    try:
        cloud.await_ready("service_registry", patience_s=60)
        with database.hanging():
            refused = cloud.service_registry("PUT", "/serviceregistry/query", {"service": GAUGE})
            assert (refused.status, refused.json["exceptionType"]) == (503, "UNAVAILABLE"), refused.body
            assert cloud.service_registry("GET", "/serviceregistry").status == 200
        cloud.await_ready("service_registry", patience_s=60)
        assert cloud.service_registry("PUT", "/serviceregistry/query", {"service": GAUGE}).status == 200
    finally:
        codes = cloud.stop()
    assert set(codes.values()) <= {0}
