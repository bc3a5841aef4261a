"""The console on a monitor's node, asked as browsers and others would; its Prometheus is a server that answers."""

from __future__ import annotations

import gzip
import http.client
import http.server
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.ports import free_port
from tests.rendered import AnyImage
from toolkit import paths
from toolkit.node.console import Console, Settings
from toolkit.provisioning.render import render_bundles
from toolkit.provisioning.watching import console_files, console_link, console_secrets
from toolkit.spec.load import load_testbed
from toolkit.spec.testbed import Testbed
from toolkit.state import Host, SshAccess

FILE = """\
name: lab
description: A lab.
nodes: {base: {kind: vm}, eh: {kind: pi3}, pub: {kind: pi3}, sub: {kind: pi1}}
services:
  monitor: {on: base}
  broker: {on: eh, image: event-handler}
  publisher: {on: pub, secrets: {PASSWORD: own}}
  subscriber: {on: sub}
monitoring: {console: true}
secrets: {own: "${env.OWN_SECRET}"}
"""
TOKEN = "the-token-of-the-link"  # noqa: S105 - of this test
FIGURES = [
    {"metric": {"figure": "up", "node": "eh", "service": "broker"}, "value": [0, "1"]},
    {"metric": {"figure": "in", "node": "eh", "service": "broker"}, "value": [0, "100"]},
]


class FakePrometheus(http.server.BaseHTTPRequestHandler):
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        body = json.dumps({"status": "success", "data": {"result": FIGURES}}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def testbed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Testbed:
    monkeypatch.setenv("OWN_SECRET", "do-not-show-this")
    (tmp_path / "testbed.yml").write_text(FILE)
    return load_testbed(tmp_path / "testbed.yml")


@pytest.fixture
def hosts(testbed: Testbed) -> dict[str, Host]:
    return {
        node.name: Host(
            node=node.name, provider="container", type="container", address=f"10.77.0.{number + 2}",
            architecture="amd64", ssh=SshAccess(address="x", known_hosts="x", identity_file="/keys/id"),
        )
        for number, node in enumerate(testbed.nodes)
    }  # fmt: skip


@pytest.fixture
def console(testbed: Testbed, hosts: dict[str, Host], tmp_path: Path) -> Iterator[Console]:
    pages = tmp_path / "pages"
    pages.mkdir()
    for name, text in console_files(testbed, hosts).items():
        (pages / name).write_text(text)
    source = http.server.ThreadingHTTPServer(("127.0.0.1", 0), FakePrometheus)
    (tmp_path / "token").write_text(TOKEN)
    environment = {
        "TOOLKIT_TESTBED": "lab", "TOOLKIT_CONSOLE_PORT": str(free_port()), "TOOLKIT_CONSOLE_NAMES": "10.77.0.2,base",
        "TOOLKIT_CONSOLE_TOKEN_FILE": str(tmp_path / "token"), "TOOLKIT_CONSOLE_PAGES": str(pages),
        "TOOLKIT_CONSOLE_STATIC": str(paths.TEMPLATES), "TOOLKIT_PROMETHEUS": f"127.0.0.1:{source.server_port}",
    }  # fmt: skip
    FakePrometheus.asked.clear()
    server = Console(Settings.from_environment(environment))
    for each in (source, server):
        threading.Thread(target=each.serve_forever, daemon=True).start()
    yield server
    for each in (source, server):
        each.shutdown()
        each.server_close()


def get(console: Console, path: str, *, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", console.server_port, timeout=10)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    found = answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    connection.close()
    return found


@pytest.fixture
def cookie(console: Console) -> str:
    status, headers, _ = get(console, f"/enter?token={TOKEN}")
    assert (status, headers["location"]) == (303, "/")
    assert "HttpOnly" in headers["set-cookie"]
    assert "SameSite=Lax" in headers["set-cookie"]
    return headers["set-cookie"].partition(";")[0]


@pytest.mark.parametrize(
    "path", ["/", "/testbeds/lab", "/testbeds/lab/live", "/testbeds/lab/prometheus/api/v1/query", "/x"]
)
def test_without_the_link_nothing_is_shown(console: Console, path: str) -> None:
    for given in ({}, {"cookie": "toolkit-monitor-lab=guessed"}, {"cookie": "\x00;=;"}):
        status, _, body = get(console, path, **given)
        assert status == 401
        assert b"toolkit deploy" in body
    assert get(console, "/enter?token=wrong")[0] == 403
    assert FakePrometheus.asked == []


def test_pages_lead_only_to_what_is_there_and_offer_nothing_to_press(console: Console, cookie: str) -> None:
    status, headers, _ = get(console, "/", cookie=cookie)
    assert (status, headers["location"]) == (303, "/testbeds/lab")
    seen, waiting = set(), ["/testbeds/lab"]
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        status, headers, body = get(console, path, cookie=cookie)
        assert status in {200, 303}, path
        assert headers["x-content-type-options"] == "nosniff"
        if headers["content-type"].startswith("text/html"):
            text = body.decode()
            assert "<form" not in text
            assert "read-only" in text
            waiting += re.findall(r'(?:href|src|data-document|data-echarts)="(/[^"]*)"', text)
    assert {f"/testbeds/lab/dashboards/{name}" for name in ("kpis", "hops", "nodes", "arrowhead", "compare")} <= seen
    assert sum(path.startswith("/static/") for path in seen) >= 6
    assert get(console, "/testbeds/lab/runs/r1", cookie=cookie)[0] == 404
    assert get(console, "/testbeds/lab/dashboards/..%2f..%2ftoken", cookie=cookie)[0] == 404
    for method in ("POST", "PUT", "DELETE", "HEAD"):
        assert get(console, "/testbeds/lab", method=method, cookie=cookie)[0] == 501


def test_modules_find_those_they_import(console: Console) -> None:
    for name, answer in console.static.items():
        if name in {"htmx.min.js", "echarts.min.js"} or not name.endswith(".js"):
            continue
        for imported in re.findall(r'from "\./([\w.]+)"', answer.body.decode()):
            assert imported in console.static, f"{name} imports {imported}"


def test_what_is_long_is_packed_and_files_are_kept_by_browsers(console: Console, cookie: str) -> None:
    status, headers, body = get(
        console, "/testbeds/lab/dashboards/kpis/document", cookie=cookie, **{"accept-encoding": "gzip"}
    )
    assert (status, headers["content-encoding"]) == (200, "gzip")
    assert json.loads(gzip.decompress(body))["uid"] == "toolkit-kpis"
    assert headers["cache-control"] == "no-store"
    assert "immutable" in get(console, "/static/0123/console.css")[1]["cache-control"]


def test_prometheus_is_read_and_nothing_else_of_it(console: Console, cookie: str) -> None:
    home = "/testbeds/lab/prometheus/api/v1"
    assert json.loads(get(console, f"{home}/query?query=up", cookie=cookie)[2])["data"]["result"] == FIGURES
    assert FakePrometheus.asked == ["/api/v1/query?query=up"]
    for path in ("admin/tsdb/snapshot", "status/config", "query/../status/config", "query?x=1"):
        status, _, body = get(console, f"{home}/{path}", cookie=cookie)
        assert (status, json.loads(body)["status"]) == (403, "error")
    assert len(FakePrometheus.asked) == 1


def test_figures_come_each_second_in_one_question_however_many_look(console: Console, cookie: str) -> None:
    viewers = []
    for _ in range(3):
        connection = http.client.HTTPConnection("127.0.0.1", console.server_port, timeout=10)
        connection.request("GET", "/testbeds/lab/live", headers={"cookie": cookie})
        viewers.append(connection.getresponse())
    for viewer in viewers:
        line = viewer.readline()
        while not line.startswith(b"data:"):
            line = viewer.readline()
        document: dict[str, Any] = json.loads(line.removeprefix(b"data:"))
        assert document["services"] == {"eh": {"broker": {"up": 1.0, "in": 100.0}}}
    assert len(FakePrometheus.asked) <= 2
    for viewer in viewers:
        viewer.close()


def test_a_prometheus_that_is_away_is_told(console: Console, cookie: str) -> None:
    console.prometheus._address = f"127.0.0.1:{free_port()}"
    assert "does not answer" in json.loads(console.feed.latest())["error"]
    assert get(console, "/testbeds/lab/prometheus/api/v1/query?query=up", cookie=cookie)[0] == 502


def test_it_answers_to_its_own_names_alone(console: Console, cookie: str) -> None:
    for host, status in {"10.77.0.2:8400": 200, "base": 200, "localhost:9999": 200, "evil.example": 421}.items():
        assert get(console, "/testbeds/lab", cookie=cookie, host=host)[0] == status, host


def test_no_secret_is_in_what_deploy_writes_and_only_the_link_holds_the_token(
    testbed: Testbed, hosts: dict[str, Host], tmp_path: Path
) -> None:
    link = console_link(testbed, hosts, tmp_path)
    assert link
    token = link.partition("token=")[2]
    assert console_secrets(testbed, hosts, tmp_path) == {"console": {"TOOLKIT_CONSOLE_TOKEN_FILE": token}}
    bundles = render_bundles(testbed, hosts, AnyImage())
    written = json.dumps({node: bundle.document() for node, bundle in bundles.items()})
    for secret in (token, "do-not-show-this", "/keys/id"):
        assert secret not in written
    [container] = [c for c in bundles["base"].containers if c.service == "console"]
    assert container.secrets == ("TOOLKIT_CONSOLE_TOKEN_FILE",)
    assert render_bundles(testbed, hosts, AnyImage())["base"].digest() == bundles["base"].digest()
    assert not any(c.service == "console" for node in ("eh", "pub", "sub") for c in bundles[node].containers)
