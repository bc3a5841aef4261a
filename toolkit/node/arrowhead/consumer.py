"""An application consumer: sends orchestration requests on schedule and records how long each took.

Orders come as for every client (`toolkit.contract.orders`), with protocol `arrowhead` and the Orchestrator as broker.
Options, all but the service with the values of the published experiments: `service`, `interfaces`, `metadata`,
`system`, `address`, `port`, `flags`; `consume: true` also calls the provider that was found.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from toolkit.contract import metrics
from toolkit.contract.orders import RunOrder
from toolkit.contract.samples import Flag, Point
from toolkit.contract.settings import ProcessSettings
from toolkit.contract.steps import HEADER, request_id
from toolkit.errors import UsageError
from toolkit.node import exposition, pacing
from toolkit.node.arrowhead import wire
from toolkit.node.arrowhead.http_client import Answer, HttpClient, NoAnswerError
from toolkit.node.arrowhead.messages import (
    FLAGS,
    ArrowheadService,
    ArrowheadSystem,
    OrchestrationForm,
    OrchestrationResponse,
    ServiceRequestForm,
)
from toolkit.node.arrowhead.quirks import TOLERANT
from toolkit.node.arrowhead.refusals import Refusal
from toolkit.node.arrowhead.settings import Settings, settings_from
from toolkit.node.arrowhead.tls import client_context
from toolkit.node.arrowhead.trace import Recorder
from toolkit.node.client import serve_orders
from toolkit.node.control import Control
from toolkit.node.stamps import StampWriter

ROLE = "consumer"
_THESIS_FLAGS = {"overrideStore", "enableInterCloud", "metadataSearch"}
_MOST_AT_ONCE = 256
_OUTCOMES = ("answered", "not_found", "refused", "no_answer")


def request_form(options: Mapping[str, Any]) -> ServiceRequestForm:
    """The request that an order's options describe; raises ValueError."""
    flags = {name: name in _THESIS_FLAGS for name in FLAGS} | {
        name: bool(value) for name, value in options.get("flags", {}).items()
    }
    return ServiceRequestForm(
        requester_system=ArrowheadSystem(
            system_name=str(options.get("system", "client1")),
            address=str(options.get("address", "127.0.0.1")),
            port=int(options.get("port", 8080)),
            # The published client sends the word: a request of about 690 bytes.
            authentication_info="null",
        ),
        requested_service=ArrowheadService(
            service_definition=str(options.get("service", "IndoorTemperature")),
            interfaces=tuple(options.get("interfaces", ("json",))),
            service_metadata={str(key): str(value) for key, value in options.get("metadata", {}).items()},
        ),
        orchestration_flags=flags,
    )


def request_body(order: RunOrder) -> bytes:
    """The request, with spaces behind it up to the payload asked for; raises ValueError where it is larger."""
    body = wire.write(request_form(order.options))
    if 0 < order.payload_bytes < len(body):
        raise ValueError(f"the request alone has {len(body)} bytes; a payload of {order.payload_bytes}B has no room")
    return body.ljust(order.payload_bytes)


class Consuming:
    """One run of a consumer."""

    def __init__(self, settings: Settings, control: Control, order: RunOrder) -> None:
        self._settings = settings
        self._control = control
        self._order = order
        self._body = request_body(order)
        scheme = "https" if settings.secure else "http"
        self._url = f"{scheme}://{order.broker}/orchestrator/orchestration"
        self._stream = order.streams[0] if order.streams else 0
        self._client = HttpClient(tls=_tls(settings), read_timeout_s=settings.peer_timeout_s)
        self._writer: StampWriter | None = None
        self._recorder = Recorder(
            system=ROLE,
            cloud=settings.cloud,
            samples=Path(settings.process.samples_dir) if order.record else None,
            name=f"{settings.process.service}-{settings.process.instance}",
        )
        self.outcomes = dict.fromkeys(_OUTCOMES, 0)
        self.delays = {outcome: exposition.Histogram() for outcome in _OUTCOMES}
        self.last_problem = ""

    def prepare(self) -> None:
        """See that the Orchestrator answers at all; raises OSError."""
        asyncio.run(self._probe())
        self._writer = StampWriter(self._settings.process, self._order)

    async def _probe(self) -> None:
        deadline = time.monotonic() + 30.0
        while True:
            client = HttpClient(tls=self._client.tls, reuse=False)
            try:
                await client.request("GET", self._url)
            except NoAnswerError as error:
                if time.monotonic() > deadline or self._control.stopping:
                    raise OSError(str(error)) from error
                await asyncio.sleep(0.2)
            else:
                return

    def play(self) -> None:
        """Send every request on schedule; returns when all are answered or given up."""
        start_ns = self._control.await_start()
        if start_ns is None:
            return
        self._control.enter("running")
        asyncio.run(self._play(start_ns))
        self._control.enter("draining")

    async def _play(self, start_ns: int) -> None:
        order = self._order
        total = None if order.messages is None else order.messages + order.warmup_messages
        flushing = asyncio.create_task(self._recorder.run())
        try:
            if order.arrivals.kind == "closed":
                await self._sleep_until(start_ns)
                end_ns = start_ns + round((order.duration_s or 1e9) * 1e9)
                seq = 0
                while not self._control.stopping and seq != total and time.time_ns() < end_ns:
                    await self._request(seq, None)
                    seq += 1
                return
            await self._play_open(start_ns, total)
        finally:
            flushing.cancel()
            self._client.close()

    async def _play_open(self, start_ns: int, total: int | None) -> None:
        order = self._order
        gate = asyncio.Semaphore(_MOST_AT_ONCE)
        running: set[asyncio.Task[None]] = set()
        schedule = pacing.due_ns(order.arrivals, slots=total, duration_s=order.duration_s, seed=order.seed)
        for seq, due_ns in enumerate(schedule):
            await self._sleep_until(start_ns + due_ns)
            if self._control.stopping:
                break
            await gate.acquire()
            task = asyncio.create_task(self._request(seq, start_ns + due_ns))
            running.add(task)
            task.add_done_callback(running.discard)
            task.add_done_callback(lambda _: gate.release())
        if running:
            await asyncio.wait(running, timeout=max(order.drain_s, self._settings.peer_timeout_s))

    async def _sleep_until(self, at_ns: int) -> None:
        while not self._control.stopping and (left_ns := at_ns - time.time_ns()) > 0:  # noqa: ASYNC110 - set by a signal, or once in a process' life
            await asyncio.sleep(min(left_ns / 1e9, 0.1))

    async def _request(self, seq: int, due_ns: int | None) -> None:
        counts, warmup = self._control.counts, seq < self._order.warmup_messages
        flags = int(Flag.WARMUP) if warmup else 0
        request = request_id(self._order.run, self._stream, seq)
        trace = self._recorder.trace({HEADER: request})
        headers = {"Content-Type": "application/json", "Accept": "application/json", HEADER: request}
        started_ns = time.time_ns()
        if counts.first_sent_ns is None:
            counts.first_sent_ns = started_ns
        if warmup:
            counts.warmup += 1
        else:
            counts.sent += 1
        try:
            answer = await self._client.request("POST", self._url, self._body, headers)
        except NoAnswerError as error:
            self._note(started_ns, time.time_ns(), "no_answer", str(error), warmup=warmup)
            self._stamp(Point.SENT, flags, seq, started_ns, due_ns or started_ns)
            return
        self._stamp(Point.SENT, flags, seq, answer.sent_ns, due_ns or answer.sent_ns)
        outcome, problem = _outcome(answer)
        self._note(answer.sent_ns, answer.received_ns, outcome, problem, warmup=warmup)
        counts.last_ns = answer.received_ns
        if trace is not None:
            trace.record("call", "orchestration", answer.sent_ns, answer.received_ns)
        if outcome == "answered":
            self._stamp(Point.ACKED, flags, seq, answer.received_ns)
            if self._order.options.get("consume"):
                await self._consume(answer)

    def _stamp(self, point: Point, flags: int, seq: int, at_ns: int, aux_ns: int = 0) -> None:
        if self._writer is not None and self._order.record:
            self._writer.add(int(point), flags, 0, self._stream, seq, at_ns, aux_ns)

    def _note(self, start_ns: int, end_ns: int, outcome: str, problem: str, *, warmup: bool) -> None:
        if problem:
            self.last_problem = problem
        if warmup:
            return
        self.outcomes[outcome] += 1
        self.delays[outcome].observe((end_ns - start_ns) / 1e9)
        counts = self._control.counts
        if outcome == "answered":
            counts.received += 1
            counts.acked += 1
        else:
            counts.rejected += 1

    async def _consume(self, answer: Answer) -> None:
        """Call the first provider found, as the framework's consumer does."""
        form = wire.read(OrchestrationResponse, answer.body, TOLERANT).response[0]
        try:
            reading = await self._client.request("GET", service_url(form))
        except NoAnswerError as error:
            self.last_problem = str(error)
            return
        if reading.status != 200:  # noqa: PLR2004 - a number of the protocol
            self.last_problem = f"{service_url(form)} answered {reading.status}"

    def finish(self, error: str | None) -> str | None:
        """Save what was recorded; the error of the run, if it has one."""
        self._recorder.flush()
        if self._writer is None:
            return error
        facts = {"outcomes": self.outcomes, "last_problem": self.last_problem, "request_bytes": len(self._body)}
        counts = self._control.counts.document()
        return self._writer.close(counts=counts, flows={}, facts=facts, error=error).error


def service_url(form: OrchestrationForm) -> str:
    """Where the service is; with TLS and the token when the service's metadata says so."""
    secure = "security" in form.service.service_metadata
    base = f"{'https' if secure else 'http'}://{form.provider.address}:{form.provider.port}/{form.service_uri or ''}"
    if not form.authorization_token:
        return base
    return f"{base}?{urlencode({'token': form.authorization_token, 'signature': form.signature or ''})}"


def _outcome(answer: Answer) -> tuple[str, str]:
    if answer.status != 200:  # noqa: PLR2004 - a number of the protocol
        text = answer.body.decode(errors="replace")[:300]
        return ("not_found" if answer.status == 404 else "refused"), f"{answer.status}: {text}"  # noqa: PLR2004 - a number of the protocol
    try:
        wire.read(OrchestrationResponse, answer.body, TOLERANT)
    except Refusal as refusal:
        return "refused", refusal.message
    return "answered", ""


def _tls(settings: Settings) -> Any:
    files = settings.tls
    if files is None:
        return None
    return client_context(files.certificate, files.key, files.cloud_ca, verify_host=settings.verify_host)


def check_order(order: RunOrder) -> None:
    """Raise ValueError for an order that no consumer can carry out."""
    if order.protocol != "arrowhead":
        raise ValueError(f"a consumer speaks arrowhead, not {order.protocol}")
    if ":" not in order.broker:
        raise ValueError("broker is the Orchestrator's host:port")
    if order.messages is None and order.duration_s is None and order.arrivals.kind != "trace":
        raise ValueError("a consumer needs messages or duration_s to know its end")
    request_body(order)
    if order.arrivals.kind != "closed":
        next(pacing.due_ns(order.arrivals, slots=order.messages, duration_s=order.duration_s, seed=0), None)


def _readings(control: Control, shown: list[Consuming]) -> Iterable[exposition.Reading]:
    order = control.order
    if order is None or not shown:
        return []
    return [
        (metrics.MESSAGES_SENT, (order.run, "0"), float(control.counts.sent)),
        *((metrics.ORCHESTRATION, (order.run, outcome), shown[0].delays[outcome]) for outcome in _OUTCOMES),
    ]


def main() -> int:
    """Serve orders until SIGTERM."""
    try:
        settings = settings_from(ROLE, os.environ)
    except UsageError as error:
        sys.stderr.write(json.dumps({"event": "failed", "error": str(error)}) + "\n")
        return error.exit_code
    shown: list[Consuming] = []

    def make(_process: ProcessSettings, control: Control, order: RunOrder) -> Consuming:
        shown[:] = [Consuming(settings, control, order)]
        return shown[0]

    return serve_orders(ROLE, make, readings=lambda control: _readings(control, shown), check=check_order)


if __name__ == "__main__":
    sys.exit(main())
