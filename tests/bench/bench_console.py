"""What the console costs and how soon it is there, and what its Prometheus needs, on simulated testbeds.

Run: PYTHONPATH=. .venv/bin/python tests/bench/bench_console.py [--nodes 50] [--large 100] [--only console]
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.answers import asked
from tests.browser import open_browser
from tests.ports import free_port
from tests.simulated import Simulated, simulated
from toolkit.provisioning.dashboards import dashboards

if TYPE_CHECKING:
    from playwright.sync_api import Browser

FIRST_PAGE_MS, FIRST_PAGE_BYTES, CORE_SHARE, MEMORY_MB, QUERY_MS = 300, 300_000, 0.05, 500, 200
"""What the console is to keep to."""
VIEWERS = 3
LOADS = 7
REPEATS = 5
"""Of each dashboard query; their median counts."""
SHOWN_S = 900
"""What a dashboard shows at first."""
SLOWEST = 10
"""Queries that are named."""


def main() -> None:
    """Print the figures, each beside its goal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=50)
    parser.add_argument("--large", type=int, default=100)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--past-min", type=int, default=170, help="its head is written to a block after three hours")
    parser.add_argument("--only", choices=("", "console", "prometheus"), default="")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TOOLKIT_HOME"] = f"{folder}/.toolkit"
        parts = [(wanted.nodes, console), (wanted.large, prometheus)]
        for nodes, look in (part for part in parts if wanted.only in {"", part[1].__name__}):
            home = Path(folder) / look.__name__
            home.mkdir()
            past_s = wanted.past_min * 60 if look is prometheus else 0
            with simulated(home, nodes, past_s=past_s) as bed:
                look(bed, home, wanted.seconds)


def say(what: str, figure: str, goal: str) -> None:
    """One line."""
    sys.stdout.write(f"{what:<64} {figure:>22}   goal {goal}\n")


# -- the console ------------------------------------------------------------------------------------------------------


def console(bed: Simulated, home: Path, seconds: int) -> None:
    """First page in a browser; what a second costs while several look at the largest page there is."""
    port = free_port()
    program = (
        "import http.client, sys, uvicorn; from pathlib import Path\n"
        "from toolkit.console.app import make_app; from toolkit.console.guard import Guard\n"
        "from toolkit.console.prometheus import Servers\n"
        f"guard = Guard(port={port}, act_token='bench')\n"
        f"servers = Servers(lambda host: http.client.HTTPConnection('{bed.address}', timeout=10))\n"
        f"app = make_app(Path('{home}'), guard, servers=servers)\n"
        f"uvicorn.run(app, port={port}, log_level='critical', timeout_graceful_shutdown=1)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program])
    try:
        _await(port)
        first_page(port, len(bed.testbed.nodes))
        viewers = [_follow(port, bed.testbed.name) for _ in range(VIEWERS)]
        time.sleep(5)
        before, began = _cpu_s(process.pid), time.monotonic()
        received = 0
        while time.monotonic() - began < seconds:
            for viewer in viewers:
                line = viewer.readline()
                while not line.startswith(b"data:"):
                    line = viewer.readline()
                received += 1
        share = (_cpu_s(process.pid) - before) / (time.monotonic() - began)
        nodes = len(bed.testbed.nodes)
        say(f"figures of {nodes} nodes every second, {VIEWERS} viewers, n = {received}: share of a core",
            f"{share:.1%}", f"< {CORE_SHARE:.0%}")  # fmt: skip
        say("console's memory", f"{_resident_mb(process.pid):.0f} MB", "-")
    finally:
        process.terminate()
        process.wait(10)


def first_page(port: int, nodes: int) -> None:
    """In Chromium with nothing kept from before: what goes over the wire, and when all of it is there."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = open_browser(playwright)
        for name, path in (("first page", "/"), (f"page of {nodes} nodes", "/testbeds/simulated")):
            seen = [_visit(browser, port, path) for _ in range(LOADS)]
            for what, key, goal in (
                ("first byte", "responseStart", "-"),
                ("loaded", "loadEventEnd", f"< {FIRST_PAGE_MS} ms"),
            ):
                figure = f"{statistics.median(each[key] for each in seen):.0f} ms"
                say(f"{name}, {what} (median of {LOADS}; the very first {seen[0][key]:.0f} ms)", figure, goal)
            size = statistics.median(each["bytes"] for each in seen)
            say(f"{name}, bytes", f"{size / 1e3:.0f} kB", f"< {FIRST_PAGE_BYTES / 1e3:.0f} kB")
        browser.close()


def _visit(browser: Browser, port: int, path: str) -> dict[str, float]:
    """The browser's own times of one page, in ms after it was asked for, and the bytes of all its parts."""
    page = browser.new_context().new_page()
    page.goto(f"http://127.0.0.1:{port}/enter?token=bench")
    moved: list[int] = []
    cdp = page.context.new_cdp_session(page)
    cdp.send("Network.enable")
    cdp.send("Network.clearBrowserCache")
    cdp.on("Network.loadingFinished", lambda event: moved.append(event["encodedDataLength"]))
    page.goto(f"http://127.0.0.1:{port}{path}", wait_until="load")
    times: dict[str, float] = page.evaluate("performance.getEntriesByType('navigation')[0].toJSON()")
    seen = {**times, "bytes": sum(moved)}
    if path != "/":  # it looks at every node after it has loaded: not while the next one loads
        page.wait_for_selector("section table")
    page.context.close()
    return seen


def _await(port: int) -> None:
    for _ in range(200):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/enter?token=no", timeout=2)
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError("the console does not start")


def _follow(port: int, testbed: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/enter?token=bench")
    answer = connection.getresponse()
    answer.read()
    cookie = (answer.getheader("set-cookie") or "").partition(";")[0]
    connection.request("GET", f"/testbeds/{testbed}/live", headers={"cookie": cookie})
    return connection.getresponse()


# -- Prometheus -------------------------------------------------------------------------------------------------------


def prometheus(bed: Simulated, home: Path, seconds: int) -> None:
    """Memory of a full head while it goes on scraping; every query of every dashboard over the time they show."""
    del home
    memory(bed, seconds)
    queries(bed)


def memory(bed: Simulated, seconds: int) -> None:
    """What is resident, seen every five seconds; and what of it is in use, by its own account."""
    resident = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(5)
        resident.append(_resident_mb(bed.process))
    with urllib.request.urlopen(f"http://{bed.address}/metrics", timeout=30) as answer:
        own = dict(re.findall(r"^(\w+) (\S+)$", answer.read().decode(), re.MULTILINE))
    past_min = (time.time() - float(own["prometheus_tsdb_head_min_time_seconds"])) / 60
    series, chunks = (float(own[f"prometheus_tsdb_head_{what}"]) for what in ("series", "chunks"))
    say(
        f"Prometheus of {len(bed.testbed.nodes)} nodes, {bed.targets} targets, {series:.0f} series: resident",
        f"{resident[-1]:.0f} MB (max {max(resident):.0f})",
        f"< {MEMORY_MB} MB",
    )
    say(f"  with {past_min:.0f} min in {chunks:.0f} chunks in its head: heap in use",
        f"{float(own['go_memstats_heap_inuse_bytes']) / 1e6:.0f} MB", "-")  # fmt: skip


def queries(bed: Simulated) -> None:
    """Each query over a dashboard's 15 minutes, at the steps of a panel 640 pixels wide in Grafana."""
    took: list[tuple[float, float, str]] = []
    for page, text in dashboards().items():
        for panel in json.loads(text)["panels"]:
            step, interval = ("5", "20s") if panel.get("interval") else ("2", "4s")
            for target in panel.get("targets", ()):
                expr = asked(target["expr"], bed.testbed.name, interval)
                times = []
                for _ in range(REPEATS):
                    end = time.time()
                    started = time.perf_counter()
                    _ask(bed, "query_range", query=expr, start=str(end - SHOWN_S), end=str(end), step=step)
                    times.append((time.perf_counter() - started) * 1e3)
                took.append((statistics.median(times), min(times), f"{page}: {panel['title']}"))
    took.sort(reverse=True)
    say(f"{len(took)} dashboard queries over {SHOWN_S / 60:.0f} min: median of all",
        f"{statistics.median(ms for ms, _, _ in took):.0f} ms", f"< {QUERY_MS} ms")  # fmt: skip
    for middle, best, title in took[:SLOWEST]:
        say(f"  {title}: median of {REPEATS}, best", f"{middle:.0f} ms, {best:.0f} ms", f"< {QUERY_MS} ms")


def _ask(bed: Simulated, what: str, **parameters: str) -> list[dict[str, Any]]:
    address = f"http://{bed.address}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
    with urllib.request.urlopen(address, timeout=30) as answer:
        return list(json.load(answer)["data"]["result"])


def _cpu_s(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _resident_mb(process: int) -> float:
    status = Path(f"/proc/{process}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1024


if __name__ == "__main__":
    main()
