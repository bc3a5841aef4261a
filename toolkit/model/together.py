"""Enabling and firing of many transitions at once: what `Rules` says one by one, as few operations on whole arrays.

Markings have two rows below those of the places: ones, and more tokens than anything takes. A transition with fewer
inputs or inhibitors than others reads those instead.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from toolkit.model.distributions import FloatArray, IntArray
from toolkit.model.expressions import inequalities
from toolkit.model.net import Transition
from toolkit.model.semantics import Rules

PLENTY = 1 << 40
EXTRA_ROWS = 2


def with_extra_rows(markings: IntArray) -> IntArray:
    """Markings (places x n) with the two rows below."""
    extra = np.ones((EXTRA_ROWS, markings.shape[1]), dtype=np.int64)
    extra[-1] = PLENTY
    return np.concatenate([markings, extra])


class Together:
    """Some transitions of a net, in the order given."""

    def __init__(self, rules: Rules, transitions: Sequence[Transition]) -> None:
        self.rules = rules
        self.transitions = list(transitions)
        places, count = len(rules.places), len(self.transitions)
        ones, plenty = places, places + 1
        width = max((len(t.inputs) for t in self.transitions), default=0) or 1
        self._inputs = np.full((width, count), plenty)
        self._taken = np.ones((width, count, 1), dtype=np.int64)
        self.changes = np.zeros((places + EXTRA_ROWS, count), dtype=np.int64)
        """Tokens that each firing adds: shape (rows, transitions)."""
        least: list[tuple[int, int, int]] = []
        weights: list[FloatArray] = []
        bounds: list[float] = []
        guarded: list[int] = []
        self._others: list[int] = []
        for i, transition in enumerate(self.transitions):
            self._inputs[0, i] = ones
            for k, (place, tokens) in enumerate(transition.inputs.items()):
                self._inputs[k, i], self._taken[k, i] = rules.row[place], tokens
                self.changes[rules.row[place], i] -= tokens
            for place, tokens in transition.outputs.items():
                self.changes[rules.row[place], i] += tokens
            least += [(i, rules.row[place], tokens) for place, tokens in transition.inhibitors.items()]
            if transition.guard is None:
                continue
            parts = inequalities(transition.guard)
            if parts is None:
                self._others.append(i)
                continue
            for part, bound in parts:
                weights.append(np.array([part.get(place, 0.0) for place in rules.places]))
                bounds.append(bound)
                guarded.append(i)
        self._taken_at_most = self._taken.max(axis=1, initial=1).ravel()
        self._least = least
        self._weights = np.array(weights).reshape(len(weights), places)
        self._bounds = np.array(bounds)[:, None]
        self._guarded = np.array(guarded, dtype=np.int64)
        """Which transition each weighted sum belongs to, ascending."""

    def degrees(self, markings: IntArray) -> tuple[IntArray, IntArray]:
        """(transitions that may be enabled anywhere, how often each is: a row for each of them, n columns).

        `markings` have their extra rows. Transitions that are left out have an input place that is empty everywhere.
        """
        occupied = np.asarray((markings > 0).any(axis=1))
        live = np.flatnonzero(occupied[self._inputs].all(axis=0))
        degree = markings.take(self._inputs[0, live], axis=0)
        if self._taken_at_most[0] > 1:
            degree //= self._taken[0, live]
        for rows, taken, most in zip(self._inputs[1:], self._taken[1:], self._taken_at_most[1:], strict=True):
            more = np.flatnonzero(rows[live] < len(markings) - 1)
            tokens = markings.take(rows[live[more]], axis=0)
            degree[more] = np.minimum(degree[more], tokens // taken[live[more]] if most > 1 else tokens)
        places = markings[:-EXTRA_ROWS]
        row = np.full(len(self.transitions), -1)
        row[live] = np.arange(len(live))
        for i, place, tokens_least in self._least:
            if row[i] >= 0:
                degree[row[i]] *= places[place] < tokens_least
        sums = np.flatnonzero(row[self._guarded] >= 0)
        if sums.size:
            holds = self._weights[sums] @ places.astype(np.float64) < self._bounds[sums]
            guarded, segments = np.unique(self._guarded[sums], return_index=True)
            degree[row[guarded]] *= np.logical_and.reduceat(holds, segments, axis=0)
        for i in self._others:
            if row[i] >= 0:
                guard = self.transitions[i].guard
                assert guard is not None
                degree[row[i]] *= self.rules.holds(guard, places)
        return live, degree
