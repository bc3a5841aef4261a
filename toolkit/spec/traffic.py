"""The workloads of a file: extended, checked and turned into numbers, and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic_core import ValidationError

from toolkit.contract.orders import Arrivals
from toolkit.contract.samples import HEADER_BYTES
from toolkit.spec import quantities
from toolkit.spec.findings import Findings
from toolkit.spec.names import did_you_mean
from toolkit.spec.quantities import DURATION, FREQUENCY, SIZE, Quantity
from toolkit.spec.schema import compiled, validator
from toolkit.spec.testbed import Service
from toolkit.spec.wording import explain
from toolkit.spec.workload import Workload
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


_SAME = ("publishers", "subscribers", "broker", "connections", "subscriber_connections", "topics", "qos", "messages")
KEYS: Mapping[str, Key] = {
    **{name: Key(attribute=name) for name in (*_SAME, "repeat", "seed", "order", "options", "asserts", "reference")},
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
NOT_VARIED = {"repeat", "seed", "order", "options", "asserts", "reference"}
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
        values, origin = _extended(name, entries, findings)
        workloads[name] = _workload(name, values, origin, services, findings)
    return workloads


def _extended(name: str, entries: Mapping[str, Any], findings: Findings) -> tuple[dict[str, Any], dict[str, Path]]:
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


def _workload(
    name: str,
    values: Mapping[str, Any],
    origin: Mapping[str, Path],
    services: tuple[Service, ...],
    findings: Findings,
) -> Workload:
    if "messages" in values and "duration" in values:
        findings.add(origin["duration"], "both `messages` and `duration`; keep one", at_key=True)
    given = {KEYS[key].attribute: KEYS[key].read(value) for key, value in values.items() if key in KEYS}
    if "duration" in values:
        given["messages"] = None
    if "arrivals" in values:
        given["arrivals"] = _arrivals(values["arrivals"], origin["arrivals"], findings)
    if "matrix" in values:
        given["matrix"] = _matrix(values["matrix"], origin["matrix"], services, findings)
    workload = Workload(**(given | {"name": name}))
    sizes = (workload.payload_bytes, *workload.matrix.get("payload_bytes", ()))
    if min(sizes) < HEADER_BYTES:
        place = origin.get("payload") if workload.payload_bytes < HEADER_BYTES else (*origin["matrix"], "payload")
        message = f"a payload of {min(sizes)}B has no room for the {HEADER_BYTES}-byte header of measured messages"
        findings.add(place or ("workloads", name), message)
    for key in ("publishers", "subscribers", "broker"):
        wanted = getattr(workload, key)
        if not any(wanted in (service.name, service.role) for service in services):
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


def _matrix(
    written: Mapping[str, list[Any]], place: Path, services: tuple[Service, ...], findings: Findings
) -> dict[str, tuple[Any, ...]]:
    """Attribute (`payload_bytes`, `arrivals.rate_per_s`) or `services.NAME.settings.KEY` -> values."""
    matrix: dict[str, tuple[Any, ...]] = {}
    for key, values in written.items():
        here = (*place, key)
        if key.startswith("services."):
            matrix[key] = _varied_setting(key, values, here, services, findings)
            continue
        table: Mapping[str, Key]
        table, prefix, short = (ARRIVAL_KEYS, "arrivals.", key[9:]) if key.startswith("arrivals.") else (KEYS, "", key)
        if short not in table or short in NOT_VARIED:
            known = [*(k for k in KEYS if k not in NOT_VARIED), *(f"arrivals.{k}" for k in ARRIVAL_KEYS)]
            known += [f"services.{s.name}.settings.{setting}" for s in services for setting in s.settings]
            hint = did_you_mean(key, known) or "; write a key of workloads, arrivals.KEY or services.NAME.settings.KEY"
            findings.add(here, f"cannot vary {key!r}{hint}", at_key=True)
            continue
        entries = [{"arrivals": {short: value}} if prefix else {short: value} for value in values]
        good = [v for i, v in enumerate(values) if _fits("workload", entries[i], (*here, i), findings)]
        matrix[prefix + table[short].attribute] = tuple(table[short].read(value) for value in good)
    return matrix


def _varied_setting(
    key: str, values: list[Any], here: Path, services: tuple[Service, ...], findings: Findings
) -> tuple[Any, ...]:
    parts = key.split(".")
    service = next((s for s in services if s.name == parts[1]), None)
    if service is None:
        findings.add(
            here, f"undefined service {parts[1]!r}{did_you_mean(parts[1], [s.name for s in services])}", at_key=True
        )
        return ()
    wanted = 4
    if len(parts) != wanted or parts[2] != "settings":
        findings.add(here, f"cannot vary {key!r}; write services.{service.name}.settings.KEY", at_key=True)
        return ()
    if parts[3] not in service.settings:
        hint = did_you_mean(parts[3], service.settings)
        findings.add(here, f"image {service.image.name!r} has no setting {parts[3]!r}{hint}", at_key=True)
        return ()
    for index, value in enumerate(values):
        _fits(f"settings:{service.image.name}", {parts[3]: value}, (*here, index), findings)
    return tuple(values)


def _fits(name: str, entry: Mapping[str, Any], place: Path, findings: Findings) -> bool:
    """Whether one value of a matrix may stand where it is going to stand."""
    try:
        validator(name).validate_python(entry)
    except ValidationError as error:
        for problem in explain(error, compiled()[name], entry, findings.document, place):
            _, _, wrong = problem.message.partition(": ")
            findings.add(place, f"cannot vary {place[-2]} so: {wrong or problem.message}")
        return False
    return True


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
    if workload.matrix:
        entry["matrix"] = {_written_key(key): _written_values(key, values) for key, values in workload.matrix.items()}
    return entry


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


def _key_of(attribute: str) -> tuple[str, Key]:
    arrivals = attribute.startswith("arrivals.")
    table, short = (ARRIVAL_KEYS, attribute[9:]) if arrivals else (KEYS, attribute)
    key, how = next((key, how) for key, how in table.items() if how.attribute == short)
    return (f"arrivals.{key}" if arrivals else key), how


def _written_key(attribute: str) -> str:
    return attribute if attribute.startswith("services.") else _key_of(attribute)[0]


def _written_values(attribute: str, values: tuple[Any, ...]) -> list[Any]:
    if attribute.startswith("services."):
        return list(values)
    how = _key_of(attribute)[1]
    return [how.write(value) for value in values]
