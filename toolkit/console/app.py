"""The console as a web application: which address shows what."""

from __future__ import annotations

import asyncio
import contextlib
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from toolkit import __version__, paths, ssh
from toolkit.console import dashboards, logs, pages, results, stories, testbeds
from toolkit.console.actions import Actions
from toolkit.console.catalogue import Catalogue
from toolkit.console.guard import Gate, Guard, RefusedError, add_policies
from toolkit.console.held import Console, console_of
from toolkit.console.prometheus import Servers
from toolkit.errors import LockedError, ToolkitError, UsageError
from toolkit.provisioning.dashboards import dashboard
from toolkit.provisioning.dashboards import pages as dashboard_pages
from toolkit.provisioning.pages import prepare


def make_app(root: Path, guard: Guard, *, named: tuple[Path, ...] = (), servers: Servers | None = None) -> Starlette:
    """The application; `root` is where testbed files are looked for."""
    actions = Actions()
    console = Console(
        guard=guard, actions=actions, catalogue=Catalogue(root, named, actions), servers=servers or Servers()
    )
    routes = [
        Route("/enter", enter),
        Route("/static/{digest}/{name}", pages.static),
        *testbeds.ROUTES,
        *stories.ROUTES,
        *dashboards.ROUTES,
        *results.ROUTES,
        *logs.ROUTES,
    ]
    app = Starlette(
        routes=routes,
        middleware=[Middleware(Gate, guard=guard, refuse=pages.refusal)],
        exception_handlers={
            RefusedError: _refused,
            UsageError: _told(404),
            LockedError: _told(409),
            ToolkitError: _told(502),
            HTTPException: _no_page,
            Exception: _bug,
        },
        lifespan=_lifespan,
    )
    app.state.console = console
    return app


@contextlib.asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:
    console = app.state.console
    preparing = asyncio.create_task(asyncio.to_thread(_prepare, console))
    yield
    await asyncio.wait({preparing})
    console.servers.close()
    ssh.disconnect()


def _prepare(console: Console) -> None:
    """Do beside what the first visitor of each page would wait for, the first page's part first."""
    console.catalogue.entries()
    prepare()
    for board in dashboard_pages():
        dashboard(board.name)


async def enter(request: Request) -> Response:
    """Exchange the token of the printed link for a cookie, and go to the first page without it in the address."""
    console = console_of(request)
    session = console.guard.enter(request.query_params.get("token", ""))
    answer = RedirectResponse("/", status_code=303)
    answer.set_cookie(console.guard.cookie, session.id, httponly=True, samesite="lax", path="/")
    return answer


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)  # noqa: S101
    return pages.page(request, "refused", error.status, title="Not done", message=str(error), back=_back(request))


def _told(status: int) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def handler(request: Request, error: Exception) -> Response:
        titles = {404: "Not here", 409: "Busy", 502: "Not reached"}
        return pages.page(request, "refused", status, title=titles[status], message=str(error), back=_back(request))

    return handler


async def _no_page(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    return pages.page(request, "refused", status, title="Not here", message="There is no such page.", back="/")


async def _bug(request: Request, error: Exception) -> Response:
    """Nothing of ours: the traceback goes to a file, its path to the page."""
    log = paths.workspace() / "errors" / f"{time.strftime('%Y%m%d-%H%M%S')}-console.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text(
        f"toolkit {__version__}: {request.method} {request.url.path}\n{''.join(traceback.format_exception(error))}"
    )
    words = f"This is a bug in toolkit ({type(error).__name__}); the traceback is in {log}"
    answer = pages.page(request, "refused", 500, title="Internal error", message=words, back=_back(request))
    add_policies(answer.headers)
    return answer


def _back(request: Request) -> str:
    name = request.path_params.get("name")
    home = f"/testbeds/{name}" if name else "/"
    return home if request.url.path != home else "/"
