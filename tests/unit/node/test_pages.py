from __future__ import annotations

from toolkit.node.pages import health, pages_handler, text
from toolkit.node.serving import Reply


def broken() -> Reply:
    raise RuntimeError("no such sensor")


HANDLE = pages_handler({"/metrics": lambda: text("x 1\n"), "/healthz": lambda: health("too early"), "/broken": broken})


def test_pages_answer_by_path() -> None:
    assert HANDLE("GET", "/metrics", b"") == text("x 1\n")
    assert HANDLE("GET", "/healthz", b"").status == 503
    assert HANDLE("GET", "/healthz", b"").body == b"too early\n"


def test_what_is_not_there_or_not_asked_for_politely_is_refused() -> None:
    missing = HANDLE("GET", "/clock", b"")
    assert missing.status == 404
    assert b"/broken /healthz /metrics" in missing.body
    assert HANDLE("POST", "/metrics", b"").status == 405


def test_a_page_that_fails_is_an_answer_not_an_end() -> None:
    assert HANDLE("GET", "/broken", b"") == text("RuntimeError: no such sensor\n", status=500)
