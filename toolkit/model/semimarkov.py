"""One token, any distributions: Laplace transforms solved on the marking graph and inverted numerically.

Inversion: Abate and Whitt's Euler algorithm, the number of terms doubled until two answers agree.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from toolkit.model.distributions import ComplexArray, Distribution, FloatArray
from toolkit.model.semantics import OneClock

_A = 22.0
"""Discretisation error e^-A = 3e-10; rounding grows with e^(A/2)."""
_AVERAGED = 12
_MOST_TERMS = 2560
_MOST_CYCLIC = 200


class SemiMarkov:
    """Times and places of a net in which one clock runs at a time; `target` marks the states that end it."""

    def __init__(self, process: OneClock, target: NDArray[np.bool_]) -> None:
        self.process = process
        self.target = target
        self.size = len(process.delays)
        self.edges = [(a, b, p) for a, b, p in process.edges if not target[a]]
        self.order = _topological(self.size, self.edges)
        self.error = 0.0
        """Largest difference seen between an inversion and one with half as many terms."""
        matrix = np.zeros((self.size, self.size))
        for a, b, p in self.edges:
            matrix[a, b] += p
        self.jumps = matrix
        inner = ~target
        solve = np.eye(self.size) - matrix * inner
        # Chance of reaching the target; states that never do would make the system singular, so they are cut first.
        able = _can_reach(self.size, self.edges, target)
        solve[~able] = np.eye(self.size)[~able]
        right = np.where(able, matrix @ target.astype(np.float64), 0.0)
        self.reach = np.where(target, 1.0, np.linalg.solve(solve, right)) if target.any() else np.zeros(self.size)

    @property
    def is_solvable(self) -> bool:
        """Whether the graph is small enough, or without cycles."""
        return self.order is not None or self.size <= _MOST_CYCLIC

    @property
    def probability(self) -> float:
        """Of ever reaching the target."""
        return float(self.process.start @ self.reach)

    def moments(self) -> tuple[float, float]:
        """Mean and standard deviation of the time to the target, given that it is reached."""
        chance = self.reach
        live = (chance > 0) & ~self.target
        index = np.flatnonzero(live)
        jumps = self.jumps[np.ix_(index, index)] * chance[index] / chance[index][:, None]
        delays = [self.process.delays[i] for i in index]
        first = np.array([d.mean if d else 0.0 for d in delays])
        second = np.array([d.moment(2) if d else 0.0 for d in delays])
        system = np.eye(index.size) - jumps
        mean = np.linalg.solve(system, first)
        square = np.linalg.solve(system, second + 2 * first * (jumps @ mean))
        weights = (self.process.start * chance)[index] / self.probability
        total = float(weights @ mean)
        return total, math.sqrt(max(float(weights @ square) - total**2, 0.0))

    def visits(self, s: ComplexArray) -> ComplexArray:
        """Transform of the rate of entering each state: shape (states, len(s))."""
        transforms: dict[Distribution, ComplexArray] = {}
        for delay in self.process.delays:
            if delay is not None and delay not in transforms:
                transforms[delay] = delay.transform(s)
        leave = [transforms[d] if d is not None else np.zeros_like(s) for d in self.process.delays]
        if self.order is not None:
            values = np.repeat(self.process.start.astype(np.complex128)[:, None], s.size, axis=1)
            following: dict[int, list[tuple[int, float]]] = {}
            for a, b, p in self.edges:
                following.setdefault(a, []).append((b, p))
            for a in self.order:
                for b, p in following.get(a, ()):
                    values[b] += values[a] * leave[a] * p
            return values
        system = np.eye(self.size) - np.einsum("ab,as->sba", self.jumps, np.stack(leave))
        start = np.broadcast_to(self.process.start.astype(np.complex128)[:, None], (s.size, self.size, 1))
        return np.asarray(np.linalg.solve(system, start)[:, :, 0].T)

    def _stays(self, s: ComplexArray) -> ComplexArray:
        """Transform of the probability of being in each state."""
        values = self.visits(s)
        for i, delay in enumerate(self.process.delays):
            gone = delay.transform(s) if delay is not None and not self.target[i] else 0.0
            values[i] *= (1 - gone) / s
        return values

    def _invert(self, transform: Callable[[ComplexArray], ComplexArray], times: FloatArray) -> FloatArray:
        terms = 40
        result = euler(transform, times, terms)
        while True:
            terms *= 2
            before, result = result, euler(transform, times, terms)
            change = float(np.abs(result - before).max(initial=0.0))
            if change < 1e-10 or terms >= _MOST_TERMS:
                self.error = max(self.error, change + math.exp(-_A))
                return result

    def cdf(self, times: FloatArray) -> FloatArray:
        """P(target reached by t)."""
        values = self._invert(lambda s: np.asarray(self.visits(s)[self.target].sum(axis=0) / s)[None], times)
        return np.asarray(values[0])

    def state_probabilities(self, times: FloatArray) -> FloatArray:
        """Shape (states, times), the states of `target` absorbing."""
        result = np.repeat(self.process.start[:, None], len(times), axis=1)
        later = np.flatnonzero(times > 0)
        if later.size:
            result[:, later] = self._invert(self._stays, times[later])
        return np.clip(result, 0.0, 1.0)

    def quantiles(self, probabilities: FloatArray, *, terms: int = 320) -> FloatArray:
        """Times by which the target is reached with each probability; NaN where it never is."""
        mean, sd = self.moments()
        reachable = probabilities < self.probability * (1 - 1e-12)
        out = np.full(len(probabilities), np.nan)
        p = probabilities[reachable]
        if not p.size:
            return out

        def both(s: ComplexArray) -> ComplexArray:
            density = self.visits(s)[self.target].sum(axis=0)
            return np.stack([density / s, density])

        low, high = np.zeros_like(p), np.full_like(p, mean + 4 * sd)
        while (short := self.cdf(high) < p).any():
            low, high = np.where(short, high, low), np.where(short, high + 4 * sd, high)
        t = (low + high) / 2
        for _ in range(80):
            value, slope = euler(both, t, terms)
            low, high = np.where(value < p, t, low), np.where(value < p, high, t)
            with np.errstate(divide="ignore", invalid="ignore"):
                following = t - (value - p) / slope
            safe = (following > low) & (following < high)
            following = np.where(safe, following, (low + high) / 2)
            if (np.abs(following - t) <= 1e-11 * t).all():
                break
            t = following
        self.error = max(self.error, float(np.abs(self.cdf(t) - p).max()))
        out[reachable] = t
        return out


def euler(transform: Callable[[ComplexArray], ComplexArray], times: FloatArray, terms: int) -> FloatArray:
    """Functions f_i(t), shape (functions, times), from their Laplace transforms: alternating series, Euler-averaged."""
    count = terms + _AVERAGED + 1
    k = np.arange(count)
    s = np.asarray((_A + 2j * math.pi * k[None, :]) / (2 * times[:, None]), dtype=np.complex128)
    values = np.real(transform(s.ravel())).reshape(-1, len(times), count)
    signs = np.where(k % 2 == 0, 1.0, -1.0)
    signs[0] = 0.5
    partial = np.cumsum(values * signs, axis=2)[:, :, terms:]
    weights = np.array([math.comb(_AVERAGED, i) for i in range(_AVERAGED + 1)]) / 2.0**_AVERAGED
    return np.asarray(math.exp(_A / 2) / times * (partial @ weights))


def _topological(size: int, edges: list[tuple[int, int, float]]) -> list[int] | None:
    """States so that every edge points forward, or None if there is a cycle."""
    incoming = [0] * size
    following: list[list[int]] = [[] for _ in range(size)]
    for a, b, _ in edges:
        incoming[b] += 1
        following[a].append(b)
    ready = [i for i in range(size) if not incoming[i]]
    order = []
    while ready:
        state = ready.pop()
        order.append(state)
        for b in following[state]:
            incoming[b] -= 1
            if not incoming[b]:
                ready.append(b)
    return order if len(order) == size else None


def _can_reach(size: int, edges: list[tuple[int, int, float]], target: NDArray[np.bool_]) -> NDArray[np.bool_]:
    before: list[list[int]] = [[] for _ in range(size)]
    for a, b, _ in edges:
        before[b].append(a)
    able = target.copy()
    todo = [int(i) for i in np.flatnonzero(target)]
    while todo:
        for a in before[todo.pop()]:
            if not able[a]:
                able[a] = True
                todo.append(a)
    return able
