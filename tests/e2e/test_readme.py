"""The README's story as a stranger follows it: demo, look, report in a browser, teardown, nothing left."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser import open_browser
from tests.conftest import ROOT
from tests.integration.lab import Lab, docker

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]

NAME = "quickstart"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lab, subprocess.CompletedProcess[str]]]:
    """`make demo`, in a workspace of its own; never on top of somebody's own quickstart."""
    lab = Lab(folder=tmp_path_factory.mktemp("demo"), name=NAME)
    if lab.left():
        pytest.fail("a testbed named quickstart is up on this machine; remove it first: toolkit teardown quickstart")
    yield lab, make_demo(lab)
    lab.run("teardown", NAME)
    assert lab.left() == []


def make_demo(lab: Lab) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "--no-print-directory", "demo"],
        cwd=ROOT,
        env={**os.environ, "TOOLKIT_HOME": str(lab.home), "YES": "1"},
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


Demo = tuple[Lab, "subprocess.CompletedProcess[str]"]


def test_make_demo_measures_two_thousand_events_and_says_how_to_go_on(demo: Demo) -> None:
    _, ran = demo
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert re.search(r"end to end\s+4000\s+0\s", ran.stdout)
    assert "4000 expected = 4000 delivered" in ran.stdout
    assert "http://10." in ran.stdout
    assert "toolkit teardown" in ran.stderr


def test_the_demo_again_rebuilds_nothing(demo: Demo) -> None:
    lab, _ = demo
    ran = make_demo(lab)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "testbed quickstart is up already; nothing changed" in ran.stdout
    assert "building" not in ran.stdout + ran.stderr
    assert "to install" not in ran.stdout + ran.stderr
    assert re.search(r"end to end\s+4000\s+0\s", ran.stdout)
    assert re.search(r"The testbed is up after \d+ s", ran.stderr)


def test_the_monitor_has_scraped_every_target_and_knows_the_hops(demo: Demo) -> None:
    from toolkit.controller.gates import prometheus
    from toolkit.state import load_deployment

    lab, _ = demo
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOOLKIT_HOME", str(lab.home))
        deployment = load_deployment(NAME)
    assert deployment is not None
    monitor = deployment.hosts["mon"]
    up = prometheus(monitor, "/api/v1/query?query=up")["result"]
    assert len(up) >= 15
    assert {target["value"][1] for target in up} == {"1"}
    hops = prometheus(monitor, "/api/v1/query?query=sum%20by%20(hop)%20(toolkit_hop_delay_seconds_count)")["result"]
    assert {row["metric"]["hop"] for row in hops} >= {"publish", "broker", "deliver"}
    assert all(float(row["value"][1]) > 0 for row in hops)


@pytest.mark.browser
def test_the_report_opens_in_a_browser_and_shows_the_stored_figures(demo: Demo, tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    lab, _ = demo
    page_file = tmp_path / "report.html"
    lab.run("report", "latest", "--to", str(page_file))
    hops = lab.run("results", "show", "latest", "--json").document["hops"]
    with sync_playwright() as playwright:
        browser = open_browser(playwright)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        problems: list[str] = []
        requests: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("request", lambda request: requests.append(request.url))
        page.goto(page_file.as_uri())
        page.wait_for_selector("canvas, svg")
        text = page.inner_text("body")
        browser.close()
    assert problems == []
    assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []
    assert "4000" in text.replace(",", "").replace(" ", "").replace("\u202f", "")
    assert f"{hops['end_to_end']['p50_ms']:.3g}"[:4] in text
    assert "virtual" in text


def test_after_the_teardown_nothing_is_left_but_results(demo: Demo) -> None:
    lab, _ = demo
    ran = lab.run("teardown", NAME, "--json")
    document = json.loads(ran.stdout)[0]
    assert document["left"] == []
    assert lab.left() == []
    assert NAME not in docker("ps", "-a", "--format", "{{.Names}}")
    assert [entry.name for entry in (lab.home / NAME).iterdir()] == ["runs"]
    lab.run("results", "verify", "latest")
