"""A testbed that is only pretended: a state file, one server that answers for every target, a real Prometheus."""

from __future__ import annotations

import contextlib
import dataclasses
import http.server
import itertools
import signal
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.folders import write_files
from tests.past import fill, known_series
from tests.ports import free_port
from tests.waiting import until
from toolkit.contract import metrics as m
from toolkit.node.exposition import CONTENT_TYPE, Histogram, expose
from toolkit.provisioning.monitoring import NODE_SCRAPE_S, prometheus_files
from toolkit.provisioning.render import targets
from toolkit.spec.load import load_testbed
from toolkit.spec.testbed import Testbed
from toolkit.state import Deployment, Host, SshAccess, save_deployment

FILE = """\
name: simulated
nodes:
  base: {{kind: vm}}
  eh: {{kind: pi3}}
  pub: {{kind: pi3, count: {publishers}}}
  sub: {{kind: pi1, count: {subscribers}}}
services:
  ntp: {{on: base}}
  monitor: {{on: base}}
  broker: {{on: eh, image: event-handler}}
  publisher: {{on: pub}}
  subscriber: {{on: sub}}
workloads: {{hello: {{messages: 2000}}}}
"""
ROLE_METRICS = {
    "publisher": (m.MESSAGES_SENT, m.MESSAGES_ACKNOWLEDGED, m.SCHEDULE_DELAY, m.RUN_PHASE),
    "subscriber": (m.MESSAGES_RECEIVED, m.MESSAGES_DUPLICATE, m.MESSAGES_FOREIGN, m.RUN_PHASE),
    "broker": (m.BROKER_RECEIVED, m.BROKER_SENT, m.BROKER_DROPPED, m.BROKER_QUEUED, m.BROKER_SUBSCRIBERS),
    "hop-exporter": (m.HOP_DELAY, m.END_TO_END_DELAY, m.HOP_SAMPLED, m.HOP_NEGATIVE, m.EXPORTER_PENDING),
    "clock": (m.CLOCK_OFFSET, m.CLOCK_BOUND, m.CLOCK_SYNCHRONISED, m.CLOCK_ROOT_DELAY, m.CLOCK_FREQUENCY_ERROR,
              m.CLOCK_STEPS, m.CLOCK_STRATUM, m.CLOCK_SHARED),
}  # fmt: skip
LABELS = {
    "run": ("r1", "r2", "r3"), "hop": ("publish", "broker", "deliver", "transport", "acknowledge"), "qos": ("0", "1"),
    "reason": ("full",), "phase": ("idle", "preparing", "ready", "running", "done", "failed"),
}  # fmt: skip
NOT_YET = "global: {scrape_interval: 1s}\n"
SCRAPED_S = 25
"""After which every target was scraped and every rule evaluated several times."""
COLLECTORS = ("cpu", "meminfo", "netdev", "timex", "pressure", "thermal_zone", "filesystem", "loadavg")


@dataclass(frozen=True, kw_only=True)
class Simulated:
    """What was set up."""

    testbed: Testbed
    targets: int
    address: str
    """host:port of its Prometheus."""
    process: int


@contextlib.contextmanager
def simulated(folder: Path, nodes: int, *, past_s: int = 0) -> Iterator[Simulated]:
    """A deployed testbed of so many nodes in the workspace, scraped by a Prometheus as it would be.

    node_exporter's page is this machine's own; toolkit's pages have every metric of their role, counters growing. With
    a past, the series that scraping makes are given samples as if it had gone on for so long.
    """
    file = folder / "testbed.yml"
    publishers = (nodes - 2) // 2
    file.write_text(FILE.format(publishers=publishers, subscribers=nodes - 2 - publishers))
    testbed = load_testbed(file)
    hosts = {node.name: _host(node.name, number) for number, node in enumerate(testbed.nodes)}
    save_deployment(
        Deployment(name=testbed.name, file=str(file), stage="deployed", hosts=hosts, deployed_at=time.time())
    )
    exported, served = free_port(), free_port()
    asked = [
        dataclasses.replace(target, address=f"127.1.{number // 200}.{1 + number % 200}", port=exported)
        for number, target in enumerate(targets(testbed, hosts))
    ]
    pages = _Pages({target.address: target.service if target.role == "monitor" else target.role for target in asked})
    server = http.server.ThreadingHTTPServer(("0.0.0.0", exported), pages.handler())
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # Prometheus ends in the middle of a scrape
    threading.Thread(target=server.serve_forever, daemon=True).start()
    files = prometheus_files(testbed, hosts, asked)
    try:
        with contextlib.ExitStack() as stack:
            address = f"127.0.0.1:{served}"
            if past_s:
                with _prometheus(folder / "first", files, address):
                    time.sleep(SCRAPED_S)
                    series = known_series(address)
                process = stack.enter_context(_prometheus(folder, {**files, "prometheus.yml": NOT_YET}, address))
                now_s = int(time.time())
                fill(address, series, NODE_SCRAPE_S, now_s - past_s, now_s)
                write_files(folder, files)
                process.send_signal(signal.SIGHUP)
            else:
                process = stack.enter_context(_prometheus(folder, files, address))
            yield Simulated(testbed=testbed, targets=len(asked), address=address, process=process.pid)
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def _prometheus(folder: Path, files: Mapping[str, str], address: str) -> Iterator[subprocess.Popen[bytes]]:
    write_files(folder, files)
    process = subprocess.Popen(
        ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
         f"--web.listen-address={address}", "--web.enable-remote-write-receiver", "--log.level=error"],
    )  # fmt: skip
    try:
        until(lambda: _is_ready(address))
        yield process
    finally:
        process.terminate()
        process.wait(30)


def _is_ready(address: str) -> bool:
    with urllib.request.urlopen(f"http://{address}/-/ready", timeout=5) as answer:
        return bool(answer.status == 200)


def _host(node: str, number: int) -> Host:
    address = f"127.0.{1 + number // 200}.{1 + number % 200}"
    access = SshAccess(address=address, known_hosts="/dev/null")
    return Host(node=node, provider="container", type="container", address=address, ssh=access, architecture="amd64")


class _Pages:
    """/metrics of every target, told apart by the address that is asked."""

    def __init__(self, roles: dict[str, str]) -> None:
        self._roles = roles
        self._started_s = time.monotonic()
        self._node = _node_page()

    def page(self, address: str) -> bytes:
        role = self._roles.get(address, "")
        if role == "node":
            return self._node
        age_s = time.monotonic() - self._started_s
        readings: list[tuple[m.Metric, tuple[str, ...], Histogram | float]] = []
        for metric in ROLE_METRICS.get(role, ()):
            for values in itertools.product(*(LABELS.get(label, ("x",)) for label in metric.labels)):
                if metric.kind == "histogram":
                    delays = Histogram()
                    delays.counts[8], delays.counts[10], delays.total = int(8 * age_s), int(3 * age_s), age_s / 10
                    readings.append((metric, values, delays))
                else:
                    counted = 0 if metric in {m.BROKER_DROPPED, m.CLOCK_STEPS} else 10 * age_s
                    gauge = 1.0 if metric in {m.CLOCK_SYNCHRONISED, m.CLOCK_SHARED} else 1e-4
                    readings.append((metric, values, counted if metric.kind == "counter" else gauge))
        return expose(readings)

    def handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        pages = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                body = pages.page(self.connection.getsockname()[0])
                self.send_response(200)
                self.send_header("content-type", CONTENT_TYPE)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                with contextlib.suppress(ConnectionError):  # Prometheus ends in the middle of a scrape
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def _node_page() -> bytes:
    """What node_exporter says of this machine with the collectors that nodes run."""
    port = free_port()
    chosen = [f"--collector.{name}" for name in COLLECTORS]
    process = subprocess.Popen(
        ["prometheus-node-exporter", "--collector.disable-defaults", *chosen, "--log.level=error",
         "--web.disable-exporter-metrics",
         "--collector.netdev.device-exclude=^(lo|veth.*|docker.*|br-.*)$",
         "--collector.filesystem.mount-points-exclude=^/.+", f"--web.listen-address=127.0.0.1:{port}"],
    )  # fmt: skip
    try:
        return until(lambda: bytes(urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read()))
    finally:
        process.terminate()
        process.wait(10)
