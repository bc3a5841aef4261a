"""The Orchestrator: finds a consumer the providers it may use, in its own cloud, in the store, or in other clouds."""

from __future__ import annotations

import dataclasses
import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy.engine import Connection

from toolkit.node.arrowhead import matching
from toolkit.node.arrowhead.access import Caller, operator
from toolkit.node.arrowhead.management import found, management_routes, some
from toolkit.node.arrowhead.messages import (
    ArrowheadCloud,
    ArrowheadService,
    ArrowheadSystem,
    GSDRequestForm,
    GSDResult,
    ICNRequestForm,
    ICNResult,
    IntraCloudAuthRequest,
    IntraCloudAuthResponse,
    OrchestrationForm,
    OrchestrationResponse,
    OrchestrationStore,
    OrchestrationStorePriorities,
    OrchestrationStoreQuery,
    OrchestratorWarning,
    ServiceQueryForm,
    ServiceQueryResult,
    ServiceRegistryEntry,
    ServiceRequestForm,
    TokenGenerationRequest,
    TokenGenerationResponse,
)
from toolkit.node.arrowhead.peers import Offer
from toolkit.node.arrowhead.process import Core, Listener, System, own_listener, run
from toolkit.node.arrowhead.refusals import Refusal, bad_payload, not_found
from toolkit.node.arrowhead.routes import Branch, Call, Reply, Route
from toolkit.node.arrowhead.settings import Settings
from toolkit.node.arrowhead.stores import identities, orchestrations
from toolkit.node.arrowhead.trace import Trace

log = logging.getLogger("toolkit.node.arrowhead.orchestrator")  # here __name__ is __main__

BASE = "/orchestrator"


class Orchestration:
    """One request being answered."""

    def __init__(self, core: Core, form: ServiceRequestForm, trace: Trace | None) -> None:
        self._core = core
        self._peers = core.peers
        self._form = form
        self._trace = trace

    async def answer(self) -> OrchestrationResponse:
        """Whichever way the flags ask for; raises Refusal."""
        form = self._form
        log.debug("orchestration request of %s", form.requester_system)
        if form.flag("externalServiceRequest"):
            forms = await self._external()
        elif form.flag("triggerInterCloud"):
            if not self._core.settings.gatekeeper:
                raise Refusal("ARROWHEAD", "triggerInterCloud is true, but this cloud has no Gatekeeper")
            forms = await self._other_cloud(self._requested())
        elif not form.flag("overrideStore"):
            forms = await self._store()
        else:
            forms = await self._dynamic()
        log.debug("%d providers for %s", len(forms), form.requester_system)
        return OrchestrationResponse(response=tuple(await self._with_tokens(forms)))

    def _requested(self) -> ArrowheadService:
        if self._form.requested_service is None:
            raise bad_payload("requestedService is missing")
        return self._form.requested_service

    # ------------------------------------------------ in the own cloud

    async def _dynamic(self) -> list[OrchestrationForm]:
        try:
            return await self._own_cloud(self._requested())
        except Refusal as refusal:
            if refusal.kind != "DATA_NOT_FOUND" or not self._form.flag("enableInterCloud"):
                raise
            if not self._core.settings.gatekeeper:
                raise Refusal("ARROWHEAD", f"{refusal.message}, and this cloud has no Gatekeeper", status=404) from None
            log.debug("nothing in the own cloud: %s", refusal.message)
        return await self._other_cloud(self._requested())

    async def _own_cloud(self, service: ArrowheadService) -> list[OrchestrationForm]:
        entries = await self._registered(service)
        allowed = await self._allowed([entry.provider for entry in entries], service)
        entries = [entry for entry in entries if entry.provider.key in allowed]
        if not entries:
            raise not_found(
                f"{self._form.requester_system} may use none of the providers of {service.service_definition}"
            )
        preferred = matching.local_preferred(self._form.preferred_providers)
        if self._form.flag("onlyPreferred"):
            entries = matching.only_preferred(entries, preferred)
        if self._form.flag("matchmaking"):
            entries = [matching.best_entry(entries, preferred)]
        now = datetime.now()  # noqa: DTZ005 - a LocalDateTime has no zone
        return [matching.form_of(entry, matching.ttl_warnings(entry.end_of_validity, now)) for entry in entries]

    async def _external(self) -> list[OrchestrationForm]:
        """For a consumer of another cloud, whose right to the service the Gatekeeper has checked."""
        entries = await self._registered(self._requested())
        if self._form.flag("onlyPreferred"):
            entries = matching.only_preferred(entries, matching.local_preferred(self._form.preferred_providers))
        return [matching.form_of(entry) for entry in entries]

    async def _registered(self, service: ArrowheadService) -> list[ServiceRegistryEntry]:
        query = ServiceQueryForm(
            service=service,
            ping_providers=self._form.flag("pingProviders"),
            metadata_search=self._form.flag("metadataSearch"),
        )
        url = f"{self._peers.registry}/query"
        result = await self._peers.call("PUT", url, query, ServiceQueryResult, self._trace)
        entries = list(result.service_query_data)
        if not self._core.settings.quirks.registry_matches_interfaces:
            entries = [one for one in entries if matching.has_common_interface(service, one.provided_service)]
        log.debug("%d entries of %s", len(entries), service.service_definition)
        if not entries:
            raise not_found(f"Nobody in this cloud provides {service.service_definition} as asked for")
        return entries

    async def _allowed(
        self, providers: Iterable[ArrowheadSystem], service: ArrowheadService
    ) -> set[tuple[str, str, int]]:
        distinct = {provider.key: provider for provider in providers}
        request = IntraCloudAuthRequest(
            consumer=self._form.requester_system, providers=tuple(distinct.values()), service=service
        )
        url = f"{self._peers.url('AuthorizationControl')}/intracloud"
        response = await self._peers.call("PUT", url, request, IntraCloudAuthResponse, self._trace)
        allowed = matching.allowed_keys(response.authorization_state)
        log.debug("%d of %d providers are allowed", len(allowed), len(distinct))
        return allowed

    # ------------------------------------------------ in the store

    async def _store(self) -> list[OrchestrationForm]:
        consumer, service = self._form.requester_system, self._form.requested_service

        def work(connection: Connection) -> list[OrchestrationStore]:
            system = identities.find_system(connection, consumer)
            if system is None:
                return []
            if service is None:
                return orchestrations.list_entries(connection, consumer_system_id=system, is_default="Y")
            wanted = identities.find_service(connection, service.service_definition)
            if wanted is None:
                return []
            return orchestrations.list_entries(connection, consumer_system_id=system, arrowhead_service_id=wanted)

        entries = await self._core.storage.read(work, operation="store", trace=self._trace)
        if service is not None:
            entries = [one for one in entries if matching.has_common_interface(service, one.service)]
        if not entries:
            raise not_found(f"The Orchestration Store has nothing for {consumer}")
        return await (self.defaults(entries) if service is None else self._first_usable(entries, service))

    async def defaults(self, entries: Iterable[OrchestrationStore]) -> list[OrchestrationForm]:
        """All default entries whose provider still offers the service and may be used."""
        forms = []
        for entry in entries:
            offers = await self._offers(entry.service, [entry.provider_system])
            if offer := offers.get(entry.provider_system.key):
                forms.append(matching.stored_form(entry, offer))
        if not forms:
            raise not_found(f"No default entry of {self._form.requester_system} can be used now")
        return forms

    async def _first_usable(
        self, entries: Sequence[OrchestrationStore], service: ArrowheadService
    ) -> list[OrchestrationForm]:
        local = [entry.provider_system for entry in entries if entry.provider_cloud is None]
        offers = await self._offers(service, local) if local else {}
        for entry in entries:
            if entry.provider_cloud is None:
                if offer := offers.get(entry.provider_system.key):
                    return [matching.stored_form(entry, offer)]
                continue
            try:
                forms = await self._negotiated(service, entry.provider_cloud, [entry.provider_system])
            except Refusal as refusal:
                log.debug("store entry %s is of no use: %s", entry.id, refusal.message)
                continue
            best = matching.best_form(forms, [entry.provider_system])
            return [dataclasses.replace(best, instruction=entry.instruction)]
        raise not_found(f"No entry of the Orchestration Store for {service.service_definition} can be used now")

    async def _offers(
        self, service: ArrowheadService, providers: Sequence[ArrowheadSystem]
    ) -> dict[tuple[str, str, int], ServiceRegistryEntry]:
        """What those of the providers offer that are registered and allowed."""
        try:
            entries = await self._registered(service)
            allowed = await self._allowed(providers, service)
        except Refusal as refusal:
            if refusal.kind != "DATA_NOT_FOUND":
                raise
            return {}
        return {entry.provider.key: entry for entry in reversed(entries) if entry.provider.key in allowed}

    # ------------------------------------------------ in other clouds

    async def _other_cloud(self, service: ArrowheadService) -> list[OrchestrationForm]:
        form = self._form
        clouds = matching.preferred_clouds(form.preferred_providers)
        request = GSDRequestForm(
            requested_service=service,
            search_perimeter=tuple(clouds),
            registry_flags={
                "metadataSearch": form.flag("metadataSearch"),
                "pingProviders": form.flag("pingProviders"),
            },
        )
        url = self._peers.url("GlobalServiceDiscovery")
        result = await self._peers.call("PUT", url, request, GSDResult, self._trace)
        target = matching.target_cloud(result.response, clouds, only_preferred=form.flag("onlyPreferred"))
        log.debug("%d clouds offer the service; asking %s", len(result.response), target.cloud_name)
        preferred = matching.preferred_of_cloud(form.preferred_providers, target)
        forms = await self._negotiated(service, target, preferred)
        return [matching.best_form(forms, preferred)] if form.flag("matchmaking") else forms

    async def _negotiated(
        self, service: ArrowheadService, cloud: ArrowheadCloud, preferred: Sequence[ArrowheadSystem]
    ) -> list[OrchestrationForm]:
        form = self._form
        request = ICNRequestForm(
            requested_service=service,
            target_cloud=cloud,
            requester_system=form.requester_system,
            preferred_systems=tuple(preferred),
            negotiation_flags={
                "metadataSearch": form.flag("metadataSearch"),
                "pingProviders": form.flag("pingProviders"),
                # The other side would refuse this flag without a system to prefer.
                "onlyPreferred": form.flag("onlyPreferred") and bool(preferred),
                "externalServiceRequest": True,
            },
        )
        url = self._peers.url("InterCloudNegotiations")
        result = await self._peers.call("PUT", url, request, ICNResult, self._trace)
        if not result.orch_response.response:
            raise not_found(f"{cloud.cloud_name} has no provider for us")
        return [
            dataclasses.replace(one, warnings=(*one.warnings, OrchestratorWarning.FROM_OTHER_CLOUD))
            for one in result.orch_response.response
        ]

    # ------------------------------------------------ tokens

    async def _with_tokens(self, forms: list[OrchestrationForm]) -> list[OrchestrationForm]:
        wanting: dict[str, list[OrchestrationForm]] = {}
        for form in forms:
            if form.service.service_metadata.get("security") == "token" and form.authorization_token is None:
                wanting.setdefault(form.service.service_definition, []).append(form)
        made = {}
        for definition, some_forms in wanting.items():
            request = TokenGenerationRequest(
                consumer=self._form.requester_system,
                consumer_cloud=self._form.requester_cloud,
                providers=tuple(form.provider for form in some_forms),
                service=some_forms[0].service,
            )
            url = self._peers.url("TokenGeneration")
            response = await self._peers.call("PUT", url, request, TokenGenerationResponse, self._trace)
            made.update({(definition, data.system.key): data for data in response.token_data})
        return [
            dataclasses.replace(form, authorization_token=data.token, signature=data.signature)
            if (data := made.get((form.service.service_definition, form.provider.key))) is not None
            else form
            for form in forms
        ]


class Orchestrator:
    """The handlers."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._storage = core.storage

    async def orchestrate(self, call: Call) -> Reply:
        """Answer a consumer's request."""
        form = matching.completed(call.body)
        return Reply(value=await Orchestration(self._core, form, call.trace).answer())

    async def default_entries(self, call: Call) -> Reply:
        """Answer with the store's default entries of the system with this id."""
        identity = call.number("systemId")

        def work(connection: Connection) -> tuple[list[ArrowheadSystem], list[OrchestrationStore]]:
            entries = orchestrations.list_entries(connection, consumer_system_id=identity, is_default="Y")
            return identities.list_systems(connection, id=identity), entries

        systems, entries = await self._storage.read(work, operation="store", trace=call.trace)
        consumer = some(systems, f"There is no system with the id {identity}")[0]
        some(entries, f"The Orchestration Store has no default entry for {consumer}")
        orchestration = Orchestration(self._core, ServiceRequestForm(requester_system=consumer), call.trace)
        return Reply(value=OrchestrationResponse(response=tuple(await orchestration.defaults(entries))))


class Store:
    """The handlers of the Orchestration Store: for the operator, and what every consumer may see."""

    def __init__(self, core: Core) -> None:
        self._storage = core.storage
        self._update_status = core.settings.quirks.store_update_status

    async def _read(self, work: Callable[[Connection], list[OrchestrationStore]]) -> Reply:
        entries = await self._storage.read_all(work, operation="store")
        return Reply(value=some(entries, "The Orchestration Store has no such entry"))

    async def _write(self, work: Callable[[Connection], Any]) -> Any:
        return await self._storage.write(work, operation="store")

    async def get_all(self, _call: Call) -> Reply:
        """Every entry."""
        return await self._read(orchestrations.list_entries)

    async def get_defaults(self, _call: Call) -> Reply:
        """The default entries."""
        return await self._read(lambda connection: orchestrations.list_entries(connection, is_default="Y"))

    async def get_one(self, call: Call) -> Reply:
        """One entry."""
        identity = call.number("id")
        entry = await self._storage.read(
            lambda connection: orchestrations.by_id(connection, identity), operation="store"
        )
        return Reply(value=found(entry, f"There is no store entry with the id {identity}"))

    async def query(self, call: Call) -> Reply:
        """The entries of a consumer, a service, or both; a consumer alone means its default entries."""
        form: OrchestrationStoreQuery = call.body

        def work(connection: Connection) -> list[OrchestrationStore]:
            wanted: dict[str, Any] = {}
            if form.requester_system is not None:
                wanted["consumer_system_id"] = identities.find_system(connection, form.requester_system)
            if form.requested_service is not None:
                definition = form.requested_service.service_definition
                wanted["arrowhead_service_id"] = identities.find_service(connection, definition)
            else:
                wanted["is_default"] = "Y"
            return orchestrations.list_entries(connection, **wanted) if None not in wanted.values() else []

        return await self._read(work)

    async def of_consumer(self, call: Call) -> Reply:
        """The entries of the consumers of a name: the default ones, or those for one service."""
        name, definition = call.parameters["systemName"], call.parameters.get("serviceDef")

        def work(connection: Connection) -> list[OrchestrationStore]:
            wanted: dict[str, Any] = {"is_default": "Y"}
            if definition is not None:
                wanted = {"arrowhead_service_id": identities.find_service(connection, definition) or -1}
            return [
                entry
                for system in identities.list_systems(connection, system_name=name)
                for entry in orchestrations.list_entries(connection, consumer_system_id=system.id, **wanted)
            ]

        return await self._read(work)

    async def of_caller(self, call: Call) -> Reply:
        """The entries of the system whose certificate the caller shows: all of them, or those for one service."""
        caller, definition = call.caller, call.parameters.get("serviceDef")
        if caller is None:
            raise Refusal("ARROWHEAD", "Entries by certificate can only be asked for in secure mode", status=401)

        def work(connection: Connection) -> list[OrchestrationStore]:
            wanted: dict[str, Any] = {}
            if definition is not None:
                wanted = {"arrowhead_service_id": identities.find_service(connection, definition) or -1}
            return [
                entry
                for system in identities.list_systems(connection)
                if caller.is_named(system.system_name)
                for entry in orchestrations.list_entries(connection, consumer_system_id=system.id, **wanted)
            ]

        return await self._read(work)

    async def add(self, call: Call) -> Reply:
        """Add the entries that are new; answers with those."""
        for entry in call.body:
            _check_default(entry.provider_cloud, default=entry.default_entry)
        now = datetime.now()  # noqa: DTZ005 - a LocalDateTime has no zone
        added = await self._write(
            lambda connection: [
                stored for entry in call.body if (stored := orchestrations.add(connection, entry, now)) is not None
            ]
        )
        return Reply(value=added)

    async def update(self, call: Call) -> Reply:
        """Change what belongs to the entry alone."""
        identity, entry = call.number("id"), call.body
        now = datetime.now()  # noqa: DTZ005 - a LocalDateTime has no zone

        def work(connection: Connection) -> OrchestrationStore | None:
            old = orchestrations.by_id(connection, identity)
            if old is None:
                return None
            _check_default(old.provider_cloud, default=entry.default_entry)
            return orchestrations.change(connection, identity, entry, now)

        changed = await self._write(work)
        return Reply(
            status=self._update_status, value=found(changed, f"There is no store entry with the id {identity}")
        )

    async def set_priorities(self, call: Call) -> Reply:
        """Give entries new priorities: all of them, or none where one is not there or another has that place."""
        form: OrchestrationStorePriorities = call.body
        priorities = {_entry_id(text): priority for text, priority in form.priorities.items()}

        def work(connection: Connection) -> list[OrchestrationStore]:
            if missing := orchestrations.set_priorities(connection, priorities):
                raise not_found(f"There is no store entry with the id {', '.join(map(str, missing))}")
            changed = (orchestrations.by_id(connection, identity) for identity in priorities)
            return [entry for entry in changed if entry is not None]

        return Reply(value=await self._write(work))

    async def toggle_default(self, call: Call) -> Reply:
        """Make an entry a default one, or no longer."""
        identity = call.number("id")

        def work(connection: Connection) -> OrchestrationStore | None:
            old = orchestrations.by_id(connection, identity)
            if old is None:
                return None
            _check_default(old.provider_cloud, default=not old.default_entry)
            orchestrations.set_default(connection, identity, default=not old.default_entry)
            return orchestrations.by_id(connection, identity)

        return Reply(value=found(await self._write(work), f"There is no store entry with the id {identity}"))

    async def delete_one(self, call: Call) -> Reply:
        """Delete an entry."""
        identity = call.number("id")
        deleted = await self._write(lambda connection: orchestrations.delete_entries(connection, id=identity))
        return Reply() if deleted else Reply(status=204)

    async def delete_of_consumer(self, call: Call) -> Reply:
        """Delete the entries of a consumer."""
        identity = call.number("systemId")
        deleted = await self._write(
            lambda connection: orchestrations.delete_entries(connection, consumer_system_id=identity)
        )
        return Reply() if deleted else Reply(status=204)

    def routes(self) -> list[Route]:
        """Everything about the store."""
        mgmt = Branch(f"{BASE}/mgmt/store", operator)
        public = Branch(f"{BASE}/store")
        one, many = OrchestrationStore, list[OrchestrationStore]
        return [
            mgmt.liveness("orchestrator/mgmt/store got it"),
            mgmt.route("GET", "/all", self.get_all, "All", answers=many),
            mgmt.route("GET", "/all_default", self.get_defaults, "All default entries", answers=many),
            mgmt.route("GET", "/{id}", self.get_one, "One", answers=one),
            mgmt.route(
                "PUT", "", self.query, "Entries of a consumer or a service",
                accepts=OrchestrationStoreQuery, answers=many,
            ),
            mgmt.route("POST", "", self.add, "Add", accepts=many, answers=many),
            mgmt.route(
                "PUT", "/update/{id}", self.update, "Change", accepts=one, answers=one, statuses=(self._update_status,)
            ),
            mgmt.route(
                "PUT", "/priorities", self.set_priorities, "Change priorities",
                accepts=OrchestrationStorePriorities, answers=many,
            ),
            mgmt.route("GET", "/default/{id}", self.toggle_default, "Toggle default", answers=one),
            mgmt.route("DELETE", "/{id}", self.delete_one, "Delete one", statuses=(200, 204)),
            mgmt.route(
                "DELETE", "/consumerId/{systemId}", self.delete_of_consumer, "Delete those of a consumer",
                statuses=(200, 204),
            ),
            public.liveness("orchestrator/store got it"),
            public.route(
                "GET", "/consumername/{systemName}", self.of_consumer, "Default entries of a consumer", answers=many
            ),
            public.route(
                "GET", "/consumername/{systemName}/servicedef/{serviceDef}", self.of_consumer,
                "Entries of a consumer for a service", answers=many,
            ),
            public.route(
                "GET", "/query", self.of_caller, "Entries of the system that asks, by its certificate", answers=many
            ),
            public.route(
                "GET", "/query/servicedef/{serviceDef}", self.of_caller,
                "Entries of the system that asks for a service, by its certificate", answers=many,
            ),
        ]  # fmt: skip


def _entry_id(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:20]) < 2**63:
        raise bad_payload(f"priorities: {text!r} is no id of a store entry")
    return int(text)


def _check_default(cloud: ArrowheadCloud | None, *, default: bool) -> None:
    if cloud is not None and default:
        raise bad_payload("Only store entries of the own cloud can be default entries")


def _may_orchestrate(caller: Caller, body: Any) -> bool:
    if body is None:
        return caller.is_local
    if body.flag("externalServiceRequest"):
        return caller.is_local and caller.name == "gatekeeper"
    return caller.is_named(body.requester_system.system_name)


def _needs(settings: Settings) -> Sequence[str]:
    own = ("AuthorizationControl", "TokenGeneration")
    return (*own, "GlobalServiceDiscovery", "InterCloudNegotiations") if settings.gatekeeper else own


def _listeners(core: Core) -> list[Listener]:
    orchestrator = Orchestrator(core)
    asked = Branch(f"{BASE}/orchestration", _may_orchestrate)
    prepared = Branch(f"{BASE}/orchestration")
    routes = [
        Branch(BASE).liveness("This is the Orchestrator."),
        prepared.liveness("This is the Orchestrator."),
        Branch(f"{BASE}/mgmt", operator).liveness("orchestrator/mgmt got it"),
        asked.route(
            "POST", "", orchestrator.orchestrate, "Find providers for a consumer",
            accepts=ServiceRequestForm, answers=OrchestrationResponse, traced=True,
        ),
        prepared.route(
            "GET", "/{systemId}", orchestrator.default_entries, "The prepared answer for a consumer",
            answers=OrchestrationResponse, traced=True,
        ),
        *Store(core).routes(),
        *management_routes(core, BASE),
    ]  # fmt: skip
    return [own_listener(core, core.settings.port, "Orchestrator", routes)]


SYSTEM = System(
    name="orchestrator",
    registered_name="ORCHESTRATOR",
    offers=lambda settings: (
        Offer(definition="OrchestrationService", uri="orchestrator/orchestration", port=settings.port),
    ),
    needs=_needs,
    listeners=_listeners,
)

if __name__ == "__main__":
    sys.exit(run(SYSTEM))
