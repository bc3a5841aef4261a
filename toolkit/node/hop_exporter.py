"""Joins sampled stamps from every process while a run goes on, and exposes each hop's delays as histograms.

Stamps come as UDP datagrams (`live`), in any order and not all of them. A hop is counted once, as soon as both of its
ends are known; what is still unknown after `GIVE_UP_S` is counted and forgotten. For watching only: a run's figures are
made from the complete files of stamps.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import signal
import socket
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from toolkit.contract import metrics
from toolkit.contract.samples import Flag, Point
from toolkit.node.exposition import CONTENT_TYPE, Histogram, Samples, metrics_page
from toolkit.node.live import read_datagram
from toolkit.node.pages import Page, health, pages_handler, text
from toolkit.node.serving import Handler, Reply, Server

MOST_PENDING = 20_000
"""Messages held for joining; at about 2.5 kB each this is what bounds the memory (50 MB)."""
MOST_COPIES = 256
"""Subscribers of one message that are joined."""
MOST_RUNS = 16
"""Runs whose histograms are kept; an older one disappears from the page."""
GIVE_UP_S = 15.0
"""Longer than the highest bucket."""

Flow = tuple[str, int] | None
"""(address, port) of a subscriber's connection; None where a process did not tell."""
Observe = Callable[[str, int], None]
"""(hop, delay in ns)"""


@dataclass(slots=True)
class Message:
    """What is known of one message so far."""

    since_s: float
    once: dict[int, int] = field(default_factory=dict)
    """Point -> ns, for points a message passes once."""
    copies: dict[int, dict[Flow, int]] = field(default_factory=lambda: {Point.BROKER_SENT: {}, Point.RECEIVED: {}})
    """Point -> flow -> ns, for points each subscriber's copy passes."""
    seen: set[tuple[str, Flow]] = field(default_factory=set)
    """Hops counted already."""
    intended_ns: int | None = None

    def first(self, *points: Point) -> int | None:
        """The instant of the first of these points that is known."""
        return next((self.once[point] for point in points if point in self.once), None)

    def add(self, point: int, flow: Flow, at_ns: int, aux_ns: int) -> None:
        """Keep the first stamp of a point; later ones are retransmissions or duplicates."""
        if point in self.copies:
            if len(self.copies[point]) < MOST_COPIES:
                self.copies[point].setdefault(flow, at_ns)
        else:
            self.once.setdefault(point, at_ns)
            if point == Point.SENT:
                self.intended_ns = aux_ns or at_ns

    def observe(self, observe: Observe) -> None:
        """Count every hop that can be counted now and has not been."""
        once = self.once.get
        pairs = (
            ("uplink", once(Point.SENT), once(Point.GATEWAY_RECEIVED)),
            ("gateway", once(Point.GATEWAY_RECEIVED), once(Point.GATEWAY_SENT)),
            ("publish", self._into_broker(), once(Point.BROKER_RECEIVED)),
            ("hub", once(Point.HUB_RECEIVED), once(Point.HUB_SENT)),
            ("acknowledge", once(Point.SENT), once(Point.ACKED)),
        )
        for hop, start_ns, end_ns in pairs:
            self._count(observe, hop, None, start_ns, end_ns)
        sent, received = self.copies[Point.BROKER_SENT], self.copies[Point.RECEIVED]
        for flow, at_ns in sent.items():
            self._count(observe, "broker", flow, once(Point.BROKER_RECEIVED), at_ns)
        if Point.HUB_RECEIVED in self.once:
            self._count(observe, "deliver", None, min(sent.values(), default=None), once(Point.HUB_RECEIVED))
        for flow, at_ns in received.items():
            self._count(observe, "transport", flow, once(Point.SENT), at_ns)
            self._count(observe, "end_to_end", flow, self.intended_ns, at_ns)
            if Point.HUB_SENT in self.once:
                self._count(observe, "downlink", flow, once(Point.HUB_SENT), at_ns)
            else:
                self._count(observe, "deliver", flow, self._sent_to(flow), at_ns)

    @property
    def complete(self) -> bool:
        """Whether the message is known to have left, entered the broker and arrived somewhere."""
        return bool(
            Point.SENT in self.once and self.copies[Point.RECEIVED]
            and (Point.BROKER_RECEIVED not in self.once or self.copies[Point.BROKER_SENT])
        )  # fmt: skip

    def _into_broker(self) -> int | None:
        """Behind a gateway the publish hop starts there; so it waits while one may still report."""
        return self.first(Point.GATEWAY_SENT) if Point.GATEWAY_RECEIVED in self.once else self.first(Point.SENT)

    def _sent_to(self, flow: Flow) -> int | None:
        """When the broker sent the copy of this flow; without flows only the one copy there is can be meant."""
        sent = self.copies[Point.BROKER_SENT]
        if flow in sent:
            return sent[flow]
        alone = len(sent) == 1 and len(self.copies[Point.RECEIVED]) == 1
        return next(iter(sent.values())) if alone and (flow is None or None in sent) else None

    def _count(self, observe: Observe, hop: str, flow: Flow, start_ns: int | None, end_ns: int | None) -> None:
        if start_ns is not None and end_ns is not None and (hop, flow) not in self.seen:
            self.seen.add((hop, flow))
            observe(hop, end_ns - start_ns)


@dataclass(slots=True)
class RunDelays:
    """The histograms and counters of one run."""

    hops: dict[str, Histogram] = field(default_factory=dict)
    negative: dict[str, int] = field(default_factory=dict)
    end_to_end: Histogram = field(default_factory=Histogram)
    schedule: Histogram = field(default_factory=Histogram)
    books: dict[str, tuple[int, int]] = field(default_factory=dict)
    """QoS -> (expected, lost), told by the controller once they are closed."""
    sampled: int = 0
    unmatched: int = 0

    def observe(self, hop: str, delay_ns: int) -> None:
        """Count one delay; a negative one would make a histogram's sum fall, so it has a counter of its own.

        Both are there from a hop's first delay on: a counter that first shows when it counts has no rate then.
        """
        if hop not in self.negative:
            self.negative[hop] = 0
            if hop != "end_to_end":
                self.hops[hop] = Histogram()
        if delay_ns < 0:
            self.negative[hop] += 1
        else:
            (self.end_to_end if hop == "end_to_end" else self.hops[hop]).observe(delay_ns / 1e9)


class HopJoiner:
    """Everything known of the messages sampled lately; one thread feeds it, pages read it under its lock."""

    def __init__(self, *, most_pending: int = MOST_PENDING, give_up_s: float = GIVE_UP_S) -> None:
        self._most_pending = most_pending
        self._give_up_s = give_up_s
        self._pending: OrderedDict[tuple[str, int, int], Message] = OrderedDict()
        self._runs: OrderedDict[str, RunDelays] = OrderedDict()
        self._lock = threading.Lock()
        self.refused = 0

    def take(self, datagram: bytes, now_s: float) -> None:
        """Work in one datagram of stamps; one that is none is counted and forgotten."""
        try:
            head, stamps = read_datagram(datagram)
            run = str(head["run"])
            flows = {int(peer): (str(end[0]), int(end[1])) for peer, end in dict(head.get("flows") or {}).items()}
        except (ValueError, KeyError, TypeError, IndexError):
            with self._lock:
                self.refused += 1
            return
        with self._lock:
            delays = self._delays(run)
            for point, flags, peer, stream, seq, at_ns, aux_ns in stamps:
                if flags & (Flag.WARMUP | Flag.PROBE):
                    continue
                delays.sampled += 1
                if point == Point.SENT and aux_ns:
                    delays.schedule.observe(max(at_ns - aux_ns, 0) / 1e9)  # one clock: never before it was due
                message = self._message((run, stream, seq), now_s)
                message.add(point, flows.get(peer), at_ns, aux_ns)
                message.observe(delays.observe)
            self._forget(now_s)

    def families(self) -> dict[metrics.Metric, Samples | float]:
        """What the page shows; built under the lock, so that a histogram's parts agree."""
        runs = self._runs.items()
        return {
            metrics.HOP_DELAY: {(run, hop): h for run, delays in runs for hop, h in delays.hops.items()},
            metrics.END_TO_END_DELAY: {(run,): delays.end_to_end for run, delays in runs},
            metrics.SCHEDULE_DELAY: {(run,): delays.schedule for run, delays in runs},
            metrics.MESSAGES_EXPECTED: {(run, qos): float(n) for run, d in runs for qos, (n, _) in d.books.items()},
            metrics.MESSAGES_LOST: {(run, qos): float(n) for run, d in runs for qos, (_, n) in d.books.items()},
            metrics.HOP_NEGATIVE: {(run, hop): float(n) for run, d in runs for hop, n in d.negative.items()},
            metrics.HOP_SAMPLED: {(run,): float(delays.sampled) for run, delays in runs},
            metrics.HOP_UNMATCHED: {(run,): float(delays.unmatched) for run, delays in runs},
            metrics.EXPORTER_RUNS: float(len(self._runs)),
            metrics.EXPORTER_PENDING: float(len(self._pending)),
            metrics.EXPORTER_REFUSED: float(self.refused),
        }

    def close_books(self, run: str, qos: str, *, expected: int, lost: int) -> None:
        """What a run's books came to."""
        with self._lock:
            self._delays(run).books[qos] = expected, lost

    def page(self, now_s: float) -> str:
        """The text of /metrics."""
        with self._lock:
            self._forget(now_s)
            return metrics_page(self.families())

    def _delays(self, run: str) -> RunDelays:
        if run not in self._runs:
            self._runs[run] = RunDelays()
            while len(self._runs) > MOST_RUNS:
                self._runs.popitem(last=False)
        return self._runs[run]

    def _message(self, key: tuple[str, int, int], now_s: float) -> Message:
        message = self._pending.get(key)
        if message is None:
            message = self._pending[key] = Message(now_s)
        return message

    def _forget(self, now_s: float) -> None:
        """Drop messages that are too old, and the oldest where there are too many."""
        while self._pending:
            key, message = next(iter(self._pending.items()))
            if len(self._pending) <= self._most_pending and now_s - message.since_s < self._give_up_s:
                return
            del self._pending[key]
            if not message.complete and key[0] in self._runs:
                self._runs[key[0]].unmatched += 1


def receive(joiner: HopJoiner, listener: socket.socket, stopped: threading.Event) -> None:
    """Feed the joiner until `stopped`; looks up every half second."""
    listener.settimeout(0.5)
    while not stopped.is_set():
        with contextlib.suppress(TimeoutError):
            joiner.take(listener.recv(65536), time.monotonic())


def exporter_pages(joiner: HopJoiner) -> dict[str, Page]:
    """What this process answers."""
    return {
        "/metrics": lambda: text(joiner.page(time.monotonic()), content_type=CONTENT_TYPE),
        "/healthz": lambda: health(None),
    }


def books_handler(joiner: HopJoiner) -> Handler:
    """`PUT /books` with {"run", "qos", "expected", "lost"}, from the controller."""

    def handle(method: str, path: str, body: bytes) -> Reply:
        if (method, path) != ("PUT", "/books"):
            return Reply(status=404, body=b'{"error": "only PUT /books is served here"}')
        try:
            told = json.loads(body)
            joiner.close_books(
                str(told["run"]), str(told["qos"]), expected=int(told["expected"]), lost=int(told["lost"])
            )
        except (ValueError, KeyError, TypeError) as error:
            return Reply(status=400, body=json.dumps({"error": f"not the books of a run: {error!r}"}).encode())
        return Reply(body=b"{}")

    return handle


def become(user: str) -> None:
    """Give root up for good; without root, or without that user, nothing changes."""
    if os.geteuid() != 0:
        return
    with contextlib.suppress(KeyError):
        entry = pwd.getpwnam(user)
        os.setgroups([])
        os.setgid(entry.pw_gid)
        os.setuid(entry.pw_uid)


def main(environ: Mapping[str, str] = os.environ) -> int:
    """Serve until SIGTERM or SIGINT; /metrics on TOOLKIT_METRICS_PORT, books on TOOLKIT_CONTROL_PORT, stamps by UDP."""
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    become("toolkit")
    joiner = HopJoiner()
    server = Server(
        {
            ("0.0.0.0", int(environ.get("TOOLKIT_METRICS_PORT", "9600"))): pages_handler(exporter_pages(joiner)),
            ("127.0.0.1", int(environ.get("TOOLKIT_CONTROL_PORT", "9601"))): books_handler(joiner),
        }
    )
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        listener.bind(("0.0.0.0", int(environ.get("TOOLKIT_STAMPS_PORT", "9601"))))
        server.start()
        receive(joiner, listener, stopped)
        server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
