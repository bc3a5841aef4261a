"""The first page, and a testbed's own: its picture, its nodes, its buttons, and what moves on it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from toolkit.console.catalogue import Entry, summary
from toolkit.console.guard import TICKET_S
from toolkit.console.held import console_of, session_of
from toolkit.console.pages import page
from toolkit.controller.deploy import urls
from toolkit.controller.status import node_row
from toolkit.provisioning.dashboards import pages as dashboard_pages
from toolkit.provisioning.observe import observe
from toolkit.provisioning.topology import draw

KEEP_ALIVE_S = 15.0


def index(request: Request) -> Response:
    """Every testbed there is, as cards."""
    console = console_of(request)
    entries = console.catalogue.entries()
    part = "cards" if request.headers.get("hx-request") else "index"
    return page(
        request,
        part,
        cards=[(entry, summary(entry)) for entry in entries],
        actions=console.actions.latest(most=5),
        root=console.catalogue.root,
    )


def show(request: Request) -> Response:
    """One testbed."""
    console, session = console_of(request), session_of(request)
    entry = console.entry(request)
    testbed, deployment = entry.testbed, entry.deployment
    tickets = {
        verb: console.guard.ticket(session, f"{verb} {entry.name}", entry.version)
        for verb in ("deploy", "redeploy", "teardown", "run")
        if session.may_act
    }
    return page(
        request,
        "testbed",
        entry=entry,
        file=_from(console.catalogue.root, entry),
        summary=summary(entry),
        picture=draw(testbed, deployment.hosts if deployment else {}) if testbed else None,
        urls=urls(testbed, deployment) if testbed and deployment else {},
        boards=[(board.name, board.title.removeprefix("toolkit: ")) for board in dashboard_pages()],
        tickets=tickets,
        drawn=int(time.time()),
        twin_possible=_twin_possible(entry),
        past=console.actions.latest(entry.name, most=6),
    )


def _from(root: Path, entry: Entry) -> str:
    """Where its file is, as seen from where the console was started; a file elsewhere has its whole path."""
    if entry.file is None:
        return ""
    return str(entry.file.relative_to(root) if entry.file.is_relative_to(root) else entry.file)


def _twin_possible(entry: Entry) -> bool:
    return entry.deployment is None and entry.testbed is not None and entry.on_own_machines


def changed(request: Request) -> Response:
    """Tells an open page to load itself again: the testbed is in another state, or its buttons grow old."""
    entry = console_of(request).entry(request)
    drawn = request.query_params.get("drawn", "")
    old = not drawn.isdigit() or time.time() - int(drawn) > TICKET_S / 2
    if entry.version != request.query_params.get("version") or old:
        return Response(status_code=200, headers={"HX-Refresh": "true"})
    return Response(status_code=204)


def nodes(request: Request) -> Response:
    """What every node is and runs now: a look through SSH, seconds apart."""
    entry = console_of(request).entry(request)
    rows: list[dict[str, Any]] = []
    if entry.testbed and entry.deployment:
        seen = observe(entry.deployment.hosts, entry.name)
        rows = [
            node_row(entry.testbed, entry.deployment, node.name, seen.get(node.name)) for node in entry.testbed.nodes
        ]
    return page(request, "nodes", rows=rows, entry=entry)


async def live(request: Request) -> Response:
    """Figures once a second, as server-sent events."""
    console = console_of(request)
    entry = await asyncio.to_thread(console.entry, request)
    feed = console.feed(entry.name)

    async def events() -> AsyncGenerator[str]:
        yield "retry: 2000\n\n"
        async for document in feed.follow():
            yield f"data: {document}\n\n"

    return event_stream(events())


def event_stream(events: AsyncGenerator[str]) -> StreamingResponse:
    """Server-sent events; a comment now and then keeps proxies from closing a silent stream."""
    return StreamingResponse(
        _kept_alive(events),
        media_type="text/event-stream",
        headers={"cache-control": "no-store", "x-accel-buffering": "no"},
    )


async def _kept_alive(events: AsyncGenerator[str]) -> AsyncGenerator[str]:
    coming = asyncio.ensure_future(anext(events))
    try:
        while True:
            done, _ = await asyncio.wait({coming}, timeout=KEEP_ALIVE_S)
            if not done:
                yield ": still here\n\n"
                continue
            try:
                yield coming.result()
            except StopAsyncIteration:
                return
            coming = asyncio.ensure_future(anext(events))
    finally:
        coming.cancel()
        with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration):
            await coming
        await events.aclose()


ROUTES = [
    Route("/", index),
    Route("/testbeds/{name}", show),
    Route("/testbeds/{name}/changed", changed),
    Route("/testbeds/{name}/nodes", nodes),
    Route("/testbeds/{name}/live", live),
]
