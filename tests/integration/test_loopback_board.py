"""A run beside a board's sensors, which the real exporters read from files as a Raspberry Pi's kernel shows them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.answers import BOARD, Scraped, ask, await_rules, unanswered, watching
from tests.conftest import lacking
from tests.integration.loopback import ROOT, running
from tests.ports import await_port, free_port
from toolkit.contract.orders import Arrivals
from toolkit.contract.settings import ProcessSettings
from toolkit.node import clock
from toolkit.node.board import THROTTLED
from toolkit.spec.workload import Workload

MESSAGES = 200
WORKLOAD = Workload(
    name="steady", messages=MESSAGES, qos=1, drain_s=0.5, payload_bytes=71,
    arrivals=Arrivals(kind="rate", rate_per_s=100.0), options={"protocol": "sse"},
)  # fmt: skip
HOT_C = 58.4
CAPPED_AND_HOT = "a000a"
"""Frequency capped and the soft temperature limit reached, now and since boot; fed well."""


@pytest.fixture
def board(tmp_path: Path) -> Path:
    """What a Pi's kernel says of its heat and its firmware."""
    sysfs = tmp_path / "sys"
    zone = sysfs / "class/thermal/thermal_zone0"
    throttled = sysfs / THROTTLED
    for folder in (zone, throttled.parent):
        folder.mkdir(parents=True)
    (zone / "type").write_text("cpu-thermal\n")
    (zone / "policy").write_text("step_wise\n")
    (zone / "temp").write_text(f"{HOT_C * 1000:.0f}\n")
    throttled.write_text(f"{CAPPED_AND_HOT}\n")
    return sysfs


@contextlib.contextmanager
def clock_of(home: Path, sysfs: Path) -> Iterator[int]:
    """The clock's process with a real chronyd; gives the port of its metrics."""
    settings = clock.ClockSettings(
        node="eh", role="server", servers=(), allow="127.0.0.1", shared=True, metrics_port=free_port(),
        samples_dir=home / "clock", ntp_port=free_port(), sysfs=sysfs,
    )  # fmt: skip
    stopped = threading.Event()
    thread = threading.Thread(target=clock.run, args=(settings, stopped, home / "chrony"))
    thread.start()
    try:
        await_port(settings.metrics_port)
        yield settings.metrics_port
    finally:
        stopped.set()
        thread.join(20)


@contextlib.contextmanager
def started(*command: str, port: int, **environment: str) -> Iterator[None]:
    """A process, from its port's opening to its end."""
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ | environment, stderr=subprocess.DEVNULL)
    try:
        await_port(port)
        yield
    finally:
        process.terminate()
        process.wait(20)


def test_the_panels_of_boards_and_of_pools_have_data_of_a_run(
    tmp_path: Path, board: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for program, package in (("chronyd", "chrony"), ("prometheus-node-exporter", "prometheus-node-exporter")):
        if shutil.which(program) is None:
            lacking(f"{program} (apt-get install {package})")
    monkeypatch.setenv("TOOLKIT_HOME", str(tmp_path / ".toolkit"))
    exporter_port, broker_port = free_port(), free_port()
    broker = ProcessSettings(
        testbed="loopback", node="eh", service="broker", instance=0, metrics_port=free_port(),
        control_port=free_port(), samples_dir=str(tmp_path / "broker"),
    )  # fmt: skip
    with contextlib.ExitStack() as stack:
        stack.enter_context(
            started(
                "prometheus-node-exporter", "--collector.disable-defaults", "--collector.thermal_zone",
                f"--path.sysfs={board}", f"--web.listen-address=127.0.0.1:{exporter_port}", port=exporter_port,
            )
        )  # fmt: skip
        stack.enter_context(
            started(
                sys.executable, "-m", "toolkit.node.event_handler", port=broker_port,
                TOOLKIT_EVENT_HANDLER_MODE="enhanced", TOOLKIT_EVENT_HANDLER_PORT=str(broker_port),
                **broker.environment(),
            )
        )  # fmt: skip
        clock_port = stack.enter_context(clock_of(tmp_path, board))
        loopback = stack.enter_context(running(tmp_path, broker=broker_port))
        scraped = [
            Scraped(node="eh", service="node-exporter", role="node", port=exporter_port),
            Scraped(node="eh", service="clock", role="clock", port=clock_port),
            Scraped(node="eh", service="broker", role="broker", port=broker.metrics_port),
        ]
        address = stack.enter_context(watching(tmp_path / "prometheus", loopback.testbed(), scraped))
        begin_s = time.time()
        [run] = loopback.run(WORKLOAD)
        await_rules(address, end_s := time.time())
        assert run.kpis()["ledger"]["total"]["delivered"] == 2 * MESSAGES
        assert unanswered(BOARD, address, "loopback", begin_s, end_s) == []
        assert value(address, "node_thermal_zone_temp") == HOT_C
        said = {name: value(address, f'toolkit_board_{name}{{since="now"}}') for name in (
            "frequency_capped", "throttled", "soft_temperature_limit", "under_voltage")}  # fmt: skip
        assert said == {"frequency_capped": 1, "throttled": 0, "soft_temperature_limit": 1, "under_voltage": 0}
        assert value(address, "sum(toolkit_broker_workers)") > 0
        with urllib.request.urlopen(f"http://127.0.0.1:{clock_port}/clock", timeout=5) as answer:
            assert json.load(answer)["shared"]
    [reading, *_] = (tmp_path / "clock/clock.jsonl").read_text().splitlines()
    assert json.loads(reading)["throttled"] == int(CAPPED_AND_HOT, 16), "kept for the report's book of the boards"


def value(address: str, query: str) -> float:
    [series] = ask(address, "query", query=query)["result"]
    return float(series["value"][1])
