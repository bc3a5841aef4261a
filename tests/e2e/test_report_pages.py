"""Report and experiment pages of made-up runs in a real browser: every figure is drawn, nothing is fetched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser import open_browser
from tests.unit.report.test_report import make_run
from toolkit.report.html import write_report

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = open_browser(playwright)
        yield browser.new_page(viewport={"width": 1280, "height": 900})
        browser.close()


def opened(page: Any, file: Path) -> tuple[list[str], list[str]]:
    """(errors, what was fetched) of a page that is scrolled through."""
    problems: list[str] = []
    fetched: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: fetched.append(request.url))
    page.goto(file.as_uri())
    page.wait_for_selector("html[data-ready=yes]")
    for chart in page.query_selector_all(".chart"):
        chart.scroll_into_view_if_needed()
        page.wait_for_timeout(50)
    return problems, [url for url in fetched if not url.startswith(("file:", "data:", "blob:"))]


def test_every_figure_of_a_report_is_drawn(page: Any, tmp_path: Path) -> None:
    run = make_run(tmp_path / "one", n=2000)
    spent = {"cpu_cores": [0.5, 1.5, None], "sent_bytes_per_s": [1e6, 2e6, 3e6]}
    run.write("resources.json", {"seconds": [0.0, 1.0, 2.0], "window_s": 15, "nodes": {"eh": spent}})
    assert opened(page, write_report([run], tmp_path / "report.html")) == ([], [])
    charts = {c.get_attribute("data-kind"): c for c in page.query_selector_all(".chart")}
    assert {"cdf", "percentiles", "heat", "rates", "cpu", "network"} <= set(charts)
    assert all(chart.query_selector("svg, canvas") for kind, chart in charts.items() if kind != "model")
    assert "1.50" in page.inner_text("body")


def test_paper_has_every_figure(page: Any, tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name, n=200) for name in ("first", "second", "third")]
    page.goto(write_report(runs, tmp_path / "printed.html").as_uri())
    page.wait_for_selector("html[data-ready=yes]")
    drawn = ".chart:has(svg, canvas)"
    figures = len(page.query_selector_all(".chart"))
    assert len(page.query_selector_all(drawn)) < figures  # those further down wait to be looked at
    page.pdf()
    assert len(page.query_selector_all(drawn)) == figures


def test_a_report_of_a_million_samples_is_small(page: Any, tmp_path: Path) -> None:
    file = write_report([make_run(tmp_path / "large", n=1_000_000)], tmp_path / "large.html")
    assert file.stat().st_size < 5_000_000
    assert opened(page, file) == ([], [])
    timing = page.evaluate("performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd")
    print(f"\n{file.stat().st_size / 1e6:.2f} MB, content loaded after {timing:.0f} ms")
