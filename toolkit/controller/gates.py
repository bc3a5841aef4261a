"""The gates a deploy must pass: engine, images, clock, health, metrics. `toolkit verify` asks them again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from toolkit import ssh
from toolkit.contract.bundle import Bundle
from toolkit.errors import GateError, ToolkitError
from toolkit.events import Emit, Event, counted
from toolkit.provisioning.observe import Observed, observe
from toolkit.provisioning.render import PROMETHEUS_PORT, targets
from toolkit.spec.testbed import Testbed
from toolkit.state import Host

GATES = ("engine", "images", "clock", "health", "metrics")
HEALTH_WITHIN_S = 60.0
METRICS_WITHIN_S = 30.0
POLL_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """One node that one gate does not let through."""

    gate: str
    node: str
    why: str
    lasting: bool = False
    """Waiting does not mend it."""

    def __str__(self) -> str:
        return f"{self.gate}: node {self.node}: {self.why.removeprefix(f'node {self.node}: ')}"


def check_gates(
    testbed: Testbed,
    hosts: Mapping[str, Host],
    bundles: Mapping[str, Bundle],
    emit: Emit,
    *,
    gates: tuple[str, ...] = GATES,
    seen: Mapping[str, Observed | ToolkitError] | None = None,
) -> None:
    """Ask every gate until all nodes pass, its time is over or waiting is in vain; raises GateError with every refusal.

    `seen`: a look at the nodes from a moment ago; they are looked at again only while a gate refuses.
    """
    refusals: list[Refusal] = []
    limits = {"clock": testbed.clock.within_s, "health": HEALTH_WITHIN_S, "metrics": METRICS_WITHIN_S}
    latest = seen
    for gate in gates:
        started = time.monotonic()
        deadline = started + limits.get(gate, 0.0)
        while True:
            if gate == "metrics":
                refused = _metrics(testbed, hosts)
            else:
                latest = latest or observe(hosts, testbed.name)
                judge = _JUDGES[gate]
                refused = [r for node, what in latest.items() for r in judge(testbed, bundles[node], what, node)]
            if not refused or any(refusal.lasting for refusal in refused) or time.monotonic() >= deadline:
                break
            latest = None
            time.sleep(POLL_S)
        refusals += refused
        emit(
            Event(
                stage="gate",
                message=f"{gate}: {_verdict(gate, testbed, hosts, refused, _unreached(latest))}",
                state="failed" if refused else "done",
                level="error" if refused else "info",
                duration_s=time.monotonic() - started,
            )
        )
    if refusals:
        raise GateError("\n".join(map(str, refusals)))


def _unreached(seen: Mapping[str, Observed | ToolkitError] | None) -> int:
    return sum(isinstance(what, ToolkitError) for what in (seen or {}).values())


def _verdict(gate: str, testbed: Testbed, hosts: Mapping[str, Host], refused: list[Refusal], unreached: int) -> str:
    if refused:
        return f"{len({r.node for r in refused})} of {len(hosts)} nodes do not pass"
    if unreached and gate != "metrics":
        return f"{len(hosts) - unreached} of {len(hosts)} nodes pass, the others were not reached"
    if gate == "clock" and all(host.facts.get("shared_clock") for host in hosts.values()):
        return "all nodes share this machine's clock; their offset is 0 by construction"
    if gate == "metrics" and not testbed.service_of_role("monitor"):
        return "no monitor in this testbed"
    return f"{counted(len(hosts), 'node')} {'passes' if len(hosts) == 1 else 'pass'}"


_Judge = Callable[[Testbed, Bundle, Observed | ToolkitError, str], list[Refusal]]


def _engine(_: Testbed, __: Bundle, seen: Observed | ToolkitError, node: str) -> list[Refusal]:
    if isinstance(seen, ToolkitError):
        return [Refusal(gate="engine", node=node, why=str(seen))]
    if seen.engine_version is None:
        return [
            Refusal(
                gate="engine", node=node, why=f"{seen.engine_error}; try: toolkit ssh {node}, systemctl status docker"
            )
        ]
    return []


def _images(_: Testbed, bundle: Bundle, seen: Observed | ToolkitError, node: str) -> list[Refusal]:
    if isinstance(seen, ToolkitError):
        return []  # the engine gate has said so
    return [
        Refusal(
            gate="images",
            node=node,
            why=f"{c.service} runs image content {seen.containers[c.name].content}, expected {c.content}",
        )
        for c in bundle.containers
        if c.content and c.name in seen.containers and seen.containers[c.name].content != c.content
    ]


def _health(_: Testbed, bundle: Bundle, seen: Observed | ToolkitError, node: str) -> list[Refusal]:
    if isinstance(seen, ToolkitError):
        return []
    refusals = []
    for wanted in bundle.containers:
        found = seen.containers.get(wanted.name)
        if found is None or not found.well:
            state = "is missing" if found is None else f"is {found.health or found.status}"
            why = f"{wanted.service} {state}; its log: toolkit logs {node} --service {wanted.service}"
            refusals.append(Refusal(gate="health", node=node, why=why, lasting=found is None or found.ended))
    return refusals


def clock_distance_s(clock: Mapping[str, object]) -> tuple[float, float]:
    """|offset| and root distance (|offset| + root dispersion + root delay / 2) in seconds, RFC 5905."""
    offset = abs(float(str(clock["offset_s"])))
    return offset, offset + float(str(clock["root_dispersion_s"])) + float(str(clock["root_delay_s"])) / 2


def _clock(testbed: Testbed, _: Bundle, seen: Observed | ToolkitError, node: str) -> list[Refusal]:
    why = None if isinstance(seen, ToolkitError) else _clock_problem(testbed, seen.clock, node)
    return [Refusal(gate="clock", node=node, why=why)] if why else []


def _clock_problem(testbed: Testbed, clock: Mapping[str, object] | None, node: str) -> str | None:
    gate = testbed.clock
    if clock is None:
        return f"its clock process does not answer; try: toolkit logs {node} --service clock"
    if clock.get("shared"):
        return None
    if not clock.get("synchronised"):
        return (
            f"the clock does not follow the testbed's NTP server after {gate.within_s:g} s; "
            f"try: toolkit exec {node} -- docker exec toolkit-{testbed.name}-clock chronyc sources"
        )
    offset, distance = clock_distance_s(clock)
    found = f"offset {offset * 1e3:.3f} ms, root distance {distance * 1e3:.3f} ms"
    if offset > gate.max_offset_s:
        return f"{found}; the gate allows an offset of {gate.max_offset_s * 1e3:g} ms (clock.max_offset)"
    if distance > gate.max_root_distance_s:
        return (
            f"{found}; the gate allows a root distance of {gate.max_root_distance_s * 1e3:g} ms "
            "(clock.max_root_distance)"
        )
    return None


_JUDGES: Mapping[str, _Judge] = {"engine": _engine, "images": _images, "clock": _clock, "health": _health}


def _metrics(testbed: Testbed, hosts: Mapping[str, Host]) -> list[Refusal]:
    """Everything that exposes metrics is among Prometheus' targets, has been scraped, and is up."""
    refusals: list[Refusal] = []
    for service in testbed.service_of_role("monitor"):
        for node in service.nodes:
            if node not in hosts:
                continue
            try:
                active = prometheus(hosts[node], "/api/v1/targets?state=active")["activeTargets"]
            except ToolkitError as error:
                refusals.append(Refusal(gate="metrics", node=node, why=str(error)))
                continue
            seen = {urlsplit(target["scrapeUrl"]).netloc: target for target in active}
            for wanted in targets(testbed, hosts):
                address = f"{wanted.address}:{wanted.port}"
                if why := _not_scraped(address, seen.get(address)):
                    refusals.append(Refusal(gate="metrics", node=wanted.node, why=why))
    return refusals


def _not_scraped(address: str, seen: Mapping[str, Any] | None) -> str:
    """Why Prometheus has no metrics of a target; empty where it has."""
    if seen is None:
        return f"{address} is not among the targets of Prometheus"
    return "" if seen["health"] == "up" else f"{seen['scrapeUrl']} is {seen['health']} {seen['lastError']}".rstrip()


def prometheus(host: Host, path: str) -> Any:
    """`data` of an answer of the Prometheus on this host, asked through SSH; raises GateError."""
    connection = ssh.forwarded(host, PROMETHEUS_PORT)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        document = json.loads(answer.read())
    except (OSError, ValueError) as error:
        raise GateError(f"Prometheus on node {host.node} does not answer ({error})") from error
    finally:
        connection.close()
    if document.get("status") != "success":
        raise GateError(f"Prometheus on node {host.node}: {document.get('error', answer.status)}")
    return document["data"]
