"""How far each node's clock was from the reference during a run, with the bound of that knowledge.

Every node's clock process logs one JSON line a second (`ClockReading`). A node's offset is interpolated between
readings and taken off its stamps; what stays uncertain is `root dispersion + root delay / 2` (RFC 5905) plus the
clock's resolution. Nodes on one kernel share one clock: between them only the resolution is uncertain.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESOLUTION_NS = 1_000
"""Assumed where a process did not measure its clock's smallest step."""
STEP_NS = 100_000
"""A jump of wall minus monotonic time by more than this is a step, not a slew."""
SHARED = "operator"
"""The clock domain of nodes that run on the operator's own kernel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockReading:
    """One line of a clock log."""

    at_ns: int
    monotonic_ns: int
    offset_ns: int
    """This clock minus the reference."""
    root_delay_ns: int
    root_dispersion_ns: int
    read_window_ns: int = 0
    """How far apart the wall and the monotonic clock may have been read."""
    synchronised: bool = True
    shared: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockStep:
    """A jump of a node's wall clock."""

    node: str
    at_ns: int
    """Wall clock after the step; 0 where unknown."""
    size_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeClock:
    """One node's clock over a run."""

    node: str
    domain: str
    """Clocks of one domain are one clock."""
    times_ns: tuple[int, ...] = ()
    offsets_ns: tuple[int, ...] = ()
    bounds_ns: tuple[int, ...] = ()
    resolution_ns: int = RESOLUTION_NS
    synchronised: bool = True
    steps: tuple[ClockStep, ...] = ()
    readings: int = 0

    @property
    def known(self) -> bool:
        """Whether anything says how good this clock is."""
        return self.domain == SHARED or self.readings > 0

    def offset_at_ns(self, at_ns: NDArray[np.int64]) -> NDArray[np.int64]:
        """Offsets at these instants, shape of `at_ns`; linear between readings, constant beyond them."""
        if not any(self.offsets_ns):
            return np.zeros_like(at_ns)
        base = self.times_ns[0]  # ns since the epoch do not fit a float; differences within a run do
        offsets = np.interp(
            (at_ns - base).astype(np.float64),
            (np.asarray(self.times_ns, dtype=np.int64) - base).astype(np.float64),
            np.asarray(self.offsets_ns, dtype=np.float64),
        )
        return np.rint(offsets).astype(np.int64)

    def bound_ns(self, first_ns: int, last_ns: int) -> int:
        """The largest bound between two instants (and at the readings around them)."""
        if not self.bounds_ns:
            return 0
        times = np.asarray(self.times_ns, dtype=np.int64)
        lo = max(int(np.searchsorted(times, first_ns, side="right")) - 1, 0)
        hi = min(int(np.searchsorted(times, last_ns, side="left")) + 1, len(times))
        return max(self.bounds_ns[lo : max(hi, lo + 1)])


def path_bound_ns(one: NodeClock, other: NodeClock, first_ns: int, last_ns: int) -> int | None:
    """How wrong a one-way delay from one node to the other may be; None where a clock is unknown.

    Definition: RFC 7679 section 3.7: synchronisation of both ends plus resolution of both ends. One clock on both ends
    has only its resolution.
    """
    if one.node == other.node or one.domain == other.domain:
        return max(one.resolution_ns, other.resolution_ns)
    if not (one.known and other.known):
        return None
    bounds = one.bound_ns(first_ns, last_ns) + other.bound_ns(first_ns, last_ns)
    return bounds + one.resolution_ns + other.resolution_ns


def read_log(file: Path) -> list[ClockReading]:
    """Readings of one node in time order; lines cut short by a full disk or a kill are skipped."""
    readings = []
    for line in file.read_text().splitlines() if file.is_file() else []:
        try:
            raw = json.loads(line)
            readings.append(ClockReading(**{name: raw[name] for name in ClockReading.__slots__ if name in raw}))
        except (ValueError, TypeError):
            continue
    return sorted(readings, key=lambda reading: reading.monotonic_ns)


def node_clock(
    node: str, readings: Sequence[ClockReading], *, shared: bool = False, processes: Iterable[Mapping[str, Any]] = ()
) -> NodeClock:
    """What readings of the clock process, and `StampsInfo.clock` of measuring processes, say of a node's clock."""
    told = list(processes)
    resolution = max([int(clock.get("resolution_ns") or 0) for clock in told], default=0) or RESOLUTION_NS
    steps = (*find_steps(node, readings), *_told_steps(node, told))
    clock = NodeClock(
        node=node,
        domain=node,
        resolution_ns=resolution,
        steps=tuple(dict.fromkeys(steps)),
        readings=len(readings),
    )
    if shared or (readings and all(reading.shared for reading in readings)):
        return dataclasses.replace(clock, domain=SHARED)
    return dataclasses.replace(
        clock,
        times_ns=tuple(reading.at_ns for reading in readings),
        offsets_ns=tuple(reading.offset_ns for reading in readings),
        bounds_ns=tuple(reading.root_dispersion_ns + reading.root_delay_ns // 2 for reading in readings),
        synchronised=bool(readings) and all(reading.synchronised for reading in readings),
    )


def find_steps(node: str, readings: Sequence[ClockReading]) -> list[ClockStep]:
    """Jumps of wall minus monotonic time between neighbouring readings, beyond what the reading may be wrong by."""
    return [
        ClockStep(node=node, at_ns=after.at_ns, size_ns=size)
        for before, after in itertools.pairwise(readings)
        if abs(size := (after.at_ns - after.monotonic_ns) - (before.at_ns - before.monotonic_ns))
        > STEP_NS + (before.read_window_ns + after.read_window_ns) // 2
    ]


def _told_steps(node: str, told: Iterable[Mapping[str, Any]]) -> list[ClockStep]:
    """Steps that processes saw: [monotonic_ns, size_ns] or [monotonic_ns, size_ns, wall_ns]."""
    return [
        ClockStep(node=node, at_ns=int(step[2]) if len(step) > 2 else 0, size_ns=int(step[1]))  # noqa: PLR2004
        for clock in told
        for step in clock.get("steps", ())
    ]
