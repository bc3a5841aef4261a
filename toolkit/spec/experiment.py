"""An experiment as asked for: a workload played at every point of a sweep, several times, in random order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from toolkit.spec.workload import Reference, Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One point of an experiment: what is set there, and the workload that comes of it."""

    parameters: Mapping[str, Any] = field(default_factory=dict)
    """Key as written -> value as written."""
    label: str = ""
    """What tables and plots call it; empty: its parameters do."""
    workload: Workload
    overrides: Mapping[str, str] = field(default_factory=dict)
    """Places of the testbed file, such as `nodes.sub.count` -> YAML; another value needs a deploy."""
    reference: tuple[Reference, ...] = ()
    """Published figures for this point."""

    @property
    def name(self) -> str:
        """What people call it: its label, or its parameters; empty for a workload by itself."""
        return self.label or ", ".join(f"{short(key)}={value}" for key, value in self.parameters.items())


def short(key: str) -> str:
    """A parameter without the section it is in: `broker.mode` is not needed where `mode` says it."""
    return key if key.startswith("nodes.") else key.rpartition(".")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """`vary` and `points` as written, and the cells they come to."""

    name: str
    description: str = ""
    workload: str = ""
    """Played where a point does not say otherwise."""
    vary: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    points: tuple[Mapping[str, Any], ...] = ()
    repeat: int = 1
    order: str = "shuffled"
    seed: int = 1
    reference: tuple[Reference, ...] = ()
    cells: tuple[Cell, ...] = ()

    @property
    def parameters(self) -> tuple[str, ...]:
        """Every key that is varied."""
        keys = (key for keys in (*self.points, self.vary) for key in keys if key != "label")
        return tuple(dict.fromkeys(keys))


def plain_experiment(workload: Workload) -> Experiment:
    """A workload by itself: one point, as often as it says."""
    cell = Cell(workload=workload, reference=workload.reference)
    return Experiment(
        name=workload.name, workload=workload.name, repeat=workload.repeat, seed=workload.seed, cells=(cell,)
    )
