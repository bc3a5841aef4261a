"""The dashboards, as Grafana gets them, drawn by the browser; and the read-only way to Prometheus that this takes."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from toolkit.console.held import console_of
from toolkit.console.pages import packed, page
from toolkit.contract.watching import readable_path
from toolkit.errors import ToolkitError, UsageError
from toolkit.provisioning.dashboards import dashboards
from toolkit.provisioning.dashboards import pages as dashboard_pages


def show(request: Request) -> Response:
    """The page; the browser fetches the dashboard and asks its queries."""
    entry = console_of(request).entry(request)
    boards = {board.name: board for board in dashboard_pages()}
    board = boards.get(request.path_params["board"])
    if board is None:
        raise UsageError(f"there is no dashboard {request.path_params['board']!r}; there are: {', '.join(boards)}")
    interval_s = entry.testbed.monitoring.scrape_interval_s if entry.testbed else 1.0
    return page(
        request,
        "dashboard",
        entry=entry,
        board=board,
        boards=[(each.name, each.title.removeprefix("toolkit: ")) for each in boards.values()],
        scrape_interval_s=interval_s,
    )


def document(request: Request) -> Response:
    """The very JSON that deploy gives to Grafana."""
    entry = console_of(request).entry(request)
    text = dashboards(entry.testbed).get(f"{request.path_params['board']}.json")
    if text is None:
        raise UsageError(f"there is no dashboard {request.path_params['board']!r}")
    return packed(request, Response(text, media_type="application/json"))


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
