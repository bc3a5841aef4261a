"""Actions on pages: the buttons' addresses, and following what they started as it happens."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import get_args

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from toolkit.console.actions import Order, Verb
from toolkit.console.catalogue import Entry
from toolkit.console.guard import RefusedError
from toolkit.console.held import console_of, form_of, session_of
from toolkit.console.journal import read_events
from toolkit.console.pages import page
from toolkit.console.testbeds import event_stream
from toolkit.errors import UsageError

LOOK_EVERY_S = 0.2
CONFIRMED = ("redeploy", "teardown")
"""Deeds that take something away: their forms carry the testbed's name as a confirmation."""


async def act(request: Request) -> Response:
    """Start what a button says, and go to where it can be followed."""
    console, session = console_of(request), session_of(request)
    fields = await form_of(request)
    verb = fields.get("verb", "")
    entry = await asyncio.to_thread(console.entry, request)
    console.guard.check_ticket(session, f"{verb} {entry.name}", entry.version, fields.get("ticket", ""))
    if verb in CONFIRMED and fields.get("confirm", "").strip() != entry.name:
        raise RefusedError(422, f"To {verb} this testbed, type its name: {entry.name}. Nothing was done.")
    order = make_order(entry, verb, provider=fields.get("provider") or None, workload=fields.get("workload", ""))
    action = await asyncio.to_thread(console.actions.start, order)
    return RedirectResponse(f"/actions/{action.id}", status_code=303)


def make_order(entry: Entry, verb: str, *, provider: str | None, workload: str) -> Order:
    """What the action's process is told; raises UsageError for what makes no sense."""
    if verb not in get_args(Verb):
        raise UsageError(f"there is no action {verb!r}")
    if verb in {"deploy", "redeploy"} and entry.file is None:
        raise UsageError(f"the file of testbed {entry.name} is gone; it cannot be deployed")
    if entry.deployment:
        provider = entry.deployment.provider or None
    elif provider not in {None, "container"}:
        raise UsageError(f"the console makes local twins only by the provider `container`, not {provider!r}")
    return Order(
        verb=verb,  # type: ignore[arg-type]  # one of the words of Verb, as seen above
        testbed=entry.name,
        file=str(entry.file or ""),
        provider=provider,
        workload=workload,
    )


def show(request: Request) -> Response:
    """One action: running, or how it ended."""
    console, session = console_of(request), session_of(request)
    action = console.actions.find(request.path_params["id"])
    ticket = console.guard.ticket(session, f"stop {action.id}", "running") if session.may_act else ""
    return page(request, "action", action=action, ticket=ticket)


async def stop(request: Request) -> Response:
    """Interrupt a running action."""
    console, session = console_of(request), session_of(request)
    fields = await form_of(request)
    action = await asyncio.to_thread(console.actions.find, request.path_params["id"])
    state = "running" if action.state == "running" else "over"
    console.guard.check_ticket(session, f"stop {action.id}", state, fields.get("ticket", ""))
    await asyncio.to_thread(console.actions.stop, action.id)
    return RedirectResponse(f"/actions/{action.id}", status_code=303)


async def events(request: Request) -> Response:
    """An action's journal as server-sent events, from where the browser was when it lost us; then its outcome."""
    console = console_of(request)
    action = await asyncio.to_thread(console.actions.find, request.path_params["id"])
    seen = request.headers.get("last-event-id", "0")

    async def journal() -> AsyncGenerator[str]:
        after, current = int(seen) if seen.isdigit() else 0, action
        while True:
            over = current.state != "running"
            lines, after = await asyncio.to_thread(read_events, action.folder, after)
            for line in lines:
                yield f"event: step\ndata: {line}\n\n"
            if lines:
                yield f"id: {after}\nevent: mark\ndata: \n\n"
            if over:  # looked for before its last lines were read
                outcome = json.dumps({"state": current.state, **current.outcome})
                yield f"event: outcome\ndata: {outcome}\n\n"
                return
            await asyncio.sleep(LOOK_EVERY_S)
            current = await asyncio.to_thread(console.actions.find, action.id)

    return event_stream(journal())


ROUTES = [
    Route("/testbeds/{name}/actions", act, methods=["POST"]),
    Route("/actions/{id}", show),
    Route("/actions/{id}/stop", stop, methods=["POST"]),
    Route("/actions/{id}/events", events),
]
