"""Who gets in, who may act, and which requests are not let through."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from starlette.datastructures import Headers
from starlette.testclient import TestClient

from toolkit.console.app import make_app
from toolkit.console.guard import TICKET_S, Guard, RefusedError, Session

ORIGIN = "http://127.0.0.1:8400"
FILE = """\
name: small
nodes: {a: {kind: vm}, b: {kind: vm}}
services: {broker: {on: a, image: event-handler}, publisher: {on: b}, subscriber: {on: b}}
"""


@pytest.fixture
def guard() -> Guard:
    return Guard(port=8400)


@pytest.fixture
def console(workspace: Path, tmp_path: Path, guard: Guard) -> TestClient:
    (tmp_path / "testbed.yml").write_text(FILE)
    return TestClient(make_app(tmp_path, guard), base_url=ORIGIN, follow_redirects=False)


def enter(client: TestClient, token: str) -> Any:
    return client.get("/enter", params={"token": token})


def ticket_on(page: str, verb: str) -> str:
    found = re.search(rf'value="{verb}"><input type="hidden" name="ticket" value="([^"]+)"', page)
    assert found, page
    return found.group(1)


def test_nobody_gets_in_without_the_link(console: TestClient) -> None:
    for path in (
        "/",
        "/runs",
        "/testbeds/small",
        "/testbeds/small/live",
        "/testbeds/small/prometheus/api/v1/query",
        "/none",
    ):
        refused = console.get(path)
        assert refused.status_code == 401, path
        assert "small" not in refused.text
        assert "<nav" not in refused.text, "it would lead to what is refused"
    assert enter(console, "").status_code == 403
    assert 'class="button"' not in enter(console, "").text
    assert enter(console, "x" * 32).status_code == 403
    assert "set-cookie" not in enter(console, "wrong").headers


def test_the_link_becomes_a_cookie_that_scripts_and_other_sites_do_not_get(console: TestClient, guard: Guard) -> None:
    entered = enter(console, guard.act_token)
    assert (entered.status_code, entered.headers["location"]) == (303, "/")
    cookie = entered.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=lax" in cookie.lower()
    assert guard.act_token not in cookie
    page = console.get("/")
    assert page.status_code == 200
    assert "small" in page.text
    assert guard.act_token not in page.text
    assert guard.watch_token not in page.text


def test_every_answer_carries_the_policies(console: TestClient, guard: Guard) -> None:
    enter(console, guard.act_token)
    for path in ("/", "/testbeds/small", "/nope", "/runs"):
        headers = console.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        assert "frame-ancestors 'none'" in policy


def test_pages_carry_no_program_or_style_inline(console: TestClient, guard: Guard) -> None:
    enter(console, guard.act_token)
    for path in ("/", "/testbeds/small", "/testbeds/small/dashboards/kpis"):
        text = console.get(path).text
        assert not re.search(r"<script(?![^>]*\bsrc=)", text)
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", text)


def test_another_name_means_that_dns_was_bent(console: TestClient, guard: Guard) -> None:
    enter(console, guard.act_token)
    for host in ("evil.example:8400", "127.0.0.1:9999", "127.0.0.1"):
        assert console.get("/", headers={"host": host}).status_code == 421
    assert console.get("/", headers={"host": "localhost:8400"}).status_code == 200


def press(client: TestClient, verb: str, ticket: str, headers: dict[str, str] | None = None, **fields: str) -> Any:
    data = {"verb": verb, "ticket": ticket, **fields}
    return client.post("/testbeds/small/actions", data=data, headers={"origin": ORIGIN, **(headers or {})})


def test_only_the_consoles_own_buttons_act(console: TestClient, guard: Guard) -> None:
    enter(console, guard.act_token)
    ticket = ticket_on(console.get("/testbeds/small").text, "deploy")
    assert press(console, "deploy", "").status_code == 403
    assert press(console, "deploy", ticket[:-1] + ("0" if ticket[-1] != "0" else "1")).status_code == 403
    assert press(console, "teardown", ticket).status_code == 403, "a ticket is for one deed"
    assert press(console, "deploy", ticket, {"origin": "http://evil.example"}).status_code == 403
    assert press(console, "deploy", ticket, {"origin": "null"}).status_code == 403
    assert press(console, "deploy", ticket, {"sec-fetch-site": "cross-site"}).status_code == 403
    assert console.get("/testbeds/small/actions").status_code == 405
    long = console.post("/testbeds/small/actions", content=b"x" * 20_000, headers={"origin": ORIGIN})
    assert long.status_code == 413


def test_a_ticket_is_of_one_session(console: TestClient, guard: Guard) -> None:
    enter(console, guard.act_token)
    ticket = ticket_on(console.get("/testbeds/small").text, "deploy")
    console.cookies.clear()
    enter(console, guard.act_token)
    assert press(console, "deploy", ticket).status_code == 403


def test_tickets_run_out_with_time_and_with_the_testbeds_state(guard: Guard) -> None:
    now = [1000.0]
    guard.now = lambda: now[0]
    session = Session(id="s", may_act=True)
    ticket = guard.ticket(session, "teardown lab", "state1")
    guard.check_ticket(session, "teardown lab", "state1", ticket)
    with pytest.raises(RefusedError, match="has changed") as stale:
        guard.check_ticket(session, "teardown lab", "state2", ticket)
    assert stale.value.status == 410
    now[0] += TICKET_S + 1
    with pytest.raises(RefusedError, match="too old") as old:
        guard.check_ticket(session, "teardown lab", "state1", ticket)
    assert old.value.status == 410


def test_a_teardown_without_its_confirmation_is_not_done(console: TestClient, guard: Guard) -> None:
    session = guard.enter(guard.act_token)
    console.cookies.set(guard.cookie, session.id)
    entry = console.app.state.console.catalogue.entry("small")  # type: ignore[attr-defined]
    ticket = guard.ticket(session, "teardown small", entry.version)
    for confirm in ("", "smal", "other"):
        assert press(console, "teardown", ticket, confirm=confirm).status_code == 422


def test_the_link_to_share_shows_and_does_nothing(console: TestClient, guard: Guard) -> None:
    enter(console, guard.watch_token)
    page = console.get("/testbeds/small").text
    assert "read-only" in page
    assert '<p class="soft path">testbed.yml</p>' in page, "as seen from where the console was started"
    assert "<form" not in page
    watcher = next(session for session in guard._sessions.values() if not session.may_act)
    entry = console.app.state.console.catalogue.entry("small")  # type: ignore[attr-defined]
    assert press(console, "deploy", guard.ticket(watcher, "deploy small", entry.version)).status_code == 403


def test_a_read_only_console_lets_nobody_act() -> None:
    guard = Guard(port=1, read_only=True)
    assert not guard.enter(guard.act_token).may_act


def test_a_broken_cookie_is_no_session(guard: Guard) -> None:
    for cookie in ("", "a=b", 'x"; \x00', f"{guard.cookie}=guess"):
        with pytest.raises(RefusedError):
            guard.session(Headers({"cookie": cookie}))


def test_no_secret_is_on_any_page(
    console: TestClient, guard: Guard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROKER_PASSWORD", "hunter2hunter2")
    text = FILE.replace("image: event-handler}", "image: event-handler, secrets: {PASSWORD: password}}")
    (tmp_path / "testbed.yml").write_text(text + "secrets: {password: '${env.BROKER_PASSWORD}'}\n")
    enter(console, guard.act_token)
    for path in ("/", "/testbeds/small", "/testbeds/small/logs", "/testbeds/small/dashboards/kpis", "/runs"):
        page = console.get(path)
        assert page.status_code == 200
        assert "hunter2" not in page.text


def test_a_file_with_errors_is_shown_with_them(console: TestClient, guard: Guard, tmp_path: Path) -> None:
    (tmp_path / "testbed.yml").write_text(FILE.replace("kind: vm", "kind: toaster", 1))
    enter(console, guard.act_token)
    name = re.search(r'href="/testbeds/([^"]+)"', console.get("/").text)
    assert name
    page = console.get(f"/testbeds/{name.group(1)}").text
    assert "toaster" in page
    assert "testbed.yml:2" in page
    assert 'value="deploy"' not in page


def test_a_testbed_on_machines_of_its_own_asks_for_its_name(console: TestClient, guard: Guard, tmp_path: Path) -> None:
    rack = "nodes: {a: {kind: vm, address: 10.0.0.1}, b: {kind: vm, address: 10.0.0.2}}\nprovider: ssh"
    (tmp_path / "testbed.yml").write_text(FILE.replace("nodes: {a: {kind: vm}, b: {kind: vm}}", rack))
    enter(console, guard.act_token)
    page = console.get("/testbeds/small").text
    assert "Deploy as local twin" in page
    assert "Deploy on its machines" in page
    assert console.app.state.console.catalogue.entry("small").on_own_machines  # type: ignore[attr-defined]
