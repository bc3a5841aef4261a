"""The Authorization system: which consumer may use which provider, which cloud which service, and tokens for both."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from sqlalchemy.engine import Connection

from toolkit.node.arrowhead import tokens
from toolkit.node.arrowhead.access import Access, anyone_local, either, only, operator
from toolkit.node.arrowhead.management import found, management_routes, some
from toolkit.node.arrowhead.messages import (
    InterCloudAuthEntry,
    InterCloudAuthorization,
    InterCloudAuthRequest,
    InterCloudAuthResponse,
    IntraCloudAuthEntry,
    IntraCloudAuthorization,
    IntraCloudAuthRequest,
    IntraCloudAuthResponse,
    TokenData,
    TokenGenerationRequest,
    TokenGenerationResponse,
)
from toolkit.node.arrowhead.peers import Offer
from toolkit.node.arrowhead.process import Core, Listener, System, own_listener, run
from toolkit.node.arrowhead.refusals import Refusal, not_found
from toolkit.node.arrowhead.routes import Branch, Call, Reply, Route
from toolkit.node.arrowhead.stores import authorisations, neighbours

log = logging.getLogger("toolkit.node.arrowhead.authorization")  # here __name__ is __main__

BASE = "/authorization"


class Authorization:
    """The handlers."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._storage = core.storage
        self._key_lock = asyncio.Lock()
        self._key: Any = None

    # ------------------------------------------------ for the core systems

    async def check_intra(self, call: Call) -> Reply:
        """Which of the providers the consumer may use."""
        request: IntraCloudAuthRequest = call.body
        allowed = await self._storage.read(
            lambda connection: authorisations.allowed_providers(connection, request),
            operation="intracloud",
            trace=call.trace,
        )
        if allowed is None:
            raise not_found(f"The consumer {request.consumer} is not in the authorization database")
        log.debug("%s may use %d of %d providers", request.consumer, sum(allowed), len(allowed))
        state = {str(provider): may for provider, may in zip(request.providers, allowed, strict=True)}
        return Reply(value=IntraCloudAuthResponse(authorization_state=state))

    async def check_inter(self, call: Call) -> Reply:
        """Whether the cloud may use the service."""
        request: InterCloudAuthRequest = call.body
        allowed = await self._storage.read(
            lambda connection: authorisations.is_cloud_allowed(connection, request),
            operation="intercloud",
            trace=call.trace,
        )
        if allowed is None:
            raise not_found(f"The cloud {request.cloud.cloud_name} of {request.cloud.operator} is not in the database")
        log.debug("%s may use %s: %s", request.cloud.cloud_name, request.service.service_definition, allowed)
        return Reply(value=InterCloudAuthResponse(authorized=allowed))

    async def make_tokens(self, call: Call) -> Reply:
        """A token for each provider whose public key is known."""
        request: TokenGenerationRequest = call.body
        cloud = request.consumer_cloud
        if cloud is None:
            secure = self._core.settings.secure
            cloud = await self._storage.read(
                lambda connection: neighbours.own_cloud(connection, secure=secure), operation="token", trace=call.trace
            )
        if cloud is None:
            raise not_found("The own cloud is not in the database")
        consumer = f"{request.consumer.system_name}.{cloud.cloud_name}.{cloud.operator}"
        signer = await self._signing_key()
        made = await asyncio.to_thread(_tokens_for, request, consumer, signer)
        if not made:
            message = "No token could be made for any of the providers; have they registered their public keys?"
            raise Refusal("ARROWHEAD", message)
        return Reply(value=TokenGenerationResponse(token_data=tuple(made)))

    async def public_key(self, _call: Call) -> Reply:
        """The key that tokens can be checked with."""
        return Reply(value=tokens.public_text((await self._signing_key()).public_key()))

    async def _signing_key(self) -> Any:
        async with self._key_lock:
            if self._key is None:
                files = self._core.settings.tls
                path = files.key if files is not None else self._core.settings.signing_key
                self._key = await asyncio.to_thread(tokens.load_signing_key, path)
        return self._key

    # ------------------------------------------------ for the operator

    async def allow_intra(self, call: Call) -> Reply:
        """Make rules within the cloud."""
        entry: IntraCloudAuthEntry = call.body
        made = await self._write(
            lambda connection: authorisations.allow_intra(
                connection, entry.consumer, entry.provider_list, entry.service_list
            )
        )
        return Reply(status=201, value=made)

    async def allow_inter(self, call: Call) -> Reply:
        """Make rules for another cloud."""
        entry: InterCloudAuthEntry = call.body
        made = await self._write(
            lambda connection: authorisations.allow_inter(connection, entry.cloud, entry.service_list)
        )
        return Reply(status=201, value=made)

    async def _write(self, work: Callable[[Connection], Any]) -> Any:
        return await self._storage.write(work, operation="mgmt")

    def rule_routes(
        self,
        noun: str,
        rule: Any,
        entry: Any,
        *,
        list_rules: Callable[..., list[Any]],
        delete_rules: Callable[..., int],
        make: Callable[[Call], Awaitable[Reply]],
    ) -> list[Route]:
        """List, get, make, replace and delete one kind of rule."""
        path = f"{BASE}/mgmt/{noun}cloud"
        message = f"There are no such {noun}-cloud authorization rights in the database"

        async def list_all(_call: Call) -> Reply:
            return Reply(value=some(await self._storage.read_all(list_rules, operation="mgmt"), message))

        async def get_one(call: Call) -> Reply:
            identity = call.number("id")
            rules = await self._storage.read(lambda connection: list_rules(connection, id=identity), operation="mgmt")
            return Reply(value=found(rules[0] if rules else None, message))

        async def delete_one(call: Call) -> Reply:
            identity = call.number("id")
            deleted = await self._write(lambda connection: delete_rules(connection, id=identity))
            return Reply() if deleted else Reply(status=204)

        async def add_one(call: Call) -> Reply:
            return Reply(status=202, value=(await make(call)).value)

        branch = Branch(path, operator)
        making = Branch(path, self._access(intra=noun == "intra"))
        return [
            branch.route("GET", "", list_all, "List rules", answers=list[rule]),
            making.route("POST", "", make, "Make rules", accepts=entry, answers=list[rule], statuses=(201,)),
            branch.route(
                "PUT", "", add_one, "Make rules, as in 4.1.2", accepts=entry, answers=list[rule], statuses=(202,)
            ),
            branch.route("GET", "/{id}", get_one, "Get a rule", answers=rule),
            branch.route("DELETE", "/{id}", delete_one, "Delete a rule", statuses=(200, 204)),
        ]

    def _access(self, *, intra: bool) -> Access:
        return either(operator, anyone_local) if intra and self._core.settings.auth_for_cloud else operator

    def routes(self) -> list[Route]:
        """Everything the Authorization system answers."""
        core_systems = anyone_local if self._core.settings.auth_for_cloud else only("orchestrator", "gatekeeper")
        asked = Branch(BASE, core_systems)
        mgmt = Branch(f"{BASE}/mgmt", operator)
        keys = Branch(f"{BASE}/mgmt/publickey", either(operator, only("certificate_authority")))
        return [
            asked.liveness("This is the Authorization System."),
            mgmt.liveness("authorization/mgmt got it"),
            asked.route(
                "PUT", "/intracloud", self.check_intra, "May a consumer use these providers?",
                accepts=IntraCloudAuthRequest, answers=IntraCloudAuthResponse,
            ),
            asked.route(
                "PUT", "/intercloud", self.check_inter, "May a cloud use this service?",
                accepts=InterCloudAuthRequest, answers=InterCloudAuthResponse,
            ),
            asked.route(
                "PUT", "/token", self.make_tokens, "Make tokens for a consumer",
                accepts=TokenGenerationRequest, answers=TokenGenerationResponse,
            ),
            keys.route("GET", "", self.public_key, "The public key", answers=str),
            *self.rule_routes(
                "intra", IntraCloudAuthorization, IntraCloudAuthEntry, list_rules=authorisations.list_intra,
                delete_rules=authorisations.delete_intra, make=self.allow_intra,
            ),
            *self.rule_routes(
                "inter", InterCloudAuthorization, InterCloudAuthEntry, list_rules=authorisations.list_inter,
                delete_rules=authorisations.delete_inter, make=self.allow_inter,
            ),
            *management_routes(self._core, BASE),
        ]  # fmt: skip


def _tokens_for(request: TokenGenerationRequest, consumer: str, signer: Any) -> list[TokenData]:
    made = []
    for provider in request.providers:
        try:
            token = tokens.make_token(
                service=request.service,
                consumer=consumer,
                duration_ms=request.duration,
                provider_key=provider.authentication_info,
                signer=signer,
            )
        except tokens.TokenError as error:
            log.debug("no token for %s: %s", provider, error)
            continue
        made.append(TokenData(system=provider, service=request.service, token=token.token, signature=token.signature))
    return made


def _listeners(core: Core) -> list[Listener]:
    return [own_listener(core, core.settings.port, "Authorization", Authorization(core).routes())]


SYSTEM = System(
    name="authorization",
    registered_name="AUTHORIZATION",
    offers=lambda settings: (
        Offer(definition="AuthorizationControl", uri="authorization", port=settings.port),
        Offer(definition="TokenGeneration", uri="authorization/token", port=settings.port),
    ),
    needs=lambda _settings: (),
    listeners=_listeners,
)

if __name__ == "__main__":
    sys.exit(run(SYSTEM))
