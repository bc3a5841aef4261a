"""Links of a run's nodes, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_BY = {
    "netem": "the kernel (netem)",
    "relay": "a program on the node (relay), late by what its processor was busy",
}


def link_notes(manifest: Mapping[str, Any]) -> list[str]:
    """By what delay, jitter and loss were imposed, where any were: a line for each way, with its nodes."""
    nodes = manifest.get("nodes", {})
    by = {name: node.get("facts", {}).get("link") for name, node in nodes.items()}
    return [
        f"delay, jitter and loss of the links of {', '.join(found)}: imposed by {words}"
        for way, words in _BY.items()
        if (found := sorted(name for name in by if by[name] == way))
    ]
