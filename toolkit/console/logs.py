"""What the services say."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from toolkit import ssh
from toolkit.console.held import console_of
from toolkit.console.pages import page
from toolkit.contract.bundle import Container
from toolkit.controller.deploy import bundles_of
from toolkit.errors import ToolkitError, UsageError
from toolkit.spec.testbed import Testbed
from toolkit.state import Deployment, Host

LINES = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One container whose log can be shown."""

    node: str
    container: Container
    host: Host

    @property
    def key(self) -> str:
        """How addresses name it."""
        return f"{self.node}/{self.container.name}"


def show(request: Request) -> Response:
    """The page of a testbed's logs; with `part`, only the lines."""
    entry = console_of(request).entry(request)
    sources = sources_of(entry.testbed, entry.deployment) if entry.testbed and entry.deployment else []
    asked = request.query_params
    chosen = _choose(sources, asked.get("source", ""), node=asked.get("node", ""), service=asked.get("service", ""))
    lines, problem = "", ""
    if chosen:
        try:
            lines = read_log(chosen)
        except ToolkitError as error:
            problem = str(error)
    name = "log" if request.headers.get("hx-request") else "logs"
    return page(request, name, entry=entry, sources=sources, chosen=chosen, lines=lines, problem=problem, most=LINES)


def sources_of(testbed: Testbed, deployment: Deployment) -> list[Source]:
    """Every container that the testbed has by its file."""
    bundles = bundles_of(testbed, deployment)
    return [
        Source(node=node, container=container, host=deployment.hosts[node])
        for node, bundle in sorted(bundles.items())
        for container in bundle.containers
    ]


def read_log(source: Source) -> str:
    """The last lines of a container."""
    command = ["docker", "logs", "--tail", str(LINES), source.container.name]
    ran = ssh.run(source.host, command, as_root=True, check=False, timeout_s=20.0)
    return ran.stdout + ran.stderr


def _choose(sources: list[Source], key: str, *, node: str, service: str) -> Source | None:
    """The one asked for; the broker, or whichever is first, where none is."""
    if not sources:
        return None
    if key:
        found = [source for source in sources if source.key == key]
    elif node or service:
        found = [s for s in sources if node in {"", s.node} and service in {"", s.container.service}]
    else:
        found = [source for source in sources if source.container.role == "broker"] or sources
    if not found:
        raise UsageError(f"there is no container {key or f'{service} on {node}'} in this testbed")
    return found[0]


ROUTES = [Route("/testbeds/{name}/logs", show)]
