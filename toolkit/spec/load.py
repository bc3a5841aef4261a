"""A testbed file becomes a Testbed: parse, put variables in, check the shape, resolve, check what must hold."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic_core import ValidationError

from toolkit.errors import FileInvalidError, UsageError
from toolkit.spec import rules, yaml
from toolkit.spec.clouds import DEFAULT_CLOUD, resolve_clouds
from toolkit.spec.experiment_file import join_experiments
from toolkit.spec.findings import Findings
from toolkit.spec.names import as_name, did_you_mean
from toolkit.spec.nodes import Machines, resolve_machines
from toolkit.spec.placing import resolve_services
from toolkit.spec.quantities import duration_s
from toolkit.spec.scale import scale_counts
from toolkit.spec.schema import compiled, validator
from toolkit.spec.secrets import resolve_secrets
from toolkit.spec.sweep import resolve_experiments
from toolkit.spec.testbed import ClockGate, Cloud, Monitoring, Testbed
from toolkit.spec.traffic import resolve_workloads
from toolkit.spec.variables import substitute
from toolkit.spec.wording import explain

_NAMED = frozenset({"nodes", "services", "workloads", "experiments", "groups", "images", "clouds", "secrets"})
"""Sections of the file whose entries have names of people's own, so that a name that is not there is a mistake.

Kinds and providers are there without being written, and a variable may have its default where it is used.
"""
_REMOVED = object()
_NOTHING: Mapping[str, str] = MappingProxyType({})


def load_testbed(
    file: Path,
    *,
    provider: str | None = None,
    overrides: Mapping[str, str] = _NOTHING,
    scale: float = 1.0,
    also: Path | None = None,
    held: Mapping[str, str] = _NOTHING,
    environ: Mapping[str, str] = os.environ,
) -> Testbed:
    """The testbed a file asks for, every default worked in.

    `provider` takes all nodes from there instead; `overrides` maps a dotted path, or a variable's name, to YAML text
    that replaces it; `scale` multiplies counts of nodes; `also` is a file with more workloads and experiments;
    `held` maps virtual nodes to the addresses that they have now and keep, whoever comes before them in the file.
    Raises FileInvalidError with every problem found, UsageError for a wrong provider or override.
    """
    document = yaml.read(file)
    if also is not None:
        document = join_experiments(document, yaml.read(also))
    document = scale_counts(_override(document, overrides), scale)
    findings = Findings(document=document, problems=[*document.problems])
    substitute(findings, environ)
    content = _check_shape(document, findings)
    name = content.get("name") or _name_of(file)
    machines = resolve_machines(content, name, findings, provider=provider, held=held)
    testbed = dataclasses.replace(_testbed(file, name, content, machines, findings), scale=scale)
    rules.check(testbed, content, findings)
    if findings.problems:
        raise FileInvalidError(findings.problems)
    return testbed


def name_in(file: Path) -> str:
    """The name of a file's testbed, whatever else is wrong in it; raises FileInvalidError where it is not YAML."""
    root = yaml.read(file).root
    name = root.get("name") if isinstance(root, dict) else None
    return name if name and isinstance(name, str) else _name_of(file)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a testbed is loaded from: a file, and what the command line makes of it."""

    file: Path
    provider: str | None = None
    overrides: Mapping[str, str] = field(default_factory=dict)
    """Dotted place in the file -> YAML that stands there instead."""
    varied: Mapping[str, str] = field(default_factory=dict)
    """The same for one point of an experiment, over the others; a deployment does not keep these."""
    scale: float = 1.0
    """Counts of nodes are multiplied by it."""
    also: Path | None = None
    """A file with more workloads and experiments."""
    held: Mapping[str, str] = field(default_factory=dict)
    """Virtual node -> the address it has now."""

    def load(self) -> Testbed:
        """The testbed; raises FileInvalidError or UsageError."""
        return load_testbed(
            self.file,
            provider=self.provider,
            overrides={**self.overrides, **self.varied},
            scale=self.scale,
            also=self.also,
            held=self.held,
        )


def _testbed(file: Path, name: str, content: Mapping[str, Any], machines: Machines, findings: Findings) -> Testbed:
    secrets = resolve_secrets(content, findings)
    clouds = resolve_clouds(content, secrets, findings)
    services = resolve_services(content, machines.nodes, secrets, clouds, findings)
    if not clouds and any(service.cloud for service in services):
        clouds = {DEFAULT_CLOUD: Cloud(name=DEFAULT_CLOUD)}
    workloads = resolve_workloads(content, services, findings)
    return Testbed(
        name=name,
        file=file,
        description=content.get("description", ""),
        subnet=machines.subnet,
        nodes=machines.nodes,
        services=services,
        clouds=clouds,
        providers=machines.providers,
        clock=ClockGate(**{f"{key}_s": duration_s(text) for key, text in content.get("clock", {}).items()}),
        monitoring=_monitoring(content.get("monitoring", {})),
        workloads=workloads,
        experiments=resolve_experiments(content, services, workloads, findings),
        secrets=secrets,
        twin=machines.twin,
    )


def _override(document: yaml.Document, overrides: Mapping[str, str]) -> yaml.Document:
    for key, text in overrides.items():
        where = f"--set {key}"
        parts: yaml.Path = tuple(key.split("."))
        variables = document.root.get("variables") if isinstance(document.root, dict) else None
        if len(parts) == 1 and isinstance(variables, dict) and key in variables:
            parts = ("variables", key)
        _check_entry(document, parts, where)
        place = document.root
        for part in parts[:-1]:
            if isinstance(place, dict) and place.get(str(part)) is None:
                place[str(part)] = {}
            place = place.get(str(part)) if isinstance(place, dict) else None
        if not isinstance(place, dict):
            raise UsageError(f"{where}: {document.file} has no mapping there; write a path such as nodes.sub.count=3")
        try:
            place[str(parts[-1])] = yaml.parse(text, where, document.folder).root
        except FileInvalidError as error:
            raise UsageError(f"{where}: {text!r} is not a value: {error.problems[0].message}") from None
        document.overridden[parts] = where
    return document


def _check_entry(document: yaml.Document, parts: yaml.Path, where: str) -> None:
    """A key of an entry that the file does not have would make a new entry, of nothing but this key."""
    section, *inside = map(str, parts)
    if section not in _NAMED or len(inside) < 2 or not isinstance(document.root, dict):  # noqa: PLR2004
        return
    there = document.root.get(section)
    entries = there if isinstance(there, dict) else {}
    if inside[0] not in entries:
        raise UsageError(
            f"{where}: {document.file} has no {inside[0]!r} in `{section}`{did_you_mean(inside[0], entries)}; "
            f"to add one, write all of it: --set '{section}.{inside[0]}={{…}}'"
        )


def _check_shape(document: yaml.Document, findings: Findings) -> Mapping[str, Any]:
    """The file as its types say; what is wrong is reported and left out, so that the rest can be looked at too."""
    content = document.root
    if not isinstance(content, dict):
        findings.add((), "a testbed file is a mapping that begins with `nodes:`; try: toolkit init")
        raise FileInvalidError(findings.problems)
    removed: set[yaml.Path] = set()
    while True:
        try:
            checked: Mapping[str, Any] = validator("file").validate_python(content)
        except ValidationError as error:
            # What is missing after something was left out is missing because of that.
            but = ("missing", "too_short") if removed else ()
            findings.extend(explain(error, compiled()["file"], content, document, but=but))
            removed = _prune(content, error)
            findings.left_out |= removed
            if not removed:
                raise FileInvalidError(findings.problems) from None
        else:
            return checked


def _prune(content: dict[str, Any], error: ValidationError) -> set[yaml.Path]:
    """Remove every wrong value; empty where nothing could be removed, as with a missing key at the top."""
    pruned: set[yaml.Path] = set()
    for details in error.errors(include_url=False, include_input=False, include_context=False):
        way: list[tuple[Any, int | str]] = []
        place: Any = content
        for part in details["loc"]:
            # Parts that are not in the value name a branch of a union, or a missing key.
            if part in place if isinstance(place, dict) else isinstance(place, list) and isinstance(part, int):
                way.append((place, part))
                place = place[part]
        if way:
            parent, part = way[-1]
            parent[part] = _REMOVED
            pruned.add(tuple(part for _, part in way))
    _sweep(content)
    return pruned


def _sweep(place: Any) -> None:
    """Take out what was marked; marks first, since removing at once would move the items of a list."""
    if isinstance(place, dict):
        for key in [key for key, value in place.items() if value is _REMOVED]:
            del place[key]
        for value in place.values():
            _sweep(value)
    elif isinstance(place, list):
        place[:] = [item for item in place if item is not _REMOVED]
        for item in place:
            _sweep(item)


def _name_of(file: Path) -> str:
    """The folder's name for a `testbed.yml`, else the file's."""
    stem = file.absolute().parent.name if file.stem == "testbed" else file.stem
    return as_name(stem) or "testbed"


def _monitoring(entry: Mapping[str, Any]) -> Monitoring:
    given: dict[str, Any] = {f"{k}_s": duration_s(entry[k]) for k in ("scrape_interval", "retention") if k in entry}
    if "grafana" in entry:
        given["grafana_image"] = entry["grafana"] or None
    given |= {key: entry[key] for key in ("alertmanager", "console") if key in entry}
    return Monitoring(**given)
