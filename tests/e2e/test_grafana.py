"""The dashboards in Grafana itself, where its image can be had; the console's tests draw the same files everywhere."""

from __future__ import annotations

import contextlib
import json
import subprocess
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.browser import open_browser
from tests.ports import free_port
from tests.simulated import simulated
from tests.waiting import until
from toolkit.provisioning.dashboards import MOUNT, dashboards, grafana_files
from toolkit.spec.testbed import Monitoring

pytestmark = [pytest.mark.docker, pytest.mark.browser]

NAME = "toolkit-test-grafana"
PULL_S = 120.0


def grafana_image() -> str:
    """The image that testbeds ask for, in the engine or from its registry.

    Skips also where everything is to run: a tool can be installed, an image that no registry hands out cannot.
    """
    image = Monitoring().grafana_image
    assert image
    here = subprocess.run(["docker", "image", "inspect", image], capture_output=True, check=False)
    if here.returncode:
        with contextlib.suppress(subprocess.TimeoutExpired):
            here = subprocess.run(["docker", "pull", "-q", image], capture_output=True, check=False, timeout=PULL_S)
    if here.returncode:
        pytest.skip(f"only the dashboards in Grafana were not run: its image {image} cannot be had here")
    return image


@pytest.fixture(scope="module")
def grafana(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """host:port of Grafana, with the files that deploy gives it, over a Prometheus that scrapes a simulated testbed."""
    image = grafana_image()
    folder = tmp_path_factory.mktemp("grafana")
    port = free_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOOLKIT_HOME", str(folder / ".toolkit"))
        with simulated(folder, 6) as bed:
            for path, text in grafana_files(bed.testbed, prometheus_url=f"http://{bed.address}").items():
                file = folder / "given" / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text)
            settings = {
                "GF_AUTH_ANONYMOUS_ENABLED": "true",
                "GF_AUTH_ANONYMOUS_ORG_ROLE": "Viewer",
                "GF_SERVER_HTTP_PORT": str(port),
                "GF_PATHS_PROVISIONING": f"{MOUNT}/provisioning",
            }
            options = [word for key, value in settings.items() for word in ("-e", f"{key}={value}")]
            mount = ["-v", f"{folder / 'given'}:{MOUNT}:ro"]
            subprocess.run(
                ["docker", "run", "-d", "--rm", "--name", NAME, "--network", "host", *mount, *options, image],
                check=True,
                capture_output=True,
            )
            try:
                address = f"127.0.0.1:{port}"
                until(lambda: ask(address, "health").get("database") == "ok", within_s=90, every_s=0.5)
                yield f"127.0.0.1:{port}"
            finally:
                subprocess.run(["docker", "rm", "-f", NAME], capture_output=True, check=False)


def ask(address: str, path: str) -> Any:
    with urllib.request.urlopen(f"http://{address}/api/{path}", timeout=10) as answer:
        return json.load(answer)


@pytest.mark.parametrize("name", sorted(dashboards()))
def test_grafana_opens_every_dashboard_with_all_its_panels(grafana: str, name: str) -> None:
    from playwright.sync_api import sync_playwright

    given = json.loads(dashboards()[name])
    taken = ask(grafana, f"dashboards/uid/{given['uid']}")["dashboard"]
    assert [panel["title"] for panel in taken["panels"]] == [panel["title"] for panel in given["panels"]]
    with sync_playwright() as playwright:
        browser = open_browser(playwright)
        page = browser.new_context(viewport={"width": 1280, "height": 1600}).new_page()
        page.goto(f"http://{grafana}/d/{given['uid']}?from=now-5m&to=now&kiosk")
        first = next(panel["title"] for panel in given["panels"] if panel["type"] != "row")
        page.get_by_text(first, exact=True).first.wait_for(timeout=60_000)
        assert page.get_by_test_id("data-testid Panel status error").count() == 0
        browser.close()
