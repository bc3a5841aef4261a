"""Runs on loopback for the panels that no other run has data for: a board's sensors, a pool, an open clock, each QoS.

Every figure comes from the process that tells it on a node; a Raspberry Pi's kernel is a tree of files.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.answers import PANELS, Scraped, ask, await_rules, unanswered, watching
from tests.conftest import lacking
from tests.integration.loopback import ROOT, Loopback, running
from tests.mosquitto import Mosquitto
from tests.ports import await_port, free_port
from tests.waiting import until
from toolkit.contract.orders import Arrivals
from toolkit.contract.settings import ProcessSettings
from toolkit.measure.clocks import read_log
from toolkit.node import clock
from toolkit.node.board import THROTTLED
from toolkit.node.pages import pages_handler
from toolkit.node.serving import Server
from toolkit.spec.testbed import Image, Service, Testbed
from toolkit.spec.workload import Workload
from toolkit.state import Deployment

MESSAGES = 100
STEADY = Workload(
    name="steady", messages=MESSAGES, drain_s=0.5, payload_bytes=71, arrivals=Arrivals(kind="rate", rate_per_s=100.0)
)
HOT_C = 58.4
CAPPED_AND_HOT = "a000a"
"""Frequency capped and the soft temperature limit reached, now and since boot; fed well."""


class Watched(Loopback):
    """The processes of a run with a monitor among them, to which the controller tells its books."""

    def testbed(self) -> Testbed:
        bed = super().testbed()
        base = dataclasses.replace(bed.nodes[0], name="base")
        monitor = Service(name="monitor", role="monitor", image=Image(name="monitor"), nodes=("base",))
        return dataclasses.replace(bed, nodes=(*bed.nodes, base), services=(*bed.services, monitor))

    def deployment(self) -> Deployment:
        made = super().deployment()
        return dataclasses.replace(
            made, hosts={**made.hosts, "base": dataclasses.replace(made.hosts["eh"], node="base")}
        )


@pytest.fixture
def sysfs(tmp_path: Path) -> Path:
    """What a hot Pi's kernel says of its heat, and its firmware of what it does about it."""
    home = tmp_path / "sys"
    zone, throttled = home / "class/thermal/thermal_zone0", home / THROTTLED
    for folder in (zone, throttled.parent):
        folder.mkdir(parents=True)
    (zone / "type").write_text("cpu-thermal\n")
    (zone / "policy").write_text("step_wise\n")
    (zone / "temp").write_text(f"{HOT_C * 1000:.0f}\n")
    throttled.write_text(f"{CAPPED_AND_HOT}\n")
    return home


@contextlib.contextmanager
def started(*command: str, port: int, **environment: str) -> Iterator[int]:
    """A process, from the opening of its port to its end."""
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ | environment, stderr=subprocess.DEVNULL)
    try:
        await_port(port)
        yield port
    finally:
        process.terminate()
        process.wait(20)


@contextlib.contextmanager
def clock_of(home: Path, sysfs: Path) -> Iterator[int]:
    """A node's clock that follows another, and its pages; neither chronyd steers this machine's (`-x`)."""
    served = free_port()
    server = clock.ClockSettings(
        node="base", role="server", servers=(), allow="127.0.0.1", shared=True, metrics_port=free_port(),
        samples_dir=home / "base-clock", ntp_port=served,
    )  # fmt: skip
    own = clock.ClockSettings(
        node="eh", role="client", servers=(f"127.0.0.1 port {served}",), allow="", shared=False,
        metrics_port=free_port(), samples_dir=home / "clock", sysfs=sysfs,
    )  # fmt: skip
    state = clock.ClockState(settings=own)
    chrony = clock.Chrony(dataclasses.replace(own, shared=True), home / "chrony")
    pages = Server({("127.0.0.1", own.metrics_port): pages_handler(clock.clock_pages(state))})
    stopped = threading.Event()

    def follow() -> None:
        log = clock.ClockLog(own.samples_dir)
        while not stopped.wait(1.0):
            clock.poll(state, chrony, log)

    threads = [threading.Thread(target=clock.run, args=(server, stopped, home / "chrony-base")),
               threading.Thread(target=follow)]  # fmt: skip
    pages.start()
    try:
        chrony.start()
        for thread in threads:
            thread.start()
        until(lambda: state.document()["synchronised"], within_s=60, instead=lambda: state.error)
        yield own.metrics_port
    finally:
        stopped.set()
        for thread in threads:
            thread.join(20)
        chrony.stop()
        pages.stop()


def test_the_panels_of_boards_pools_clocks_and_qos_have_data_of_runs(
    tmp_path: Path, sysfs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for program, package in (("chronyd", "chrony"), ("prometheus-node-exporter", "prometheus-node-exporter")):
        if shutil.which(program) is None:
            lacking(f"{program} (apt-get install {package})")
    monkeypatch.setenv("TOOLKIT_HOME", str(tmp_path / ".toolkit"))
    processes = {
        service: ProcessSettings(
            testbed="loopback", node=node, service=service, instance=0, metrics_port=free_port(),
            control_port=free_port(), samples_dir=str(tmp_path / service),
        )
        for service, node in (("broker", "eh"), ("hop-exporter", "base"))
    }  # fmt: skip
    with contextlib.ExitStack() as stack:
        clock_port = stack.enter_context(clock_of(tmp_path, sysfs))
        exporter_port = free_port()
        stack.enter_context(
            started("prometheus-node-exporter", "--collector.disable-defaults", "--collector.thermal_zone",
                    f"--path.sysfs={sysfs}", f"--web.listen-address=127.0.0.1:{exporter_port}",
                    port=exporter_port)
        )  # fmt: skip
        pool = free_port()
        stack.enter_context(
            started(sys.executable, "-m", "toolkit.node.event_handler", port=pool,
                    TOOLKIT_EVENT_HANDLER_MODE="enhanced", TOOLKIT_EVENT_HANDLER_PORT=str(pool),
                    **processes["broker"].environment())
        )  # fmt: skip
        stack.enter_context(
            started(sys.executable, "-m", "toolkit.node.hop_exporter", port=processes["hop-exporter"].metrics_port,
                    TOOLKIT_STAMPS_PORT=str(free_port()), **processes["hop-exporter"].environment())
        )  # fmt: skip
        mosquitto = stack.enter_context(Mosquitto(tmp_path))
        plain = stack.enter_context(running(tmp_path, broker=pool))
        lab = Watched(plain.home, plain.processes, plain.ports, pool, plain.broker_image)
        lab.ports["base/hop-exporter-0"] = processes["hop-exporter"].control_port
        scraped = [
            Scraped(node="eh", service="node-exporter", role="node", port=exporter_port),
            Scraped(node="eh", service="clock", role="clock", port=clock_port),
            Scraped(node="eh", service="broker", role="broker", port=processes["broker"].metrics_port),
            Scraped(node="base", service="hop-exporter", role="monitor", port=processes["hop-exporter"].metrics_port),
        ]
        address = stack.enter_context(watching(tmp_path / "prometheus", lab.testbed(), scraped))
        begin_s = time.time()
        mqtt: dict[str, Any] = {"protocol": "mqtt", "port": mosquitto.port}
        for qos, options in ((0, mqtt), (1, {"protocol": "sse"}), (2, mqtt)):
            [run] = lab.run(dataclasses.replace(STEADY, qos=qos, options=options))
            assert run.kpis()["ledger"]["total"]["delivered"] == 2 * MESSAGES
        await_rules(address, end_s := time.time())
        assert unanswered(PANELS, address, "loopback", begin_s, end_s) == []
        assert value(address, "node_thermal_zone_temp") == HOT_C
        told = ("frequency_capped", "throttled", "soft_temperature_limit", "under_voltage")
        assert [value(address, f'toolkit_board_{name}{{since="now"}}') for name in told] == [1, 0, 1, 0]
    reading = read_log(tmp_path / "clock/clock.jsonl")[-1]
    assert reading.throttled == int(CAPPED_AND_HOT, 16), "kept for the report's book of the boards"


def value(address: str, query: str) -> float:
    [series] = ask(address, "query", query=query)["result"]
    return float(series["value"][1])
