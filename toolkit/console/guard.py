"""Who may look and who may act: tokens, sessions, tickets on buttons, and what every request and answer must carry."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from toolkit.contract.watching import POLICIES

TICKET_S = 1800.0
"""How long a button may be pressed after it was drawn; pages that stay open draw it again sooner."""
MOST_SESSIONS = 1000
REPORT_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'self'; sandbox allow-scripts allow-downloads"
)
"""A report carries its program inside; the sandbox gives it an origin of its own, without the console's cookie."""
_OPEN = ("/enter", "/static/")


class RefusedError(Exception):
    """A request that is not let through; `status` is its HTTP status, the message is for people."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One browser that came in with a token."""

    id: str
    may_act: bool


@dataclass(slots=True, kw_only=True)
class Guard:
    """Holds the secrets of one console process; nothing of it is ever written down."""

    port: int
    names: tuple[str, ...] = ("127.0.0.1", "localhost", "[::1]")
    """Names under which the console may be asked for; another one means DNS was bent to reach it."""
    read_only: bool = False
    now: Callable[[], float] = time.time
    watch_token: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    act_token: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    _key: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    _sessions: dict[str, Session] = field(default_factory=dict)

    @property
    def cookie(self) -> str:
        """Cookies know no ports: two consoles on one machine need two names."""
        return f"toolkit-console-{self.port}"

    def enter(self, token: str) -> Session:
        """Exchange a token for a session; raises RefusedError for a wrong one, without telling how wrong."""
        given = token.encode()
        acts = hmac.compare_digest(given, self.act_token.encode())
        watches = hmac.compare_digest(given, self.watch_token.encode())
        if not acts and not watches:
            raise RefusedError(
                403, "This link is not, or no longer, valid. The console prints a new one at each start."
            )
        session = Session(id=secrets.token_urlsafe(24), may_act=acts and not self.read_only)
        while len(self._sessions) >= MOST_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        self._sessions[session.id] = session
        return session

    def session(self, headers: Headers) -> Session:
        """Whose request this is; raises RefusedError where there is no valid cookie."""
        try:
            morsel = SimpleCookie(headers.get("cookie", "")).get(self.cookie)
        except CookieError:
            morsel = None
        session = self._sessions.get(morsel.value) if morsel else None
        if session is None:
            raise RefusedError(401, "Open the link that `toolkit console` printed when it started; it lets you in.")
        return session

    def check_host(self, headers: Headers) -> None:
        """Raises RefusedError where the console is asked under a name that is not its own."""
        host = headers.get("host", "")
        if host not in self._hosts():
            raise RefusedError(
                421, f"This console does not answer to the name {host!r}; see: toolkit console --allow-host"
            )

    def check_origin(self, headers: Headers) -> None:
        """Raises RefusedError where another site sends the request; only for requests that change something."""
        origin = headers.get("origin")
        if headers.get("sec-fetch-site", "same-origin") != "same-origin" or (
            origin is not None and urlsplit(origin).netloc != headers.get("host")
        ):
            raise RefusedError(403, "Another site has sent this request; it was not carried out.")

    def _hosts(self) -> set[str]:
        return {f"{name}:{self.port}" for name in self.names} | (set(self.names) if self.port == 80 else set())  # noqa: PLR2004

    # -- tickets --

    def ticket(self, session: Session, deed: str, state: str) -> str:
        """What a button carries: this session may do this deed while the testbed is in this state, for a while."""
        expires = int(self.now() + TICKET_S)
        return f"{expires}.{state}.{self._mac(session, deed, state, expires)}"

    def check_ticket(self, session: Session, deed: str, state: str, ticket: str) -> None:
        """Raises RefusedError where the ticket is not of this session and deed (403), or is out of date (410)."""
        if not session.may_act:
            raise RefusedError(403, "This console is read-only for you.")
        expires, _, rest = ticket.partition(".")
        seen, _, mac = rest.partition(".")
        if not expires.isdigit() or not hmac.compare_digest(
            mac.encode(), self._mac(session, deed, seen, int(expires)).encode()
        ):
            raise RefusedError(403, "This request did not come from a button of this console; it was not carried out.")
        if self.now() > int(expires):
            raise RefusedError(
                410, "This page is too old to act from: it was opened over half an hour ago. Look again."
            )
        if seen != state:
            raise RefusedError(410, "The testbed has changed since this page was drawn; nothing was done. Look again.")

    def _mac(self, session: Session, deed: str, state: str, expires: int) -> str:
        words = "\n".join((session.id, deed, state, str(expires)))
        return hmac.new(self._key, words.encode(), hashlib.sha256).hexdigest()


class Gate:
    """ASGI middleware: every request passes the guard, every answer carries the policies."""

    def __init__(self, app: ASGIApp, guard: Guard, refuse: Callable[[RefusedError], Response]) -> None:
        self._app = app
        self._guard = guard
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let through, or answer with the refusal."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        scope.setdefault("state", {})

        async def with_policies(message: Message) -> None:
            if message["type"] == "http.response.start":
                add_policies(MutableHeaders(scope=message))
            await send(message)

        try:
            self._guard.check_host(headers)
            if scope["method"] not in {"GET", "HEAD"}:
                self._guard.check_origin(headers)
            if not scope["path"].startswith(_OPEN):
                scope["state"]["session"] = self._guard.session(headers)
        except RefusedError as refusal:
            await self._refuse(refusal)(scope, receive, with_policies)
            return
        await self._app(scope, receive, with_policies)


def add_policies(headers: MutableHeaders) -> None:
    """What browsers are told about every answer."""
    for name, value in POLICIES:
        headers.setdefault(name, value)
