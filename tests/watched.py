"""A console on a simulated testbed, and Chromium in front of it."""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn

from tests.browser import open_browser
from tests.conftest import lacking
from tests.ports import free_port
from tests.simulated import Simulated, simulated
from tests.unit.report.test_report import make_run
from tests.waiting import until
from toolkit import paths
from toolkit.console.actions import Order, shown
from toolkit.console.app import make_app
from toolkit.console.guard import Guard
from toolkit.console.prometheus import Servers
from toolkit.errors import UnreachableError
from toolkit.events import Event
from toolkit.measure.experiments import ExperimentFolder

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page

EXPERIMENT = "20260101T000000Z-loads"
RUN = "20260101T000001Z-slow"


@dataclass
class Watched:
    """What is looked at, and by what."""

    bed: Simulated
    origin: str
    browser: Browser
    token: str
    guard: Guard
    problems: list[str] = field(default_factory=list)

    def page(self, path: str, **context: Any) -> Page:
        """A page in a browser of its own, let in and to act."""
        page = self.browser.new_context(**{"viewport": {"width": 1280, "height": 3400}, **context}).new_page()
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("console", self._note)
        page.goto(f"{self.origin}/enter?token={self.token}")
        page.goto(self.origin + path)
        return page

    def _note(self, message: ConsoleMessage) -> None:
        """Other tests make networks on this machine meanwhile, and Chromium then asks again."""
        if message.type == "error" and "ERR_NETWORK_CHANGED" not in message.text:
            self.problems.append(message.text)

    def ask(self, what: str, **parameters: str) -> Any:
        """Prometheus' own answer, past the console."""
        address = f"http://{self.bed.address}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(address, timeout=10) as answer:
            return json.load(answer)["data"]["result"]


@contextlib.contextmanager
def watched_in(folder: Path, nodes: int) -> Iterator[Watched]:
    """The testbed's workspace is in the folder; a Prometheus has scraped it for a while."""
    from playwright.sync_api import sync_playwright

    for program in ("prometheus", "prometheus-node-exporter"):
        if shutil.which(program) is None:
            lacking(f"{program} (apt-get install {program})")
    with pytest.MonkeyPatch.context() as patch, sync_playwright() as playwright:
        patch.setenv("TOOLKIT_HOME", str(folder / ".toolkit"))
        with simulated(folder, nodes) as bed:
            guard = Guard(port=free_port())
            servers = Servers(lambda _: http.client.HTTPConnection(bed.address, timeout=10))
            app = make_app(folder, guard, servers=servers)
            server = uvicorn.Server(
                uvicorn.Config(app, port=guard.port, log_level="critical", timeout_graceful_shutdown=1)
            )
            thread = threading.Thread(target=server.run)
            thread.start()
            browser = open_browser(playwright)
            found = Watched(
                bed=bed, origin=f"http://127.0.0.1:{guard.port}", browser=browser, token=guard.act_token, guard=guard
            )
            try:
                until(lambda: _scraped(found), within_s=60, every_s=0.5)
                yield found
            finally:
                browser.close()
                server.should_exit = True
                thread.join()


def _scraped(watched: Watched) -> bool:
    found = watched.ask("query", query="count_over_time(toolkit_broker_messages_sent_total[1m])")
    return bool(found) and int(found[0]["value"][1]) >= 8


def furnish(testbed: str) -> dict[str, str]:
    """Runs, an experiment and actions of a testbed as toolkit leaves them; gives the paths of their pages by name."""
    home = paths.workspace() / testbed
    run = make_run(home / "runs" / RUN)
    now = time.time()
    run.write(
        "manifest.json",
        run.manifest() | {"status": "complete", "started_at": now - 90, "ended_at": now - 60, "problems": []},
    )
    folder = ExperimentFolder(home / "experiments" / EXPERIMENT)
    folder.path.mkdir(parents=True)
    points: list[dict[str, object]] = [
        {"name": name, "workload": "hello", "parameters": {"rate": name}, "reference": []} for name in ("100", "200")
    ]
    folder.write(
        {
            "experiment": "loads", "description": "Two loads.", "key": "k", "testbed": testbed, "twin": False,
            "scale": 1.0, "started_at": now - 90, "order": "given", "seed": 1, "repeat": 1, "varied": ["rate"],
            "points": points, "runs": [{"cell": "100", "repetition": 1, "run": RUN}],
        }
    )  # fmt: skip
    told = [
        Event(stage="plan", message="14 nodes, 6 services", state="done", duration_s=0.1),
        Event(stage="images", message="7 images are there", state="done", duration_s=2.31),
        Event(stage="provision", message="broker runs", node="eh", state="done"),
        Event(stage="provision", message="publisher starts", node="pub-1", state="started"),
        Event(stage="gates", message="clock of sub-1 is known to 3 ms only", node="sub-1", level="warning"),
    ]
    with shown(Order(verb="deploy", testbed=testbed, by="command line")) as journal:
        for event in told:
            journal.emit(event)
        journal.outcome |= {
            "message": f"testbed {testbed} is up: 14 nodes, 21.4 s",
            "notes": ["rates are imposed by tbf"],
        }
    with (
        contextlib.suppress(UnreachableError),
        shown(Order(verb="redeploy", testbed=testbed, by="command line")) as journal,
    ):
        journal.emit(told[0])
        raise UnreachableError("node pub-1 (testbed.yml:5) refused SSH at 10.0.0.13:22; try: ssh pi@10.0.0.13")
    from toolkit.console.actions import Actions

    failed, done = Actions().latest(testbed, most=2)
    return {
        "index": "/",
        "testbed": f"/testbeds/{testbed}",
        **{
            board: f"/testbeds/{testbed}/dashboards/{board}"
            for board in ("kpis", "hops", "nodes", "arrowhead", "compare")
        },
        "logs": f"/testbeds/{testbed}/logs",
        "runs": "/runs",
        "runs-of": f"/runs?testbed={testbed}",
        "run": f"/testbeds/{testbed}/runs/{RUN}",
        "experiment": f"/testbeds/{testbed}/experiments/{EXPERIMENT}",
        "done": f"/actions/{done.id}",
        "failed": f"/actions/{failed.id}",
        "refused": "/testbeds/none",
    }
