"""Makes the Event Handler a system of its local cloud: its services in the Service Registry from start to end."""

from __future__ import annotations

import asyncio
import contextlib
import threading

from toolkit.contract.settings import ProcessSettings
from toolkit.node.arrowhead import logs
from toolkit.node.arrowhead.http_client import HttpClient
from toolkit.node.arrowhead.peers import Member, Offer, Peers
from toolkit.node.event_handler.guard import Guard
from toolkit.node.event_handler.settings import HandlerSettings

SYSTEM = "EVENT_HANDLER"
SERVICES = {"EventPublishing": "eventhandler/publish", "EventSubscription": "eventhandler/subscription"}
"""Definition without its mode's prefix -> path."""
_ANSWER_S = 10.0


class Membership(threading.Thread):
    """Registers, trying as long as it takes, and takes that back at the end; away from what serves."""

    def __init__(self, process: ProcessSettings, settings: HandlerSettings, guard: Guard | None) -> None:
        super().__init__(name="membership", daemon=True)
        logs.configure(process, "broker")
        self._guard = guard
        self._port = settings.port
        self._member = Member(
            name=SYSTEM,
            address=settings.registered_address,
            registry=settings.registry,
            interface=settings.quirks.core_interfaces[settings.secure],
            secure=settings.secure,
            public_key=guard.public_key if guard else None,
        )
        self._peers: Peers | None = None
        self._loop = asyncio.new_event_loop()
        self._leaving = asyncio.Event()

    def run(self) -> None:
        """Until `leave`."""
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._belong())

    def problem(self) -> str | None:
        """Why others of the cloud cannot find this one yet."""
        if self._peers is not None and self._peers.registered:
            return None
        return f"not registered with the Service Registry at {self._member.registry} yet"

    def leave(self) -> None:
        """Begin to take the registrations back; `join` waits for it."""
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._leaving.set)

    async def _belong(self) -> None:
        client = HttpClient(tls=self._guard.client_context if self._guard else None, read_timeout_s=_ANSWER_S)
        offers = [Offer(definition=name, uri=path, port=self._port) for name, path in SERVICES.items()]
        self._peers = Peers(self._member, client, offers=offers)
        self._peers.start()
        await self._leaving.wait()
        await self._peers.stop()
        client.close()
