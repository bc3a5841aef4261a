"""What a net's shape alone tells: invariants, dead ends, unbounded places; named, before any solver runs for long."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import gcd, lcm
from typing import TypeAlias

import numpy as np

from toolkit.model.net import Immediate, Net
from toolkit.model.semantics import Rules

Weights: TypeAlias = dict[str, int]
_MOST_ROWS = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Structure:
    """What was found."""

    place_invariants: tuple[Weights, ...] | None
    """Weighted sums of tokens that never change; None where looking for all of them would take too long."""
    transition_invariants: tuple[Weights, ...] | None
    """Firings that together lead back to the marking before; None as above."""
    markings: int
    is_complete: bool
    """Whether every reachable marking was seen."""
    bounds: dict[str, int]
    """Most tokens seen in each place."""
    unbounded: tuple[str, ...]
    """Places that can grow for ever: a marking was reached that covers one on its way."""
    is_suspicion: bool
    """Whether guards, inhibitors or immediate transitions, which a larger marking may disable or wake, may still
    stop them beyond the markings seen."""
    dead_transitions: tuple[str, ...]
    """Never enabled in any marking seen."""
    deadlocks: tuple[Weights, ...]
    """Markings (up to five) in which nothing is enabled any more."""


def analyse_structure(net: Net, *, most_markings: int = 20_000) -> Structure:
    """Invariants from the incidence matrix, the rest from the markings reachable by any order of firing.

    Timing is ignored, priorities are kept: immediate transitions fire before timed ones.
    """
    rules = Rules(net)
    matrix = incidence(net)
    places = list(net.places)
    names = [t.name for t in net.transitions]
    is_monotonic = not any(t.inhibitors or t.guard or isinstance(t.timing, Immediate) for t in net.transitions)
    markings, enabled, deadlocks, unbounded, is_complete = _reach(net, rules, most_markings, is_monotonic)
    seen = np.array(markings)
    place_invariants = _named(_semiflows(matrix), places)
    if unbounded and not is_monotonic:
        unbounded = _still_growing(seen, places, place_invariants or ())
    return Structure(
        place_invariants=place_invariants,
        transition_invariants=_named(_semiflows(matrix.T), names),
        markings=len(markings),
        is_complete=is_complete,
        bounds={p: int(b) for p, b in zip(places, seen.max(axis=0), strict=True)},
        unbounded=unbounded,
        dead_transitions=tuple(n for n in names if n not in enabled) if is_complete else (),
        deadlocks=deadlocks,
        is_suspicion=bool(unbounded) and not is_monotonic,
    )


def incidence(net: Net) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """Change of each place (row) by each transition (column)."""
    row = {place: i for i, place in enumerate(net.places)}
    matrix = np.zeros((len(net.places), len(net.transitions)), dtype=np.int64)
    for column, transition in enumerate(net.transitions):
        for place, count in transition.inputs.items():
            matrix[row[place], column] -= count
        for place, count in transition.outputs.items():
            matrix[row[place], column] += count
    return matrix


def _semiflows(matrix: np.ndarray[tuple[int, int], np.dtype[np.int64]]) -> list[list[int]] | None:
    """Minimal non-negative x with x @ matrix == 0 (Farkas); None if there are too many on the way."""
    size, columns = matrix.shape
    rows = [([int(v) for v in matrix[i]], [int(i == j) for j in range(size)]) for i in range(size)]
    for column in range(columns):
        zero = [r for r in rows if not r[0][column]]
        up = [r for r in rows if r[0][column] > 0]
        down = [r for r in rows if r[0][column] < 0]
        for a in up:
            for b in down:
                common = lcm(a[0][column], -b[0][column])
                x, y = common // a[0][column], common // -b[0][column]
                flow = [x * i + y * j for i, j in zip(a[1], b[1], strict=True)]
                rest = [x * i + y * j for i, j in zip(a[0], b[0], strict=True)]
                divisor = gcd(*flow, *rest) or 1
                zero.append(([v // divisor for v in rest], [v // divisor for v in flow]))
        rows = _minimal(zero)
        if len(rows) > _MOST_ROWS:
            return None
    return [flow for _, flow in rows]


def _minimal(rows: list[tuple[list[int], list[int]]]) -> list[tuple[list[int], list[int]]]:
    supports = [frozenset(i for i, v in enumerate(flow) if v) for _, flow in rows]
    kept = []
    for i, row in enumerate(rows):
        smaller = any(s < supports[i] or (s == supports[i] and j < i) for j, s in enumerate(supports))
        if not smaller:
            kept.append(row)
    return kept


def _named(flows: list[list[int]] | None, names: list[str]) -> tuple[Weights, ...] | None:
    if flows is None:
        return None
    return tuple({n: v for n, v in zip(names, flow, strict=True) if v} for flow in flows)


def _reach(
    net: Net, rules: Rules, most: int, is_monotonic: bool
) -> tuple[list[tuple[int, ...]], set[str], tuple[Weights, ...], tuple[str, ...], bool]:
    places = list(net.places)
    first = tuple(int(v) for v in rules.initial)
    parent: dict[tuple[int, ...], tuple[int, ...] | None] = {first: None}
    queue = deque([first])
    enabled: set[str] = set()
    deadlocks: list[Weights] = []
    grows: set[str] = set()
    # Where more tokens only ever enable more, a place that grew once grows for ever: enough seen.
    while queue and len(parent) <= most and not (grows and is_monotonic):
        marking = queue.popleft()
        column = np.array(marking, dtype=np.int64)[:, None]
        able = [t for t in net.transitions if rules.degree(t, column)[0] > 0]
        urgent = [t.timing.priority for t in able if isinstance(t.timing, Immediate)]
        if urgent:
            able = [t for t in able if isinstance(t.timing, Immediate) and t.timing.priority == max(urgent)]
        if not able and len(deadlocks) < 5:
            deadlocks.append({p: v for p, v in zip(places, marking, strict=True) if v})
        for transition in able:
            enabled.add(transition.name)
            after = column.copy()
            rules.fire(transition, after)
            following = tuple(int(v) for v in after[:, 0])
            if following in parent:
                continue
            parent[following] = marking
            queue.append(following)
            back: tuple[int, ...] | None = marking
            while back is not None and not grows:
                if all(a >= b for a, b in zip(following, back, strict=True)):
                    grows |= {p for p, a, b in zip(places, following, back, strict=True) if a > b}
                back = parent[back]
    is_complete = not queue
    return list(parent), enabled, tuple(deadlocks), () if is_complete else tuple(sorted(grows)), is_complete


def _still_growing(
    seen: np.ndarray[tuple[int, ...], np.dtype[np.int64]], places: list[str], invariants: tuple[Weights, ...]
) -> tuple[str, ...]:
    """Places that hold more in the second half of the markings than in the first, and that no invariant bounds."""
    early, late = np.array_split(seen, 2)
    grows = late.max(axis=0) > early.max(axis=0)
    return tuple(p for p, more in zip(places, grows, strict=True) if more and not any(p in i for i in invariants))


def check(net: Net, *, most_markings: int = 20_000) -> list[str]:
    """What a person should know about a net before solving it; empty if nothing stands out."""
    found = analyse_structure(net, most_markings=most_markings)
    notes = [f"transition {name} can never fire" for name in found.dead_transitions]
    for place in found.unbounded:
        until = f" (in {found.markings:,} markings nothing stopped it)" if found.is_suspicion else ""
        notes.append(f"place {place} {'may grow' if until else 'grows'} for ever{until}")
    measure = net.completion()
    if measure is not None:
        rules = Rules(net)
        for deadlock in found.deadlocks:
            column = np.array([[deadlock.get(p, 0)] for p in rules.places], dtype=np.int64)
            if not rules.holds(measure.expression, column)[0]:
                at = ", ".join(f"{p}={v}" for p, v in deadlock.items()) or "no tokens"
                notes.append(f"deadlock before {measure.expression}: {at}")
    return notes
