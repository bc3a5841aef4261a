"""The Service Registry: which provider offers which service, and where."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import Coroutine, Iterable, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from toolkit.node.arrowhead import patterns
from toolkit.node.arrowhead.access import Caller, nobody, only, operator
from toolkit.node.arrowhead.management import found, management_routes, some
from toolkit.node.arrowhead.messages import (
    ArrowheadSystem,
    ServiceQueryByRegex,
    ServiceQueryForm,
    ServiceQueryResult,
    ServiceRegistryEntry,
)
from toolkit.node.arrowhead.process import Core, Listener, System, own_listener, run
from toolkit.node.arrowhead.refusals import Refusal, bad_payload, not_found
from toolkit.node.arrowhead.routes import Branch, Call, Reply, Route
from toolkit.node.arrowhead.stores import registry

log = logging.getLogger("toolkit.node.arrowhead.service_registry")  # here __name__ is __main__

BASE = "/serviceregistry"
_PINGS_AT_ONCE = 64
_FIRST_PING_S = 60.0
_FIRST_TTL_S = 45.0


def _provider_itself(caller: Caller, body: Any) -> bool:
    return caller.is_named(body.provider.system_name)


class ServiceRegistry:
    """The handlers, and the jobs in the background."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._storage = core.storage
        self._quirks = core.settings.quirks

    # ------------------------------------------------ for everybody

    async def register(self, call: Call) -> Reply:
        """Store an entry; 400 DUPLICATE_ENTRY when the provider has one for this service."""
        entry: ServiceRegistryEntry = call.body
        stored = await self._storage.write(
            lambda connection: registry.register(connection, entry), operation="register", trace=call.trace
        )
        if stored is None:
            message = f"{entry.provider.system_name} has registered {entry.provided_service.service_definition} already"
            raise Refusal("DUPLICATE_ENTRY", message)
        log.debug("New service registry entry %s by %s", entry.provided_service.service_definition, entry.provider)
        return Reply(status=201, value=stored)

    async def remove(self, call: Call) -> Reply:
        """Delete the entry of this service and provider."""
        removed = await self._storage.write(
            lambda connection: registry.remove(connection, call.body), operation="remove", trace=call.trace
        )
        return Reply(status=204) if removed is None else Reply(value=removed)

    async def query(self, call: Call) -> Reply:
        """Providers of a service; 206 when its definition is unknown."""
        form: ServiceQueryForm = call.body
        entries = await self._storage.read(
            lambda connection: registry.of_service(connection, form.service.service_definition),
            operation="query",
            trace=call.trace,
        )
        if entries is None:
            log.debug("%s is not in the registry", form.service.service_definition)
            return Reply(status=206, value=ServiceQueryResult())
        matching = list(self._matching(form, entries))
        if form.ping_providers:
            matching = await self._reachable(matching)
        log.debug("%s: %d of %d entries", form.service.service_definition, len(matching), len(entries))
        return Reply(value=ServiceQueryResult(service_query_data=tuple(matching)))

    def _matching(
        self, form: ServiceQueryForm, entries: Iterable[ServiceRegistryEntry]
    ) -> Iterable[ServiceRegistryEntry]:
        wanted = dict(form.service.service_metadata)
        versions = _version_range(form, wanted)
        if form.metadata_search:
            wanted.pop("minVersion", None)
            wanted.pop("maxVersion", None)
        for entry in entries:
            service = entry.provided_service
            if self._quirks.registry_matches_interfaces and not set(service.interfaces) & set(form.service.interfaces):
                continue
            if not versions[0] <= entry.version <= versions[1]:
                continue
            if form.metadata_search and dict(service.service_metadata) != wanted:
                continue
            yield entry

    async def _reachable(self, entries: Sequence[ServiceRegistryEntry]) -> list[ServiceRegistryEntry]:
        gate = asyncio.Semaphore(_PINGS_AT_ONCE)

        async def ping(system: ArrowheadSystem) -> bool:
            async with gate:
                return await self._answers(system)

        answers = await asyncio.gather(*(ping(entry.provider) for entry in entries))
        return [entry for entry, answered in zip(entries, answers, strict=True) if answered]

    async def _answers(self, system: ArrowheadSystem) -> bool:
        try:
            async with asyncio.timeout(self._core.settings.ping_timeout_s):
                _, writer = await asyncio.open_connection(system.address, system.port)
        except (OSError, TimeoutError, UnicodeError):
            return False
        writer.close()
        return True

    # ------------------------------------------------ for the operator

    async def get_all(self, _call: Call) -> Reply:
        """Every entry."""
        entries = await self._storage.read_all(registry.list_entries, operation="mgmt")
        return Reply(value=ServiceQueryResult(service_query_data=tuple(entries))) if entries else Reply(status=204)

    async def get_one(self, call: Call) -> Reply:
        """One entry."""
        identity = call.number("id")
        entry = await self._storage.read(lambda connection: registry.by_id(connection, identity), operation="mgmt")
        return Reply(value=found(entry, f"There is no entry with the id {identity}"))

    async def get_of_system(self, call: Call) -> Reply:
        """The entries of a provider."""
        identity = call.number("systemId")
        entries = await self._storage.read_all(
            lambda connection: registry.of_system(connection, identity), operation="mgmt"
        )
        return Reply(value=some(entries, f"There are no entries of the system {identity}"))

    async def get_of_definition(self, call: Call) -> Reply:
        """The entries of a service definition."""
        definition = call.parameters["serviceDefinition"]
        entries = await self._storage.read_all(
            lambda connection: registry.of_service(connection, definition), operation="mgmt"
        )
        return Reply(value=some(entries or [], f"There are no entries of the service {definition}"))

    async def get_providers(self, call: Call) -> Reply:
        """The providers of a service."""
        identity = call.number("serviceId")
        entries = await self._storage.read_all(
            lambda connection: registry.of_service_id(connection, identity), operation="mgmt"
        )
        return Reply(value=[entry.provider for entry in some(entries, f"Nobody provides the service {identity}")])

    async def query_by_regex(self, call: Call) -> Reply:
        """The entries that match every filter."""
        entries = await self._storage.read_all(registry.list_entries, operation="mgmt")
        for form in call.body:
            kept = await _tests(form, entries)
            entries = [entry for entry, keep in zip(entries, kept, strict=True) if keep]
        return Reply(value=entries)

    async def update(self, call: Call) -> Reply:
        """Change one entry."""
        identity = call.number("id")
        entry = await self._storage.write(
            lambda connection: registry.update_entry(connection, identity, call.body), operation="mgmt"
        )
        return Reply(status=202, value=found(entry, f"There is no entry with the id {identity}"))

    async def delete_one(self, call: Call) -> Reply:
        """Delete one entry."""
        identity = call.number("entryId")
        if not await self._delete([identity]):
            raise not_found(f"There is no entry with the id {identity}")
        return Reply()

    async def delete_all(self, _call: Call) -> Reply:
        """Delete every entry."""
        return Reply() if await self._delete(None) else Reply(status=204)

    async def _delete(self, ids: Sequence[int] | None) -> int:
        return await self._storage.write(lambda connection: registry.delete_entries(connection, ids), operation="mgmt")

    # ------------------------------------------------ in the background

    async def watch_providers(self) -> None:
        """Delete the entries of providers that do not answer, every `ping_interval_s`."""
        wait_s = min(_FIRST_PING_S, self._core.settings.ping_interval_s)
        while True:
            await asyncio.sleep(wait_s)
            wait_s = self._core.settings.ping_interval_s
            with contextlib.suppress(Refusal):
                entries = await self._storage.read_all(registry.list_entries, operation="watch")
                reachable = {entry.id for entry in await self._reachable(entries)}
                gone = [entry.id for entry in entries if entry.id is not None and entry.id not in reachable]
                if gone:
                    log.info("deleting %d entries of providers that do not answer", await self._delete(gone))

    async def watch_validity(self) -> None:
        """Delete the entries whose validity has ended, every `ttl_interval_s`."""
        wait_s = min(_FIRST_TTL_S, self._core.settings.ttl_interval_s)
        while True:
            await asyncio.sleep(wait_s)
            wait_s = self._core.settings.ttl_interval_s
            now = datetime.now()  # noqa: DTZ005 - a LocalDateTime has no zone
            with contextlib.suppress(Refusal):
                gone = await self._storage.read(partial(registry.expired, now=now), operation="watch")
                if gone:
                    log.info("deleting %d expired entries", await self._delete(gone))

    def background(self) -> list[Coroutine[Any, Any, None]]:
        """The jobs that the settings ask for."""
        jobs = []
        if self._core.settings.ping_interval_s:
            jobs.append(self.watch_providers())
        if self._core.settings.ttl_interval_s:
            jobs.append(self.watch_validity())
        return jobs


def _version_range(form: ServiceQueryForm, metadata: dict[str, str]) -> tuple[float, float]:
    if form.version is not None:
        return form.version, form.version
    try:
        least = int(metadata["minVersion"]) if "minVersion" in metadata else float("-inf")
        most = int(metadata["maxVersion"]) if "maxVersion" in metadata else float("inf")
    except ValueError as error:
        raise bad_payload(f"minVersion and maxVersion must be whole numbers: {error}") from None
    return least, most


async def _tests(form: ServiceQueryByRegex, entries: Sequence[ServiceRegistryEntry]) -> list[bool]:
    if form.field_name == "interfaces":
        wanted = form.regular_expression.lower()
        return [wanted in map(str.lower, entry.provided_service.interfaces) for entry in entries]
    if form.field_name == "systemName":
        texts = [entry.provider.system_name for entry in entries]
    elif form.field_name == "serviceDefinition":
        texts = [entry.provided_service.service_definition for entry in entries]
    else:
        raise bad_payload(f"fieldName is {form.field_name!r}; it can be systemName, serviceDefinition or interfaces")
    return await patterns.matches(form.regular_expression, texts, partial=form.partial_match)


def routes(core: Core, registrar: ServiceRegistry) -> list[Route]:
    """Everything the Service Registry answers."""
    entry, entries = ServiceRegistryEntry, list[ServiceRegistryEntry]
    provider = Branch(BASE, _provider_itself)
    asked = Branch(BASE, only("orchestrator", "gatekeeper", "certificate_authority"))
    mgmt = Branch(f"{BASE}/mgmt", operator)
    return [
        Branch(BASE, nobody).liveness("This is the Service Registry Arrowhead Core System."),
        mgmt.liveness("serviceregistry/mgmt got it"),
        provider.route(
            "POST", "/register", registrar.register, "Register a service", accepts=entry, answers=entry, statuses=(201,)
        ),
        asked.route(
            "PUT", "/query", registrar.query, "Find the providers of a service",
            accepts=ServiceQueryForm, answers=ServiceQueryResult, statuses=(200, 206),
        ),
        provider.route(
            "PUT", "/remove", registrar.remove, "Take a service back", accepts=entry, answers=entry, statuses=(200, 204)
        ),
        mgmt.route(
            "GET", "/all", registrar.get_all, "Every entry", answers=ServiceQueryResult, statuses=(200, 204)
        ),
        mgmt.route("DELETE", "/all", registrar.delete_all, "Delete every entry", statuses=(200, 204)),
        mgmt.route("GET", "/id/{id}", registrar.get_one, "One entry", answers=entry),
        mgmt.route(
            "GET", "/systemId/{systemId}", registrar.get_of_system, "The entries of a provider", answers=entries
        ),
        mgmt.route(
            "GET", "/servicedef/{serviceDefinition}", registrar.get_of_definition,
            "The entries of a service definition", answers=entries,
        ),
        mgmt.route(
            "GET", "/serviceId/{serviceId}/providers", registrar.get_providers, "The providers of a service",
            answers=list[ArrowheadSystem],
        ),
        mgmt.route(
            "PUT", "/query", registrar.query_by_regex, "The entries that match every filter",
            accepts=list[ServiceQueryByRegex], answers=entries,
        ),
        mgmt.route(
            "PUT", "/update/{id}", registrar.update, "Change an entry", accepts=entry, answers=entry, statuses=(202,)
        ),
        mgmt.route("DELETE", "/{entryId}", registrar.delete_one, "Delete an entry"),
        *management_routes(core, BASE),
    ]  # fmt: skip


def _listeners(core: Core) -> list[Listener]:
    registrar = ServiceRegistry(core)
    return [own_listener(core, core.settings.port, "Service Registry", routes(core, registrar))]


SYSTEM = System(
    name="service_registry",
    registered_name="SERVICE_REGISTRY",
    offers=lambda _settings: (),
    needs=lambda _settings: (),
    listeners=_listeners,
    background=lambda core: ServiceRegistry(core).background(),
)

if __name__ == "__main__":
    sys.exit(run(SYSTEM))
