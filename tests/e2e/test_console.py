"""The console as a person uses it, in Chromium: from nothing to a measured testbed and back to nothing, by mouse.

Every page's picture is taken on the way; with `TOOLKIT_SCREENSHOTS=docs/images` they become those of the docs.
"""

from __future__ import annotations

import json
import math
import os
import re
import signal
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.answers import CONSOLE, unanswered
from tests.browser import open_browser
from tests.integration.lab import Lab, docker
from tests.ports import free_port

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page

pytestmark = [pytest.mark.docker, pytest.mark.browser, pytest.mark.timeout(1200)]

NAME = "test-console"
FILE = """\
name: NAME
description: Four virtual nodes to look at.
nodes:
  base: {kind: vm}
  eh: {kind: pi3}
  pub: {kind: pi3}
  sub: {kind: pi1}
services:
  ntp: {on: base}
  monitor: {on: base}
  broker: {on: eh, image: event-handler}
  publisher: {on: pub}
  subscriber: {on: sub}
monitoring: {grafana: false, console: true}
workloads:
  steady: {duration: 20s, payload: 71B, arrivals: {kind: rate, rate: 100/s}}
"""
DEPLOY_MS = 300_000
SOON_MS = 90_000
"""For what takes a second or two where nothing else runs."""
EXIT_LOCKED = 9
PICTURES = os.environ.get("TOOLKIT_SCREENSHOTS")


@dataclass
class Story:
    """What the tests of this module tell one another."""

    lab: Lab
    link: str
    to_share: str
    browser: Browser
    pictures: Path
    problems: list[str] = field(default_factory=list)
    run: str = ""

    @property
    def origin(self) -> str:
        return self.link.partition("/enter")[0]

    def page(self, **context: Any) -> Page:
        """A page in a browser of its own: nothing of it is shared with others."""
        page = self.browser.new_context(viewport={"width": 1280, "height": 860}, **context).new_page()
        page.set_default_timeout(SOON_MS)
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("console", self._note)
        page.on("request", lambda request: self._outside(request.url))
        return page

    def _note(self, message: ConsoleMessage) -> None:
        """Other tests make networks on this machine meanwhile, and Chromium then asks again."""
        if message.type == "error" and "ERR_NETWORK_CHANGED" not in message.text:
            self.problems.append(message.text)

    def _outside(self, url: str) -> None:
        if not url.startswith((self.origin, "data:", "blob:")):
            self.problems.append(f"asked for {url}")

    def inside(self, path: str = "/", **context: Any) -> Page:
        """A page that came in by the link."""
        page = self.page(**context)
        page.goto(self.link)
        if path != "/":
            page.goto(self.origin + path)
        return page

    def picture(self, page: Page, name: str) -> None:
        file = self.pictures / f"console-{name}.png"
        page.screenshot(path=file)
        if PICTURES:
            from PIL import Image

            Image.open(file).convert("RGB").quantize(256, kmeans=1).save(file, optimize=True)

    def prometheus(self, path: str) -> Any:
        """Asked at its own address, past the console."""
        state = json.loads((self.lab.home / NAME / "state.json").read_text())
        address = f"http://{state['hosts']['base']['address']}:9090{path}"
        with urllib.request.urlopen(address, timeout=10) as answer:
            return json.load(answer)["data"]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    from playwright.sync_api import sync_playwright

    lab = Lab(folder=tmp_path_factory.mktemp("console"), name=NAME)
    assert lab.left() == [], "left by an earlier test; remove it: tests/leftovers.py --remove"
    lab.write(FILE)
    pictures = Path(PICTURES) if PICTURES else tmp_path_factory.mktemp("pictures")
    pictures.mkdir(parents=True, exist_ok=True)
    process = lab.start("console", "--port", str(free_port()))
    assert process.stdout
    links = [re.search(r"http\S+", process.stdout.readline()) for _ in range(2)]
    assert links[0]
    assert links[1]
    with sync_playwright() as playwright:
        browser = open_browser(playwright)
        yield Story(lab=lab, link=links[0].group(), to_share=links[1].group(), browser=browser, pictures=pictures)
        browser.close()
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=30)
    for _ in range(30):  # what a test has started and not waited for still works on it
        if lab.run("teardown", NAME, expect=None).code != EXIT_LOCKED:
            break
        time.sleep(2)
    assert lab.left() == []
    assert "Traceback" not in stdout + stderr


@pytest.fixture(autouse=True)
def pages_closed(story: Story) -> Iterator[None]:
    """A page that stays open goes on asking, and would be heard in the tests after its own."""
    yield
    for context in story.browser.contexts:
        context.close()


def until(page: Page, script: str) -> None:
    """Wait for something to be so on a page; as a function, since a page's policy lets no text be evaluated."""
    page.wait_for_function(f"() => {script}")


def assert_figures_come(page: Page) -> None:
    """Nothing is told at the head, or that alerts fire, as they may on a machine that is busy."""
    assert re.match(r"(Firing: |$)", page.inner_text("#trouble")), page.inner_text("#trouble")


def press(page: Page, verb: str) -> None:
    page.locator(f'form:has(input[name=verb][value="{verb}"]) button').first.click()


def until_over(page: Page, within_ms: int = DEPLOY_MS) -> str:
    """Wait for an action's end; returns what the page says of it."""
    page.wait_for_selector(".progress[data-over]", timeout=within_ms)
    return page.inner_text(".progress .outcome")


def journal(story: Story, page: Page) -> list[dict[str, Any]]:
    """The events of the action that a page shows, as the console wrote them down."""
    folder = story.lab.home / ".console" / "actions" / page.url.rpartition("/")[2]
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


def test_without_the_link_nobody_gets_in(story: Story) -> None:
    page = story.page()
    assert page.goto(f"{story.origin}/").status == 401  # type: ignore[union-attr]
    assert page.goto(f"{story.origin}/enter?token=wrong").status == 403  # type: ignore[union-attr]
    assert "not, or no longer, valid" in page.inner_text("main")
    assert NAME not in page.content()
    assert page.context.cookies() == []
    story.picture(page, "refused")
    story.problems.clear()  # a browser calls every refusal an error


def test_the_first_page_is_small_soon_there_and_shows_what_can_be_deployed(story: Story) -> None:
    page = story.inside()
    sizes: list[int] = []
    page.on("requestfinished", lambda request: sizes.append(sum(request.sizes().values())))
    page.reload(wait_until="load")
    assert NAME in page.inner_text(".card")
    assert "not deployed" in page.inner_text(".card")
    assert sum(sizes) < 300_000
    assert "token" not in page.url
    assert "token" not in page.evaluate("document.cookie")
    story.picture(page, "testbeds")


def test_deploy_by_a_click_and_watch_it_come_up_even_from_another_page(story: Story) -> None:
    page = story.inside(f"/testbeds/{NAME}")
    story.picture(page, "before")
    press(page, "deploy")
    page.wait_for_url("**/actions/*")
    address = page.url
    page.wait_for_selector(".progress li")
    page.close()  # and the action goes on
    page = story.inside(urllib.parse.urlsplit(address).path)
    page.wait_for_selector(".progress .nodes div", timeout=DEPLOY_MS)
    story.picture(page, "deploying")
    assert "is up: 4 nodes" in until_over(page)
    shown = page.locator(".progress li").all_inner_texts()
    for event in journal(story, page):
        if not event["node"] and event["state"] == "done":
            assert any(event["stage"] in line and event["message"] in line for line in shown), event
    story.picture(page, "deployed")


def test_the_topology_lives(story: Story) -> None:
    page = story.inside(f"/testbeds/{NAME}")
    for node in ("base", "eh", "pub", "sub"):
        page.wait_for_selector(f"#node-{node}[data-health=up]")
    page.wait_for_selector("table td:has-text('broker')")
    assert page.locator(".wires path").count() == 2
    assert story.lab.status()["eh"]["state"] == "up"


def test_run_a_workload_by_a_click_and_watch_messages_flow(story: Story) -> None:
    page = story.inside(f"/testbeds/{NAME}")
    press(page, "run")
    page.wait_for_url("**/actions/*")
    watcher = story.inside(f"/testbeds/{NAME}")
    watcher.wait_for_selector(".wires path.flows", state="attached")
    until(watcher, "document.querySelector('#node-eh .rate').textContent.includes('msg/s')")
    until(watcher, "!document.querySelector('[data-hop=publish] .value').textContent.startsWith('\\u2013')")
    story.picture(watcher, "running")
    assert "1 run measured and saved" in until_over(page)
    page.click("a.opens-run")
    page.wait_for_selector("table.hops")
    story.run = page.url.rpartition("/")[2]


def test_the_runs_page_shows_the_stored_figures_and_its_report(story: Story) -> None:
    page = story.inside(f"/testbeds/{NAME}/runs/{story.run}")
    stored = story.lab.run("results", "show", story.run, "--json").document
    cells = page.locator("table.hops tbody tr").first.locator("th, td").all_inner_texts()
    assert cells[0] == "publish"
    assert int(cells[1]) == stored["hops"]["publish"]["count"]
    assert float(cells[4]) == pytest.approx(stored["hops"]["publish"]["p50_ms"], rel=1e-2)
    page.locator("iframe.report").scroll_into_view_if_needed()
    report = page.frame_locator("iframe.report")
    report.locator("h3:has-text('Hops')").wait_for()
    report.locator("canvas, svg").first.wait_for(timeout=SOON_MS)
    page.evaluate("scrollTo(0, 0)")
    story.picture(page, "run")
    page.goto(f"{story.origin}/runs")
    assert story.run in page.inner_text("table")
    story.picture(page, "runs")


def test_kpis_on_the_page_are_prometheus_own_and_those_of_the_stored_result(story: Story) -> None:
    manifest = json.loads((story.lab.home / NAME / "runs" / story.run / "manifest.json").read_text())
    begin_ms = round(manifest["start_ns"] / 1e6)
    span = f"from={begin_ms + 2000}&to={begin_ms + 10_000}&var-run={story.run}"
    page = story.inside()
    asked: dict[str, str] = {}
    page.on(
        "request", lambda request: asked.update({request.url: request.url}) if "query_range" in request.url else None
    )
    page.goto(f"{story.origin}/testbeds/{NAME}/dashboards/kpis?{span}")
    page.wait_for_selector("#board[data-ready]")
    queries = [dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(url).query)) for url in asked]
    document = page.evaluate("fetch(document.getElementById('board').dataset.document).then((a) => a.json())")
    compared = 0
    for panel in document["panels"]:
        if panel["type"] != "stat":
            continue
        home = page.locator(f'section.panel[aria-label="{panel["title"]}"]')
        start = re.escape(panel["targets"][0]["expr"].partition("$testbed")[0])
        own = next(query for query in queries if re.match(start, query["query"]))
        result = story.prometheus(f"/api/v1/query_range?{urllib.parse.urlencode(own)}")["result"]
        values = [float(value) for _, value in result[0]["values"] if value != "NaN"] if result else []
        if not values:
            assert panel["fieldConfig"]["defaults"]["noValue"] in home.inner_text()
            continue
        shown = home.locator(".figure")
        assert float(shown.get_attribute("data-value") or "nan") == pytest.approx(values[-1])
        factor = {"ms": 1e-3, "µs": 1e-6, "ns": 1e-9}.get(shown.inner_text().split()[1], 1.0)
        written = float(shown.inner_text().split()[0]) * factor
        assert written == pytest.approx(values[-1], rel=0.006, abs=1e-9)
        compared += 1
    assert compared >= 4
    throughput = float(page.locator('[aria-label="Broker throughput in"] .figure').get_attribute("data-value") or 0)
    assert throughput == pytest.approx(100, rel=0.25)
    kpis = json.loads((story.lab.home / NAME / "runs" / story.run / "kpis.json").read_text())
    counted = story.prometheus(
        f'/api/v1/query?query=sum(max_over_time(toolkit_messages_received_total{{run="{story.run}"}}[10m]))'
    )
    assert float(counted["result"][0]["value"][1]) == kpis["ledger"]["total"]["delivered"]
    buckets = f'max_over_time(toolkit_hop_delay_seconds_bucket{{run="{story.run}",hop="broker"}}[10m])'
    query = urllib.parse.quote(f"histogram_quantile(0.5, sum by (le) ({buckets}))")
    median_s = float(story.prometheus(f"/api/v1/query?query={query}")["result"][0]["value"][1])
    stored_s = kpis["hops"]["broker"]["p50_ms"] / 1e3
    assert abs(math.log10(median_s / stored_s)) < 0.5, (
        "sampled messages, in buckets two to three times as wide as the last"
    )


def test_every_query_has_data_of_the_run(story: Story) -> None:
    manifest = json.loads((story.lab.home / NAME / "runs" / story.run / "manifest.json").read_text())
    state = json.loads((story.lab.home / NAME / "state.json").read_text())
    address = f"http://{state['hosts']['base']['address']}:9090"
    assert unanswered(CONSOLE, address, NAME, manifest["started_at"], manifest["ended_at"]) == []


def test_a_line_of_a_run_leads_to_its_report_and_its_page(story: Story) -> None:
    manifest = json.loads((story.lab.home / NAME / "runs" / story.run / "manifest.json").read_text())
    span = f"from={int(manifest['started_at'] * 1000)}&to={int(manifest['ended_at'] * 1000)}"
    page = story.inside(f"/testbeds/{NAME}/dashboards/compare?{span}")
    panel = page.locator('section.panel[aria-label="Received"]')
    panel.scroll_into_view_if_needed()
    row = panel.locator("tr", has_text=story.run)
    for words, shown in (("Report of this run", "h3:has-text('Hops')"), ("This run in the console", "table.hops")):
        with page.context.expect_page() as opened:
            row.locator("a", has_text=words).click()
        opened.value.wait_for_load_state()
        assert opened.value.url.startswith(f"{story.origin}/testbeds/{NAME}/runs/{story.run}")
        opened.value.locator(shown).first.wait_for(timeout=SOON_MS)
        opened.value.close()


@pytest.mark.parametrize(("board", "charts"), {"kpis": 4, "hops": 4, "nodes": 4, "compare": 4, "arrowhead": 3}.items())
def test_every_panel_of_every_dashboard_is_drawn(story: Story, board: str, charts: int) -> None:
    page = story.inside(f"/testbeds/{NAME}/dashboards/{board}?from=now-15m")
    page.set_viewport_size({"width": 1280, "height": 3200})
    page.wait_for_selector("#board[data-ready]")
    until(page, "[...document.querySelectorAll('section.panel')].every((panel) => panel.dataset.drawn)")
    assert page.locator(".panel .unknown").count() == 0
    assert page.locator(".panel canvas").count() >= charts
    assert_figures_come(page)
    page.set_viewport_size({"width": 1280, "height": 860})
    before = page.evaluate("Date.now()")
    page.locator(".pick[data-kept]", has_text="Time").locator("select").select_option("now-5m")
    until(page, f"Number(document.querySelector('section.panel').dataset.drawn) > {before}")
    page.wait_for_timeout(500)
    story.picture(page, board)


def test_the_monitors_own_console_shows_the_same_and_acts_on_nothing(story: Story) -> None:
    said = story.lab.run("status", NAME).stdout
    link = re.search(r"http\S+/enter\?token=\S+", said)
    assert link
    token = link.group().partition("token=")[2]
    for file in [*(story.lab.home / NAME / "logs").rglob("*"), *(story.lab.home / ".console").rglob("*")]:
        assert not file.is_file() or token not in file.read_text(errors="replace"), file
    assert token not in docker("exec", story.lab.node("base"), "docker", "logs", f"toolkit-{NAME}-console")
    page = story.browser.new_context(viewport={"width": 1280, "height": 860}).new_page()
    page.set_default_timeout(SOON_MS)
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(link.group())
    assert "token" not in page.url
    for node in ("base", "eh", "pub", "sub"):
        page.wait_for_selector(f"#node-{node}[data-health=up]")
    assert "shows and does nothing else" in page.inner_text("#shows-only")
    assert page.locator("form, button").count() == 0
    story.picture(page, "monitor")
    page.locator("nav.tools a", has_text="KPIs").click()
    page.wait_for_selector("#board[data-ready]")
    page.set_viewport_size({"width": 1280, "height": 3200})
    until(page, "[...document.querySelectorAll('section.panel')].every((panel) => panel.dataset.drawn)")
    assert page.locator(".panel canvas").count() >= 4
    assert page.locator(".panel a").count() == 0, "it has no runs to lead to"
    assert_figures_come(page)
    assert problems == []
    assert page.goto(link.group().replace(token, "wrong")).status == 403  # type: ignore[union-attr]


def test_logs_of_a_service(story: Story) -> None:
    page = story.inside(f"/testbeds/{NAME}/logs?node=eh&service=broker")
    assert "broker" in page.inner_text("#which")
    own = docker("exec", story.lab.node("eh"), "docker", "logs", f"toolkit-{NAME}-broker")
    for line in own.splitlines()[:3]:
        assert line.strip() in page.inner_text(".log")
    story.picture(page, "logs")


def test_dark_phone_and_wall(story: Story) -> None:
    for name, context in {
        "dark": {"color_scheme": "dark"},
        "phone": {"viewport": {"width": 390, "height": 844}},
        "wall": {"viewport": {"width": 2560, "height": 1300}},
    }.items():
        page = story.browser.new_context(**{"viewport": {"width": 1280, "height": 860}, **context}).new_page()
        page.set_default_timeout(SOON_MS)
        page.goto(story.link)
        page.goto(f"{story.origin}/testbeds/{NAME}")
        page.wait_for_selector("#node-eh[data-health=up]")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{name}: no scrolling sideways"
        story.picture(page, name)
        page.close()


def test_by_keyboard_alone_and_with_names_for_everything(story: Story) -> None:
    page = story.inside(f"/testbeds/{NAME}")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "To the content"
    page.locator("summary", has_text="Tear down").focus()
    page.keyboard.press("Enter")
    assert page.locator("button", has_text="Yes, remove it").is_visible()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Yes, remove it"
    page.keyboard.press("Escape")
    assert not page.locator("button", has_text="Yes, remove it").is_visible()
    for path in ("/", f"/testbeds/{NAME}", f"/testbeds/{NAME}/dashboards/kpis", f"/testbeds/{NAME}/logs", "/runs"):
        page.goto(story.origin + path)
        nameless = page.evaluate(
            """[...document.querySelectorAll('a, button, select, input:not([type=hidden]), summary, iframe')]
            .filter((e) => !(e.textContent.trim() || e.ariaLabel || e.title || e.labels?.length))
            .map((e) => e.outerHTML)"""
        )
        assert nameless == [], path


def test_whoever_has_the_link_to_share_sees_and_does_nothing(story: Story) -> None:
    page = story.page()
    page.goto(story.to_share)
    page.goto(f"{story.origin}/testbeds/{NAME}")
    page.wait_for_selector("#node-eh[data-health=up]")
    assert page.locator("form").count() == 0
    assert "read-only" in page.inner_text("header")


def test_two_browsers_at_once_and_a_button_of_an_earlier_state(story: Story) -> None:
    first, second = (story.inside(f"/testbeds/{NAME}") for _ in range(2))
    old = second.locator('form:has(input[value="deploy"])').first.evaluate("(form) => form.outerHTML")
    before = len(list((story.lab.home / ".console" / "actions").iterdir()))
    second.evaluate("document.querySelector('[hx-get*=changed]').remove()")  # a page that was not told of the change
    press(first, "deploy")
    first.wait_for_url("**/actions/*")
    press(second, "deploy")
    second.wait_for_load_state()
    assert "nothing was done" in second.inner_text("main") or "busy" in second.inner_text("main")
    until_over(first)
    assert len(list((story.lab.home / ".console" / "actions").iterdir())) == before + 1
    second.goto(f"{story.origin}/testbeds/{NAME}")
    second.evaluate("document.querySelector('[hx-get*=changed]').remove()")
    second.evaluate("(old) => document.getElementById('deeds').insertAdjacentHTML('beforeend', old)", old)
    second.locator("#deeds > form button").click()
    second.wait_for_load_state()
    assert "has changed since this page was drawn" in second.inner_text("main")
    for page in (first, second):
        page.close()
    story.problems.clear()


def test_prometheus_down_is_said_and_mends_itself(story: Story) -> None:
    page = story.inside(f"/testbeds/{NAME}/dashboards/kpis?from=now-5m&refresh=1s")
    page.wait_for_selector("#board[data-ready]")
    inner = f"toolkit-{NAME}-prometheus"
    docker("exec", story.lab.node("base"), "docker", "stop", "-t", "1", inner)
    until(page, "/^No figures.*node base/.test(document.getElementById('trouble').textContent)")
    other = story.inside(f"/testbeds/{NAME}")
    until(other, "document.getElementById('pulse').textContent.includes('no live figures')")
    docker("exec", story.lab.node("base"), "docker", "start", inner)
    until(page, "!document.getElementById('trouble').textContent.startsWith('No figures')")
    other.wait_for_selector("#node-eh[data-health=up]")
    page.close()
    other.close()
    story.problems.clear()  # they asked while nobody answered


def test_a_node_that_dies_while_watched_is_shown(story: Story) -> None:
    page = story.inside(f"/testbeds/{NAME}")
    page.wait_for_selector("#node-sub[data-health=up]")
    docker("kill", story.lab.node("sub"))
    page.wait_for_selector("#node-sub[data-health=down]")
    page.wait_for_selector("#node-eh[data-health=up]")
    page.wait_for_selector("tr:has-text('sub') td:has-text('unreachable')")
    page.wait_for_selector("#alerts:has-text('TargetDown')")
    story.picture(page, "node-down")


def test_tear_down_by_a_click_and_nothing_is_left(story: Story) -> None:
    page = story.inside(f"/testbeds/{NAME}")
    page.locator("summary", has_text="Tear down").click()
    story.picture(page, "teardown")
    page.locator("button", has_text="Yes, remove it").click()
    page.wait_for_url("**/actions/*")
    assert "nothing is left" in until_over(page)
    assert story.lab.left() == []
    assert NAME not in docker("ps", "-a", "--format", "{{.Names}}")
    page.goto(f"{story.origin}/testbeds/{NAME}")
    assert "not deployed" in page.inner_text("#state")
    page.goto(f"{story.origin}/runs")
    assert story.run in page.inner_text("table")


def test_nothing_went_wrong_in_any_page(story: Story) -> None:
    assert story.problems == []


def test_actions_go_on_when_the_console_ends(story: Story) -> None:
    """Its own console; the deploy is stopped by the next one before machines are there, so that it stays cheap."""
    port = free_port()
    first = story.lab.start("console", "--port", str(port))
    assert first.stdout
    link = re.search(r"http\S+", first.stdout.readline())
    assert link
    page = story.page()
    page.goto(link.group())
    page.goto(f"http://127.0.0.1:{port}/testbeds/{NAME}")
    press(page, "deploy")
    page.wait_for_url("**/actions/*")
    path = urllib.parse.urlsplit(page.url).path
    page.wait_for_selector(".progress li")
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=30)
    page = story.inside(path)
    page.wait_for_selector("#stop button")
    page.locator("#stop button").click()
    assert "interrupted" in until_over(page)
    page.goto(f"{story.origin}/testbeds/{NAME}")
    page.locator("summary", has_text="Tear down").click()
    page.locator("button", has_text="Yes, remove it").click()
    page.wait_for_url("**/actions/*")
    until_over(page)
    assert story.lab.left() == []
