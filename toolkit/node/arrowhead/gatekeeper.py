"""The Gatekeeper: finds a service in other clouds for the own Orchestrator, and lets other clouds find ours.

It has two ports: the inbound one is called by the Gatekeepers of other clouds, the outbound one by the own cloud.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import sys
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy.engine import Connection

from toolkit.errors import UsageError
from toolkit.node.arrowhead import certificates, tls
from toolkit.node.arrowhead.access import any_cloud, only, operator
from toolkit.node.arrowhead.http_client import HttpClient
from toolkit.node.arrowhead.management import created, found, management_routes, some
from toolkit.node.arrowhead.messages import (
    ArrowheadCloud,
    ArrowheadService,
    Broker,
    GSDAnswer,
    GSDPoll,
    GSDRequestForm,
    GSDResult,
    ICNProposal,
    ICNRequestForm,
    ICNResult,
    InterCloudAuthRequest,
    InterCloudAuthResponse,
    NeighborCloud,
    OrchestrationResponse,
    PreferredProvider,
    ServiceQueryForm,
    ServiceQueryResult,
    ServiceRequestForm,
)
from toolkit.node.arrowhead.peers import Offer, exchange
from toolkit.node.arrowhead.process import Core, Listener, System, own_listener, run
from toolkit.node.arrowhead.refusals import Refusal, not_found, unauthorized
from toolkit.node.arrowhead.routes import Branch, Call, Reply, Route
from toolkit.node.arrowhead.stores import identities, neighbours
from toolkit.node.arrowhead.trace import Trace

log = logging.getLogger("toolkit.node.arrowhead.gatekeeper")  # here __name__ is __main__

BASE = "/gatekeeper"
_NEGOTIATION_MS = 30_000


class Outbound:
    """The side towards the own cloud: it asks other clouds."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._storage = core.storage
        self._client = HttpClient(tls=_outgoing_tls(core), read_timeout_s=core.settings.peer_timeout_s)

    async def discover(self, call: Call) -> Reply:
        """Which clouds offer the service."""
        form: GSDRequestForm = call.body
        secure = self._core.settings.secure

        def work(connection: Connection) -> tuple[ArrowheadCloud | None, list[ArrowheadCloud]]:
            own = neighbours.own_cloud(connection, secure=secure)
            asked = form.search_perimeter or neighbours.list_neighbours(connection, secure=secure)
            return own, list(asked)

        own, clouds = await self._storage.read(work, operation="init_gsd", trace=call.trace)
        poll = GSDPoll(
            requested_service=form.requested_service,
            requester_cloud=_known(own),
            registry_flags={name: bool(form.registry_flags.get(name)) for name in ("metadataSearch", "pingProviders")},
        )
        outcomes = await self._poll(clouds, poll, call.trace)
        answers = tuple(outcome for outcome in outcomes if isinstance(outcome, GSDAnswer))
        log.debug("%d of %d clouds offer %s", len(answers), len(clouds), form.requested_service.service_definition)
        if not answers and outcomes and isinstance(last := outcomes[-1], Refusal):
            message = f"No neighbour cloud offers {form.requested_service.service_definition}; the last said: "
            raise Refusal("ARROWHEAD", message + last.message, status=last.status)
        return Reply(value=GSDResult(response=answers))

    async def _poll(
        self, clouds: Sequence[ArrowheadCloud], poll: GSDPoll, trace: Trace | None
    ) -> list[GSDAnswer | Refusal]:
        async def ask(cloud: ArrowheadCloud) -> GSDAnswer | Refusal:
            try:
                return await exchange(self._client, "PUT", f"{_address(cloud)}/gsd_poll", poll, GSDAnswer, trace)
            except Refusal as refusal:
                log.debug("%s: %s", cloud.cloud_name, refusal.message)
                return refusal

        if self._core.settings.gsd == "parallel":
            return list(await asyncio.gather(*(ask(cloud) for cloud in clouds)))
        return [await ask(cloud) for cloud in clouds]

    async def negotiate(self, call: Call) -> Reply:
        """Get providers from one cloud."""
        form: ICNRequestForm = call.body
        secure = self._core.settings.secure
        own = await self._storage.read(
            lambda connection: neighbours.own_cloud(connection, secure=secure), operation="init_icn", trace=call.trace
        )
        proposal = ICNProposal(
            requested_service=form.requested_service,
            requester_cloud=_known(own),
            requester_system=form.requester_system,
            preferred_systems=form.preferred_systems,
            negotiation_flags={**form.negotiation_flags, "useGateway": False},
            timeout=_NEGOTIATION_MS,
        )
        url = f"{_address(form.target_cloud)}/icn_proposal"
        return Reply(value=await exchange(self._client, "PUT", url, proposal, ICNResult, call.trace))

    # ------------------------------------------------ for the operator

    async def _write(self, work: Callable[[Connection], Any]) -> Any:
        return await self._storage.write(work, operation="mgmt")

    async def list_neighbours(self, _call: Call) -> Reply:
        """Every neighbour."""
        clouds = await self._storage.read_all(neighbours.list_neighbours, operation="mgmt")
        some(clouds, "There are no neighbour clouds in the database")
        return Reply(value=[NeighborCloud(cloud=cloud) for cloud in clouds])

    async def get_neighbour(self, call: Call) -> Reply:
        """One neighbour."""
        names = call.parameters["operator"], call.parameters["cloudName"]
        cloud = await self._storage.read(lambda connection: neighbours.neighbour(connection, *names), operation="mgmt")
        return Reply(value=NeighborCloud(cloud=found(cloud, f"There is no neighbour cloud {'/'.join(names)}")))

    async def add_neighbours(self, call: Call) -> Reply:
        """Add those that are new."""
        made = await self._write(
            lambda connection: [
                NeighborCloud(cloud=cloud)
                for one in call.body
                if (cloud := neighbours.add_neighbour(connection, one.cloud)) is not None
            ]
        )
        return created(made)

    async def change_neighbour(self, call: Call) -> Reply:
        """Give a neighbour another address or key."""
        cloud: ArrowheadCloud = call.body.cloud

        def work(connection: Connection) -> ArrowheadCloud | None:
            known = neighbours.neighbour(connection, cloud.operator, cloud.cloud_name)
            if known is None or known.id is None:
                return None
            identities.update_cloud(connection, known.id, **identities.cloud_values(cloud))
            return neighbours.neighbour(connection, cloud.operator, cloud.cloud_name)

        changed = await self._write(work)
        return Reply(status=204) if changed is None else Reply(status=202, value=NeighborCloud(cloud=changed))

    async def delete_neighbour(self, call: Call) -> Reply:
        """Make a cloud no neighbour any more."""
        names = call.parameters["operator"], call.parameters["cloudName"]
        deleted = await self._write(lambda connection: neighbours.delete_neighbour(connection, *names))
        return Reply() if deleted else Reply(status=204)

    async def list_brokers(self, _call: Call) -> Reply:
        """Every broker."""
        brokers = await self._storage.read_all(neighbours.list_brokers, operation="mgmt")
        return Reply(value=some(brokers, "There are no brokers in the database"))

    async def add_brokers(self, call: Call) -> Reply:
        """Add those that are new."""
        made = await self._write(
            lambda connection: [
                broker for one in call.body if (broker := neighbours.add_broker(connection, one)) is not None
            ]
        )
        return created(made)

    async def change_broker(self, call: Call) -> Reply:
        """Change a broker."""
        identity = call.number("id")
        broker = await self._write(lambda connection: neighbours.change_broker(connection, identity, call.body))
        return Reply(status=202, value=found(broker, f"There is no broker with the id {identity}"))

    async def delete_broker(self, call: Call) -> Reply:
        """Delete a broker."""
        identity = call.number("id")
        deleted = await self._write(lambda connection: neighbours.delete_broker(connection, identity))
        return Reply() if deleted else Reply(status=204)

    def routes(self) -> list[Route]:
        """What the outbound port answers."""
        own = Branch(BASE, only("orchestrator"))
        mgmt = Branch(f"{BASE}/mgmt", operator)
        neighbourhood = Branch(f"{BASE}/mgmt/neighborhood", operator)
        by_name = "/operator/{operator}/cloudname/{cloudName}"
        brokers = Branch(f"{BASE}/mgmt/brokers", operator)
        one, many = NeighborCloud, list[NeighborCloud]
        return [
            Branch(BASE).liveness("This is the outbound Gatekeeper."),
            mgmt.liveness("gatekeeper/mgmt got it"),
            own.route(
                "PUT", "/init_gsd", self.discover, "Global Service Discovery",
                accepts=GSDRequestForm, answers=GSDResult,
            ),
            own.route(
                "PUT", "/init_icn", self.negotiate, "Inter-Cloud Negotiations",
                accepts=ICNRequestForm, answers=ICNResult,
            ),
            neighbourhood.route("GET", "", self.list_neighbours, "Neighbours", answers=many),
            neighbourhood.route(
                "POST", "", self.add_neighbours, "Add neighbours", accepts=many, answers=many, statuses=(201, 204)
            ),
            neighbourhood.route(
                "PUT", "", self.change_neighbour, "Change a neighbour", accepts=one, answers=one, statuses=(202, 204)
            ),
            neighbourhood.route("GET", by_name, self.get_neighbour, "One", answers=one),
            neighbourhood.route("DELETE", by_name, self.delete_neighbour, "Delete a neighbour", statuses=(200, 204)),
            brokers.route("GET", "", self.list_brokers, "Brokers", answers=list[Broker]),
            brokers.route(
                "POST", "", self.add_brokers, "Add brokers", accepts=list[Broker], answers=list[Broker],
                statuses=(201, 204),
            ),
            brokers.route(
                "PUT", "/{id}", self.change_broker, "Change a broker", accepts=Broker, answers=Broker, statuses=(202,)
            ),
            brokers.route("DELETE", "/{id}", self.delete_broker, "Delete a broker", statuses=(200, 204)),
            *management_routes(self._core, BASE),
        ]  # fmt: skip


class Inbound:
    """The side towards other clouds: it answers for the own one."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._peers = core.peers

    async def poll(self, call: Call) -> Reply:
        """Whether this cloud offers the service to that one."""
        form: GSDPoll = call.body
        self._check_caller(call, form.requester_cloud)
        await self._authorize(form.requester_cloud, form.requested_service, call.trace)
        query = ServiceQueryForm(
            service=form.requested_service,
            ping_providers=bool(form.registry_flags.get("pingProviders")),
            metadata_search=bool(form.registry_flags.get("metadataSearch")),
        )
        result = await self._peers.call("PUT", f"{self._peers.registry}/query", query, ServiceQueryResult, call.trace)
        if not result.service_query_data:
            raise not_found(f"Nobody in this cloud provides {form.requested_service.service_definition} as asked for")
        secure = self._core.settings.secure
        own = await self._core.storage.read(
            lambda connection: neighbours.own_cloud(connection, secure=secure), operation="gsd_poll", trace=call.trace
        )
        return Reply(value=GSDAnswer(requested_service=form.requested_service, provider_cloud=_known(own)))

    async def propose(self, call: Call) -> Reply:
        """Providers of this cloud for a consumer of that one."""
        form: ICNProposal = call.body
        self._check_caller(call, form.requester_cloud)
        await self._authorize(form.requester_cloud, form.requested_service, call.trace)
        if form.negotiation_flags.get("useGateway"):
            raise Refusal(
                "ARROWHEAD",
                "The requester cloud wants a gateway, and this cloud has none; set use_gateway=false in that one",
            )
        request = ServiceRequestForm(
            requester_system=form.requester_system,
            requester_cloud=form.requester_cloud,
            requested_service=form.requested_service,
            orchestration_flags=form.negotiation_flags,
            preferred_providers=tuple(PreferredProvider(provider_system=one) for one in form.preferred_systems),
        )
        url = self._peers.url("OrchestrationService")
        response = await self._peers.call("POST", url, request, OrchestrationResponse, call.trace)
        return Reply(value=ICNResult(orch_response=response))

    def _check_caller(self, call: Call, cloud: ArrowheadCloud) -> None:
        """In strict mode a cloud can speak only for itself; the originals do not look."""
        if call.caller is None or not self._core.settings.strict_cloud:
            return
        claimed = f"{cloud.cloud_name}.{cloud.operator}.arrowhead.eu"
        if call.caller.common_name.lower() != claimed.lower():
            raise unauthorized(f"{call.caller.common_name} cannot speak for {claimed}")

    async def _authorize(self, cloud: ArrowheadCloud, service: ArrowheadService, trace: Trace | None) -> None:
        request = InterCloudAuthRequest(cloud=cloud, service=service)
        url = f"{self._peers.url('AuthorizationControl')}/intercloud"
        response = await self._peers.call("PUT", url, request, InterCloudAuthResponse, trace)
        if not response.authorized:
            raise unauthorized(f"The cloud {cloud.cloud_name} may not use {service.service_definition}")

    def routes(self) -> list[Route]:
        """What the inbound port answers."""
        asked = Branch(BASE, any_cloud)
        return [
            asked.liveness("This is the inbound Gatekeeper."),
            asked.route("PUT", "/gsd_poll", self.poll, "Do you have this service?", accepts=GSDPoll, answers=GSDAnswer),
            asked.route(
                "PUT", "/icn_proposal", self.propose, "Give us providers", accepts=ICNProposal, answers=ICNResult
            ),
        ]


def _known(cloud: ArrowheadCloud | None) -> ArrowheadCloud:
    if cloud is None:
        raise Refusal("DATA_NOT_FOUND", "The own cloud is not in the database; see ownCloud in the seed file")
    return cloud


def _address(cloud: ArrowheadCloud) -> str:
    scheme = "https" if cloud.secure else "http"
    return f"{scheme}://{cloud.address}:{cloud.port}/{cloud.gatekeeper_service_uri.strip('/')}"


def _outgoing_tls(core: Core) -> ssl.SSLContext | None:
    files = core.settings.tls
    if files is None:
        return None
    certificate, key, master = _cloud_files(core)
    return tls.client_context(certificate, key, master, verify_host=core.settings.verify_host)


def _cloud_files(core: Core) -> Any:
    files = core.settings.tls
    paths = (files.cloud_certificate, files.cloud_key, files.master_ca) if files is not None else (None,)
    if None in paths:
        message = (
            "a Gatekeeper in secure mode shows its cloud's certificate to other clouds; set "
            "TOOLKIT_ARROWHEAD_TLS_CLOUD_CERTIFICATE_FILE, _TLS_CLOUD_KEY_FILE and _TLS_MASTER_CA_FILE"
        )
        raise UsageError(message)
    return paths


def _listeners(core: Core) -> list[Listener]:
    settings = core.settings
    routes = Inbound(core).routes()
    inbound = Listener(port=settings.port, title="Gatekeeper, inbound", routes=routes)
    if settings.secure:
        certificate, key, master = _cloud_files(core)
        inbound = Listener(
            port=settings.port,
            title="Gatekeeper, inbound",
            routes=routes,
            tls=tls.server_context(certificate, key, master),
            server_cloud=certificates.cloud_name(certificate),
        )
    return [inbound, own_listener(core, settings.outbound_port, "Gatekeeper, outbound", Outbound(core).routes())]


SYSTEM = System(
    name="gatekeeper",
    registered_name="gatekeeper",
    offers=lambda settings: (
        Offer(definition="GlobalServiceDiscovery", uri="gatekeeper/init_gsd", port=settings.outbound_port),
        Offer(definition="InterCloudNegotiations", uri="gatekeeper/init_icn", port=settings.outbound_port),
    ),
    needs=lambda _settings: ("AuthorizationControl", "OrchestrationService"),
    listeners=_listeners,
)

if __name__ == "__main__":
    sys.exit(run(SYSTEM))
