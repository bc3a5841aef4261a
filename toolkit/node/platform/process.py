"""The process around a gateway or hub: event loop, ports, the controller's orders, a graceful end."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from toolkit.contract import metrics
from toolkit.contract.orders import RunOrder
from toolkit.contract.settings import ProcessSettings
from toolkit.errors import ToolkitError
from toolkit.node import exposition
from toolkit.node.control import Control, log
from toolkit.node.descriptors import allow_descriptors
from toolkit.node.live import LiveSender
from toolkit.node.loops import run_in_loop, versions
from toolkit.node.platform.journal import Journal
from toolkit.node.platform.sessions import Session
from toolkit.node.platform.settings import EndSettings
from toolkit.node.stamps import StampWriter


class Served(Protocol):
    """The gateway or the hub."""

    settings: Any
    journal: Journal
    sessions: dict[Session, None]

    async def listen(self) -> list[asyncio.Server]:
        """Take clients in."""

    async def ready(self) -> str:
        """Why it cannot take part in a run; empty: it can."""

    async def drain(self) -> None:
        """Send what is queued and end every connection."""


def dropped_readings(journal: Journal, role: str) -> list[exposition.Reading]:
    """What `/metrics` shows of the messages that one end dropped, by reason."""
    return [
        (metrics.MESSAGES_DROPPED, (journal.run, role, reason), float(count))
        for reason, count in ({"queue_full": 0} | journal.dropped).items()
    ]


class Orders(threading.Thread):
    """Carries out the controller's orders beside the event loop: stamps on, stamps off."""

    def __init__(
        self, process: ProcessSettings, control: Control, served: Served, loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__(name="orders", daemon=True)
        self._process = process
        self._control = control
        self._served = served
        self._loop = loop

    def run(self) -> None:
        """Until the process ends."""
        while (order := self._control.next_order()) is not None:
            try:
                self._carry_out(order)
            except RuntimeError:
                return  # the event loop has ended

    def _carry_out(self, order: RunOrder) -> None:
        control, journal = self._control, self._served.journal
        who = f"{self._process.service} on {self._process.node}"
        problem = asyncio.run_coroutine_threadsafe(self._served.ready(), self._loop).result()
        if problem:
            control.enter("failed", f"{who}: {problem}")
            return
        try:
            live = LiveSender.from_environment(self._process) if order.record else None
            writer = StampWriter(self._process, order, live=live)
        except OSError as error:
            control.enter("failed", f"{who}: {error}")
            return
        self._beside(lambda: journal.begin(writer, order))
        if control.await_start() is not None:
            control.enter("running")
            control.await_stop()
            control.enter("draining")
        counts = self._beside(journal.end)
        facts = {**_facts(self._served.settings), "flows": len(journal.flows.by_peer), **versions()}
        error_text = writer.close(counts=counts, flows=journal.flows.by_peer, facts=facts).error
        control.enter("failed" if error_text else "done", error_text)

    def _beside(self, action: Callable[[], Any]) -> Any:
        """Do something in the event loop's thread; what it returns."""

        async def act() -> Any:
            return action()

        return asyncio.run_coroutine_threadsafe(act(), self._loop).result()


def _facts(settings: EndSettings) -> dict[str, Any]:
    return {
        name: getattr(settings, name)
        for name in ("protocol", "overflow", "queue_limit", "max_inflight", "send_buffer", "upstream")
    }


async def _serve(
    process: ProcessSettings,
    role: str,
    served: Served,
    readings: Callable[[], Iterable[exposition.Reading]],
    each_second: Callable[[], None],
) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    servers = await served.listen()
    control = Control(process, role, readings=readings)
    control.serve(signals=False)
    orders = Orders(process, control, served, loop)
    orders.start()
    sweeper = loop.create_task(_sweep(served, each_second))
    gc.collect()
    gc.freeze()
    log("serving", process, role, mqtt_port=served.settings.mqtt_port, http_port=served.settings.http_port,
        upstream=",".join(served.settings.upstream), loop=type(loop).__module__)  # fmt: skip
    await ended.wait()
    for server in servers:
        server.close()
    await served.drain()
    sweeper.cancel()
    control.terminate()
    await loop.run_in_executor(None, orders.join, 10)
    control.close()


async def _sweep(served: Served, each_second: Callable[[], None]) -> None:
    """End connections that have been silent for too long, once a second, for ever."""
    while True:
        await asyncio.sleep(1)
        now_s = time.monotonic()
        for session in list(served.sessions):
            session.check_age(now_s)
        each_second()


Make = Callable[[ProcessSettings], tuple[Served, Callable[[], Iterable[exposition.Reading]], Callable[[], None]]]
"""Makes the gateway or hub inside the event loop: itself, its metrics, what it does each second."""


def run(role: str, make: Make) -> int:
    """Serve until SIGTERM; the exit code."""
    sys.setswitchinterval(1e-4)  # the event loop waits at most 0.1 ms for the other threads
    process = ProcessSettings.from_environment()
    allow_descriptors()

    async def serve() -> None:
        await _serve(process, role, *make(process))

    try:
        run_in_loop(serve())
    except (ToolkitError, ValueError, OSError) as error:
        log("failed", process, role, error=str(error))
        return 1
    return 0
