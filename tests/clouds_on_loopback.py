"""Local clouds as a testbed file asks for them, their containers as processes on this machine's loopback."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.folders import FolderCollector
from tests.ports import free_port
from tests.rendered import AnyImage, hosts_on_loopback
from toolkit.controller.control import HttpControl
from toolkit.controller.experiment import run_experiment
from toolkit.controller.stage import Limits
from toolkit.events import Event
from toolkit.measure.store import RunFolder
from toolkit.provisioning.broker_access import access_secrets
from toolkit.provisioning.cloud_secrets import cloud_secrets
from toolkit.provisioning.databases import DATA_DIR
from toolkit.provisioning.local_clouds import SEED_DIR
from toolkit.provisioning.render import metrics_port, render_bundles
from toolkit.spec.experiment import plain_experiment
from toolkit.spec.load import load_testbed
from toolkit.spec.testbed import Testbed
from toolkit.state import Deployment

ROOT = Path(__file__).parents[1]
NODE_PYTHON = os.environ.get("TOOLKIT_NODE_PYTHON", sys.executable)


_COMMANDS = {
    "arrowhead": (),
    "event-handler": ("toolkit.node.event_handler",),
    "client": (),
}
"""Images that are started, and what they run where nothing says so."""


@dataclass
class Clouds:
    """What runs; ports by the service's name."""

    testbed: Testbed
    deployment: Deployment
    home: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    control_ports: dict[tuple[str, int], int] = field(default_factory=dict)
    metrics_ports: dict[str, int] = field(default_factory=dict)

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
        outcome.check()
        return outcome.runs[0]

    def await_health(self, patience_s: float = 120.0) -> None:
        deadline = time.monotonic() + patience_s
        for service in self.metrics_ports:
            while not self.is_healthy(service):
                log = (self.home / f"{service}.log").read_text()
                assert self.processes[service].poll() is None, log
                assert time.monotonic() < deadline, log
                time.sleep(0.05)

    def is_healthy(self, service: str) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.metrics_ports[service], timeout=5)
        with contextlib.suppress(OSError), contextlib.closing(connection):
            connection.request("GET", "/healthz")
            return connection.getresponse().status == 200
        return False


@contextlib.contextmanager
def clouds_of(text: str, home: Path, secrets: Mapping[str, str] | None = None) -> Iterator[Clouds]:
    """Every container of the bundles as a process with the same command and variables, but for paths and ports.

    `secrets`: the values of the file's. What is not in reach yet keeps the systems waiting: see `await_health`.
    """
    file = home / "testbed.yml"
    file.write_text(text)
    testbed = load_testbed(file)
    hosts = hosts_on_loopback(testbed)
    clouds = Clouds(testbed, Deployment(name=testbed.name, file=str(file), stage="deployed", hosts=hosts), home)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOOLKIT_HOME", str(home / ".toolkit"))
        values = cloud_secrets(testbed, home / ".toolkit", (secrets or {}).__getitem__)
        values |= access_secrets(testbed, hosts, home / ".toolkit", (secrets or {}).__getitem__)
        try:
            for node, bundle in render_bundles(testbed, hosts, AnyImage()).items():
                (home / node).mkdir()
                for written in bundle.files:
                    (home / node / written.path).parent.mkdir(parents=True, exist_ok=True)
                    (home / node / written.path).write_text(written.content)
                for container in bundle.containers:
                    if container.image in _COMMANDS:
                        environment = container.environment | _secret_files(home, container.service, values)
                        command = container.command or _COMMANDS[container.image]
                        _start(clouds, node, container.service, command, environment)
            yield clouds
        finally:
            for process in clouds.processes.values():
                process.send_signal(signal.SIGTERM)
            for process in clouds.processes.values():
                process.wait(15)


def _secret_files(home: Path, service: str, values: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    files = {}
    for variable, value in values.get(service, {}).items():
        file = home / f"{service}.{variable}"
        file.write_text(value)
        files[variable] = str(file)
    return files


def _start(clouds: Clouds, node: str, name: str, command: tuple[str, ...], environment: Mapping[str, str]) -> None:
    home = clouds.home
    service = next(s for s in clouds.testbed.services if s.name == name)
    control, metrics = free_port(), free_port()
    clouds.control_ports[name, metrics_port(clouds.testbed, service, 0) + 1] = control
    clouds.metrics_ports[name] = metrics
    given = {
        **environment,
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "TOOLKIT_METRICS_PORT": str(metrics),
        "TOOLKIT_CONTROL_PORT": str(control),
        "TOOLKIT_SAMPLES_DIR": str(home / node),
    }
    for variable, value in given.items():
        here = value.replace(DATA_DIR, str(home / node / "data"))
        given[variable] = here.replace(SEED_DIR, str(home / node / f"etc/{name}"))
    with (home / f"{name}.log").open("wb") as log:
        clouds.processes[name] = subprocess.Popen([NODE_PYTHON, "-m", *command], env=given, stdout=log, stderr=log)
