"""Starts node processes for real on loopback and speaks to their control ports."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tests.ports import await_port, free_port
from tests.waiting import until
from toolkit.contract.orders import RunOrder, RunStatus, status_from_json, to_json
from toolkit.contract.samples import STAMP, Point, StampsInfo
from toolkit.contract.settings import ProcessSettings

ROOT = Path(__file__).resolve().parents[3]


@dataclass
class NodeProcess:
    """One running process of ours."""

    settings: ProcessSettings
    process: subprocess.Popen[bytes]
    port: int = 0

    def ask(self, method: str, path: str, body: str | None = None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.settings.control_port, timeout=10)
        connection.request(method, path, body)
        response = connection.getresponse()
        answer = response.status, response.read()
        connection.close()
        return answer

    def metrics(self) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self.settings.metrics_port, timeout=10)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        return text

    def order(self, order: RunOrder) -> None:
        status, body = self.ask("PUT", "/run", to_json(order))
        assert status == 200, body

    def status(self) -> RunStatus:
        return status_from_json(self.ask("GET", "/run")[1])

    def wait_for(self, *phases: str, within_s: float = 20) -> RunStatus:
        def reached() -> RunStatus | None:
            status = self.status()
            assert status.phase != "failed" or "failed" in phases, status.error
            return status if status.phase in phases else None

        return until(reached, within_s=within_s, instead=self.status)

    def wait_until_failed(self, within_s: float = 40) -> str:
        """The reason."""
        return self.wait_for("failed", within_s=within_s).error or ""

    def wait_until_sent(self, count: int, within_s: float = 20) -> None:
        until(lambda: self.status().sent >= count, within_s=within_s, instead=self.status)

    def wait_until_received(self, count: int, within_s: float = 20) -> None:
        until(lambda: self.status().received >= count, within_s=within_s, instead=self.status)

    def start(self, at_ns: int) -> None:
        status, body = self.ask("POST", "/run/start", json.dumps({"at_ns": at_ns}))
        assert status == 200, body

    def stop(self) -> None:
        assert self.ask("POST", "/run/stop")[0] == 200

    def stamps(self, run: str) -> list[tuple[Any, ...]]:
        path = Path(self.settings.samples_dir) / run / f"{self.settings.service}-{self.settings.instance}.stamps"
        return list(STAMP.iter_unpack(path.read_bytes()))

    def info(self, run: str) -> StampsInfo:
        path = Path(self.settings.samples_dir) / run / f"{self.settings.service}-{self.settings.instance}.json"
        return StampsInfo(**json.loads(path.read_text()))

    def rss_bytes(self) -> int:
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGESIZE")


@dataclass
class Front:
    """A gateway or hub and where its clients find it."""

    process: NodeProcess
    ports: dict[str, int]

    def address(self, protocol: str) -> str:
        return f"127.0.0.1:{self.ports[protocol]}"


class Bench:
    """Starts processes, ends them all."""

    starts_within_s = 20.0

    def __init__(self, folder: Path, python: str = sys.executable) -> None:
        self.folder = folder
        self.python = python
        self.processes: list[NodeProcess] = []

    def launch(
        self,
        module: str,
        service: str,
        instance: int = 0,
        *,
        node: str = "here",
        serves_orders: bool = True,
        **environment: str,
    ) -> NodeProcess:
        """Returns once it listens. A node other than `here` has a samples folder of its own."""
        settings = ProcessSettings(
            testbed="unit",
            node=node,
            service=service,
            instance=instance,
            metrics_port=free_port(),
            control_port=free_port(),
            samples_dir=str(self.folder / "samples" / ("" if node == "here" else node)),
        )
        with (self.folder / f"{'' if node == 'here' else f'{node}-'}{service}-{instance}.log").open("ab") as log:
            process = self.start(module, service, settings.environment() | environment, log)
        node_process = NodeProcess(settings=settings, process=process)
        self.processes.append(node_process)
        self._await_port(node_process, settings.control_port if serves_orders else settings.metrics_port)
        return node_process

    def start(
        self, module: str, service: str, environment: Mapping[str, str], log: IO[bytes]
    ) -> subprocess.Popen[bytes]:
        """The process itself, here with this machine's Python."""
        del service
        inherited = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.Popen(
            [self.python, "-m", f"toolkit.node.{module}"],
            env={**inherited, **environment},
            stderr=log,
            cwd=self.folder,
        )

    def event_handler(self, **environment: str) -> NodeProcess:
        port = free_port()
        process = self.launch("event_handler", "broker", TOOLKIT_EVENT_HANDLER_PORT=str(port), **environment)
        process.port = port
        return process

    def publisher(self, instance: int = 0, **environment: str) -> NodeProcess:
        return self.launch("publisher", "publisher", instance, **environment)

    def subscriber(self, instance: int = 0, **environment: str) -> NodeProcess:
        return self.launch("subscriber", "subscriber", instance, **environment)

    def gateway(self, upstream: int, *, protocol: str = "mqtt", **settings: Any) -> Front:
        return self.front("gateway", upstream=upstream, protocol=protocol, settings=settings)

    def hub(self, upstream: int, *, protocol: str = "mqtt", **settings: Any) -> Front:
        return self.front("hub", upstream=upstream, protocol=protocol, settings=settings)

    def front(
        self,
        role: str,
        *,
        upstream: int,
        protocol: str,
        settings: dict[str, Any],
        node: str = "here",
        **environment: str,
    ) -> Front:
        settings = {"mqtt_port": free_port(), "http_port": free_port()} | settings
        process = self.launch(
            role,
            role,
            node=node,
            TOOLKIT_UPSTREAM=f"127.0.0.1:{upstream}",
            TOOLKIT_UPSTREAM_PROTOCOL=protocol,
            TOOLKIT_SETTINGS=json.dumps(settings),
            **environment,
        )
        return Front(process=process, ports={"mqtt": settings["mqtt_port"], "rest": settings["http_port"]})

    def log(self, service: str, instance: int = 0) -> str:
        return (self.folder / f"{service}-{instance}.log").read_text()

    def close(self) -> None:
        for node_process in self.processes:
            node_process.process.terminate()
        for node_process in self.processes:
            try:
                node_process.process.wait(10)
            except subprocess.TimeoutExpired:
                node_process.process.kill()
                node_process.process.wait()
                raise

    def _await_port(self, node_process: NodeProcess, port: int) -> None:
        try:
            await_port(port, process=node_process.process, within_s=self.starts_within_s)
        except AssertionError as error:
            settings = node_process.settings
            raise AssertionError(self.log(settings.service, settings.instance)) from error


def play(
    broker_process: NodeProcess | None,
    publishers: list[NodeProcess],
    subscribers: list[NodeProcess],
    *,
    drain_s: float = 0.3,
    within_s: float = 60,
    **order: Any,
) -> None:
    """One run as the controller plays it: prepare, ready, start, done, drain, stop."""
    order = {"testbed": "unit", "protocol": "sse", "topics": ["pressure"], **order}
    streams_each = order.get("connections", 1) * len(order["topics"])
    subscriber_connections = order.pop("subscriber_connections", 1)
    everyone = [*([broker_process] if broker_process else []), *subscribers, *publishers]
    if broker_process is not None:
        broker_process.order(RunOrder(role="broker", **{**order, "connections": 1}))
        broker_process.wait_for("ready")
    for subscriber in subscribers:
        subscriber.order(RunOrder(role="subscriber", **{**order, "connections": subscriber_connections}))
    for subscriber in subscribers:
        subscriber.wait_for("ready")
    for index, publisher in enumerate(publishers):
        streams = list(range(100 + index * streams_each, 100 + (index + 1) * streams_each))
        publisher.order(RunOrder(role="publisher", streams=streams, **order))
    for publisher in publishers:
        publisher.wait_for("ready")
    at_ns = time.time_ns() + 100_000_000
    for process in everyone:
        process.start(at_ns)
    for publisher in publishers:
        publisher.wait_for("done", within_s=within_s)
    await_quiet(subscribers, drain_s)
    for process in [*subscribers, *([broker_process] if broker_process else [])]:
        process.stop()
        process.wait_for("done")


def await_quiet(subscribers: list[NodeProcess], quiet_s: float) -> None:
    """Until nothing has been received for so long."""
    before: list[int] = []
    while (now := [subscriber.status().received for subscriber in subscribers]) != before:
        before = now
        time.sleep(quiet_s)


def of_point(stamps: list[tuple[Any, ...]], point: Point) -> list[tuple[Any, ...]]:
    return [stamp for stamp in stamps if stamp[0] == point]
