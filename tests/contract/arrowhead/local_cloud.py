"""A local cloud of real processes on free loopback ports, and the messages that the tests send to it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import ssl
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.ports import free_port

SYSTEMS = ("service_registry", "authorization", "gatekeeper", "orchestrator")
NODE_PYTHON = os.environ.get("TOOLKIT_NODE_PYTHON", sys.executable)
"""Set it to Debian's python3 to run the systems on the packages of the nodes."""
SOURCE = Path(__file__).parents[3]


@dataclass(frozen=True)
class Answered:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(
    port: int,
    method: str,
    path: str,
    message: Any = None,
    *,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
    tls: ssl.SSLContext | None = None,
) -> Answered:
    """One request by the standard library's client, which knows nothing of ours."""
    if message is not None:
        body = json.dumps(message).encode()
    given = {"Content-Type": "application/json"} if body else {}
    connection = (
        http.client.HTTPConnection("127.0.0.1", port, timeout=15)
        if tls is None
        else http.client.HTTPSConnection("127.0.0.1", port, timeout=15, context=tls)
    )
    with contextlib.closing(connection):
        connection.request(method, path, body, {**given, **(headers or {})})
        response = connection.getresponse()
        return Answered(
            response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
        )


@dataclass
class LocalCloud:
    """The core systems of one cloud; a system is started by its name."""

    name: str
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=lambda: {name: free_port() for name in (*SYSTEMS, "outbound")})
    metrics: dict[str, int] = field(default_factory=lambda: {name: free_port() for name in SYSTEMS})
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    database: str = ""

    @property
    def own(self) -> dict[str, Any]:
        return {
            "operator": "plant-op",
            "cloudName": self.name,
            "address": "127.0.0.1",
            "port": self.ports["gatekeeper"],
            "gatekeeperServiceURI": "gatekeeper",
            "secure": self.environment.get("TOOLKIT_ARROWHEAD_SECURE") == "1",
        }

    def seed(self, **document: Any) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "seed.json"
        path.write_text(json.dumps({"ownCloud": self.own, **document}))
        self.environment["TOOLKIT_ARROWHEAD_SEED"] = str(path)

    def start(self, *systems: str, extra: dict[str, dict[str, str]] | None = None) -> None:
        for system in systems or SYSTEMS:
            log = (self.folder / f"{system}.log").open("ab")
            environment = {
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(SOURCE),
                "PYTHONWARNINGS": "error::DeprecationWarning:toolkit",
                "TOOLKIT_NODE": f"node-{self.name}",
                "TOOLKIT_METRICS_PORT": str(self.metrics[system]),
                "TOOLKIT_SAMPLES_DIR": str(self.folder / "samples"),
                "TOOLKIT_ARROWHEAD_CLOUD": self.name,
                "TOOLKIT_ARROWHEAD_PORT": str(self.ports[system]),
                "TOOLKIT_ARROWHEAD_OUTBOUND_PORT": str(self.ports["outbound"]),
                "TOOLKIT_ARROWHEAD_SR_ADDRESS": f"127.0.0.1:{self.ports['service_registry']}",
                "TOOLKIT_ARROWHEAD_DATABASE_URL": self.database or f"sqlite:///{self.folder}/cloud.sqlite",
                **self.environment,
                **(extra or {}).get(system, {}),
            }
            self.processes[system] = subprocess.Popen(
                [NODE_PYTHON, "-m", f"toolkit.node.arrowhead.{system}"], env=environment, stdout=log, stderr=log
            )
            log.close()

    def await_ready(self, *systems: str, patience_s: float = 30.0) -> None:
        deadline = time.monotonic() + patience_s
        for system in systems or SYSTEMS:
            while True:
                with contextlib.suppress(OSError):
                    if ask(self.metrics[system], "GET", "/healthz").status == 200:
                        break
                if time.monotonic() > deadline or self.processes[system].poll() is not None:
                    raise AssertionError(f"{system} is not ready:\n{(self.folder / f'{system}.log').read_text()}")
                time.sleep(0.03)

    def stop(self, *systems: str) -> dict[str, int]:
        """SIGTERM to these, or to all; their exit codes."""
        chosen = [name for name in systems or tuple(reversed(SYSTEMS)) if name in self.processes]
        for name in chosen:
            self.processes[name].send_signal(signal.SIGTERM)
        codes = {}
        for name in chosen:
            try:
                codes[name] = self.processes.pop(name).wait(15)
            except subprocess.TimeoutExpired:
                raise AssertionError(f"{name} does not end on SIGTERM") from None
        return codes

    def __getattr__(self, name: str) -> Any:
        """`cloud.orchestrator("POST", path, message)` asks that system."""
        if name not in self.ports:
            raise AttributeError(name)
        return lambda method, path, message=None, **options: ask(self.ports[name], method, path, message, **options)


GAUGE = {"serviceDefinition": "GaugeReading", "interfaces": ["JSON"], "serviceMetadata": {"unit": "bar"}}
ASKED_GAUGE = {**GAUGE, "interfaces": ["json"]}
PANEL = {"systemName": "panel-7", "address": "10.20.0.60", "port": 8080}
PRESS_GAUGE = {"systemName": "PressGauge01", "address": "10.20.0.31", "port": 8460}
ENTRY = {
    "providedService": GAUGE,
    "provider": PRESS_GAUGE,
    "serviceURI": "pressure",
    "udp": False,
    "endOfValidity": "2131-01-01T00:00:00",
    "version": 1,
}
FLAGS = {
    "onlyPreferred": False,
    "overrideStore": True,
    "externalServiceRequest": False,
    "enableInterCloud": True,
    "enableQoS": False,
    "matchmaking": False,
    "metadataSearch": True,
    "triggerInterCloud": False,
    "pingProviders": False,
}


def request_form(service: dict[str, Any] | None = None, **flags: bool) -> dict[str, Any]:
    """The request of section 3.10 of the framework's documents, with other flags."""
    return {
        "requesterSystem": {**PANEL, "authenticationInfo": "null"},
        "requestedService": ASKED_GAUGE if service is None else service,
        "orchestrationFlags": {**FLAGS, **flags},
        "preferredProviders": [],
        "requestedQoS": {},
        "commands": {},
    }
