"""The workloads of a file: extended, checked and turned into numbers, and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from toolkit.contract.orders import Arrivals
from toolkit.contract.samples import HEADER_BYTES
from toolkit.spec import quantities
from toolkit.spec.findings import Findings
from toolkit.spec.names import did_you_mean
from toolkit.spec.quantities import DURATION, FREQUENCY, SIZE, Quantity
from toolkit.spec.testbed import Service
from toolkit.spec.workload import Reference, Workload
from toolkit.spec.yaml import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key of the file and the attribute it becomes."""

    attribute: str
    quantity: Quantity | None = None
    whole: bool = False

    def read(self, value: Any) -> Any:
        """The attribute's value."""
        if self.quantity is None:
            return value
        exact = self.quantity.exactly(value)
        return int(exact) if self.whole else float(exact)

    def write(self, value: Any) -> Any:
        """What reads back as the same value."""
        return value if self.quantity is None else self.quantity.write(value)


_SAME = (
    "publishers", "subscribers", "broker", "gateway", "hub", "connections", "subscriber_connections", "topics", "qos",
    "messages",
)  # fmt: skip
KEYS: Mapping[str, Key] = {
    **{name: Key(attribute=name) for name in (*_SAME, "repeat", "seed", "options", "asserts")},
    "duration": Key(attribute="duration_s", quantity=DURATION),
    "payload": Key(attribute="payload_bytes", quantity=SIZE, whole=True),
    "warmup": Key(attribute="warmup_messages"),
    "drain": Key(attribute="drain_s", quantity=DURATION),
}
ARRIVAL_KEYS: Mapping[str, Key] = {
    "kind": Key(attribute="kind"),
    "rate": Key(attribute="rate_per_s", quantity=FREQUENCY),
    "to": Key(attribute="to_rate_per_s", quantity=FREQUENCY),
    "burst": Key(attribute="burst"),
    "step": Key(attribute="step_s", quantity=DURATION),
}
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
    given = {KEYS[key].attribute: KEYS[key].read(value) for key, value in values.items() if key in KEYS}
    if "duration" in values:
        given["messages"] = None
    if "arrivals" in values:
        given["arrivals"] = _arrivals(values["arrivals"], origin["arrivals"], findings)
    if "reference" in values:
        given["reference"] = references(values["reference"])
        if any(reference.where for reference in given["reference"]):
            findings.add(
                origin["reference"], "a workload has no points, so that `where` means nothing; see experiments"
            )
    workload = Workload(**(given | {"name": name}))
    if workload.payload_bytes < HEADER_BYTES:
        message = f"a payload of {workload.payload_bytes}B has no room for the {HEADER_BYTES}-byte header"
        findings.add(origin.get("payload", ("workloads", name)), f"{message} of measured messages")
    for key in ("publishers", "subscribers", "broker", "gateway", "hub"):
        wanted = getattr(workload, key)
        if wanted and not any(wanted in (service.name, service.role) for service in services):
            hint = did_you_mean(wanted, {word for service in services for word in (service.name, service.role)})
            place = origin.get(key, ("workloads", name))
            message = f"workload {name!r} takes its {key} from {wanted!r}, but no service has that name or role{hint}"
            findings.add(place, message, at_key=key not in origin)
    return workload


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
    offsets = [round(DURATION.exactly(text) * 10**9) for text in written.get("trace", [])]
    return Arrivals(**(given | {"kind": kind, "offsets_ns": offsets}))


def references(written: list[Mapping[str, Any]]) -> tuple[Reference, ...]:
    """Published figures as values."""
    return tuple(
        Reference(
            source=entry.get("source", "published"),
            hop=entry.get("hop", "end_to_end"),
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
    plain = Workload(name=workload.name)
    entry: dict[str, Any] = {}
    for key, how in KEYS.items():
        value = getattr(workload, how.attribute)
        if value != getattr(plain, how.attribute) and value is not None:
            entry[key] = how.write(value)
    if workload.arrivals != plain.arrivals:
        entry["arrivals"] = _written_arrivals(workload.arrivals)
    if workload.reference:
        entry["reference"] = written_references(workload.reference)
    return entry


def written_references(found: tuple[Reference, ...]) -> list[dict[str, Any]]:
    """What reads back as the same references."""
    return [
        {"source": each.source, "hop": each.hop}
        | ({"where": dict(each.where)} if each.where else {})
        | {name: list(value) if isinstance(value, tuple) else value for name, value in each.figures.items()}
        for each in found
    ]


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
