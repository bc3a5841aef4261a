"""How far each node's clock was from the reference during a run, with the bound of that knowledge.

Every node's clock process logs one JSON line a second (`ClockReading`). A node's offset is interpolated between
readings and taken off its stamps; what stays uncertain is `root dispersion + root delay / 2` (RFC 5905) plus the
clock's resolution. Nodes on one kernel share one clock: between them only the resolution is uncertain.

A clock that steps while a run lasts is believed until the step (`NodeClock.until_ns`) and never after it.
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
LOOK_NS = 2_000_000_000
"""A process that saw a step had looked at its clock no longer ago than this."""
_NEVER_NS = 1 << 62
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
    throttled: int | None = None
    """Of a Raspberry Pi: the bits of its firmware (`toolkit.measure.boards`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockStep:
    """A jump of a node's wall clock."""

    node: str
    at_ns: int
    """Wall clock after the step; 0 where unknown."""
    size_ns: int
    monotonic_ns: int = 0
    """The node's monotonic clock when it was seen."""
    until_ns: int = 0
    """What shows less than this on the node's clock was surely stamped before the step; 0: nothing was."""


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
    until_ns: int | None = None
    """Stamps that show this or more on the node's clock may be of after a step; None: it did not step."""

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
    """Readings of one node in the order they were written; lines cut short by a full disk or a kill are skipped."""
    readings = []
    for line in file.read_text().splitlines() if file.is_file() else []:
        try:
            raw = json.loads(line)
            readings.append(ClockReading(**{name: raw[name] for name in ClockReading.__slots__ if name in raw}))
        except (ValueError, TypeError):
            continue
    return readings


def node_clock(
    node: str,
    readings: Sequence[ClockReading],
    *,
    shared: bool = False,
    processes: Iterable[Mapping[str, Any]] = (),
    lasted_ns: int | None = None,
    since_ns: int = 0,
) -> NodeClock:
    """What readings of the clock process, and `StampsInfo.clock` of measuring processes, say of a node's clock.

    `lasted_ns`: from the start of the run until its files were fetched; what the log says of before is no step of it.
    `since_ns`: that start, by the node's clock; nor is what a process saw before.
    """
    told = list(processes)
    readings = _since_boot(readings)
    resolution = max([int(clock.get("resolution_ns") or 0) for clock in told], default=0) or RESOLUTION_NS
    logged = find_steps(node, readings)
    early = [
        step for step in logged if lasted_ns is not None and step.monotonic_ns < readings[-1].monotonic_ns - lasted_ns
    ]
    during, seen = logged[len(early) :], _told_steps(node, told, readings, since_ns)
    every = (*during, *seen)
    after_ns = max((step.monotonic_ns for step in early), default=0)
    before_ns = min((*(s.monotonic_ns for s in during), *(s.monotonic_ns - LOOK_NS for s in seen)), default=_NEVER_NS)
    unseen = [step for step in seen if all(abs(step.monotonic_ns - s.monotonic_ns) > LOOK_NS for s in during)]
    clock = NodeClock(
        node=node,
        domain=node,
        resolution_ns=resolution,
        steps=tuple(dict.fromkeys((*during, *unseen))),
        readings=len(readings),
        until_ns=min((step.until_ns for step in every), default=None),
    )
    if shared or (readings and all(reading.shared for reading in readings)):
        return dataclasses.replace(clock, domain=SHARED)
    readings = [r for r in readings if after_ns <= r.monotonic_ns < before_ns] or readings[-1:]
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
        ClockStep(
            node=node,
            at_ns=after.at_ns,
            size_ns=size,
            monotonic_ns=after.monotonic_ns,
            until_ns=before.at_ns + min(size, 0) - (before.read_window_ns + after.read_window_ns),
        )
        for before, after in itertools.pairwise(readings)
        if abs(size := (after.at_ns - after.monotonic_ns) - (before.at_ns - before.monotonic_ns))
        > STEP_NS + (before.read_window_ns + after.read_window_ns) // 2
    ]


def _since_boot(readings: Sequence[ClockReading]) -> Sequence[ClockReading]:
    """The readings after the last time that the monotonic clock began anew."""
    boots = [
        i
        for i, (before, after) in enumerate(itertools.pairwise(readings), 1)
        if after.monotonic_ns < before.monotonic_ns
    ]
    return readings[boots[-1] :] if boots else readings


def _told_steps(
    node: str, told: Iterable[Mapping[str, Any]], readings: Sequence[ClockReading], since_ns: int
) -> list[ClockStep]:
    """Steps that processes saw: [monotonic_ns, size_ns] or [monotonic_ns, size_ns, wall clock right after it]."""
    steps = [
        _told_step(node, *(int(value) for value in step), readings=readings)
        for clock in told
        for step in clock.get("steps", ())
    ]
    return [step for step in steps if not step.at_ns or step.at_ns + max(-step.size_ns, 0) >= since_ns - LOOK_NS]


def _told_step(
    node: str, monotonic_ns: int, size_ns: int, wall_ns: int = 0, *, readings: Sequence[ClockReading]
) -> ClockStep:
    before = [reading for reading in readings if reading.monotonic_ns <= monotonic_ns - LOOK_NS]
    if before:  # and the later ones, as long as they show the clock as it was
        later = (reading for reading in readings if monotonic_ns - LOOK_NS < reading.monotonic_ns <= monotonic_ns)
        shown_ns = before[-1].at_ns - before[-1].monotonic_ns
        before += itertools.takewhile(lambda r: abs(r.at_ns - r.monotonic_ns - shown_ns) <= STEP_NS, later)
    after = [reading for reading in readings if reading.monotonic_ns >= monotonic_ns]
    return ClockStep(
        node=node,
        at_ns=wall_ns or (after[0].at_ns - (after[0].monotonic_ns - monotonic_ns) if after else 0),
        size_ns=size_ns,
        monotonic_ns=monotonic_ns,
        until_ns=max(before[-1].at_ns + min(size_ns, 0), 0) if before else wall_ns and wall_ns - max(size_ns, 0),
    )
