"""Kinds of node, and what a node inherits: node over group over kind over defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toolkit.spec.findings import Findings
from toolkit.spec.names import did_you_mean
from toolkit.spec.yaml import Path

BUILT_IN: Mapping[str, Mapping[str, Any]] = {
    "pi1": {"architecture": "arm/v6", "cpus": 0.5, "memory": "512M", "link": {"rate": "100mbit"}},
    "pi3": {"architecture": "arm/v7", "cpus": 2.0, "memory": "1G", "link": {"rate": "100mbit"}},
    "pi4": {"architecture": "arm64", "cpus": 4.0, "memory": "4G", "link": {"rate": "1gbit"}},
    "vm": {"cpus": 2.0, "memory": "1G", "link": {"rate": "1gbit"}},
    "host": {},
}
"""cpus are shares of the operator's cores; they keep the boards' order of speed, not their exact speed."""

DEFAULT_KIND = "vm"
_BY_KEY = ("link", "labels")
"""Mappings whose keys are inherited one by one."""

Layer = tuple[Path, Mapping[str, Any]]
"""Where values stand in the file, and the values."""


def inherit(layers: list[Layer]) -> tuple[dict[str, Any], dict[str, Path]]:
    """Merge layers, later over earlier: the values, and for each key (`link.rate` too) where it stands."""
    values: dict[str, Any] = {}
    origin: dict[str, Path] = {}
    for path, layer in layers:
        for key, value in layer.items():
            if key in _BY_KEY:
                values[key] = values.get(key, {}) | value
                origin |= {f"{key}.{part}": (*path, key, part) for part in value}
            else:
                values[key] = value
                origin[key] = (*path, key)
    return values, origin


def layers_of(name: str, file: Mapping[str, Any], findings: Findings) -> list[Layer]:
    """What a node of the file inherits from, weakest first, itself last; unknown groups and kinds are reported."""
    node = file["nodes"][name] or {}
    defaults: Layer = (("defaults",), file.get("defaults", {}))
    layers = [defaults]
    if (group := node.get("group")) is not None:
        groups = file.get("groups", {})
        if group in groups:
            layers.append((("groups", group), groups[group] or {}))
        else:
            hint = did_you_mean(group, groups) or "; add it to `groups`"
            findings.add(("nodes", name, "group"), f"undefined group {group!r}{hint}")
    layers.append((("nodes", name), node))
    values, origin = inherit(layers)
    kind = values.setdefault("kind", DEFAULT_KIND)
    return [defaults, *_kind_layers(kind, origin.get("kind", ("nodes", name)), file, findings), *layers[1:]]


def _kind_layers(kind: str, named_at: Path, file: Mapping[str, Any], findings: Findings) -> list[Layer]:
    own = file.get("kinds", {})
    layers: list[Layer] = []
    seen: list[str] = []
    while True:
        if kind in seen:
            findings.add(named_at, f"kinds go round in a circle: {' -> '.join([*seen, kind])}")
            break
        seen.append(kind)
        if kind not in own and kind not in BUILT_IN:
            findings.add(named_at, f"undefined kind {kind!r}{did_you_mean(kind, [*BUILT_IN, *own])}")
            break
        entry = own.get(kind) or {}
        layers.append((("kinds", kind), {key: value for key, value in entry.items() if key != "like"}))
        if "like" not in entry:
            layers.append((("kinds", kind), BUILT_IN.get(kind, {})))
            break
        kind, named_at = entry["like"], ("kinds", kind, "like")
    return layers[::-1]


def is_discovered(kind: str, file: Mapping[str, Any]) -> bool:
    """Nodes of kind `host`, or of a kind like it, are whatever they turn out to be."""
    own = file.get("kinds", {})
    seen: set[str] = set()
    while kind in own and kind not in seen:
        seen.add(kind)
        if "like" not in (own[kind] or {}):
            break
        kind = own[kind]["like"]
    return kind == "host"
