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
        self._least = least
        self._weights = np.array(weights).reshape(len(weights), places)
        self._bounds = np.array(bounds)[:, None]
        # Rows of one transition follow each other, so that a segment each is left to join.
        self._guarded, self._segments = np.unique(np.array(guarded, dtype=np.int64), return_index=True)

    def degrees(self, markings: IntArray) -> IntArray:
        """How often each is enabled: shape (transitions, n), for markings with their extra rows."""
        degree: IntArray | None = None
        for rows, taken in zip(self._inputs, self._taken, strict=True):
            tokens = markings[rows]
            if taken.max(initial=1) > 1:
                tokens //= taken
            degree = tokens if degree is None else np.minimum(degree, tokens, out=degree)
        assert degree is not None
        places = markings[:-EXTRA_ROWS]
        for i, row, tokens in self._least:
            degree[i] *= places[row] < tokens
        if len(self._bounds):
            holds = self._weights @ places.astype(np.float64) < self._bounds
            degree[self._guarded] *= np.logical_and.reduceat(holds, self._segments, axis=0)
        for i in self._others:
            guard = self.transitions[i].guard
            assert guard is not None
            degree[i] *= self.rules.holds(guard, places)
        return degree
