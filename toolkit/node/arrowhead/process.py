"""The life of a core system's process: settings, database, ports, registration, metrics, and an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import signal
import ssl
import sys
from collections import defaultdict
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.contract import metrics
from toolkit.errors import ToolkitError
from toolkit.node.arrowhead import certificates, logs, tls
from toolkit.node.arrowhead.front import Front
from toolkit.node.arrowhead.http_client import HttpClient
from toolkit.node.arrowhead.http_server import HttpServer, Limits, Request, Response
from toolkit.node.arrowhead.peers import Member, Offer, Peers
from toolkit.node.arrowhead.public_keys import public_key
from toolkit.node.arrowhead.refusals import Refusal
from toolkit.node.arrowhead.routes import Route
from toolkit.node.arrowhead.seed import load_seed, plant
from toolkit.node.arrowhead.settings import Settings, settings_from
from toolkit.node.arrowhead.sql_log import write_rows_too
from toolkit.node.arrowhead.storage import Storage, open_storage
from toolkit.node.arrowhead.trace import Recorder
from toolkit.node.exposition import CONTENT_TYPE, Histogram, metrics_page
from toolkit.node.loops import run_in_loop

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Core:
    """What the handlers of a core system work with."""

    settings: Settings
    storage: Storage
    peers: Peers
    recorder: Recorder


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """One port of a system, and what it answers there."""

    port: int
    title: str
    routes: Sequence[Route]
    tls: ssl.SSLContext | None = None
    server_cloud: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """One kind of core system."""

    name: str
    """As in `contract.arrowhead.PORTS`."""
    registered_name: str
    offers: Callable[[Settings], Sequence[Offer]]
    needs: Callable[[Settings], Sequence[str]]
    listeners: Callable[[Core], Sequence[Listener]]
    background: Callable[[Core], Sequence[Coroutine[Any, Any, None]]] = lambda _core: ()


class Figures:
    """The numbers behind a system's /metrics."""

    def __init__(self) -> None:
        self.requests: defaultdict[tuple[str, ...], Histogram] = defaultdict(Histogram)
        self.queries: defaultdict[tuple[str, ...], Histogram] = defaultdict(Histogram)

    def request(self, operation: str, status: int, seconds: float) -> None:
        """Count one answer."""
        self.requests[operation, str(status)].observe(seconds)

    def query(self, operation: str, seconds: float) -> None:
        """Count one unit of database work."""
        self.queries[(operation,)].observe(seconds)


def run(system: System) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code."""
    try:
        settings = settings_from(system.name, os.environ)
        logs.configure(settings.process, system.name)
        run_in_loop(_serve(system, settings))
    except ToolkitError as error:
        sys.stderr.write(json.dumps({"event": "failed", "service": system.name, "error": str(error)}) + "\n")
        return error.exit_code
    return 0


async def _serve(system: System, settings: Settings) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with contextlib.AsyncExitStack() as stack:
        core, figures = await _open(system, settings, stack)
        servers = {}
        for listener in system.listeners(core):
            servers[listener.port] = await _listen(core, listener, figures)
            stack.push_async_callback(servers[listener.port].stop)
        pages = HttpServer(_pages(core, figures, servers))
        await _start(pages, "0.0.0.0", settings.process.metrics_port)
        stack.push_async_callback(pages.stop, 0.1)
        core.peers.start()
        stack.push_async_callback(core.peers.stop)
        tasks = [asyncio.create_task(work) for work in (core.recorder.run(), *system.background(core))]
        ports = {"ports": sorted(server.port for server in servers.values()), "metrics": pages.port}
        log.info("serving %s", json.dumps(ports))
        # What lives as long as the process is not looked through again: a full collection stops it for 10 ms and more.
        gc.collect()
        gc.freeze()
        await stopped.wait()
        log.info("stopping")
        for task in tasks:
            task.cancel()


async def _open(system: System, settings: Settings, stack: contextlib.AsyncExitStack) -> tuple[Core, Figures]:
    figures = Figures()
    storage = await asyncio.to_thread(
        open_storage,
        settings.database_url,
        password=settings.database_password,
        pool=settings.database_pool,
        timeout_s=settings.database_timeout_s,
    )
    stack.callback(storage.close)
    storage.observe = figures.query
    if settings.seed is not None:
        seed = load_seed(settings.seed)
        new = await storage.write(lambda connection: plant(connection, seed), operation="seed")
        log.info("seeded %s", json.dumps(new))
    if settings.sql_log:
        write_rows_too(storage)
    process = settings.process
    recorder = Recorder(
        system=system.name,
        cloud=settings.cloud,
        samples=Path(process.samples_dir) if "TOOLKIT_SAMPLES_DIR" in os.environ else None,
        name=f"{process.service}-{process.instance}",
    )
    stack.callback(recorder.flush)
    client = HttpClient(tls=_client_tls(settings), read_timeout_s=settings.peer_timeout_s)
    stack.callback(client.close)
    own_key = None
    if settings.tls is not None:
        certificates.own_name(settings.tls)
        own_key = public_key(settings.tls.certificate)
    member = Member(
        name=system.registered_name,
        address=settings.address,
        registry=settings.registry,
        interface=settings.quirks.core_interfaces[settings.secure],
        secure=settings.secure,
        public_key=own_key,
    )
    peers = Peers(member, client, offers=system.offers(settings), needs=system.needs(settings))
    return Core(settings=settings, storage=storage, peers=peers, recorder=recorder), figures


def _client_tls(settings: Settings) -> ssl.SSLContext | None:
    files = settings.tls
    if files is None:
        return None
    return tls.client_context(files.certificate, files.key, files.cloud_ca, verify_host=settings.verify_host)


def own_listener(core: Core, port: int, title: str, routes: Sequence[Route]) -> Listener:
    """A port for the systems of the own cloud, in the mode of the settings."""
    files = core.settings.tls
    if files is None:
        return Listener(port=port, title=title, routes=routes)
    return Listener(
        port=port,
        title=title,
        routes=routes,
        tls=tls.server_context(files.certificate, files.key, files.cloud_ca),
        server_cloud=certificates.own_name(files).partition(".")[2],
    )


async def _listen(core: Core, listener: Listener, figures: Figures) -> HttpServer:
    settings = core.settings

    def report(refusal: Refusal) -> None:
        core.peers.report(refusal)

    front = Front(
        listener.routes,
        title=listener.title,
        quirks=settings.quirks,
        recorder=core.recorder,
        server_cloud=listener.server_cloud,
        observe=figures.request,
        report=report,
    )
    limits = Limits(body_bytes=settings.body_bytes, request_s=settings.request_s)
    server = HttpServer(front.handle, limits=limits, tls=listener.tls, refuse=front.refuse)
    await _start(server, settings.bind, listener.port)
    return server


async def _start(server: HttpServer, host: str, port: int) -> None:
    try:
        await server.start(host, port)
    except OSError as error:
        raise ToolkitError(
            f"cannot listen on {host}:{port}: {error.strerror or error}; is another process using the port?"
        ) from None


def _pages(
    core: Core, figures: Figures, servers: dict[int, HttpServer]
) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    async def problem() -> str | None:
        peers = core.peers
        if not peers.registered:
            return "not registered with the Service Registry yet"
        if peers.missing:
            return f"not found yet: {', '.join(peers.missing)}"
        try:
            await core.storage.read(lambda connection: connection.exec_driver_sql("SELECT 1"), operation="health")
        except Refusal as refusal:
            return refusal.message
        return None

    async def handle(request: Request) -> Response:
        if request.path == "/healthz":
            found = await problem()
            body = f"{found or 'ok'}\n".encode()
            return Response(status=503 if found else 200, body=body, content_type="text/plain")
        if request.path == "/metrics":
            ready = core.peers.registered and not core.peers.missing
            page = metrics_page(
                {
                    metrics.ARROWHEAD_REQUEST: dict(figures.requests),
                    metrics.ARROWHEAD_QUERY: dict(figures.queries),
                    metrics.ARROWHEAD_CONNECTIONS: {
                        (str(port),): float(len(server.connections)) for port, server in servers.items()
                    },
                    metrics.ARROWHEAD_READY: float(ready),
                }
            )
            return Response(status=200, body=page.encode(), content_type=CONTENT_TYPE)
        return Response(status=404, body=b"see /metrics and /healthz\n", content_type="text/plain")

    return handle
