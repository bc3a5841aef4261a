"""The phases of one process, and the two ports on which it is told what to do and asked how far it is.

The server has a thread of its own. The main thread of the process takes orders from here (`next_order`), waits for the
start (`await_start`) and looks at `stopping` while it runs; `stop_fd` becomes readable at that moment.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from toolkit.contract import metrics
from toolkit.contract.orders import Phase, RunOrder, RunStatus, order_from_json, to_json
from toolkit.contract.settings import ProcessSettings
from toolkit.errors import ToolkitError
from toolkit.node import exposition
from toolkit.node.serving import Reply, Server

_BUSY: tuple[Phase, ...] = ("running", "draining")
_PHASES: tuple[Phase, ...] = ("idle", "preparing", "ready", "running", "draining", "done", "failed")


@dataclass(slots=True)
class Counts:
    """Live counters of one run; written by the hot thread, read by the control thread."""

    sent: int = 0
    acked: int = 0
    rejected: int = 0
    """Answered with an error."""
    refused: int = 0
    """Never offered: the client's queue was full or the connection was down."""
    received: int = 0
    """First copies."""
    duplicate: int = 0
    redelivered: int = 0
    """Copies that the broker marked as sent again."""
    reordered: int = 0
    foreign: int = 0
    probes: int = 0
    warmup: int = 0
    reconnects: int = 0
    first_sent_ns: int | None = None
    last_ns: int | None = None

    def document(self) -> dict[str, int]:
        """The counters by name, without the instants."""
        return {name: getattr(self, name) for name in self.__slots__ if not name.endswith("_ns")}


class Control:
    """The phase of this process and the server that changes and shows it."""

    def __init__(
        self,
        settings: ProcessSettings,
        role: str,
        *,
        readings: Callable[[], Iterable[exposition.Reading]] = tuple,
        check: Callable[[RunOrder], None] = lambda _: None,
        problem: Callable[[], str | None] = lambda: None,
    ) -> None:
        """`check` raises ValueError for an order that cannot be carried out; `problem` says why it is not healthy."""
        self.settings = settings
        self.counts = Counts()
        self.granted_qos: int | None = None
        """Of this run's subscription, where the broker told; otherwise what was ordered holds."""
        self.stopping = False
        """Look at this, not at a lock, in the hot loop."""
        self.stop_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._role = role
        self._readings = readings
        self._check = check
        self._problem = problem
        self._changed = threading.Condition(threading.RLock())
        self._phase: Phase = "idle"
        self._error: str | None = None
        self._order: RunOrder | None = None
        self._waiting_order: RunOrder | None = None
        self._start_at_ns: int | None = None
        self._terminated = False
        self._server = Server(
            {
                ("127.0.0.1", settings.control_port): self._on_control,
                ("0.0.0.0", settings.metrics_port): self._on_metrics,
            }
        )

    def serve(self, *, signals: bool = True) -> None:
        """Take SIGTERM and SIGINT as the wish to end, then start the server: who is answered may send them."""
        for number in (signal.SIGTERM, signal.SIGINT) if signals else ():
            signal.signal(number, lambda *_: self.terminate())
        self._server.start()

    def terminate(self) -> None:
        """End the run, then the process."""
        self._terminated = True
        self.stop()

    def stop(self) -> None:
        """End the run. Takes no lock: a signal handler calls it."""
        self.stopping = True
        os.eventfd_write(self.stop_fd, 1)

    def close(self) -> None:
        """Stop serving."""
        self._server.stop()
        os.close(self.stop_fd)

    @property
    def phase(self) -> Phase:
        """How far this process is."""
        return self._phase

    @property
    def order(self) -> RunOrder | None:
        """The order being carried out, or the last one."""
        return self._order

    def enter(self, phase: Phase, error: str | None = None) -> None:
        """Go into a phase; said on stderr as one JSON line."""
        with self._changed:
            self._phase = phase
            self._error = error
            self._changed.notify_all()
        log("phase", self.settings, self._role, run=self._order.run if self._order else "", phase=phase, error=error)

    def next_order(self) -> RunOrder | None:
        """Wait for an order and start preparing it; None when the process is to end."""
        while not self._terminated:
            with self._changed:
                if (order := self._waiting_order) is not None:
                    self._waiting_order = None
                    self._order = order
                    self._start_at_ns = None
                    self.counts = Counts()
                    self.granted_qos = None
                    self.stopping = self._terminated
                    self._drain_stop_fd()
                    self.enter("preparing")
                    return order
                self._changed.wait(0.25)
        return None

    def await_start(self) -> int | None:
        """Say ready and wait for the start: the wall clock instant in ns; None when stopped before it."""
        self.enter("ready")
        while not self.stopping:
            with self._changed:
                if self._start_at_ns is not None:
                    return self._start_at_ns
                self._changed.wait(0.1)
        return None

    def await_stop(self) -> None:
        """Wait for the stop; not for hot threads."""
        while not self.stopping:
            with self._changed:
                self._changed.wait(0.1)

    def started(self) -> int | None:
        """The start as ordered so far, without waiting."""
        return self._start_at_ns

    def status(self) -> RunStatus:
        """The answer to GET /run."""
        counts = self.counts
        return RunStatus(
            phase=self._phase,
            run=self._order.run if self._order else "",
            sent=counts.sent,
            received=counts.received,
            error=self._error,
            first_sent_ns=counts.first_sent_ns,
            last_ns=counts.last_ns,
        )

    def _drain_stop_fd(self) -> None:
        try:
            os.eventfd_read(self.stop_fd)
        except BlockingIOError:
            return

    def _on_control(self, method: str, path: str, body: bytes) -> Reply:
        routes: dict[tuple[str, str], Callable[[bytes], Reply]] = {
            ("GET", "/run"): lambda _: self._reply(),
            ("PUT", "/run"): self._take_order,
            ("POST", "/run/start"): self._take_start,
            ("POST", "/run/stop"): self._take_stop,
        }
        route = routes.get((method, path))
        if route is None:
            known = any(path == other for _, other in routes)
            return _problem(405 if known else 404, f"{method} {path} is not served here; see GET /run")
        return route(body)

    def _take_order(self, body: bytes) -> Reply:
        try:
            order = order_from_json(body)
            if order.role != self._role:
                raise ValueError(f"this process is a {self._role}, the order is for a {order.role}")  # noqa: TRY301
            if not order.run or "/" in order.run or order.run.startswith("."):
                raise ValueError(f"run {order.run!r} cannot name a folder")  # noqa: TRY301
            self._check(order)
        except (ValueError, TypeError, AttributeError, ToolkitError) as error:
            return _problem(400, f"not an order for {self.settings.service}: {error}")
        with self._changed:
            if self._phase in _BUSY:
                return _problem(
                    409, f"{self.settings.service} is {self._phase} in run {self._order and self._order.run}"
                )
            if self._phase in ("preparing", "ready"):
                self.stop()
            self._waiting_order = order
            self._phase = "preparing"
            self._error = None
            self._order = order
            self._changed.notify_all()
        return self._reply()

    def _take_start(self, body: bytes) -> Reply:
        try:
            at_ns = json.loads(body)["at_ns"]
            if not isinstance(at_ns, int) or isinstance(at_ns, bool):
                raise ValueError("at_ns is a whole number of ns since the epoch")  # noqa: TRY301, TRY004
        except (ValueError, KeyError, TypeError) as error:
            return _problem(400, f'not a start: {error!r}; send {{"at_ns": …}}')
        with self._changed:
            if self._phase != "ready":
                return _problem(409, f"{self.settings.service} is {self._phase}, not ready")
            self._start_at_ns = at_ns
            self._changed.notify_all()
        return self._reply()

    def _take_stop(self, _: bytes) -> Reply:
        if self._phase in ("preparing", "ready", *_BUSY):
            self.stop()
        return self._reply()

    def _reply(self) -> Reply:
        return Reply(body=to_json(self.status()).encode())

    def _on_metrics(self, method: str, path: str, _: bytes) -> Reply:
        if method not in ("GET", "HEAD"):
            return _problem(405, "only GET is served here")
        if path == "/healthz":
            found = self._problem()
            return Reply(status=503 if found else 200, body=f"{found or 'ok'}\n".encode(), content_type="text/plain")
        if path == "/metrics":
            page = exposition.expose([*self._readings(), *self._phase_readings()])
            return Reply(body=page, content_type=exposition.CONTENT_TYPE)
        return _problem(404, "see /metrics and /healthz")

    def _phase_readings(self) -> Iterable[exposition.Reading]:
        run = self._order.run if self._order else ""
        return [(metrics.RUN_PHASE, (run, phase), float(phase == self._phase)) for phase in _PHASES]


def log(event: str, settings: ProcessSettings, role: str, **fields: Any) -> None:
    """One JSON line on stderr; never from a hot path."""
    line = {"at_ns": time.time_ns(), "event": event, "node": settings.node, "service": settings.service, "role": role}
    sys.stderr.write(json.dumps(line | {name: value for name, value in fields.items() if value is not None}) + "\n")
    sys.stderr.flush()


def _problem(status: int, text: str) -> Reply:
    return Reply(status=status, body=json.dumps({"error": text}).encode())
