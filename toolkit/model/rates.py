"""The rates between the states of a chain as compressed rows, and its uniformised steps; scipy only where it pays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from toolkit.model.distributions import FloatArray, IntArray

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

_FEW = 60_000
"""Moves up to which a chain is stepped by numpy alone, as fast as by scipy, which takes 0.2 s to be imported."""
_MOST_PADDING = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """A square matrix without its diagonal: row i has `target` and `value` from `begin[i]` to `begin[i + 1]`."""

    begin: IntArray
    target: IntArray
    """Ascending within a row, each once."""
    value: FloatArray

    @property
    def size(self) -> int:
        """How many states there are."""
        return len(self.begin) - 1

    @property
    def source(self) -> IntArray:
        """The row of each value."""
        return np.repeat(np.arange(self.size), np.diff(self.begin))

    @property
    def out(self) -> FloatArray:
        """The sum of each row."""
        return np.asarray(np.bincount(self.source, weights=self.value, minlength=self.size), dtype=np.float64)

    def matrix(self) -> csr_matrix:
        """As scipy has it."""
        from scipy.sparse import csr_matrix

        return csr_matrix((self.value, self.target, self.begin), shape=(self.size, self.size))

    def reordered(self, order: IntArray) -> Rates:
        """With state `order[i]` as the i-th."""
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        return sparse(len(order), place[self.source], place[self.target], self.value)

    def distance(self, roots: IntArray) -> IntArray:
        """Fewest moves from the roots to each state; all must be reachable."""
        distance = np.full(self.size, -1, dtype=np.int64)
        distance[roots] = 0
        front, level = roots, 0
        while front.size:
            level += 1
            counts = self.begin[front + 1] - self.begin[front]
            first = self.begin[front] - (np.cumsum(counts) - counts)
            reached = self.target[np.arange(int(counts.sum())) + np.repeat(first, counts)]
            distance[reached[distance[reached] < 0]] = level
            front = np.flatnonzero(distance == level)
        return distance


def sparse(size: int, source: IntArray, target: IntArray, value: FloatArray) -> Rates:
    """Rates from one entry for each move; several from one state to another are added."""
    key = source * size + target
    order = np.argsort(key, kind="stable")
    key = key[order]
    is_first = np.append(True, key[1:] != key[:-1])[: key.size]
    summed = np.bincount(np.cumsum(is_first) - 1, weights=value[order]) if key.size else np.zeros(0)
    key = key[is_first]
    begin = np.searchsorted(key, np.arange(size + 1) * size)
    return Rates(begin=begin, target=key % size, value=np.asarray(summed, dtype=np.float64))


class Steps:
    """The uniformised chain's step, restricted to the states that matter: probability moves through them like a wave.

    Within as many steps as it was made for nothing can leave the window; what is next to nothing outside it is dropped.
    """

    def __init__(self, rates: Rates, leak: FloatArray) -> None:
        out = rates.out + leak
        self.rate = float(out.max()) * 1.0001 if out.max() > 0 else 1.0
        states = np.arange(rates.size)
        # The transpose, its diagonal included: row i has what flows into state i.
        into = sparse(
            rates.size,
            np.concatenate([rates.target, states]),
            np.concatenate([rates.source, states]),
            np.concatenate([rates.value / self.rate, 1 - out / self.rate]),
        )
        self.begin, self.origin, self.share = into.begin, into.target, into.value
        self.columns = _padded(into) if len(into.value) <= _FEW else None
        is_end = np.diff(rates.begin) == 0
        edges = np.append(rates.target, 0)
        last = np.where(is_end, states, edges[np.maximum(rates.begin[1:] - 1, 0)])
        first = np.where(is_end, states, edges[rates.begin[:-1]])
        self.furthest = np.maximum.accumulate(np.maximum(last, states))
        self.nearest = np.minimum.accumulate(np.minimum(first, states)[::-1])[::-1]

    def window(self, vector: FloatArray, *, nothing: float, tiny: float, steps: int) -> tuple[int, int]:
        """First and last state (exclusive) that the next steps can touch; sets to zero what lies outside."""
        live = np.flatnonzero(vector > nothing)
        low, last = int(live[0]), int(live[-1])
        vector[:low] = 0.0
        vector[last + 1 :] = 0.0
        inside = vector[low : last + 1]
        inside[inside < tiny] = 0.0
        for _ in range(steps):
            low, last = int(self.nearest[low]), int(self.furthest[last])
        return low, last + 1

    def edges(self, low: int, high: int) -> int:
        """How many numbers one step multiplies in a window."""
        return int(self.begin[high] - self.begin[low])

    def step(self, low: int, high: int) -> Callable[[FloatArray], FloatArray]:
        """One step of the states from `low` to `high`: the whole vector in, their new probabilities out."""
        if self.columns is not None:
            origin, share = (np.ascontiguousarray(column[:, low:high]) for column in self.columns)
            return lambda vector: np.asarray(np.einsum("ij,ij->j", share, vector[origin]))
        from scipy.sparse import csr_matrix

        begin, end = self.begin[low], self.begin[high]
        row = self.begin[low : high + 1] - begin
        part = csr_matrix((self.share[begin:end], self.origin[begin:end], row), shape=(high - low, len(self.begin) - 1))
        return lambda vector: np.asarray(part @ vector)


def _padded(rates: Rates) -> tuple[IntArray, FloatArray] | None:
    """(states, values) with a column for each row, filled up with zeros; None where that would be mostly zeros."""
    width = np.diff(rates.begin)
    shape = (int(width.max()), rates.size)
    if shape[0] * shape[1] > _MOST_PADDING * len(rates.value):
        return None
    place = np.arange(len(rates.value)) - np.repeat(rates.begin[:-1], width)
    targets, values = np.zeros(shape, dtype=np.int64), np.zeros(shape)
    targets[place, rates.source], values[place, rates.source] = rates.target, rates.value
    return targets, values
