"""The console's pages in Chromium over a real Prometheus that scrapes a simulated testbed; no container runs."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.watched import Watched, furnish, watched_in
from toolkit import paths
from toolkit.console import actions
from toolkit.console.actions import Actions, Order, shown
from toolkit.console.guard import TICKET_S
from toolkit.events import Event

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

NODES = 14
REDEPLOY = """
import signal, sys, time
from pathlib import Path
from toolkit import paths
from toolkit.console import acting
from toolkit.controller import deploy
from toolkit.events import Event
from toolkit.state import load_deployment, locked

def redeploy(asked, emit):
    name = asked.load().name
    emit(Event(stage="teardown", message="14 nodes removed", state="done", duration_s=0.5))
    with locked(name):
        emit(Event(stage="provision", message="broker starts", node="eh", state="started"))
        while not (paths.workspace() / "go").exists():
            time.sleep(0.05)
        emit(Event(stage="provision", message="broker runs", node="eh", state="done"))
    return deploy.Outcome(deployment=load_deployment(name), changed=True, seconds=2.5)

deploy.redeploy = redeploy
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(acting.act(Path(sys.argv[1]), int(sys.argv[2])))
"""
"""An action's process with a stand-in for the controller's story: it waits for a file `go`, and touches no machine."""
BOARDS = ("kpis", "hops", "nodes", "arrowhead", "compare")
PAGES = ("index", "testbed", *BOARDS, "logs", "runs", "runs-of", "run", "experiment", "done", "failed", "refused")
DARK = ("index", "testbed", "kpis", "nodes", "run", "failed")
"""Others have the colours of these."""
READY = {**dict.fromkeys(BOARDS, "#board[data-ready]"), "testbed": "#node-eh[data-health=up]"}
AXE = {
    "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    "resultTypes": ["violations"],
    "iframes": False,
}
"""Reports in frames are pages of their own."""


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    with watched_in(tmp_path_factory.mktemp("watched"), NODES) as found:
        yield found


def until(page: Page, script: str) -> None:
    """Wait for something to be so on a page; as a function, since a page's policy lets no text be evaluated."""
    page.wait_for_function(f"() => {script}", timeout=60_000)


def test_every_node_is_shown_with_health_and_rates(watched: Watched) -> None:
    page = watched.page("/testbeds/simulated")
    until(page, f"document.querySelectorAll('.node[data-health=up]').length === {NODES}")
    until(page, "document.querySelector('#node-eh .rate').textContent.includes('out 10')")
    page.wait_for_selector(".wires path.flows", state="attached")
    assert "ms" in page.inner_text(".hop[data-hop=publish]")
    page.context.close()


@pytest.mark.parametrize("board", BOARDS)
def test_every_panel_is_drawn_with_what_prometheus_says(watched: Watched, board: str) -> None:
    end_ms = int(time.time() * 1000)
    page = watched.page(f"/testbeds/simulated/dashboards/{board}?from={end_ms - 15_000}&to={end_ms}")
    until(page, "[...document.querySelectorAll('section.panel')].every((panel) => panel.dataset.drawn)")
    assert page.locator(".panel .unknown").all_inner_texts() == []
    panels = page.evaluate("fetch(document.getElementById('board').dataset.document).then((a) => a.json())")["panels"]
    assert page.locator("section.panel").count() == sum(panel["type"] != "row" for panel in panels)
    for panel in panels:
        if panel["type"] == "row":
            continue
        home = page.locator(f'section.panel[aria-label="{panel["title"]}"]')
        home.locator(".empty, canvas, .lane, .figure[data-value]").first.wait_for(state="attached", timeout=10_000)
        empty = home.locator(".empty").count()
        if empty:
            assert home.locator(".empty").inner_text() == panel["fieldConfig"]["defaults"]["noValue"]
        elif panel["type"] in {"timeseries", "heatmap"}:
            assert home.locator("canvas").count() == 1, panel["title"]
        elif panel["type"] == "state-timeline":
            assert home.locator(".lane").count() >= 1
        else:
            assert home.locator(".figure[data-value]").count() >= 1
    page.context.close()


def test_figures_and_legends_are_those_of_prometheus(watched: Watched) -> None:
    end_ms = int(time.time() * 1000)
    page = watched.page(f"/testbeds/simulated/dashboards/kpis?from={end_ms - 20_000}&to={end_ms}&var-qos=1")
    page.wait_for_selector("#board[data-ready]", timeout=60_000)
    page.wait_for_selector('[aria-label="Messages published and delivered"] tr[data-series]')
    figure = float(page.locator('[aria-label="Broker throughput out"] .figure').get_attribute("data-value") or "nan")
    assert figure == pytest.approx(10, rel=0.2)
    assert page.locator('[aria-label="Broker throughput out"] .figure').inner_text().endswith(" msg/s")
    legend = page.locator('[aria-label="Messages published and delivered"] tr[data-series]')
    names = [row.get_attribute("data-series") for row in legend.all()]
    assert names == ["QoS 1 sent", "QoS 1 acknowledged", "QoS 1 received"], "the choice in the address holds"
    sent = float(legend.first.locator("[data-calc=lastNotNull]").get_attribute("data-value") or "nan")
    publishers = sum(node.name.startswith("pub") for node in watched.bed.testbed.nodes)
    assert sent == pytest.approx(30 * publishers, rel=0.2), "three runs, ten messages a second each"
    page.context.close()


def test_a_choice_changes_the_queries_and_the_address(watched: Watched) -> None:
    page = watched.page("/testbeds/simulated/dashboards/kpis?from=now-5m")
    page.set_viewport_size({"width": 1280, "height": 900})
    page.wait_for_selector("#board[data-ready]", timeout=60_000)
    page.click("[data-variable=run] summary")
    with page.expect_request(lambda request: "run%3D%7E%22r2%22" in request.url, timeout=15_000):
        page.check("[data-variable=run] input[value=r2]")
    assert "var-run=r2" in page.url
    assert page.locator("[data-variable=run] summary").inner_text() == "r2"
    href = page.locator("a[data-board]", has_text="Hops").get_attribute("href") or page.url
    assert "var-run=r2" in href
    page.context.close()


def test_a_job_leaves_its_instances_to_choose_and_is_all_jobs_again_where_it_cannot_be_chosen(watched: Watched) -> None:
    page = watched.page("/testbeds/simulated/dashboards/nodes?from=now-1m")
    page.wait_for_selector("#board[data-ready]", timeout=60_000)
    instances = "document.querySelectorAll('[data-variable=instance] input').length"
    until(page, f"{instances} === 1 + {NODES}")  # All, and each node: its processes are one here
    page.click("[data-variable=job] summary")
    with page.expect_request(lambda request: "job%3D%7E%22publisher%22" in request.url, timeout=15_000):
        page.check("[data-variable=job] input[value=publisher]")
    publishers = sum(node.name.startswith("pub") for node in watched.bed.testbed.nodes)
    until(page, f"{instances} === 1 + {publishers}")
    until(page, "document.querySelector('[aria-label=\"Processor in use\"] .empty')")
    page.click("a[data-board]:has-text('KPIs')")
    page.wait_for_selector("#board[data-ready]", timeout=60_000)
    assert page.locator(".pick[data-variable]").evaluate_all("(all) => all.map((each) => each.dataset.variable)") == [
        "run", "broker", "qos", "hop",
    ]  # fmt: skip
    figure = page.locator('[aria-label="Broker throughput out"] .figure')
    assert float(figure.get_attribute("data-value") or "nan") == pytest.approx(10, rel=0.2)
    page.context.close()


def test_a_button_that_has_expired_does_nothing_and_says_so(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    page = watched.page("/testbeds/simulated")
    page.evaluate("document.querySelector('[hx-get*=changed]').remove()")  # it would draw the button again in time
    half_an_hour_later = time.time() + TICKET_S + 1
    monkeypatch.setattr(watched.guard, "now", lambda: half_an_hour_later)
    page.locator('form:has(input[name=verb][value="deploy"]) button').first.click()
    page.wait_for_selector("main:has-text('too old to act from')")
    assert Actions().latest("simulated") == []
    page.context.close()
    watched.problems[:] = [problem for problem in watched.problems if "410" not in problem]


def test_a_panel_of_another_kind_is_refused_in_its_place_and_the_rest_is_drawn(watched: Watched) -> None:
    page = watched.browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
    page.goto(f"{watched.origin}/enter?token={watched.token}")

    def other(route: Any) -> None:
        document = json.loads(route.fetch().text())
        document["panels"][1]["options"]["sparkle"] = True
        document["panels"][2]["type"] = "gauge"
        route.fulfill(json=document)

    page.route("**/document", other)
    page.goto(f"{watched.origin}/testbeds/simulated/dashboards/kpis?from=now-5m")
    page.wait_for_selector("#board[data-ready]", timeout=60_000)
    told = page.locator(".panel .unknown").all_inner_texts()
    assert len(told) == 2
    assert "sparkle" in told[0]
    assert '"gauge"' in told[1]
    page.wait_for_selector('[aria-label="Broker throughput out"] .figure')
    page.context.close()


def test_only_reading_gets_through_to_prometheus(watched: Watched) -> None:
    page = watched.page("/testbeds/simulated")
    for rest in (
        "status/config",
        "targets",
        "admin/tsdb/delete_series",
        "query_exemplars",
        "label/a/b",
        "label/x/values/y",
        "query?query=up&stats=all",
        f"query?query={'x' * 9000}",
        "rules",
    ):
        status = page.evaluate(f"fetch('/testbeds/simulated/prometheus/api/v1/{rest}').then((a) => a.status)")
        assert status == 403, rest
    assert page.evaluate("fetch('/testbeds/simulated/prometheus/api/v1/query?query=up').then((a) => a.status)") == 200
    assert (
        page.evaluate("fetch('/testbeds/simulated/prometheus/-/reload', {method: 'POST'}).then((a) => a.status)") == 404
    )
    page.context.close()
    watched.problems.clear()


def test_prometheus_gone_is_said_once_and_comes_back(watched: Watched) -> None:
    page = watched.page("/testbeds/simulated/dashboards/kpis?from=now-5m&refresh=1s")
    page.wait_for_selector("#board[data-ready]", timeout=60_000)
    os.kill(watched.bed.process, signal.SIGSTOP)
    try:
        until(page, "document.getElementById('trouble').textContent.startsWith('No figures')")
        assert page.locator(".panel.stale").count() > 0
    finally:
        os.kill(watched.bed.process, signal.SIGCONT)
    until(page, "document.getElementById('trouble').textContent === ''")
    assert page.locator(".panel.stale").count() < page.locator(".panel").count()
    page.context.close()
    watched.problems.clear()


def test_a_line_of_a_run_leads_to_its_pages_in_this_console(watched: Watched) -> None:
    page = watched.page("/testbeds/simulated/dashboards/compare?from=now-5m")
    row = page.locator(".legend tr[data-series]:has(a)").first
    row.wait_for(timeout=60_000)
    leads = [link.evaluate("(link) => link.href") for link in row.locator("a").all()]
    assert len(leads) == 2
    run = leads[1].rpartition("/")[2]
    assert run in {"r1", "r2", "r3"}
    address = f"{watched.origin}/testbeds/simulated/runs/{run}"
    assert leads == [f"{address}/report", address], "this console's port, not the usual one"
    page.context.close()


def test_redeploy_in_one_click_and_a_second_to_confirm(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actions, "PROGRAM", ("-c", REDEPLOY))
    page = watched.page("/testbeds/simulated")
    other = watched.page("/testbeds/simulated")
    page.locator("summary", has_text="Redeploy").click()
    assert "results of runs stay" in page.locator(".sheet:visible").inner_text()
    page.keyboard.press("Escape")
    assert page.locator(".sheet:visible").count() == 0
    assert Actions().latest() == []
    page.locator("summary", has_text="Redeploy").click()
    page.locator("button", has_text="Yes, redeploy").click()
    page.wait_for_url("**/actions/*")
    page.locator(".progress li", has_text="14 nodes removed").wait_for()
    page.locator(".progress [data-node=eh]", has_text="broker starts").wait_for()
    until(other, "document.querySelectorAll('#deeds form').length === 0")  # it was told, and offers nothing now
    other.locator(".progress [data-node=eh]", has_text="broker starts").wait_for()
    (action,) = Actions().latest()
    assert (action.order.verb, action.order.testbed, action.state) == ("redeploy", "simulated", "running")
    (paths.workspace() / "go").touch()
    page.locator(".progress[data-over=done]").wait_for(timeout=30_000)
    assert page.inner_text(".progress .outcome") == f"testbed simulated is up: {NODES} nodes, 2.5 s"
    assert page.locator("#stop").count() == 0
    other.locator("summary", has_text="Redeploy").wait_for(timeout=30_000)
    page.context.close()
    other.context.close()


def test_what_the_command_line_plays_is_shown_as_it_happens(watched: Watched) -> None:
    page = watched.page("/testbeds/simulated")
    with shown(Order(verb="run", testbed="simulated", workload="hello", by="command line")) as journal:
        journal.emit(Event(stage="run", message="preparing", state="started"))
        page.locator(".progress li", has_text="preparing").wait_for(timeout=30_000)
        assert page.locator("#deeds form").count() == 0
        page.locator("h2 a", has_text="run hello on simulated").click()
        journal.emit(Event(stage="run", message="500 of 2000 messages"))
        page.locator(".progress li", has_text="500 of 2000").wait_for(timeout=30_000)
        assert page.locator("#stop").count() == 0
        assert "Ctrl-C there stops it" in page.inner_text("main")
        journal.outcome |= {"message": "1 run measured and saved", "runs": ["r1"]}
    page.locator("a.opens-run", has_text="Open r1").wait_for(timeout=30_000)
    page.reload()
    assert page.locator("a.opens-run").count() == 1
    page.context.close()


@pytest.fixture(scope="module")
def furnished(watched: Watched) -> dict[str, str]:
    return furnish("simulated")


def test_figures_heat_maps_and_bands_lead_to_the_run_of_that_time(watched: Watched, furnished: dict[str, str]) -> None:
    page = watched.page("/testbeds/simulated/dashboards/kpis?from=now-5m")
    figure = page.locator('[aria-label="Broker throughput out"] a.figure')
    figure.wait_for(timeout=60_000)
    heat = page.locator('[aria-label="Heat map from end to end"] a.lead')
    heat.wait_for(timeout=60_000)
    leads = [link.evaluate("(link) => link.href") for link in (figure, heat)]
    page.goto(f"{watched.origin}/testbeds/simulated/dashboards/nodes?from=now-5m")
    page.locator("[aria-label=Synchronised] a.lead").wait_for(timeout=60_000)
    with page.context.expect_page() as opened:
        page.locator("[aria-label=Synchronised] .band i").first.click()
    assert "/runs" in opened.value.url
    assert all(lead.startswith(f"{watched.origin}/testbeds/simulated/runs?at=") for lead in leads)
    for lead in leads:
        page.goto(lead)
        assert page.url == watched.origin + furnished["run"]
    page.context.close()


@pytest.mark.parametrize(("name", "scheme"), [*((name, "light") for name in PAGES), *((name, "dark") for name in DARK)])
def test_axe_finds_nothing_on_any_page(
    watched: Watched, furnished: dict[str, str], tmp_path: Path, name: str, scheme: str
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = watched.page(furnished[name], viewport={"width": 1280, "height": 900}, color_scheme=scheme)
    page.wait_for_selector(READY.get(name, "main h1"), timeout=60_000)
    page.screenshot(path=picture(tmp_path, name, scheme))
    found = Axe().run(page, options=AXE).response["violations"]
    told = [(rule["id"], node["html"][:160], node["failureSummary"]) for rule in found for node in rule["nodes"][:3]]
    assert told == []
    page.context.close()
    watched.problems[:] = [problem for problem in watched.problems if "404" not in problem]


def picture(folder: Path, name: str, look: str) -> Path:
    """Where a page's picture goes: to pytest's folder, or to the one of `TOOLKIT_PAGES`, to be looked at."""
    home = Path(os.environ.get("TOOLKIT_PAGES") or folder)
    home.mkdir(parents=True, exist_ok=True)
    return home / f"{name}-{look}.png"


@pytest.mark.parametrize(("width", "height"), [(390, 844), (1920, 1080), (3840, 2160)])
def test_on_a_phone_and_on_walls_no_page_has_to_be_moved_sideways(
    watched: Watched, furnished: dict[str, str], tmp_path: Path, width: int, height: int
) -> None:
    page = watched.page("/", viewport={"width": width, "height": height})
    for name, path in furnished.items():
        page.goto(watched.origin + path)
        page.wait_for_selector(READY.get(name, "main h1"), timeout=60_000)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
        assert page.title().endswith(" · toolkit"), name
        page.screenshot(path=picture(tmp_path, name, str(width)))
    page.context.close()
    watched.problems[:] = [problem for problem in watched.problems if "404" not in problem]


def test_a_pressed_button_says_so_and_is_pressed_once(watched: Watched) -> None:
    page = watched.page("/testbeds/simulated")
    sent: list[str] = []
    page.route("**/actions", lambda route: sent.append(route.request.url))  # the console takes its time
    said = page.evaluate("""() => {
        const button = document.querySelector("form:has(input[name=verb][value=deploy]) button");
        button.click();
        button.click();
        return [button.textContent.trim(), button.ariaDisabled];
    }""")
    assert said == ["Deploy changes …", "true"]
    page.wait_for_timeout(300)
    assert len(sent) == 1
    page.context.close()


def test_nothing_went_wrong(watched: Watched) -> None:
    assert watched.problems == []
