"""What nodes are and run right now: one remote Python start per node, all nodes at the same time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from toolkit import paths, ssh
from toolkit.contract.settings import node_root
from toolkit.errors import ToolkitError
from toolkit.plan import Running
from toolkit.state import Host

_MODULES = ("toolkit_engine", "toolkit_report", "toolkit_files", "toolkit_look")
"""Sent along with each look, in this order; the same files that Ansible sends with the converge module."""
_LOADER = """
import json, sys, types
for name in ("ansible", "ansible.module_utils"):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = []
order = json.loads(sys.stdin.readline())
for name, source in order["modules"]:
    module = types.ModuleType(name)
    sys.modules["ansible.module_utils." + name] = module
    exec(compile(source, name, "exec"), module.__dict__)
print(json.dumps(module.look(**order["arguments"])))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedContainer:
    """A container that carries the testbed's label."""

    name: str
    service: str
    role: str
    hash: str
    """Of the specification it was made from; equals `Bundle.container_hash`."""
    content: str
    """Content hash of the image it runs."""
    image: str
    state: str
    """running, exited, restarting, paused, created, dead."""
    status: str
    """The engine's words, such as `Exited (1) 3 seconds ago`."""
    health: str
    """healthy, unhealthy, starting, or empty where it has no check or does not run."""

    @property
    def well(self) -> bool:
        """Running, and healthy where it says."""
        return self.state == "running" and self.health in {"", "healthy"}

    @property
    def starting(self) -> bool:
        """Running, and its first health check has not been passed yet."""
        return self.state == "running" and self.health == "starting"

    @property
    def ended(self) -> bool:
        """Somebody ended it: the engine starts again what ends by itself, and says `restarting` meanwhile."""
        return self.state in {"exited", "dead"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """One node at one instant."""

    node: str
    containers: Mapping[str, ObservedContainer]
    engine_version: str | None
    """None: there is no engine, or it does not answer; `engine_error` says which."""
    engine_error: str
    clock: Mapping[str, Any] | None
    """The answer of the node's clock process; None where it does not answer."""
    python: str
    load: float
    disk: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """`/` and `/var/lib/docker` -> total_bytes, free_bytes."""
    memory: Mapping[str, int] = field(default_factory=dict)
    """total_bytes, available_bytes."""
    bundle: str
    """Digest of the bundle that the node was last brought to whole; empty: none, or the last converge stopped."""
    drift: tuple[str, ...] = ()
    """Files that were changed since."""

    @property
    def running(self) -> Running:
        """The part that a plan needs; what is still starting differs in nothing: its gate waits for it."""
        return Running(
            hashes={name: container.hash for name, container in self.containers.items()},
            unwell={
                name: f"it is {container.health if container.state == 'running' else container.state}"
                for name, container in self.containers.items()
                if not (container.well or container.starting)
            },
            bundle=self.bundle,
            drift=self.drift,
        )


def observe(hosts: Mapping[str, Host], testbed: str, *, clock_port: int = 9101) -> dict[str, Observed | ToolkitError]:
    """Look at every host: node -> what it runs, or the error that kept us from seeing it."""
    order = json.dumps(
        {
            "modules": [[name, (paths.PLAYBOOKS / "module_utils" / f"{name}.py").read_text()] for name in _MODULES],
            "arguments": {"testbed": testbed, "root": node_root(testbed), "clock_port": clock_port},
        }
    )
    return ssh.on_every(hosts, lambda host: _observe(host, order))


def _observe(host: Host, order: str) -> Observed:
    python = str(host.facts.get("python") or "python3")
    command = [python if python.startswith("/") else "python3", "-I", "-S", "-c", _LOADER]
    answer = ssh.run(host, command, stdin=order + "\n", as_root=True, timeout_s=30.0, check=False)
    if answer.status == 127:  # noqa: PLR2004 - the shell's word for a missing program
        raise ToolkitError(
            f"node {host.node}: there is no python3 on it; deploy installs it, or: apt-get install python3"
        )
    if answer.status != 0:
        last = (answer.stderr.strip().splitlines() or ["no output"])[-1]
        raise ToolkitError(f"node {host.node} cannot be looked at: {last}")
    seen = json.loads(answer.stdout)
    engine = seen["engine"] or {"version": None}
    return Observed(
        node=host.node,
        containers={name: ObservedContainer(name=name, **entry) for name, entry in seen["containers"].items()},
        engine_version=engine["version"],
        drift=tuple(seen["drift"]),
        **{key: seen[key] for key in _SAME},
    )


_SAME = ("engine_error", "clock", "python", "load", "disk", "memory", "bundle")
