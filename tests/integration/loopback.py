"""Real node processes on this machine's loopback, no containers, and the controller's own story over them."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.folders import FolderCollector
from tests.ports import await_port, free_port
from tests.waiting import until
from toolkit.contract.orders import status_from_json
from toolkit.contract.settings import ProcessSettings
from toolkit.controller.control import HttpControl
from toolkit.controller.experiment import run_experiment
from toolkit.controller.stage import Limits
from toolkit.events import Event
from toolkit.measure.store import RunFolder
from toolkit.spec.experiment import plain_experiment
from toolkit.spec.testbed import Image, Link, Node, Service, Testbed
from toolkit.spec.workload import Workload
from toolkit.state import Deployment, Host, SshAccess

ROOT = Path(__file__).resolve().parents[2]
MODULES = {"broker": "event_handler", "publisher": "publisher", "subscriber": "subscriber"}
NODES = {"eh": "broker", "pub": "publisher", "sub-1": "subscriber", "sub-2": "subscriber"}


@dataclass
class Loopback:
    home: Path
    processes: dict[str, subprocess.Popen[bytes]]
    ports: dict[str, int]
    broker_port: int
    broker_image: str = "event-handler"
    events: list[Event] = field(default_factory=list)

    def run(self, workload: Workload, **more: Any) -> list[RunFolder]:
        workload = dataclasses.replace(workload, options={"port": self.broker_port, **workload.options})
        control = HttpControl(
            lambda process: http.client.HTTPConnection("127.0.0.1", self.ports[process.name], timeout=5),
            lambda node: time.time_ns(),
        )
        outcome = run_experiment(
            self.testbed(),
            self.deployment(),
            plain_experiment(workload),
            control=lambda _: control,
            collector=lambda _: FolderCollector({node: self.home / node for node in NODES}),
            emit=self.events.append,
            **({"limits": Limits(start_ahead_s=0.3, poll_s=0.1, dead_after=2)} | more),
        )
        outcome.check()
        return outcome.runs

    def await_sent(self, messages: int) -> None:
        """Until so many of the run have been sent."""
        until(lambda: self._sent() >= messages, instead=self._sent)

    def _sent(self) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self.ports["pub/publisher-0"], timeout=5)
        with contextlib.closing(connection):
            connection.request("GET", "/run")
            return status_from_json(connection.getresponse().read()).sent

    def testbed(self) -> Testbed:
        nodes = tuple(
            Node(
                name=n, kind="host", provider="container", architecture=None, cpus=None, memory_bytes=None, link=Link()
            )
            for n in NODES
        )
        images = {"broker": self.broker_image, "publisher": "client", "subscriber": "client"}
        services = tuple(
            Service(name=r, role=r, image=Image(name=images[r]), nodes=tuple(n for n in NODES if NODES[n] == r))
            for r in images
        )
        return Testbed(name="loopback", file=self.home / "testbed.yml", nodes=nodes, services=services)

    def deployment(self) -> Deployment:
        hosts = {
            node: Host(
                node=node,
                provider="container",
                type="container",
                address="127.0.0.1",
                architecture="amd64",
                ssh=SshAccess(address="127.0.0.1", known_hosts="/dev/null"),
                facts={"shared_clock": True},
            )
            for node in NODES
        }
        return Deployment(name="loopback", file="testbed.yml", stage="deployed", hosts=hosts)


@contextlib.contextmanager
def running(home: Path, *, broker: int | None = None) -> Iterator[Loopback]:
    """Every process of `NODES`; with `broker` that port is somebody else's broker, and `eh` runs nothing."""
    broker_port = broker or free_port()
    processes, ports = {}, {}
    for node, role in NODES.items():
        if role == "broker" and broker:
            (home / node).mkdir()
            continue
        control = free_port()
        settings = ProcessSettings(
            testbed="loopback",
            node=node,
            service=role,
            instance=0,
            metrics_port=free_port(),
            control_port=control,
            samples_dir=str(home / node),
        )
        (home / node).mkdir()
        name = f"{node}/{role}-0"
        environment = os.environ | settings.environment() | {"TOOLKIT_EVENT_HANDLER_PORT": str(broker_port)}
        with (home / f"{node}.log").open("wb") as log:
            processes[name] = subprocess.Popen(
                [sys.executable, "-m", f"toolkit.node.{MODULES[role]}"],
                cwd=ROOT,
                env=environment,
                stderr=log,
                stdout=log,
            )
        ports[name] = control
    for port in [*ports.values(), broker_port]:
        await_port(port)
    try:
        yield Loopback(home, processes, ports, broker_port, "somebody/else" if broker else "event-handler")
    finally:
        _end(processes)


def _end(processes: dict[str, subprocess.Popen[bytes]]) -> None:
    for process in processes.values():
        process.terminate()
    for process in processes.values():
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
