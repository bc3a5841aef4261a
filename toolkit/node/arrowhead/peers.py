"""The other core systems: registering with them, finding them, calling them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, TypeVar

from toolkit.node.arrowhead import wire
from toolkit.node.arrowhead.http_client import Answer, HttpClient, NoAnswerError
from toolkit.node.arrowhead.messages import (
    ArrowheadService,
    ArrowheadSystem,
    ServiceQueryForm,
    ServiceQueryResult,
    ServiceRegistryEntry,
)
from toolkit.node.arrowhead.quirks import TOLERANT
from toolkit.node.arrowhead.refusals import Refusal, refusal_from
from toolkit.node.arrowhead.trace import Trace

T = TypeVar("T")

log = logging.getLogger(__name__)

_JSON_HEADERS = {"Content-Type": "application/json", "Accept": "application/json"}
_REFRESH_S = 3600.0
_FIRST_RETRY_S = 0.2
_LAST_RETRY_S = 10.0
_FAREWELL_S = 2.0
"""A Service Registry that does not answer holds up nobody's end for longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A core system as its cloud knows it."""

    name: str
    address: str
    registry: str
    """host:port of the Service Registry."""
    interface: str
    """Of the services of core systems, in their mode."""
    secure: bool = False
    public_key: str | None = None
    """In secure mode."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A service that a core system registers for itself."""

    definition: str
    uri: str
    port: int


async def exchange(
    client: HttpClient, method: str, url: str, message: object | None, kind: type[T], trace: Trace | None = None
) -> T:
    """Send a message, return the answer read as `kind`; `type(None)` ignores it.

    Raises Refusal: the other system's own, or UNAVAILABLE (AUTH for a refused certificate) when it did not answer.
    """
    call = trace.next_call() if trace is not None else ""
    headers = {**_JSON_HEADERS, **trace.header(call)} if trace is not None else _JSON_HEADERS
    body = b"" if message is None else wire.write(message)
    try:
        answer = await client.request(method, url, body, headers)
    except NoAnswerError as error:
        if error.tls:
            raise Refusal("AUTH", str(error), origin=url) from None
        raise Refusal("UNAVAILABLE", f"UnavailableServerException: {error}", status=503, origin=url) from None
    if trace is not None:
        operation = url.rstrip("/").rpartition("/")[2]
        trace.record("call", operation, answer.sent_ns, answer.received_ns, call)
    return _result(answer, url, kind)


def _result(answer: Answer, url: str, kind: type[T]) -> T:
    if answer.status // 100 != HTTPStatus.OK // 100:
        try:
            document: Any = wire.load_json(answer.body, TOLERANT)
        except Refusal:
            document = None
        raise refusal_from(answer.status, document, url)
    if kind is type(None):
        return kind()
    try:
        return wire.read(kind, answer.body, TOLERANT)
    except Refusal as refusal:
        message = f"{url} answered something else than a {kind.__name__}: {refusal.message}"
        raise Refusal("ARROWHEAD", message, status=500, origin=url) from None


class Peers:
    """A core system's dealings with the Service Registry and, found through it, with the others."""

    def __init__(
        self, member: Member, client: HttpClient, *, offers: Sequence[Offer], needs: Sequence[str] = ()
    ) -> None:
        """`needs` are definitions without their mode's prefix."""
        self.client = client
        self.registry = f"{'https' if member.secure else 'http'}://{member.registry}/serviceregistry"
        self.registered = not offers
        self._member = member
        self._offers = offers
        self._needs = needs
        self._urls: dict[str, str] = {}
        self._task: asyncio.Task[None] | None = None
        self._refresh = asyncio.Event()

    @property
    def missing(self) -> list[str]:
        """Definitions not found yet."""
        return [need for need in self._needs if need not in self._urls]

    def url(self, definition: str) -> str:
        """Where a service is; raises Refusal 500 ARROWHEAD until it has been found."""
        url = self._urls.get(definition)
        if url is None:
            self._refresh.set()
            raise Refusal("ARROWHEAD", f"The address of {definition} is not known yet; is its system running?")
        return url

    def report(self, refusal: Refusal) -> None:
        """A system that is away may have moved: look for all of them again."""
        if refusal.kind == "UNAVAILABLE":
            self._refresh.set()

    async def call(self, method: str, url: str, message: object, kind: type[T], trace: Trace | None = None) -> T:
        """`exchange` with the system's own client."""
        return await exchange(self.client, method, url, message, kind, trace)

    # ------------------------------------------------ life

    def start(self) -> None:
        """Register and look for the others in the background, as long as it takes."""
        self._task = asyncio.create_task(self._keep_up())

    async def stop(self) -> None:
        """Take back what was registered."""
        if self._task is not None:
            self._task.cancel()
        if not self.registered:
            return
        for offer in self._offers:
            with contextlib.suppress(Refusal, TimeoutError):
                async with asyncio.timeout(_FAREWELL_S):
                    await self.call("PUT", f"{self.registry}/remove", self._entry(offer), type(None))

    async def _keep_up(self) -> None:
        wait_s = _FIRST_RETRY_S
        while True:
            self._refresh.clear()
            try:
                if not self.registered:
                    await self._register()
                    self.registered = True
                await self._find()
            except Refusal as refusal:
                log.warning("%s: %s", refusal.kind, refusal.message)
            done = self.registered and not self.missing
            if done:
                wait_s = _FIRST_RETRY_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_REFRESH_S if done else wait_s):
                    await self._refresh.wait()
                # Many refusals at once ask for one look.
                await asyncio.sleep(_FIRST_RETRY_S)
            wait_s = min(wait_s * 2, _LAST_RETRY_S)

    async def _register(self) -> None:
        for offer in self._offers:
            entry = self._entry(offer)
            try:
                await self.call("POST", f"{self.registry}/register", entry, type(None))
            except Refusal as refusal:
                if refusal.kind != "DUPLICATE_ENTRY":
                    raise
                await self.call("PUT", f"{self.registry}/remove", entry, type(None))
                await self.call("POST", f"{self.registry}/register", entry, type(None))

    async def _find(self) -> None:
        for need in self._needs:
            form = ServiceQueryForm(service=self._service(need), ping_providers=True, metadata_search=False)
            result = await self.call("PUT", f"{self.registry}/query", form, ServiceQueryResult)
            if not result.service_query_data:
                self._urls.pop(need, None)
                continue
            entry = result.service_query_data[0]
            scheme = "https" if "security" in entry.provided_service.service_metadata else "http"
            self._urls[need] = f"{scheme}://{entry.provider.address}:{entry.provider.port}/{entry.service_uri or ''}"

    def _entry(self, offer: Offer) -> ServiceRegistryEntry:
        member = self._member
        return ServiceRegistryEntry(
            provided_service=self._service(offer.definition),
            provider=ArrowheadSystem(
                system_name=member.name,
                address=member.address,
                port=offer.port,
                authentication_info=member.public_key,
            ),
            service_uri=offer.uri,
        )

    def _service(self, definition: str) -> ArrowheadService:
        secure = self._member.secure
        return ArrowheadService(
            service_definition=("Secure" if secure else "Insecure") + definition,
            interfaces=(self._member.interface,),
            service_metadata={"security": "certificate"} if secure else {},
        )
