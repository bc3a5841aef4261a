"""The rates between the states of a chain as compressed rows, and its uniformised steps, with numpy alone."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from toolkit.model.distributions import FloatArray, IntArray

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

_FEW_OF = 16
"""States with so many flows into them that less than one in 16 has as many are summed one by one."""


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

    What is next to nothing outside the window that it moves in is dropped.
    """

    def __init__(self, rates: Rates, leak: FloatArray) -> None:
        out = rates.out + leak
        self.rate = float(out.max()) * 1.0001 if out.max() > 0 else 1.0
        self.stay = 1 - out / self.rate
        # The transpose: row i has what flows into state i.
        self.into = sparse(rates.size, rates.target, rates.source, rates.value / self.rate)
        states = np.arange(rates.size)
        is_end = np.diff(rates.begin) == 0
        edges = np.append(rates.target, 0)
        last = np.where(is_end, states, edges[np.maximum(rates.begin[1:] - 1, 0)])
        first = np.where(is_end, states, edges[rates.begin[:-1]])
        self.furthest = np.maximum.accumulate(np.maximum(last, states))
        self.nearest = np.minimum.accumulate(np.minimum(first, states)[::-1])[::-1]

    def clear(self, vector: FloatArray, *, nothing: float, tiny: float) -> tuple[int, int]:
        """First and last state (exclusive) with more than `nothing`; sets to zero what lies outside, or is tiny."""
        live = np.flatnonzero(vector > nothing)
        low, high = int(live[0]), int(live[-1]) + 1
        vector[:low] = 0.0
        vector[high:] = 0.0
        inside = vector[low:high]
        inside[inside < tiny] = 0.0
        return low, high

    def reach(self, low: int, high: int, steps: int) -> tuple[int, int]:
        """The states that so many steps can touch, from those between `low` and `high`."""
        last = high - 1
        for _ in range(steps):
            low, last = int(self.nearest[low]), int(self.furthest[last])
        return low, last + 1


class Window:
    """Steps of the states from `low` to `high`, of which nothing may leave.

    Its states are in an order of their own, by how many others flow into them: the first flows into all states are then
    one addition of arrays, the second ones another, and only the few states with many more are summed one by one.
    Among equals, states with one label stand together.
    """

    def __init__(self, steps: Steps, low: int, high: int, label: IntArray) -> None:
        self.low, self.high = low, high
        size, into = high - low, steps.into
        begin, end = into.begin[low], into.begin[high]
        counts = np.diff(into.begin[low : high + 1])
        row = np.repeat(np.arange(size), counts)
        nth = np.arange(end - begin) - np.repeat(into.begin[low:high] - begin, counts)
        origin, share = into.target[begin:end] - low, into.value[begin:end]
        outside = (origin < 0) | (origin >= size)
        origin, share = np.where(outside, 0, origin), np.where(outside, 0.0, share)
        order = np.lexsort((label[low:high], -counts))
        self.states = low + order
        self._alike = np.flatnonzero(np.diff(label[self.states] * (1 + counts.max()) + counts[order], prepend=-1))
        self.labels = label[self.states[self._alike]]
        """Of each column of `sums`; one may be there several times."""
        place = np.empty_like(order)
        place[order] = np.arange(size)
        at_once = np.bincount(nth) if nth.size else np.zeros(0, dtype=np.int64)
        levels = int((at_once * _FEW_OF >= size).sum())
        level = np.minimum(nth, levels)
        sorted_ = np.lexsort((nth, place[row], level))
        self._origin, self._share = place[origin[sorted_]], share[sorted_]
        self._stay = steps.stay[self.states]
        self._ends = np.concatenate([[0], np.cumsum(at_once[:levels])])
        rest = place[row[sorted_]][self._ends[-1] :]
        self._rest = np.searchsorted(rest, np.arange(int(rest[-1]) + 1)) if rest.size else np.zeros(0, dtype=np.int64)

    @property
    def moves(self) -> int:
        """How many numbers one step multiplies."""
        return len(self._share) + len(self._stay)

    def advance(self, vector: FloatArray, count: int) -> FloatArray:
        """The window's states after 1, 2, ... `count` steps, in its own order: shape (count, states).

        `vector`, all states in the chain's order, becomes that after the last step.
        """
        block = np.empty((count, len(self.states)))
        flow = np.empty(len(self._share))
        parts = [flow[a:b] for a, b in pairwise(self._ends)]
        rest, before = flow[self._ends[-1] :], vector[self.states]
        for after in block:
            before.take(self._origin, out=flow, mode="clip")
            np.multiply(flow, self._share, out=flow)
            np.multiply(before, self._stay, out=after)
            for part in parts:
                after[: len(part)] += part
            if len(rest):
                after[: len(self._rest)] += np.add.reduceat(rest, self._rest)
            before = after
        vector[self.states] = before
        return block

    def sums(self, block: FloatArray) -> FloatArray:
        """The probability of each label after each step: shape (count, labels)."""
        return np.asarray(np.add.reduceat(block, self._alike, axis=1), dtype=np.float64)
