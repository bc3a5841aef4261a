"""Which runs an experiment comes to, in which order, and which of them have been played already."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from toolkit.spec.experiment import Cell, Experiment
from toolkit.spec.plain import plain
from toolkit.spec.testbed import Testbed
from toolkit.spec.workload import Workload

NEXT_SEED = 1_000_003
"""Between the seeds of two repetitions: publishers of one run have seeds that follow one another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One run that is to be: a cell, and which repetition of it."""

    cell: Cell
    repetition: int

    @property
    def workload(self) -> Workload:
        """With a seed of its own, so that repetitions differ as days do."""
        own = self.cell.workload
        return dataclasses.replace(own, seed=own.seed + NEXT_SEED * (self.repetition - 1))

    def __str__(self) -> str:
        return f"{self.cell.name or self.cell.workload.name}, repetition {self.repetition}"


def make_points(experiment: Experiment) -> list[Point]:
    """Every cell once, then every cell again …: each round in an order of its own, from the seed.

    Rounds rather than one shuffle over all: what changes while an experiment lasts meets every cell alike, and an
    experiment that stops early has as much of each.
    """
    points = []
    for repetition in range(1, experiment.repeat + 1):
        cells = list(experiment.cells)
        if experiment.order == "shuffled":
            random.Random(f"{experiment.seed} {repetition}").shuffle(cells)  # noqa: S311  reproducible, not secret
        points += [Point(cell=cell, repetition=repetition) for cell in cells]
    return points


def run_key(testbed: Testbed, point: Point) -> str:
    """What must be equal for one run to stand for another: the testbed as it is at that point, workload, repetition."""
    asked = {
        "testbed": _identity(testbed),
        "workload": _traffic(point.workload),
        "point": {"parameters": plain(point.cell.parameters), "repetition": point.repetition},
    }
    return _digest(asked)


def experiment_key(testbed: Testbed, experiment: Experiment) -> str:
    """The same experiment on the same testbed; how often it is repeated does not count."""
    cells = [(plain(cell.parameters), dict(cell.overrides), _traffic(cell.workload)) for cell in experiment.cells]
    return _digest({"testbed": _identity(testbed), "name": experiment.name, "cells": cells})


def _identity(testbed: Testbed) -> list[Any]:
    return [testbed.name, testbed.twin, plain(testbed.nodes), plain(testbed.services), plain(testbed.clouds)]


def _traffic(workload: Workload) -> Mapping[str, Any]:
    return {name: value for name, value in plain(workload).items() if name not in {"repeat", "asserts", "reference"}}


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]
