"""What a system answers: methods, paths, messages, and who may ask; found again from a request's path."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote

from toolkit.node.arrowhead.access import Access, Caller, anyone_local
from toolkit.node.arrowhead.http_server import Request
from toolkit.node.arrowhead.refusals import Refusal
from toolkit.node.arrowhead.trace import Trace


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request that has found its route."""

    request: Request
    parameters: Mapping[str, str]
    """From the path, decoded."""
    body: Any
    """The message that the route accepts; None when it accepts none."""
    caller: Caller | None
    """None in insecure mode."""
    trace: Trace | None

    def number(self, name: str) -> int:
        """A whole number from the path; otherwise there is no such path."""
        text = self.parameters[name]
        if not re.fullmatch(r"-?\d{1,18}", text):
            raise Refusal("BAD_URI", f"{text!r} in the path is not a number")
        return int(text)

    @property
    def query(self) -> dict[str, str]:
        """The query parameters; the last of a name counts."""
        return dict(parse_qsl(self.request.query))


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a handler answers: a message, a list of them, a text, or nothing."""

    status: int = 200
    value: Any = None


Handler = Callable[[Call], Awaitable[Reply]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One operation of a system."""

    method: str
    path: str
    """Parts in braces are parameters."""
    handle: Handler
    summary: str
    accepts: Any = None
    """A message class, `list[…]` of one, or None."""
    answers: Any = None
    """The same; `str` is a plain text."""
    statuses: tuple[int, ...] = (200,)
    """Of success."""
    access: Access = anyone_local
    traced: bool = False
    """A request that arrives here without an id begins a trace."""

    @property
    def operation(self) -> str:
        """Name in metrics and steps: the last part of the path that is no parameter."""
        parts = [part for part in self.path.split("/") if part and not part.startswith("{")]
        return parts[-1] if parts else "root"


@dataclass(frozen=True, slots=True)
class Branch:
    """The operations below one path that the same callers may ask for."""

    path: str
    access: Access = anyone_local

    def route(
        self,
        method: str,
        below: str,
        handle: Handler,
        summary: str,
        *,
        accepts: Any = None,
        answers: Any = None,
        statuses: tuple[int, ...] = (200,),
        traced: bool = False,
    ) -> Route:
        """The operation at the branch's path followed by `below`."""
        return Route(
            method=method,
            path=self.path + below,
            handle=handle,
            summary=summary,
            accepts=accepts,
            answers=answers,
            statuses=statuses,
            access=self.access,
            traced=traced,
        )

    def liveness(self, text: str) -> Route:
        """`GET` of the branch itself answers a text."""

        async def tell(_call: Call) -> Reply:
            return Reply(value=text)

        return self.route("GET", "", tell, "Liveness", answers=str)


@dataclass(slots=True)
class Router:
    """Finds routes by path; a path without parameters goes before one with."""

    routes: tuple[Route, ...]
    _exact: dict[str, dict[str, Route]] = field(default_factory=dict)
    _patterns: list[tuple[re.Pattern[str], dict[str, Route]]] = field(default_factory=list)

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes = tuple(routes)
        self._exact = {}
        by_pattern: dict[str, dict[str, Route]] = {}
        for route in self.routes:
            target = by_pattern if "{" in route.path else self._exact
            target.setdefault(route.path, {})[route.method] = route
        self._patterns = [
            (re.compile(re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/]+)", re.escape(path))), methods)
            for path, methods in by_pattern.items()
        ]

    def find(self, path: str) -> tuple[dict[str, Route], dict[str, str]] | None:
        """The routes of a path by method, and its parameters; None when there is no such path."""
        path = "/" + path.strip("/")
        if (methods := self._exact.get(unquote(path))) is not None:
            return methods, {}
        for pattern, methods in self._patterns:
            if match := pattern.fullmatch(path):
                return methods, {name: unquote(value) for name, value in match.groupdict().items()}
        return None
