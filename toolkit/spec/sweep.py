"""The experiments of a file: every point of each sweep checked where it stands and worked out, and back."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic_core import ValidationError

from toolkit.spec.experiment import Cell, Experiment
from toolkit.spec.findings import Findings
from toolkit.spec.names import did_you_mean
from toolkit.spec.schema import compiled, validator
from toolkit.spec.services import settings_name
from toolkit.spec.testbed import Service
from toolkit.spec.traffic import ARRIVAL_KEYS, KEYS, extended, make_workload, references, written_references
from toolkit.spec.wording import explain
from toolkit.spec.workload import Reference, Workload
from toolkit.spec.yaml import Path

PLACES = ("services", "nodes", "groups", "kinds", "defaults", "variables", "images", "monitoring", "clock")
"""Sections of the file that a point may reach into, by a deploy."""
WHOLE_WITHOUT = {"nodes", "groups", "kinds", "defaults", "monitoring", "clock"}
"""Those of them where every key may be left out, so that one can be checked by itself."""
INSIDE = {"arrivals", "options", "asserts"}
"""Keys of a workload that hold keys of their own."""
VARIED = {*KEYS, "arrivals", "payload", "stop"} - {"repeat"}
MOST_POINTS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Written:
    """One parameter of a point as the file has it."""

    key: str
    value: Any
    place: Path


def resolve_experiments(
    file: Mapping[str, Any], services: tuple[Service, ...], workloads: Mapping[str, Workload], findings: Findings
) -> dict[str, Experiment]:
    """Every experiment of the file, in its order."""
    entries = {name: entry or {} for name, entry in file.get("workloads", {}).items()}
    found = {}
    for name, entry in file.get("experiments", {}).items():
        here: Path = ("experiments", name)
        wanted = entry.get("workload", name)
        points = [_point(point, (*here, "points", i)) for i, point in enumerate(entry.get("points", [{}]))]
        axes = [
            [_Written(key=key, value=value, place=(*here, "vary", key, i)) for i, value in enumerate(values)]
            for key, values in entry.get("vary", {}).items()
        ]
        good = [_is_good(parameter, entries, services, file, findings) for parameter in _each(points, axes)]
        if wanted not in entries:
            hint = did_you_mean(wanted, entries) or "; add it to `workloads`"
            place = (*here, "workload") if "workload" in entry else here
            findings.add(place, f"undefined workload {wanted!r}{hint}", at_key="workload" not in entry)
            continue
        if name in entries and wanted != name:
            findings.add(here, f"{name!r} is a workload too, and not the one played here; rename one", at_key=True)
        given = references(entry.get("reference", []))
        cells: list[Cell] = []
        size = len(points)
        for axis in axes:
            size *= len(axis)
        if size > MOST_POINTS:
            findings.add(here, f"{size} points are more than {MOST_POINTS}; vary less", at_key=True)
        elif all(good):
            for (label, fixed), varied in itertools.product(points, itertools.product(*axes)):
                parameters = [*fixed, *varied]
                cells.append(_cell(parameters, label, wanted, entries, services, given, findings))
        _check_references(given, cells, here, findings)
        found[name] = Experiment(
            name=name,
            description=entry.get("description", ""),
            workload=wanted,
            vary={key: tuple(values) for key, values in entry.get("vary", {}).items()},
            points=tuple(entry.get("points", ())),
            repeat=entry.get("repeat", workloads[wanted].repeat),
            order=entry.get("order", "shuffled"),
            seed=entry.get("seed", 1),
            reference=given,
            cells=tuple(cells),
        )
    return found


def _point(written: Mapping[str, Any], place: Path) -> tuple[str, list[_Written]]:
    parameters = [_Written(key=k, value=v, place=(*place, k)) for k, v in written.items() if k != "label"]
    return str(written.get("label", "")), parameters


def _each(points: list[tuple[str, list[_Written]]], axes: list[list[_Written]]) -> Iterator[_Written]:
    for _, parameters in points:
        yield from parameters
    yield from itertools.chain.from_iterable(axes)


# -- one parameter ----------------------------------------------------------------------------------------------------


def _is_good(
    written: _Written,
    workloads: Mapping[str, Any],
    services: tuple[Service, ...],
    file: Mapping[str, Any],
    findings: Findings,
) -> bool:
    """Whether there is such a key and the value may stand where it is going to stand."""
    first, _, rest = written.key.partition(".")
    if first in PLACES and rest:
        return (
            _is_good_setting(written, services, findings) if first == "services" else _is_there(written, file, findings)
        )
    if written.key == "workload":
        if written.value in workloads:
            return True
        findings.add(
            written.place, f"undefined workload {written.value!r}{did_you_mean(str(written.value), workloads)}"
        )
        return False
    if first not in VARIED or (rest and first not in INSIDE):
        known = [*VARIED, "workload"]
        known += [f"arrivals.{key}" for key in ARRIVAL_KEYS]
        known += [f"services.{s.name}.settings.{setting}" for s in services for setting in s.settings]
        hint = did_you_mean(written.key, known)
        if not hint.startswith("; did"):
            hint = (
                "; write a key of workloads, arrivals.KEY, options.KEY, or a place such as services.NAME.settings.KEY"
            )
        findings.add(_key_of(written.place), f"cannot vary {written.key!r}{hint}", at_key=True)
        return False
    return _fits("workload", {first: {rest: written.value}} if rest else {first: written.value}, written, findings)


def _is_there(written: _Written, file: Mapping[str, Any], findings: Findings) -> bool:
    """Whether a place lies in an entry that the file has, for a point adds none, and the value may stand there."""
    section, name, *_ = written.key.split(".")
    there = file.get(section, {})
    if section in file and section in {"nodes", "groups"} and name not in there:  # a resolved file has no groups
        what = f"undefined {section.removesuffix('s')} {name!r}{did_you_mean(name, there)}"
        findings.add(_key_of(written.place), what, at_key=True)
        return False
    return section not in WHOLE_WITHOUT or _fits("file", {"nodes": {"any": {}}, **_nested(written)}, written, findings)


def _nested(written: _Written) -> dict[str, Any]:
    """`a.b: 1` as `{a: {b: 1}}`."""
    entry: Any = written.value
    for key in reversed(written.key.split(".")):
        entry = {key: entry}
    return dict(entry)


def _is_good_setting(written: _Written, services: tuple[Service, ...], findings: Findings) -> bool:
    name, section, *setting = written.key.split(".")[1:] + [""] * (3 - written.key.count("."))
    service = next((s for s in services if s.name == name), None)
    place = _key_of(written.place)
    if service is None:
        hint = did_you_mean(name, [s.name for s in services])
        findings.add(place, f"undefined service {name!r}{hint}", at_key=True)
        return False
    if not section:
        hint = f"; write a place in it, such as {written.key}.memory"
        findings.add(place, f"cannot vary all of {name!r}{hint}", at_key=True)
        return False
    if section != "settings" or not setting[0]:
        entry = {"on": "all", **_nested(written)["services"][name]}
        return _fits("file", {"nodes": {"any": {}}, "services": {name: entry}}, written, findings)
    if setting[0] not in service.settings:
        hint = did_you_mean(setting[0], service.settings)
        findings.add(place, f"image {service.image.name!r} has no setting {setting[0]!r}{hint}", at_key=True)
        return False
    return _fits(settings_name(service.image.name, service.role), {setting[0]: written.value}, written, findings)


def _key_of(place: Path) -> Path:
    """The path of the key: a value of `vary` is an item of a list below it."""
    return place[:-1] if place[-3] == "vary" else place


def _fits(name: str, entry: Mapping[str, Any], written: _Written, findings: Findings) -> bool:
    try:
        validator(name).validate_python(entry)
    except ValidationError as error:
        for problem in explain(error, compiled()[name], entry, findings.document):
            _, _, wrong = problem.message.partition(": ")
            unknown = re.sub(r"^(unknown key \S+) in [^;]+", r"\1", problem.message)
            findings.add(written.place, f"cannot vary {written.key} so: {wrong or unknown}")
        return False
    return True


# -- one cell ---------------------------------------------------------------------------------------------------------


def _cell(
    parameters: list[_Written],
    label: str,
    workload: str,
    entries: Mapping[str, Any],
    services: tuple[Service, ...],
    given: tuple[Reference, ...],
    findings: Findings,
) -> Cell:
    """The workload's entry with the point's keys in place of its own, resolved like any other."""
    played = next((p.value for p in parameters if p.key == "workload"), workload)
    values, origin = extended(played, entries, findings)
    overrides = {}
    for parameter in parameters:
        first, _, rest = parameter.key.partition(".")
        if first in PLACES and rest:
            overrides[parameter.key] = json.dumps(parameter.value)
        elif parameter.key != "workload":
            for one, other in (("messages", "duration"), ("duration", "messages")):
                if first == one and not any(p.key == other for p in parameters):
                    values.pop(other, None)
            inner = values.get(first)
            if rest:
                values[first] = {**(inner if isinstance(inner, Mapping) else {}), rest: parameter.value}
            else:
                values[first] = parameter.value
            origin[first if first != "asserts" else parameter.key] = parameter.place
    made = make_workload(played, values, origin, services, findings)
    point = {parameter.key: parameter.value for parameter in parameters}
    fitting = tuple(reference for reference in given if is_for(reference, point, label))
    return Cell(
        parameters=point, label=label, workload=made, overrides=overrides, reference=(*made.reference, *fitting)
    )


def is_for(reference: Reference, parameters: Mapping[str, Any], label: str = "") -> bool:
    """Whether a published figure belongs to a point: its keys, or their last words, have these values."""

    def held(wanted: str) -> list[Any]:
        own = [label] if wanted == "label" else []
        return own + [v for key, v in parameters.items() if key == wanted or key.endswith(f".{wanted}")]

    return all(value in held(key) for key, value in reference.where.items())


def _check_references(given: tuple[Reference, ...], cells: list[Cell], here: Path, findings: Findings) -> None:
    for i, reference in enumerate(given):
        if cells and not any(is_for(reference, cell.parameters, cell.label) for cell in cells):
            findings.add((*here, "reference", i), "these figures are for no point of the experiment; mend `where`")


def written_experiment(experiment: Experiment) -> dict[str, Any]:
    """What reads back as the same experiment."""
    entry: dict[str, Any] = {"workload": experiment.workload, "repeat": experiment.repeat}
    if experiment.description:
        entry["description"] = experiment.description
    if experiment.vary:
        entry["vary"] = {key: list(values) for key, values in experiment.vary.items()}
    if experiment.points:
        entry["points"] = [dict(point) for point in experiment.points]
    if experiment.order != "shuffled":
        entry["order"] = experiment.order
    if experiment.seed != 1:
        entry["seed"] = experiment.seed
    if experiment.reference:
        entry["reference"] = written_references(experiment.reference)
    return entry
