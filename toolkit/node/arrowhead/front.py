"""Between HTTP and the handlers: routing, payload rules, access, errors and headers, the same for every system."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from urllib.parse import quote

from toolkit.node.arrowhead import wire
from toolkit.node.arrowhead.access import Caller, common_name_of
from toolkit.node.arrowhead.http_server import Request, Response
from toolkit.node.arrowhead.openapi import describe
from toolkit.node.arrowhead.pretty import pretty
from toolkit.node.arrowhead.quirks import Quirks
from toolkit.node.arrowhead.refusals import Refusal, unauthorized
from toolkit.node.arrowhead.routes import Call, Reply, Route, Router
from toolkit.node.arrowhead.trace import Recorder, Trace

log = logging.getLogger(__name__)

JSON = "application/json"
CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Headers": "origin, content-type, accept, authorization",
    "Access-Control-Allow-Credentials": "true",
    "Access-Control-Allow-Methods": "GET, POST, PUT, DELETE, OPTIONS, HEAD",
    "Access-Control-Max-Age": "600",
}
OPENAPI_PATH = "/api/openapi.json"

Observe = Callable[[str, int, float], None]
"""Told of every answer: operation, status, seconds."""


class Front:
    """Answers the requests of one port."""

    def __init__(
        self,
        routes: Iterable[Route],
        *,
        title: str,
        quirks: Quirks,
        recorder: Recorder,
        server_cloud: str | None = None,
        observe: Observe = lambda _operation, _status, _seconds: None,
        report: Callable[[Refusal], None] = lambda _refusal: None,
    ) -> None:
        """`server_cloud` is that of the server's certificate in secure mode; `report` is told of every refusal."""
        own = Route(method="GET", path=OPENAPI_PATH, handle=self._describe, summary="This description", answers=dict)
        self.router = Router((*routes, own))
        self._title = title
        self._quirks = quirks
        self._recorder = recorder
        self._server_cloud = server_cloud
        self._observe = observe
        self._report = report

    async def handle(self, request: Request) -> Response:
        """The answer to one request; never raises."""
        operation, trace = "none", None
        try:
            route, call = self._route(request)
            operation, trace = route.operation, call.trace
            reply = await route.handle(call)
            response = self._success(reply)
        except Refusal as refusal:
            response = self._refusal(request, refusal)
        except Exception as error:
            log.exception("%s %s failed", request.method, request.path)
            response = self._refusal(request, Refusal("GENERIC", f"class {type(error).__name__}: {error}"[:500]))
        self._observe(operation, response.status, (time.time_ns() - request.received_ns) / 1e9)
        if trace is None:
            return response
        return Response(
            status=response.status,
            body=response.body,
            content_type=response.content_type,
            headers=response.headers,
            sent=_recording(trace, operation, request.received_ns),
        )

    def refuse(self, status: int, message: str) -> Response:
        """The answer to what never became a request."""
        refusal = Refusal("BAD_PAYLOAD", message, status=status)
        self._observe("none", status, 0.0)
        return Response(status=status, body=pretty(refusal.document("")).encode(), content_type=JSON, headers=CORS)

    def _route(self, request: Request) -> tuple[Route, Call]:
        found = self.router.find(request.path)
        if found is None:
            raise Refusal("BAD_URI", f"There is nothing at {request.path}", origin=_base(request))
        methods, parameters = found
        if request.method == "OPTIONS":
            return _options(request, methods, parameters)
        route = methods.get("GET" if request.method == "HEAD" else request.method)
        if route is None:
            allowed = ", ".join(sorted(methods))
            message = f"{request.method} is not allowed at {request.path}; it has {allowed}"
            raise Refusal("BAD_METHOD", message, origin=_base(request))
        self._check_payload(request, route)
        body = None if route.accepts is None else wire.read(route.accepts, request.body, self._quirks)
        caller = self._check_access(request, route, body)
        trace = self._recorder.trace(request.headers, begin=route.traced)
        return route, Call(request=request, parameters=parameters, body=body, caller=caller, trace=trace)

    def _check_payload(self, request: Request, route: Route) -> None:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if route.accepts is not None and request.body and kind not in {"", JSON, "*/*"}:
            raise Refusal("BAD_MEDIA_TYPE", f"{kind} is not accepted here; send {JSON}")
        if request.method in {"POST", "PUT"} and not request.body:
            raise Refusal("BAD_PAYLOAD", f"The {request.method} request has no payload")
        if request.method in {"GET", "DELETE"} and request.body:
            raise Refusal("BAD_PAYLOAD", f"A {request.method} request must have no payload")

    def _check_access(self, request: Request, route: Route, body: object) -> Caller | None:
        if self._server_cloud is None:
            return None
        name = common_name_of(request.certificate)
        caller = Caller(common_name=name, server_cloud=self._server_cloud)
        if not route.access(caller, body):
            raise unauthorized(f"{name or 'a client without certificate'} is unauthorized to access {_url(request)}")
        return caller

    def _success(self, reply: Reply) -> Response:
        if reply.value is None:
            return Response(status=reply.status, headers=CORS)
        if isinstance(reply.value, str):
            return Response(status=reply.status, body=reply.value.encode(), content_type="text/plain", headers=CORS)
        return Response(status=reply.status, body=wire.write(reply.value), content_type=JSON, headers=CORS)

    def _refusal(self, request: Request, refusal: Refusal) -> Response:
        log.info("%s at %s: %s", refusal.kind, request.path, refusal.message[:300])
        self._report(refusal)
        return Response(
            status=refusal.status,
            body=pretty(refusal.document(_url(request))).encode("utf-8", "replace"),
            content_type=JSON,
            headers=CORS,
        )

    async def _describe(self, _call: Call) -> Reply:
        return Reply(value=describe(self._title, self.router.routes))


def _options(request: Request, methods: dict[str, Route], parameters: dict[str, str]) -> tuple[Route, Call]:
    allowed = ", ".join(sorted({*methods, "OPTIONS", *(["HEAD"] if "GET" in methods else [])}))

    async def tell(_call: Call) -> Reply:
        return Reply(value=allowed)

    route = Route(method="OPTIONS", path=next(iter(methods.values())).path, handle=tell, summary="Methods")
    return route, Call(request=request, parameters=parameters, body=None, caller=None, trace=None)


def _recording(trace: Trace, operation: str, received_ns: int) -> Callable[[int], None]:
    return lambda sent_ns: trace.record("serve", operation, received_ns, sent_ns)


def _base(request: Request) -> str:
    return f"{request.scheme}://{request.server}/"


def _url(request: Request) -> str:
    return f"{request.scheme}://{request.server}{quote(request.path, safe='/%:@,;=~')}"
