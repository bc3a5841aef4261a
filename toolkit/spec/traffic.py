"""The workloads of a file: extended, checked and turned into numbers, and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from toolkit.contract.orders import Arrivals
from toolkit.contract.payloads import Payload
from toolkit.contract.samples import HEADER_BYTES
from toolkit.spec import quantities
from toolkit.spec.conditions import wrong_condition
from toolkit.spec.findings import Findings
from toolkit.spec.names import did_you_mean
from toolkit.spec.quantities import DURATION, FREQUENCY, SIZE, Quantity
from toolkit.spec.testbed import Service
from toolkit.spec.workload import Disturbance, Reference, Stop, Workload
from toolkit.spec.yaml import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key of the file and the attribute it becomes."""

    attribute: str
    quantity: Quantity | None = None
    whole: bool = False
    of_each: bool = False
    """The value is a mapping of such quantities."""

    def read(self, value: Any) -> Any:
        """The attribute's value."""
        if self.quantity is None:
            return value
        if self.of_each:
            return {name: float(self.quantity.exactly(each)) for name, each in value.items()}
        exact = self.quantity.exactly(value)
        return int(exact) if self.whole else float(exact)

    def write(self, value: Any) -> Any:
        """What reads back as the same value."""
        if self.of_each and self.quantity is not None:
            return {name: self.quantity.write(each) for name, each in value.items()}
        return value if self.quantity is None else self.quantity.write(value)


_PUBLISHING = (
    "publishers", "subscribers", "broker", "gateway", "hub", "connections", "subscriber_connections", "topics", "qos",
    "join",
)  # fmt: skip
"""Keys of workloads that publish, not of those whose consumers ask for orchestration."""
_SAME = (*_PUBLISHING, "consumers", "messages")
KEYS: Mapping[str, Key] = {
    **{name: Key(attribute=name) for name in (*_SAME, "repeat", "seed", "options", "asserts")},
    "duration": Key(attribute="duration_s", quantity=DURATION),
    "warmup": Key(attribute="warmup_messages"),
    "drain": Key(attribute="drain_s", quantity=DURATION),
    "join": Key(attribute="join", quantity=DURATION, of_each=True),
}
ARRIVAL_KEYS: Mapping[str, Key] = {
    "kind": Key(attribute="kind"),
    "rate": Key(attribute="rate_per_s", quantity=FREQUENCY),
    "to": Key(attribute="to_rate_per_s", quantity=FREQUENCY),
    "burst": Key(attribute="burst"),
    "step": Key(attribute="step_s", quantity=DURATION),
}
ACTIONS: tuple[Literal["restart", "stop", "pause"], ...] = ("restart", "stop", "pause")
FIGURES = ("mean", "sd", "min", "p50", "p75", "p90", "p95", "p99", "p999", "max")
_NEEDS: Mapping[str, tuple[str, ...]] = {
    "closed": (),
    "rate": ("rate",),
    "poisson": ("rate",),
    "burst": ("rate", "burst"),
    "ramp": ("rate", "to"),
    "step": ("rate", "to", "step"),
    "trace": ("trace",),
}


_REQUESTS: Mapping[str, Any] = {
    "messages": 100,
    "payload_bytes": 0,
    "arrivals": Arrivals(kind="rate", rate_per_s=1.0),
}
"""What workloads of orchestration requests do unless they say otherwise; 0 bytes: as large as the request is."""


def resolve_workloads(
    file: Mapping[str, Any], services: tuple[Service, ...], findings: Findings
) -> dict[str, Workload]:
    """Every workload of the file, in its order."""
    entries = {name: entry or {} for name, entry in file.get("workloads", {}).items()}
    workloads = {}
    for name in entries:
        values, origin = extended(name, entries, findings)
        workloads[name] = make_workload(name, values, origin, services, findings)
    return workloads


def extended(name: str, entries: Mapping[str, Any], findings: Findings) -> tuple[dict[str, Any], dict[str, Path]]:
    """The entry over those it extends, and where each key stands."""
    chain = [name]
    while "extends" in entries[chain[-1]]:
        base = entries[chain[-1]]["extends"]
        place = ("workloads", chain[-1], "extends")
        if base not in entries:
            findings.add(place, f"undefined workload {base!r}{did_you_mean(base, entries)}")
            break
        if base in chain:
            circle = chain[chain.index(base) :]
            first = circle.index(min(circle))
            names = " -> ".join([*circle[first:], *circle[:first], circle[first]])
            findings.add(("workloads", min(circle), "extends"), f"workloads extend each other in a circle: {names}")
            break
        chain.append(base)
    values: dict[str, Any] = {}
    origin: dict[str, Path] = {}
    for link in reversed(chain):
        entry = {key: value for key, value in entries[link].items() if key != "extends"}
        for one, other in (("messages", "duration"), ("duration", "messages")):
            if one in entry and other not in entry:
                values.pop(other, None)
        values |= entry
        origin |= {key: ("workloads", link, key) for key in entry}
    return values, origin


def make_workload(
    name: str,
    values: Mapping[str, Any],
    origin: Mapping[str, Path],
    services: tuple[Service, ...],
    findings: Findings,
) -> Workload:
    """The workload of an entry; `origin`: where each of its keys stands."""
    if "messages" in values and "duration" in values:
        findings.add(origin["duration"], "both `messages` and `duration`; keep one", at_key=True)
    given = dict(_REQUESTS) if "consumers" in values else {}
    given |= {KEYS[key].attribute: KEYS[key].read(value) for key, value in values.items() if key in KEYS}
    if "duration" in values:
        given["messages"] = None
    if "arrivals" in values:
        given["arrivals"] = _arrivals(values["arrivals"], origin["arrivals"], findings)
    if "payload" in values:
        given["payload_bytes"], given["payload"] = _payload(values["payload"], origin["payload"], findings)
    if "stop" in values:
        given["stop"] = _stop(values["stop"])
    if "disturb" in values:
        given["disturb"] = _disturbances(values["disturb"], origin["disturb"], services, findings)
    if "reference" in values:
        given["reference"] = references(values["reference"])
    workload = Workload(**(given | {"name": name}))
    if workload.consumers:
        _check_requests(workload, values, origin, services, findings)
    else:
        _check_messages(workload, origin, services, findings)
    _check_asserts(workload, origin, findings)
    if any(reference.where for reference in workload.reference):
        findings.add(origin["reference"], "a workload has no points, so that `where` means nothing; see experiments")
    return workload


def _check_messages(
    workload: Workload, origin: Mapping[str, Path], services: tuple[Service, ...], findings: Findings
) -> None:
    """A workload of messages: each has room for its header, and there is somebody to send and to get it."""
    name = workload.name
    least = min([workload.payload_bytes, *workload.payload.sizes])
    if least < HEADER_BYTES:
        message = f"a payload of {least}B has no room for the {HEADER_BYTES}-byte header"
        why = f"{message} of measured messages; write at least {HEADER_BYTES}B"
        findings.add(origin.get("payload", ("workloads", name)), why)
    subscribing = [s for s in services if workload.subscribers in (s.name, s.role)]
    there = {name for s in subscribing for name in (s.name, *s.nodes)}
    for name in workload.join:
        if name not in there:
            message = f"{name!r} is no service and no node of this workload's subscribers{did_you_mean(name, there)}"
            findings.add((*origin["join"], name), message, at_key=True)
    if workload.join and workload.stop.backlog is not None:
        message = "`join` makes it unknown how many deliveries are due; `stop: {backlog: …}` needs to know"
        findings.add(origin["join"], message, at_key=True)
    for key in ("publishers", "subscribers", "broker", "gateway", "hub"):
        wanted = "" if key == "broker" and workload.brokerless else getattr(workload, key)
        if wanted and not any(wanted in (service.name, service.role) for service in services):
            hint = did_you_mean(wanted, {word for service in services for word in (service.name, service.role)})
            place = origin.get(key, ("workloads", name))
            message = f"workload {name!r} takes its {key} from {wanted!r}, but no service has that name or role{hint}"
            findings.add(place, message, at_key=key not in origin)


def _check_asserts(workload: Workload, origin: Mapping[str, Path], findings: Findings) -> None:
    for kpi, condition in workload.asserts.items():
        if why := wrong_condition(workload, kpi, condition):
            findings.add(origin.get(f"asserts.{kpi}") or (*origin["asserts"], kpi), why, at_key=True)


def _disturbances(
    written: list[Mapping[str, Any]], place: Path, services: tuple[Service, ...], findings: Findings
) -> tuple[Disturbance, ...]:
    found = []
    for number, entry in enumerate(written):
        here = (*place, number)
        actions: list[Literal["restart", "stop", "pause"]] = [key for key in ACTIONS if key in entry]
        if len(actions) != 1:
            findings.add(here, f"write exactly one of {', '.join(ACTIONS)}: SERVICE")
            continue
        action = actions[0]
        if (action == "restart") == ("lasts" in entry):
            findings.add(here, "a stop or pause has `lasts`, a restart takes as long as it takes")
        meant = next((service for service in services if service.name == entry[action]), None)
        node = entry.get("node", "")
        if meant is not None and node and node not in meant.nodes:
            hint = did_you_mean(node, meant.nodes)
            findings.add((*here, "node"), f"{meant.name!r} does not run on {node!r}{hint}")
        if meant is None:
            hint = did_you_mean(entry[action], [service.name for service in services])
            findings.add((*here, action), f"undefined service {entry[action]!r}{hint}")
        lasts_s = quantities.duration_s(entry.get("lasts", "0s"))
        at_s = quantities.duration_s(entry["at"])
        found.append(Disturbance(at_s=at_s, action=action, service=entry[action], node=node, lasts_s=lasts_s))
    return tuple(found)


def _stop(written: Mapping[str, Any]) -> Stop:
    after_s = quantities.duration_s(written["after"]) if "after" in written else None
    return Stop(after_s=after_s, backlog=written.get("backlog"))


def _check_requests(
    workload: Workload,
    values: Mapping[str, Any],
    origin: Mapping[str, Path],
    services: tuple[Service, ...],
    findings: Findings,
) -> None:
    """A workload of orchestration requests: its consumers exist, and it has no key of those that publish."""
    for key in _PUBLISHING:
        if key in values:
            message = f"workload {workload.name!r} has `consumers`, who publish nothing; it takes no `{key}`"
            findings.add(origin[key], message, at_key=True)
    there = {word: service for service in services for word in (service.name, service.role)}
    service = there.get(workload.consumers or "")
    if service is None or service.role != "consumer":
        wrong = (
            "but no service has" if service is None else f"but {service.name!r} is a {service.role}: no consumer has"
        )
        hint = did_you_mean(workload.consumers or "", [w for w, s in there.items() if s.role == "consumer"])
        message = (
            f"workload {workload.name!r} takes its consumers from {workload.consumers!r}, {wrong} that name or role"
        )
        findings.add(origin["consumers"], message + hint)


def _arrivals(written: str | Mapping[str, Any], place: Path, findings: Findings) -> Arrivals:
    if isinstance(written, str):
        return Arrivals()
    kind = written.get("kind", next((k for k in ("trace", "rate") if k in written), "closed"))
    needed = _NEEDS[kind]
    for key in needed:
        if key not in written:
            findings.add(place, f"arrivals of kind {kind!r} need `{key}`")
    for key in written:
        if key not in (*needed, "kind"):
            findings.add(
                (*place, key),
                f"arrivals of kind {kind!r} have no `{key}`; they take {', '.join(needed) or 'nothing more'}",
                at_key=True,
            )
    if "rate" in written and not quantities.per_second(written["rate"]):
        findings.add((*place, "rate"), "a rate of 0 sends nothing")
    given = {
        ARRIVAL_KEYS[key].attribute: ARRIVAL_KEYS[key].read(value)
        for key, value in written.items()
        if key in ARRIVAL_KEYS
    }
    offsets = _trace(written.get("trace", []), (*place, "trace"), findings)
    return Arrivals(**(given | {"kind": kind, "offsets_ns": offsets}))


def _trace(written: str | list[str], place: Path, findings: Findings) -> list[int]:
    """Due instants in ns; a file has one a line, in seconds, and comments after #."""
    if not isinstance(written, str):
        return [round(DURATION.exactly(text) * 10**9) for text in written]
    file = findings.document.folder_of(place) / written
    try:
        lines = [line.partition("#")[0].strip() for line in file.read_text().splitlines()]
        return [round(float(line) * 1e9) for line in lines if line]
    except OSError as error:
        findings.add(place, f"{file} cannot be read: {error.strerror}")
    except ValueError as error:
        findings.add(place, f"{file} has a line that is no number of seconds: {error}")
    return []


def _payload(written: str | Mapping[str, Any], place: Path, findings: Findings) -> tuple[int, Payload]:
    """The largest size in bytes, and how sizes and content are drawn."""
    if isinstance(written, str):
        return quantities.size_bytes(written), Payload()
    ways = [key for key in ("size", "uniform", "empirical") if key in written]
    if len(ways) != 1:
        findings.add(place, "a payload has one of `size`, `uniform` and `empirical`", at_key=True)
        return HEADER_BYTES, Payload()
    kind = written.get("kind", "random")
    if ways == ["size"]:
        return quantities.size_bytes(written["size"]), Payload(kind=kind)
    if ways == ["uniform"]:
        low, high = map(quantities.size_bytes, written["uniform"])
        if low >= high:
            findings.add((*place, "uniform"), "the least size comes first, and the largest is larger")
        return high, Payload(kind=kind, sizes=[low, high])
    by_size = sorted((quantities.size_bytes(size), weight) for size, weight in written["empirical"].items())
    sizes, weights = [size for size, _ in by_size], [float(weight) for _, weight in by_size]
    return sizes[-1], Payload(kind=kind, sizes=sizes, weights=weights)


def references(written: list[Mapping[str, Any]]) -> tuple[Reference, ...]:
    """Published figures as values."""
    return tuple(
        Reference(
            source=entry.get("source", "published"),
            hop=entry.get("step") or entry.get("hop", "end_to_end"),
            where=entry.get("where", {}),
            figures={
                name: tuple(entry[name]) if isinstance(entry[name], list) else float(entry[name])
                for name in FIGURES
                if name in entry
            },
        )
        for entry in written
    )


def written_workload(workload: Workload) -> dict[str, Any]:
    """What reads back as the same workload; defaults are left out."""
    plain = Workload(name=workload.name, **(_REQUESTS if workload.consumers else {}))
    entry: dict[str, Any] = {}
    for key, how in KEYS.items():
        value = getattr(workload, how.attribute)
        if value != getattr(plain, how.attribute) and value is not None:
            entry[key] = how.write(value)
    if (workload.payload_bytes, workload.payload) != (plain.payload_bytes, plain.payload):
        entry["payload"] = _written_payload(workload)
    if workload.stop != plain.stop:
        after = {} if workload.stop.after_s is None else {"after": DURATION.write(workload.stop.after_s)}
        entry["stop"] = after | ({} if workload.stop.backlog is None else {"backlog": workload.stop.backlog})
    if workload.disturb:
        entry["disturb"] = [
            {"at": DURATION.write(each.at_s), each.action: each.service}
            | ({"node": each.node} if each.node else {})
            | ({} if each.action == "restart" else {"lasts": DURATION.write(each.lasts_s)})
            for each in workload.disturb
        ]
    if workload.arrivals != plain.arrivals:
        entry["arrivals"] = _written_arrivals(workload.arrivals)
    if workload.reference:
        entry["reference"] = written_references(workload.reference)
    return entry


def written_references(found: tuple[Reference, ...]) -> list[dict[str, Any]]:
    """What reads back as the same references."""
    return [
        {"source": each.source, "step" if ": " in each.hop else "hop": each.hop}
        | ({"where": dict(each.where)} if each.where else {})
        | {name: list(value) if isinstance(value, tuple) else value for name, value in each.figures.items()}
        for each in found
    ]


def _written_payload(workload: Workload) -> Any:
    payload = workload.payload
    if payload == Payload():
        return SIZE.write(workload.payload_bytes)
    if not payload.sizes:
        return {"size": SIZE.write(workload.payload_bytes), "kind": payload.kind}
    sizes = [SIZE.write(size) for size in payload.sizes]
    if payload.weights:
        return {"empirical": dict(zip(sizes, payload.weights, strict=True)), "kind": payload.kind}
    return {"uniform": sizes, "kind": payload.kind}


def _written_arrivals(arrivals: Arrivals) -> dict[str, Any]:
    values = dataclasses.asdict(arrivals)
    entry = {
        key: how.write(values[how.attribute])
        for key, how in ARRIVAL_KEYS.items()
        if key in (*_NEEDS[arrivals.kind], "kind")
    }
    if arrivals.kind == "trace":
        entry["trace"] = [f"{offset}ns" for offset in arrivals.offsets_ns]
    return entry
