"""The read-only pages of a node process (/metrics, /healthz …) as a handler of `serving.Server`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from toolkit.node.serving import Handler, Reply

Page = Callable[[], Reply]


def text(body: str, status: int = 200, content_type: str = "text/plain; charset=utf-8") -> Reply:
    """A page of text."""
    return Reply(status=status, body=body.encode(), content_type=content_type)


def health(problem: str | None) -> Reply:
    """200 where there is no problem, else 503 with the problem."""
    return text("ok\n") if problem is None else text(f"{problem}\n", status=503)


def pages_handler(pages: Mapping[str, Page]) -> Handler:
    """Answer GET of these paths; a page that fails is a 500 and never ends the process it reports on."""

    def handle(method: str, path: str, _body: bytes) -> Reply:
        if method not in {"GET", "HEAD"}:
            return text("only GET\n", status=405)
        page = pages.get(path)
        if page is None:
            return text(f"no such page; there are {' '.join(sorted(pages))}\n", status=404)
        try:
            return page()
        except Exception as error:  # noqa: BLE001
            return text(f"{type(error).__name__}: {error}\n", status=500)

    return handle
