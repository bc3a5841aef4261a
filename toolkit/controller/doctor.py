"""What this machine and the nodes lack, looked for before anything is tried; nothing is changed anywhere."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from toolkit.errors import ToolkitError
from toolkit.events import ignore
from toolkit.providers import provider_for
from toolkit.providers.base import Request
from toolkit.providers.links import WORDS, imposer
from toolkit.provisioning.observe import Observed, observe
from toolkit.spec.nodes import VIRTUAL
from toolkit.spec.testbed import Node, Testbed
from toolkit.state import Deployment, Host

MIN_FREE_BYTES = 4 << 30
"""Images, their parts and the nodes' stores; of a node an eighth of it."""
PROGRAMS: Mapping[str, str] = {
    "ssh": "sudo apt-get install openssh-client",
    "mmdebstrap": "sudo apt-get install mmdebstrap (needed where no container registry can be reached)",
    "ansible-playbook": "make setup",
}
"""What toolkit starts -> how to get it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing looked at."""

    where: str
    what: str
    well: bool
    found: str
    advice: str = ""


def check_machine() -> list[Finding]:
    """The operator's machine."""
    version = ".".join(map(str, sys.version_info[:3]))
    free = shutil.disk_usage("/").free
    return [
        _here("Python", well=sys.version_info >= (3, 11), found=version),
        *(_program(name, advice) for name, advice in PROGRAMS.items()),
        _engine(),
        _here("disk", well=free >= MIN_FREE_BYTES, found=_gibibytes(free), advice="toolkit gc, docker system df"),
        _links(),
    ]


def check_nodes(testbed: Testbed, deployment: Deployment | None) -> list[Finding]:
    """Deployed nodes as they are; of the others, machines that exist, entered as a deploy would enter them."""
    hosts = deployment.hosts if deployment else {}
    advice = f"toolkit deploy {testbed.name}"
    findings = [_seen(node, seen, advice) for node, seen in observe(hosts, testbed.name).items()] if hosts else []
    others = [node for node in testbed.nodes if node.name not in hosts]
    findings += [_entered(node, host) for node, host in _enter(testbed, others).items()]
    made = [node for node in others if testbed.providers[node.provider].type in VIRTUAL]
    if made:
        findings.append(Finding(where="nodes", what="virtual", well=True, found=f"deploy makes {len(made)} of them"))
    return findings


# -- this machine -----------------------------------------------------------------------------------------------------


def _here(what: str, *, well: bool, found: str, advice: str = "") -> Finding:
    return Finding(where="this machine", what=what, well=well, found=found, advice=advice)


def _program(name: str, advice: str) -> Finding:
    place = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    return _here(name, well=place is not None, found=place or "not found", advice=advice)


def _engine() -> Finding:
    from toolkit import engine

    try:
        version = engine.connect(timeout_s=10).version()
    except ToolkitError as error:
        return _here("Docker engine", well=False, found=str(error))
    return _here("Docker engine", well=True, found=f"{version['Version']} (API {version['ApiVersion']})")


def _links() -> Finding:
    return _here("links", well=True, found=f"delay, jitter and loss: {WORDS[imposer()]}")


# -- nodes ------------------------------------------------------------------------------------------------------------


def _seen(node: str, seen: Observed | ToolkitError, advice: str) -> Finding:
    if isinstance(seen, ToolkitError):
        return Finding(where=node, what="reach", well=False, found=str(seen))
    free = seen.disk["/"]["free_bytes"]
    engine = seen.engine_version or seen.engine_error
    return Finding(
        where=node,
        what="node",
        well=seen.engine_version is not None and free > MIN_FREE_BYTES // 8,
        found=f"Python {seen.python}, engine {engine}, {_gibibytes(free)}, load {seen.load:.1f}",
        advice=advice,
    )


def _enter(testbed: Testbed, wanted: Sequence[Node]) -> dict[str, Host | str]:
    """Machines that exist, or why they cannot be used; a host key that is seen here is not trusted later."""
    found: dict[str, Host | str] = {}
    for name, settings in testbed.providers.items():
        nodes = [node for node in wanted if node.provider == name]
        if settings.type in VIRTUAL or not nodes:
            continue
        with tempfile.TemporaryDirectory(prefix="toolkit-doctor-") as folder:
            request = Request(
                testbed=testbed.name, subnet=testbed.subnet, nodes=nodes, images={}, directory=Path(folder)
            )
            got = provider_for(settings).acquire(request, ignore)
        found |= got.hosts
        found |= got.failed
    return found


def _entered(node: str, host: Host | str) -> Finding:
    if isinstance(host, str):
        return Finding(where=node, what="reach", well=False, found=host)
    facts = host.facts
    python = f"Python {facts['python_version']}" if facts["python"] else "no Python yet"
    engine = "an engine" if facts["has_engine"] else "no engine yet"
    machine = f"{facts['model']} ({host.architecture})" if facts["model"] else host.architecture
    limits = "" if facts["memory_limits"] else ", no limits of memory (docs/nodes.md, step 4)"
    found = f"{machine}, {facts['os']}, {python}, {engine}{limits}; deploy brings what is missing"
    return Finding(where=node, what="node", well=True, found=found)


def _gibibytes(free: int) -> str:
    return f"{free / 2**30:.1f} GiB free"
