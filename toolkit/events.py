"""What happens while toolkit acts, as typed values; only `cli` and the console show them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

Level = Literal["info", "warning", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One step of one node (or of the whole testbed, where `node` is empty)."""

    stage: str
    """plan, acquire, preflight, images, provision, gate, save, run, collect, teardown …"""
    message: str
    node: str = ""
    level: Level = "info"
    state: Literal["started", "done", "failed", "note"] = "note"
    changed: bool = False
    duration_s: float | None = None
    at: float = field(default_factory=time.time)


Emit = Callable[[Event], None]


def ignore(_: Event) -> None:
    """For stories that nobody watches."""


def counted(number: int, noun: str) -> str:
    """A number of things, for messages: `1 node`, `2 nodes`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
