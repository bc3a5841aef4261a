"""An application provider: a thermometer that registers itself, answers readings, and in secure mode checks tokens."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import ssl
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl

from cryptography.hazmat.primitives.asymmetric import rsa

from toolkit.contract import metrics
from toolkit.errors import ToolkitError, UsageError
from toolkit.node.arrowhead import logs, tls, tokens
from toolkit.node.arrowhead.access import common_name_of
from toolkit.node.arrowhead.http_client import HttpClient
from toolkit.node.arrowhead.http_server import HttpServer, Request, Response
from toolkit.node.arrowhead.messages import ArrowheadService, ArrowheadSystem, ServiceRegistryEntry
from toolkit.node.arrowhead.peers import exchange
from toolkit.node.arrowhead.pretty import pretty
from toolkit.node.arrowhead.public_keys import public_key
from toolkit.node.arrowhead.refusals import Refusal
from toolkit.node.arrowhead.settings import Settings, settings_from
from toolkit.node.exposition import CONTENT_TYPE, Histogram, metrics_page

log = logging.getLogger("toolkit.node.arrowhead.provider")  # here __name__ is __main__

_RETRY_S = (0.2, 10.0)
"""First and longest pause between two tries to register."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered:
    """What the provider offers."""

    system: str
    service: str
    interfaces: tuple[str, ...]
    metadata: Mapping[str, str]
    uri: str
    authorization_key: rsa.RSAPublicKey | None
    """With which tokens are checked; None: none are asked for."""


def offered_from(environ: Mapping[str, str]) -> Offered:
    """Read TOOLKIT_PROVIDER_*; raises UsageError."""
    metadata = environ.get("TOOLKIT_PROVIDER_METADATA", "")
    pairs = [pair.partition("=") for pair in metadata.split(",") if pair]
    if any(not equals for _, equals, _ in pairs):
        raise UsageError(f"TOOLKIT_PROVIDER_METADATA is {metadata!r}; write it as unit=celsius,precision=1")
    key = environ.get("TOOLKIT_PROVIDER_AUTHORIZATION_KEY", "")
    try:
        authorization_key = tokens.public_key_from(key) if key else None
    except tokens.TokenError as error:
        raise UsageError(f"TOOLKIT_PROVIDER_AUTHORIZATION_KEY: {error}; see GET mgmt/publickey") from None
    return Offered(
        system=environ.get("TOOLKIT_PROVIDER_SYSTEM", "provider1"),
        service=environ.get("TOOLKIT_PROVIDER_SERVICE", "IndoorTemperature"),
        interfaces=tuple(environ.get("TOOLKIT_PROVIDER_INTERFACES", "JSON").split(",")),
        metadata={name: value for name, _, value in pairs},
        uri=environ.get("TOOLKIT_PROVIDER_URI", "temperature").strip("/"),
        authorization_key=authorization_key,
    )


class Provider:
    """The service and its registration."""

    def __init__(self, settings: Settings, offered: Offered) -> None:
        self._settings = settings
        self._offered = offered
        files = settings.tls
        self._key = tokens.load_signing_key(files.key) if files is not None else None
        self._client = HttpClient(tls=_client_tls(settings))
        self._registry = f"{settings.scheme}://{settings.registry}/serviceregistry"
        self.registered = False
        self.readings = Histogram()
        self.refused = 0

    async def handle(self, request: Request) -> Response:
        """One reading, or why not."""
        if request.path.strip("/") != self._offered.uri:
            return Response(status=404, body=b"no such service\n", content_type="text/plain")
        if request.method != "GET":
            return Response(status=405, body=b"only GET\n", content_type="text/plain")
        try:
            await self._check(request)
        except tokens.TokenError as error:
            self.refused += 1
            # The framework's provider says 500 to every bad token.
            return Response(status=500, body=f"{error}\n".encode(), content_type="text/plain")
        now_s = time.time()
        reading = {
            "bn": self._offered.system,
            "bt": now_s,
            "bu": "celsius",
            "ver": 1,
            "e": [{"n": f"{self._offered.service}_{self._offered.system}", "v": 21.0, "t": 0.0}],
        }
        body = pretty(reading).encode()
        self.readings.observe((time.time_ns() - request.received_ns) / 1e9)
        return Response(status=200, body=body, content_type="application/json")

    async def _check(self, request: Request) -> None:
        key, authorization_key = self._key, self._offered.authorization_key
        if key is None or authorization_key is None:
            return
        query = dict(parse_qsl(request.query))
        token = tokens.Token(token=query.get("token", ""), signature=query.get("signature", ""))
        consumer = common_name_of(request.certificate).partition(".")[0]
        await asyncio.to_thread(
            tokens.check_token, token, consumer=consumer, provider_key=key, authorization_key=authorization_key
        )

    def entry(self) -> ServiceRegistryEntry:
        """What is registered."""
        files = self._settings.tls
        return ServiceRegistryEntry(
            provided_service=ArrowheadService(
                service_definition=self._offered.service,
                interfaces=self._offered.interfaces,
                service_metadata=self._offered.metadata,
            ),
            provider=ArrowheadSystem(
                system_name=self._offered.system,
                address=self._settings.address,
                port=self._settings.port,
                authentication_info=None if files is None else public_key(files.certificate),
            ),
            service_uri=self._offered.uri,
        )

    async def register(self) -> None:
        """Register, as long as it takes; an entry of an earlier life is replaced."""
        wait_s, longest_s = _RETRY_S
        while not self.registered:
            try:
                await self._register_once()
                self.registered = True
                log.info("registered %s", self._offered.service)
            except Refusal as refusal:
                log.warning("not registered: %s: %s", refusal.kind, refusal.message)
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, longest_s)

    async def _register_once(self) -> None:
        try:
            await self._tell("POST", "register")
        except Refusal as refusal:
            if refusal.kind != "DUPLICATE_ENTRY":
                raise
            await self._tell("PUT", "remove")
            await self._tell("POST", "register")

    async def _tell(self, method: str, path: str) -> None:
        await exchange(self._client, method, f"{self._registry}/{path}", self.entry(), type(None))

    async def deregister(self) -> None:
        """Take the entry back, if the Service Registry is there."""
        if self.registered:
            with contextlib.suppress(Refusal, TimeoutError):
                async with asyncio.timeout(2.0):
                    await self._tell("PUT", "remove")
        self._client.close()


def _client_tls(settings: Settings) -> ssl.SSLContext | None:
    files = settings.tls
    if files is None:
        return None
    return tls.client_context(files.certificate, files.key, files.cloud_ca, verify_host=settings.verify_host)


def _server_tls(settings: Settings) -> ssl.SSLContext | None:
    files = settings.tls
    return None if files is None else tls.server_context(files.certificate, files.key, files.cloud_ca)


async def _serve(settings: Settings, offered: Offered) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    provider = Provider(settings, offered)
    server = HttpServer(provider.handle, tls=_server_tls(settings))
    pages = HttpServer(lambda request: _page(provider, request))
    try:
        await server.start(settings.bind, settings.port)
        await pages.start("0.0.0.0", settings.process.metrics_port)
    except OSError as error:
        raise ToolkitError(
            f"cannot listen on port {settings.port} or {settings.process.metrics_port}: {error.strerror or error}"
        ) from None
    registering = asyncio.create_task(provider.register())
    await stopped.wait()
    registering.cancel()
    await provider.deregister()
    await server.stop()
    await pages.stop(0.1)


async def _page(provider: Provider, request: Request) -> Response:
    if request.path == "/healthz":
        status, text = (200, "ok\n") if provider.registered else (503, "not registered yet\n")
        return Response(status=status, body=text.encode(), content_type="text/plain")
    if request.path == "/metrics":
        page = metrics_page(
            {
                metrics.ARROWHEAD_REQUEST: {("reading", "200"): provider.readings},
                metrics.ARROWHEAD_READY: float(provider.registered),
            }
        )
        return Response(status=200, body=page.encode(), content_type=CONTENT_TYPE)
    return Response(status=404, body=b"see /metrics and /healthz\n", content_type="text/plain")


def main() -> int:
    """Serve until SIGTERM; returns the exit code."""
    try:
        settings = settings_from("provider", os.environ)
        logs.configure(settings.process, "provider")
        asyncio.run(_serve(settings, offered_from(os.environ)))
    except ToolkitError as error:
        sys.stderr.write(json.dumps({"event": "failed", "service": "provider", "error": str(error)}) + "\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
