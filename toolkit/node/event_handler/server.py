"""The HTTP side: parses requests with httptools, answers them, and keeps every client within its limits."""

from __future__ import annotations

import asyncio
import collections
import json
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar, cast
from urllib.parse import unquote

import httptools

from toolkit.node.arrowhead.access import Caller, operator
from toolkit.node.arrowhead.pretty import pretty
from toolkit.node.event_handler.callbacks import Callbacks, CallbackSubscriptions
from toolkit.node.event_handler.description import describe
from toolkit.node.event_handler.documents import Event, Reader
from toolkit.node.event_handler.exchange import Exchange, SseSubscriber
from toolkit.node.event_handler.guard import Guard, unauthorized
from toolkit.node.event_handler.management import BASE as MANAGEMENT
from toolkit.node.event_handler.management import allowed_on, manage
from toolkit.node.event_handler.outlet import Outlet
from toolkit.node.event_handler.problems import Problem, bad_media_type, bad_method, bad_payload, bad_uri
from toolkit.node.event_handler.recorder import Passage, Recorder
from toolkit.node.event_handler.settings import HandlerSettings
from toolkit.node.event_handler.shortcut import Parsed, Shortcut
from toolkit.node.event_log import EventLog

T = TypeVar("T")

_time_ns = time.time_ns
_CORS = (
    "Access-Control-Allow-Origin: *\r\n"
    "Access-Control-Allow-Headers: origin, content-type, accept, authorization\r\n"
    "Access-Control-Allow-Credentials: true\r\n"
    "Access-Control-Allow-Methods: GET, POST, PUT, DELETE, OPTIONS, HEAD\r\n"
    "Access-Control-Max-Age: 600\r\n"
)
_OK = f"HTTP/1.1 200 OK\r\n{_CORS}Content-Length: 0\r\n\r\n".encode()
_STREAM_HEAD = (
    f"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{_CORS}Transfer-Encoding: chunked\r\n\r\n".encode()
)
LAST_CHUNK = b"0\r\n\r\n"
_REASONS = {
    200: "OK", 201: "Created", 204: "No Content", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout", 413: "Payload Too Large", 415: "Unsupported Media Type",
    431: "Request Header Fields Too Large", 500: "Internal Server Error", 503: "Service Unavailable",
}  # fmt: skip
_ALIVE = b"This is the Event Handler Arrowhead Core System."
_MOST_PIPELINED = 1024
_FIRST_CHECK_S = 60.0
_BASE = "/eventhandler"
_DESCRIPTION = "/api/openapi.json"
_METHODS = {f"{_BASE}/publish": ("POST",), _BASE: ("GET",), _DESCRIPTION: ("GET",)}


@dataclass(slots=True)
class Request:
    """One request while it is being read, and after."""

    method: str = ""
    target: str = ""
    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""
    keep_alive: bool = True
    at_ns: int = 0
    """T2: right after the read that completed it."""


_LIKE_BEFORE = Request(method="POST")
"""Stands for a request that the shortcut has recognised."""


class EventHandler:
    """What all connections share; the other modes have handlers of their own derived from this one."""

    subscribed_by: tuple[str, ...] = ("GET", "POST", "PUT")
    """Methods of /eventhandler/subscription: GET opens a stream, POST stores a filter, PUT removes one."""
    resumes_and_filters = True
    """Whether a stream takes the headers eventfilter and Last-Event-ID."""

    def __init__(self, settings: HandlerSettings, recorder: Recorder) -> None:
        self.settings = settings
        self.recorder = recorder
        self.guard = Guard(settings) if settings.secure else None
        self.exchange = Exchange(settings, recorder)
        self.callbacks: Callbacks = CallbackSubscriptions(settings, recorder, self.exchange.tally, self.guard)
        self.reader = Reader(settings.quirks)
        self.tolerance = timedelta(seconds=settings.publishing_tolerance_s)
        self.connections: dict[Connection, None] = {}
        self.draining = False
        self.log = EventLog() if settings.log_events else None
        """While there is one every request is parsed in full."""
        self._next_check_s = time.monotonic() + min(settings.check_interval_s, _FIRST_CHECK_S)

    def make_connection(self) -> Connection:
        """The protocol of a new connection."""
        return Connection(self)

    async def sweep(self) -> None:
        """End connections that are too slow or idle, and tidy, once a second, for ever."""
        while True:
            await asyncio.sleep(1)
            now_s = time.monotonic()
            self.tidy(now_s)
            for connection in list(self.connections):
                connection.check_age(now_s)

    def tidy(self, now_s: float) -> None:
        """Hand over lines; remove filters that are over, when that is due."""
        if self.log is not None:
            self.log.flush()
        if self.settings.remove_old_filters and now_s >= self._next_check_s:
            self._next_check_s = now_s + self.settings.check_interval_s
            self.callbacks.remove_old(datetime.now(UTC))

    async def drain(self) -> None:
        """Let subscribers take what is queued, at most `drain_s`; then end every connection properly."""
        self.draining = True
        until_s = time.monotonic() + self.settings.drain_s
        while (self.exchange.queued() or self.callbacks.queued()) and time.monotonic() < until_s:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        for subscriber in self.exchange.subscribers():
            subscriber.end(LAST_CHUNK)
        for connection in list(self.connections):
            connection.end()
        if isinstance(self.callbacks, CallbackSubscriptions):
            await self.callbacks.close()
        while self.connections and time.monotonic() < until_s:  # noqa: ASYNC110
            await asyncio.sleep(0.02)

    def publish(self, parsed: Parsed, passage: Passage | None) -> list[asyncio.Future[None]]:
        """Send an event on; raises Problem for its timestamp. The futures are those that the answer waits for."""
        source, event, feedback_uri = parsed
        if self.log is not None:
            self.log.arrived(event.payload)
        timestamp = self.timestamp(event)
        if self.log is not None and (event.type in self.exchange.topics or self.callbacks.wants(event.type)):
            self.log.leaves(event.payload)
        waiting = self.exchange.publish(source, event, timestamp, passage)
        if self.callbacks.wanted:
            waiting += self.callbacks.publish(source, event, timestamp, passage, feedback_uri)
        return waiting

    def publish_again(self, shortcut: Shortcut, payload: bytes, passage: Passage | None) -> list[asyncio.Future[None]]:
        """Send on an event that is like the one before but for its payload."""
        source, event = shortcut.source, shortcut.event
        assert source is not None  # noqa: S101  a shortcut that gives a payload has learned
        assert event is not None  # noqa: S101
        if not self.callbacks.wanted and self.exchange.is_plain(event.type):
            return self.exchange.broadcast(event.type, payload, passage)
        return self.publish((source, replace(event, payload=payload.decode()), shortcut.feedback_uri), passage)

    def account(self, passage: Passage | None, publisher: Connection, at_ns: int, payload_bytes: int) -> None:
        """Count an event that was published and answered, and stamp it."""
        tally = self.exchange.tally
        tally.received += 1
        tally.received_bytes += payload_bytes
        if passage is not None:
            self.recorder.stamp(passage, publisher, at_ns)

    def timestamp(self, event: Event) -> datetime:
        """The publisher's, or ours where it sent none; raises Problem for one too far from now."""
        now = datetime.now(UTC)
        if event.timestamp is None:
            return now
        if self.tolerance and abs(event.timestamp - now) > self.tolerance:
            raise bad_payload(
                f"the event's timestamp {event.timestamp.isoformat()} is more than "
                f"{self.settings.publishing_tolerance_s / 60:g} minutes from {now.isoformat()}; set the clock"
            )
        return event.timestamp


def _drop(_: bytes) -> None:
    """What writes to a connection that was never made."""


class Connection(asyncio.Protocol):
    """One client: a publisher, an SSE subscriber, or somebody who asks."""

    def __init__(self, handler: EventHandler) -> None:
        self._handler = handler
        self._recorder = handler.recorder
        self._parser: Any = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._outlet: Outlet | None = None
        self._write: Callable[[bytes], None] = _drop
        self._request = Request()
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._head_bytes = 0
        self._in_head = True
        self._begun_s: float | None = None
        self._seen_s = time.monotonic()
        self._active = False
        """Whether there was a request since `_seen_s`."""
        self._pending: collections.deque[Request] = collections.deque()
        self._busy = False
        self._subscriber: SseSubscriber | None = None
        self.mark = 0
        self.marked_in = 0
        self._at_ns = 0
        self._shortcut = Shortcut()
        self._caller: Caller | None = None
        """Who this is, in secure mode."""
        self._whole: bytes | None = None
        """What was read last, if it began with a new request."""
        self._ending = False

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is there."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own class, not registered as one
        self._outlet = Outlet(self._transport)
        self._write = self._outlet.write
        guard = self._handler.guard
        if guard is not None:
            self._caller = guard.caller(transport.get_extra_info("peercert"))
        if len(self._handler.connections) >= self._handler.settings.max_connections or self._handler.draining:
            self._refuse(Problem(503, "UNAVAILABLE", "the Event Handler takes no more connections"))
            return
        self._handler.connections[self] = None

    def data_received(self, data: bytes) -> None:
        """Bytes came in."""
        at_ns = _time_ns()
        if self._subscriber is not None or self._ending:
            return
        self._at_ns = at_ns
        if self._begun_s is None and not self._busy:
            shortcut = self._shortcut
            if len(data) == shortcut.size and (payload := shortcut.payload(data)) is not None:
                self._publish_again(shortcut, payload, at_ns)
                return
            self._whole = data
        else:
            self._whole = None
        if self._in_head:
            self._head_bytes += len(data)
            if self._begun_s is None:
                self._begun_s = time.monotonic()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse(Problem(400, "BAD_PAYLOAD", "protocol upgrades are not served here"))
        except httptools.HttpParserError as error:
            self._refuse(Problem(400, "BAD_PAYLOAD", f"not an HTTP/1.1 request: {error}"))
        if self._in_head and self._head_bytes > self._handler.settings.max_head_bytes:
            self._refuse(
                Problem(431, "BAD_PAYLOAD", f"more than {self._handler.settings.max_head_bytes} bytes of head")
            )

    def eof_received(self) -> bool:
        """The client sends no more; close."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """The client is gone."""
        self._handler.connections.pop(self, None)
        if self._subscriber is not None:
            self._handler.exchange.unsubscribe(self._subscriber)
        self._pending.clear()
        self._ending = True
        self._parser = None

    def pause_writing(self) -> None:
        """The socket takes nothing."""
        if self._subscriber is not None:
            self._subscriber.pause()
        elif self._transport is not None:
            self._transport.pause_reading()  # a client that does not read its answers sends no more requests

    def resume_writing(self) -> None:
        """The socket takes again."""
        if self._subscriber is not None:
            self._subscriber.resume()
        elif self._transport is not None:
            self._transport.resume_reading()

    # What the parser calls.

    def on_message_begin(self) -> None:
        """A request begins."""
        self._request = Request()
        self._body = []
        self._body_bytes = 0
        if not self._in_head:
            self._head_bytes = 0
        self._in_head = True

    def on_url(self, url: bytes) -> None:
        """A piece of the target."""
        self._request.target += url.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        self._request.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """The head is complete."""
        self._in_head = False
        self._head_bytes = 0
        if self._request.headers.get(b"expect", b"").lower() == b"100-continue" and self._outlet is not None:
            self._outlet.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        length = self._request.headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self._handler.settings.max_body_bytes:
            self._too_large()

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._body_bytes += len(body)
        if self._body_bytes > self._handler.settings.max_body_bytes:
            self._too_large()
        elif not self._ending:
            self._body.append(body)

    def on_message_complete(self) -> None:
        """The request is complete."""
        if self._ending:
            return
        request = self._request
        request.body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        request.method = self._parser.get_method().decode("latin-1")
        request.keep_alive = self._parser.should_keep_alive()
        request.at_ns = self._at_ns
        self._in_head = True
        self._head_bytes = 0
        self._begun_s = None
        self._active = True
        if self._busy:
            self._pending.append(request)
            if len(self._pending) >= _MOST_PIPELINED and self._transport is not None:
                self._transport.pause_reading()
            return
        self._serve(request)

    # What we do.

    @property
    def is_between_requests(self) -> bool:
        """Whether the next byte would begin a request."""
        return self._begun_s is None and self._subscriber is None and not self._ending

    def check_age(self, now_s: float) -> None:
        """End the connection when its request takes too long or nothing happens on it."""
        settings = self._handler.settings
        if self._active:
            self._active = False
            self._seen_s = now_s
        if self._subscriber is not None or self._busy or self._ending:
            return
        if self._begun_s is not None and now_s - self._begun_s > settings.request_within_s:
            self._refuse(
                Problem(408, "BAD_PAYLOAD", f"the request was not complete within {settings.request_within_s} s")
            )
        elif self._begun_s is None and now_s - self._seen_s > settings.idle_s and self._transport is not None:
            self._transport.close()

    def end(self) -> None:
        """Close after what is being answered."""
        if self._transport is not None and not self._busy:
            self._transport.close()

    def _serve(self, request: Request) -> None:
        if request.method != "POST" or request.target != "/eventhandler/publish":
            self._or_refused(request, self._route)
            return
        taken = self._or_refused(request, self._take_event)
        if taken is not None:
            parsed, passage, waiting = taken
            self._sent_on(request, waiting)
            self._handler.account(passage, self, request.at_ns, len(parsed[1].payload or ""))
            self._learn(request, parsed)

    def _or_refused(self, request: Request, work: Callable[[Request], T]) -> T | None:
        """What the work gives; None where the request was answered with an error instead."""
        try:
            return work(request)
        except Problem as problem:
            self._answer_problem(request, problem)
        except Exception as error:  # noqa: BLE001  one request's accident is told to who asked, and harms nobody else
            traceback.print_exc()
            self._answer_problem(request, Problem(500, "GENERIC", f"class {type(error).__name__}: {error}"))
        return None

    def _take_event(self, request: Request) -> tuple[Parsed, Passage | None, list[asyncio.Future[None]]]:
        """Send an event on, before its publisher is answered."""
        self._check_body(request)
        parsed = self._handler.reader.publish_event(request.body)
        self._check_caller(request, parsed[0].name)
        passage = self._passage(parsed[1].payload)
        return parsed, passage, self._handler.publish(parsed, passage)

    def _learn(self, request: Request, parsed: Parsed) -> None:
        """Recognise the next request if it is like this one."""
        whole = self._whole
        if self._handler.log is not None or whole is None or not whole.endswith(request.body) or not request.keep_alive:
            return
        head_bytes = len(whole) - len(request.body)
        if whole.find(b"\r\n\r\n") + 4 == head_bytes:
            self._shortcut.learn(whole, head_bytes, parsed, self._handler.reader.publish_event)

    def _publish_again(self, shortcut: Shortcut, payload: bytes, at_ns: int) -> None:
        """Take a request like the one before but for its payload; the way of nearly every event, so it is short."""
        self._active = True
        passage: Passage | None = (payload, []) if self._recorder.on else None
        waiting = self._handler.publish_again(shortcut, payload, passage)
        if waiting:
            self._answer_when_room(_LIKE_BEFORE, waiting)
        else:
            self._write(_OK)
        self._handler.account(passage, self, at_ns, len(payload))

    def _sent_on(self, request: Request, waiting: list[asyncio.Future[None]]) -> None:
        """Answer, now or when every queue has room again."""
        if waiting:
            self._answer_when_room(request, waiting)
        elif request.keep_alive:
            self._write(_OK)
        else:
            self._answer(request, 200)

    def _answer_when_room(self, request: Request, waiting: list[asyncio.Future[None]]) -> None:
        self._busy = True
        asyncio.gather(*waiting).add_done_callback(lambda _: self._published(request))

    def _passage(self, payload: str | None) -> Passage | None:
        return (payload, []) if self._recorder.on and payload is not None else None

    def _published(self, request: Request) -> None:
        """Every queue has room again: answer, and go on with what came meanwhile."""
        self._busy = False
        if self._ending:
            return
        self._answer(request, 200)
        while self._pending and not self._busy and not self._ending:
            self._serve(self._pending.popleft())
        if self._transport is not None and not self._transport.is_closing() and not self._pending:
            self._transport.resume_reading()

    def _route(self, request: Request) -> None:
        path = request.target.partition("?")[0].rstrip("/") or "/"
        allowed = self._handler.subscribed_by if path == f"{_BASE}/subscription" else _METHODS.get(path)
        if allowed is None:
            allowed = ("DELETE",) if path.startswith(f"{_BASE}/subscription/type/") else allowed_on(path)
        if allowed is None:
            raise bad_uri(path)
        if request.method == "OPTIONS":
            self._answer(request, 200)
            return
        method = "GET" if request.method == "HEAD" else request.method
        if method not in allowed:
            raise bad_method(request.method, path)
        self._check_caller(request, None)
        self._check_body(request)
        if path.startswith(MANAGEMENT):
            self._manage(request, method, path)
        elif path == _BASE:
            self._answer(request, 200, _ALIVE, "text/plain")
        elif path == _DESCRIPTION:
            handler = self._handler
            told = describe(handler.subscribed_by, resumes_and_filters=handler.resumes_and_filters)
            self._answer(request, 200, told)
        else:
            self._serve_subscription(request, method, path)

    def _serve_subscription(self, request: Request, method: str, path: str) -> None:
        if method == "GET":
            self._subscribe(request)
        elif method == "POST":
            self._subscribe_callback(request)
        elif method == "PUT":
            wanted = self._handler.reader.event_filter(request.body)
            self._check_caller(request, wanted.consumer.name)
            self._unsubscribe_callback(request, wanted.event_type, wanted.consumer.name)
        else:
            parts = [unquote(part) for part in path.removeprefix(f"{_BASE}/subscription/type/").split("/")]
            if len(parts) != 3 or parts[1] != "consumer":  # noqa: PLR2004
                raise bad_uri(path)
            self._check_caller(request, parts[2])
            self._unsubscribe_callback(request, parts[0], parts[2])

    def _manage(self, request: Request, method: str, path: str) -> None:
        caller = self._caller
        if caller is not None and not operator(caller, None):
            raise unauthorized(caller, self._url(request, request.target))
        if path == MANAGEMENT:
            self._answer(request, 200, _ALIVE, "text/plain")
            return
        told = manage(self._handler.callbacks, self._handler.reader, method, path, request.body)
        self._answer(request, 200, b"" if told is None else pretty(told).encode())

    def _check_caller(self, request: Request, system: str | None) -> None:
        """Refuse, in secure mode, whoever is not of this cloud, or not the system that the request speaks of."""
        caller = self._caller
        if caller is not None and not (caller.is_local if system is None else caller.is_named(system)):
            raise unauthorized(caller, self._url(request, request.target))

    def _check_body(self, request: Request) -> None:
        if request.method in ("POST", "PUT"):
            if not request.body:
                raise bad_payload(f"{request.method} needs a body; this one is empty")
            content_type = request.headers.get(b"content-type")
            if content_type is not None and not content_type.lower().startswith(b"application/json"):
                raise bad_media_type(content_type.decode("latin-1"))
        elif request.body:
            raise bad_payload(f"{request.method} takes no body")

    def _subscribe(self, request: Request) -> None:
        headers = request.headers
        event_type = headers.get(b"eventtype", b"").decode("utf-8", "replace")
        if not event_type:
            raise Problem(500, "GENERIC", "class KeyError: the header eventtype is missing; it names the type wanted")
        if request.method == "HEAD":
            self._answer(request, 200, content_type="text/event-stream")
            return
        wanted = None
        extended = self._handler.resumes_and_filters
        if extended and (text := headers.get(b"eventfilter")) is not None:
            try:
                given = json.loads(text)
            except (ValueError, RecursionError) as error:
                raise bad_payload(f"the header eventfilter is not JSON: {error}") from error
            if not isinstance(given, dict):
                raise bad_payload("the header eventfilter is not a JSON object")
            consumer = {"systemName": "sse", "address": "sse", "port": 1}
            document = given | {"eventType": event_type, "consumer": consumer}
            wanted = self._handler.reader.event_filter(json.dumps(document).encode(), datetime.now(UTC))
        last_id = headers.get(b"last-event-id", b"")
        outlet = self._outlet
        if outlet is None:
            return
        self._subscriber = self._handler.exchange.subscribe(
            event_type,
            outlet,
            head=_STREAM_HEAD,
            wanted=wanted if wanted is not None and wanted.selective else None,
            after_id=int(last_id) if extended and last_id.isdigit() else None,
        )

    def _subscribe_callback(self, request: Request) -> None:
        wanted = self._handler.reader.event_filter(request.body, datetime.now(UTC))
        self._check_caller(request, wanted.consumer.name)
        stored = self._handler.callbacks.add(wanted)
        if stored is None:
            self._answer(request, 204)
        else:
            self._answer(request, 201, pretty(stored.document()).encode())

    def _unsubscribe_callback(self, request: Request, event_type: str, consumer: str) -> None:
        known = self._handler.callbacks.remove(event_type, consumer)
        self._answer(request, 200 if known else 204)

    def remote(self) -> tuple[str, int]:
        """The client's address and port."""
        name = self._transport.get_extra_info("peername") if self._transport is not None else None
        return (name[0], name[1]) if name else ("", 0)

    def _answer(self, request: Request, status: int, body: bytes = b"", content_type: str = "application/json") -> None:
        if self._outlet is None:
            return
        lines = f"HTTP/1.1 {status} {_REASONS[status]}\r\n{_CORS}"
        if body or content_type != "application/json":
            lines += f"Content-Type: {content_type}\r\n"
        if status != 204:  # noqa: PLR2004
            lines += f"Content-Length: {len(body)}\r\n"
        if not request.keep_alive:
            lines += "Connection: close\r\n"
        self._outlet.write(f"{lines}\r\n".encode("latin-1") + (b"" if request.method == "HEAD" else body))
        if not request.keep_alive:
            self._ending = True
            self._outlet.transport.close()

    def _answer_problem(self, request: Request, problem: Problem) -> None:
        target = request.target if problem.exception_type not in ("BAD_METHOD", "BAD_URI") else "/"
        self._answer(request, problem.status, problem.body(self._url(request, target)))

    def _url(self, request: Request, target: str) -> str:
        settings = self._handler.settings
        host = request.headers.get(b"host", b"").decode("latin-1") or f"{settings.address}:{settings.port}"
        return f"{'https' if settings.secure else 'http'}://{host}{target}"

    def _refuse(self, problem: Problem) -> None:
        """Answer what cannot be gone on with, and close."""
        if self._ending:
            return
        self._request.keep_alive = False
        self._answer_problem(self._request, problem)
        self._ending = True

    def _too_large(self) -> None:
        most = self._handler.settings.max_body_bytes
        self._body = []
        self._refuse(Problem(413, "BAD_PAYLOAD", f"the body is larger than {most} bytes"))
