"""What a console process holds, and how a request gets at it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from starlette.requests import Request

from toolkit.console.actions import Actions
from toolkit.console.catalogue import Catalogue, Entry
from toolkit.console.guard import Guard, RefusedError, Session
from toolkit.console.live import Feed
from toolkit.console.prometheus import Prometheus, Servers
from toolkit.errors import UnreachableError

LONGEST_FORM = 16_384


@dataclass(slots=True, kw_only=True)
class Console:
    """Everything a console process knows."""

    guard: Guard
    catalogue: Catalogue
    actions: Actions
    servers: Servers = field(default_factory=Servers)
    feeds: dict[str, Feed] = field(default_factory=dict)

    def entry(self, request: Request) -> Entry:
        """The testbed that the address names."""
        return self.catalogue.entry(request.path_params["name"])

    def prometheus(self, name: str) -> Prometheus:
        """The server of a testbed; raises UnreachableError where it has none now."""
        entry = self.catalogue.entry(name)
        if entry.testbed is None or entry.deployment is None:
            raise UnreachableError(f"testbed {name} is not deployed, so there are no figures")
        return self.servers.of(entry.testbed, entry.deployment)

    def feed(self, name: str) -> Feed:
        """The figures of a testbed, one feed for everybody."""
        if name not in self.feeds:
            self.feeds[name] = Feed(name, lambda: self.prometheus(name))
        return self.feeds[name]


def console_of(request: Request) -> Console:
    """The console that a request came to."""
    found: Console = request.app.state.console
    return found


def session_of(request: Request) -> Session:
    """Whose request it is; the gate has checked it."""
    found: Session = request.state.session
    return found


async def form_of(request: Request) -> Mapping[str, str]:
    """The fields of a posted form; raises RefusedError for one that no button of ours sends."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LONGEST_FORM:
            raise RefusedError(413, "This form is too long.")
    return dict(parse_qsl(body.decode(errors="replace")))
