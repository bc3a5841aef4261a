"""Real node processes on this machine's loopback as a testbed: no containers, no SSH, the whole story of a run."""

from __future__ import annotations

import dataclasses
import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.ports import free_port
from toolkit.contract.settings import ProcessSettings
from toolkit.controller.control import HttpControl
from toolkit.controller.experiment import run_experiment
from toolkit.controller.stage import Limits
from toolkit.events import Event
from toolkit.measure.collect import FolderCollector
from toolkit.measure.store import RunFolder
from toolkit.spec.testbed import Image, Link, Node, Service, Testbed
from toolkit.spec.workload import Workload
from toolkit.state import Deployment, Host, SshAccess

ROOT = Path(__file__).parents[1]
_MODULES = {"broker": "event_handler", "publisher": "publisher", "subscriber": "subscriber"}
_IMAGES = {"broker": "event-handler", "publisher": "client", "subscriber": "client"}


class LoopbackTestbed:
    """An Event Handler with the given settings, a publisher and subscribers; `run` plays workloads on them."""

    def __init__(self, home: Path, *, settings: Mapping[str, Any], subscribers: int = 1, publishers: int = 1) -> None:
        self.home, self.settings = home, dict(settings)
        self.nodes = {"eh": "broker"}
        self.nodes |= {f"pub-{i + 1}": "publisher" for i in range(publishers)}
        self.nodes |= {f"sub-{i + 1}": "subscriber" for i in range(subscribers)}
        self.broker_port = free_port()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.ports: dict[str, int] = {}

    def __enter__(self) -> Self:
        for node, role in self.nodes.items():
            self._start(node, role)
        for port in [*self.ports.values(), self.broker_port]:
            _await_port(port)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def run(self, workload: Workload, **more: Any) -> list[RunFolder]:
        """Play a workload; the folders of its runs, below $TOOLKIT_HOME."""
        workload = dataclasses.replace(workload, options={**workload.options, "port": self.broker_port})
        events: list[Event] = []
        return run_experiment(
            self.testbed(),
            self.deployment(),
            workload,
            control=HttpControl(
                lambda process: http.client.HTTPConnection("127.0.0.1", self.ports[process.name], timeout=5),
                lambda node: time.time_ns(),
            ),
            collector=FolderCollector({node: self.home / node for node in self.nodes}),
            emit=events.append,
            **({"limits": Limits(start_ahead_s=0.3, poll_s=0.1, dead_after=2)} | more),
        )

    def testbed(self) -> Testbed:
        """What was asked for."""
        nodes = tuple(
            Node(
                name=n, kind="host", provider="container", architecture=None, cpus=None, memory_bytes=None, link=Link()
            )
            for n in self.nodes
        )
        services = tuple(
            Service(
                name=role,
                role=role,
                image=Image(name=image),
                nodes=self._of(role),
                settings=self.settings if role == "broker" else {},
            )
            for role, image in _IMAGES.items()
        )
        return Testbed(name="loopback", file=self.home / "testbed.yml", nodes=nodes, services=services)

    def deployment(self) -> Deployment:
        """What exists: this machine, once for each node."""
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
            for node in self.nodes
        }
        return Deployment(name="loopback", file="testbed.yml", stage="deployed", hosts=hosts)

    def _of(self, role: str) -> tuple[str, ...]:
        return tuple(node for node, its in self.nodes.items() if its == role)

    def _start(self, node: str, role: str) -> None:
        settings = ProcessSettings(
            testbed="loopback", node=node, service=role, instance=0, metrics_port=free_port(),
            control_port=free_port(), samples_dir=str(self.home / node),
        )  # fmt: skip
        (self.home / node).mkdir(parents=True)
        environment = os.environ | settings.environment() | {"TOOLKIT_EVENT_HANDLER_PORT": str(self.broker_port)}
        if role == "broker":
            environment["TOOLKIT_SETTINGS"] = json.dumps(self.settings)
        command: Sequence[str] = [sys.executable, "-m", f"toolkit.node.{_MODULES[role]}"]
        with (self.home / f"{node}.log").open("wb") as log:
            self.processes[node] = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=log, stdout=log)
        self.ports[f"{node}/{role}-0"] = settings.control_port


def _await_port(port: int) -> None:
    until_s = time.monotonic() + 20
    while time.monotonic() < until_s:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError(f"nothing listens on 127.0.0.1:{port} after 20 s")
