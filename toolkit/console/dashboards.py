"""The dashboards, as Grafana gets them, drawn by the browser; and the read-only way to Prometheus that this takes."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from toolkit.console.held import console_of
from toolkit.console.pages import packed, page
from toolkit.contract.watching import readable_path
from toolkit.errors import ToolkitError, UsageError
from toolkit.provisioning.dashboards import dashboard, pages
from toolkit.provisioning.dashboards.panels import Page


def show(request: Request) -> Response:
    """The page; the browser fetches the dashboard and asks its queries."""
    entry = console_of(request).entry(request)
    return page(
        request,
        "dashboard",
        entry=entry,
        board=_asked(request),
        boards=[(each.name, each.title.removeprefix("toolkit: ")) for each in pages()],
        scrape_interval_s=entry.testbed.monitoring.scrape_interval_s if entry.testbed else 1.0,
    )


def document(request: Request) -> Response:
    """The very JSON that deploy gives to Grafana."""
    entry = console_of(request).entry(request)
    text = dashboard(_asked(request).name, entry.testbed.name if entry.testbed else "")
    return packed(request, Response(text, media_type="application/json"))


def _asked(request: Request) -> Page:
    """The dashboard that the address names; raises UsageError where there is none of this name."""
    boards = {board.name: board for board in pages()}
    name = request.path_params["board"]
    if name not in boards:
        raise UsageError(f"there is no dashboard {name!r}; there are: {', '.join(boards)}")
    return boards[name]


def proxy(request: Request) -> Response:
    """Reading queries of the HTTP API, passed on; errors in the form that Prometheus itself uses."""
    try:
        path = readable_path(request.path_params["rest"], request.query_params.multi_items())
    except ValueError as error:
        return _error(403, str(error))
    try:
        status, body = console_of(request).prometheus(request.path_params["name"]).get(path)
    except ToolkitError as error:
        return _error(502, str(error))
    return packed(request, Response(body, status, media_type="application/json"))


def _error(status: int, message: str) -> Response:
    return JSONResponse({"status": "error", "errorType": "console", "error": message}, status)


ROUTES = [
    Route("/testbeds/{name}/dashboards/{board}", show),
    Route("/testbeds/{name}/dashboards/{board}/document", document),
    Route("/testbeds/{name}/prometheus/api/v1/{rest:path}", proxy),
]
