"""Starts the Event Handler in its mode: event loop or workers, control port, graceful end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from toolkit.contract import metrics
from toolkit.contract.orders import RunOrder
from toolkit.contract.settings import ProcessSettings
from toolkit.errors import ToolkitError
from toolkit.node import exposition
from toolkit.node.control import Control, log
from toolkit.node.descriptors import allow_descriptors
from toolkit.node.event_handler.enhanced import EnhancedHandler
from toolkit.node.event_handler.recorder import Recorder
from toolkit.node.event_handler.server import EventHandler
from toolkit.node.event_handler.settings import HandlerSettings
from toolkit.node.event_handler.workers import WorkerHandler, Workers
from toolkit.node.live import LiveSender
from toolkit.node.loops import run_in_loop, versions
from toolkit.node.stamps import StampWriter

if TYPE_CHECKING:
    from toolkit.node.event_handler.membership import Membership

ROLE = "broker"
_FAREWELL_S = 5.0
"""A Service Registry that does not answer holds up the end for no longer."""


def readings(handler: EventHandler) -> Iterable[exposition.Reading]:
    """What `/metrics` shows of the broker."""
    tally = handler.exchange.tally
    subscribers = sum(len(topic.subscribers) for topic in list(handler.exchange.topics.values()))
    return [
        (metrics.BROKER_RECEIVED, (), tally.received),
        (metrics.BROKER_SENT, (), tally.sent),
        (metrics.BROKER_RECEIVED_BYTES, (), tally.received_bytes),
        (metrics.BROKER_SENT_BYTES, (), tally.sent_bytes),
        (metrics.BROKER_DROPPED, ("queue_full",), tally.dropped_queue_full),
        (metrics.BROKER_DROPPED, ("disconnected",), tally.dropped_disconnected),
        *((metrics.BROKER_OVERFLOWS, (policy,), times) for policy, times in tally.overflows.items()),
        (metrics.BROKER_REPLAYED, (), tally.replayed),
        (metrics.BROKER_SUBSCRIBERS, (), subscribers + len(handler.callbacks)),
        (metrics.BROKER_QUEUED, (), handler.exchange.queued() + handler.callbacks.queued()),
    ]


def pool_readings(workers: Workers) -> Iterable[exposition.Reading]:
    """What `/metrics` shows of the pool."""
    busy = workers.busy()
    return [
        (metrics.BROKER_WORKERS, ("busy",), busy),
        (metrics.BROKER_WORKERS, ("free",), workers.threads - busy),
    ]


class Orders(threading.Thread):
    """Carries out the controller's orders beside the event loop: stamps on, stamps off."""

    def __init__(
        self,
        process: ProcessSettings,
        control: Control,
        handler: EventHandler,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """`loop`: whose thread alone may touch the recorder; None where every thread may."""
        super().__init__(name="orders", daemon=True)
        self._process = process
        self._control = control
        self._handler = handler
        self._loop = loop

    def run(self) -> None:
        """Until the process ends."""
        while (order := self._control.next_order()) is not None:
            self._carry_out(order)

    def _carry_out(self, order: RunOrder) -> None:
        control, recorder = self._control, self._handler.recorder
        try:
            live = LiveSender.from_environment(self._process) if order.record else None
            writer = StampWriter(self._process, order, live=live)
        except OSError as error:
            control.enter("failed", f"{self._process.service} on {self._process.node}: {error}")
            return
        before = _dropped(self._handler)
        self._beside(lambda: recorder.begin(writer))
        if control.await_start() is not None:
            control.enter("running")
            control.await_stop()
            control.enter("draining")
        self._beside(recorder.end)
        counts = {"received": recorder.received, "sent": recorder.sent, "foreign": recorder.foreign}
        counts |= {name: value - before[name] for name, value in _dropped(self._handler).items()}
        control.counts.sent, control.counts.received = recorder.sent, recorder.received
        facts = {"mode": self._handler.settings.mode, "overflow": self._handler.settings.overflow,
                 "queue_limit": self._handler.settings.queue_limit, **self._handler.settings.sending.effective(),
                 **versions()}  # fmt: skip
        problem = writer.close(counts=counts, flows=recorder.flows.by_peer, facts=facts).error
        control.enter("failed" if problem else "done", problem)

    def _beside(self, action: Callable[[], None]) -> None:
        """Do something in the event loop's thread and wait for it; nothing when the loop has ended."""
        if self._loop is None:
            action()
            return
        done = threading.Event()

        def act() -> None:
            action()
            done.set()

        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(act)
            done.wait(5)


def _dropped(handler: EventHandler) -> dict[str, int]:
    tally = handler.exchange.tally
    return {"dropped_queue_full": tally.dropped_queue_full, "dropped_disconnected": tally.dropped_disconnected}


def join_cloud(process: ProcessSettings, handler: EventHandler) -> Membership | None:
    """Register in the local cloud that the settings name, if any."""
    if not handler.settings.registry:
        return None
    from toolkit.node.event_handler.membership import Membership  # most Event Handlers are of no cloud

    membership = Membership(process, handler.settings, handler.guard)
    membership.start()
    return membership


async def serve(process: ProcessSettings, settings: HandlerSettings) -> None:
    """Serve until SIGTERM; then take nothing new, send what is queued, save the stamps."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    handler = EventHandler(settings, Recorder())
    server = await loop.create_server(
        handler.make_connection,
        settings.address,
        settings.port,
        backlog=1024,
        ssl=handler.guard.server_context if handler.guard else None,
        ssl_handshake_timeout=settings.request_within_s if handler.guard else None,
    )
    membership = join_cloud(process, handler)
    control = Control(process, ROLE, readings=lambda: readings(handler), problem=_problem_of(membership))
    control.serve(signals=False)
    orders = Orders(process, control, handler, loop)
    orders.start()
    sweeper = loop.create_task(handler.sweep())
    gc.collect()
    gc.freeze()
    log("serving", process, ROLE, mode=settings.mode, port=settings.port, loop=type(loop).__module__)
    await ended.wait()
    if membership is not None:
        membership.leave()
    server.close()
    await handler.drain()
    sweeper.cancel()
    control.terminate()
    await loop.run_in_executor(None, orders.join, 10)
    if membership is not None:
        await loop.run_in_executor(None, membership.join, _FAREWELL_S)
    control.close()


def _problem_of(membership: Membership | None) -> Callable[[], str | None]:
    return membership.problem if membership is not None else lambda: None


def serve_direct(process: ProcessSettings, settings: HandlerSettings) -> None:
    """Serve on one event loop."""
    run_in_loop(serve(process, settings))


def serve_with_workers(process: ProcessSettings, settings: HandlerSettings, handler: WorkerHandler) -> None:
    """Serve with a pool of threads until SIGTERM."""
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    workers = Workers(handler, settings.thread_pool_size)
    membership = join_cloud(process, handler)
    control = Control(
        process,
        ROLE,
        readings=lambda: [*readings(handler), *pool_readings(workers)],
        problem=_problem_of(membership),
    )
    control.serve(signals=False)
    orders = Orders(process, control, handler)
    orders.start()
    gc.collect()
    gc.freeze()
    workers.start()
    log("serving", process, ROLE, mode=settings.mode, port=settings.port, threads=workers.threads)
    while not ended.wait(1):
        workers.sweep()
    if membership is not None:
        membership.leave()
    until_s = time.monotonic() + settings.drain_s
    workers.stop(until_s)
    handler.finish(until_s)
    control.terminate()
    orders.join(10)
    if membership is not None:
        membership.join(_FAREWELL_S)
    control.close()


def serve_enhanced(process: ProcessSettings, settings: HandlerSettings) -> None:
    """Streams from a pool of threads."""
    serve_with_workers(process, settings, EnhancedHandler(settings))


def serve_original(process: ProcessSettings, settings: HandlerSettings) -> None:
    """Callbacks from a pool of threads."""
    from toolkit.node.event_handler.original import OriginalHandler  # SQLAlchemy: 17 MB that other modes do without

    serve_with_workers(process, settings, OriginalHandler(settings))


MODES = {"direct": serve_direct, "enhanced": serve_enhanced, "original": serve_original}
"""Mode -> what serves it, with the process' settings and its own; all of them stamp through a Recorder."""


def main() -> int:
    """Read the settings and serve."""
    sys.setswitchinterval(1e-4)  # the event loop waits at most 0.1 ms for the other threads
    process = ProcessSettings.from_environment()
    allow_descriptors()
    try:
        settings = HandlerSettings.from_environment()
        settings.sending.effective()
        MODES[settings.mode](process, settings)
    except KeyError as error:
        log("failed", process, ROLE, error=f"mode {error} is not in this image; there is {', '.join(MODES)}")
        return 1
    except (ToolkitError, ValueError, OSError) as error:
        log("failed", process, ROLE, error=str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
