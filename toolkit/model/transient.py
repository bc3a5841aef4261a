"""Markov chains over time and for ever: uniformisation, first-passage times, steady state.

The powers of the uniformised chain are computed once; every instant, moment and quantile is then a Poisson mixture of
what was watched at each power. Its error is rounding and a tail below 1e-13.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import ModelError
from toolkit.model.distributions import FloatArray, poisson_mix
from toolkit.model.semantics import StateSpace

TAIL = 1e-13
_MOST_WORK = 4e10
"""Multiplications (steps x non-zeros) after which another method is the better one."""
_NOTHING = 1e-40
"""Probabilities below are dropped: numbers near the end of the floating-point range are tens of times slower."""
_DENSE = 1500


class TooLongError(ModelError):
    """Uniformisation would need too many steps: fast and slow rates, or a far horizon."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """Rewards of a uniformised chain, step by step: `values[k]` is expected after k jumps at `rate`."""

    rate: float
    values: FloatArray
    """Shape (steps, rewards); the last row holds from there on."""

    def at(self, times: FloatArray) -> FloatArray:
        """Expected rewards at each time: shape (times, rewards)."""
        return poisson_mix(self.values, np.asarray(times, dtype=np.float64) * self.rate)


@dataclass(frozen=True, slots=True, kw_only=True)
class PassageTime:
    """The time until an absorbed reward column reaches one (or its final probability, if that is lower)."""

    rate: float
    reached: FloatArray
    """Probability of having arrived after each jump."""

    @property
    def probability(self) -> float:
        """Of ever arriving."""
        last = float(self.reached[-1])
        return 1.0 if last > 1 - 10 * TAIL - 1e-12 else last

    @property
    def mean(self) -> float:
        """Given arrival."""
        return float((1 - self.reached / self.reached[-1]).sum()) / self.rate

    @property
    def sd(self) -> float:
        """Given arrival."""
        open_ = 1 - self.reached / self.reached[-1]
        jumps = float(open_.sum())
        square = float(((2 * np.arange(len(open_)) + 1) * open_).sum())
        return math.sqrt(max(square + jumps - jumps**2, 0.0)) / self.rate

    def cdf(self, times: FloatArray) -> FloatArray:
        """P(arrived by t)."""
        return poisson_mix(self.reached, np.maximum(times, 0.0) * self.rate)

    def quantile(self, p: float) -> float | None:
        """Smallest t with P(arrived by t) >= p; None if that is never reached."""
        if p >= self.reached[-1]:
            return None
        steps = np.diff(self.reached, append=self.reached[-1])
        high = (float(np.searchsorted(self.reached, p)) + 1) / self.rate
        low, high = 0.0, high
        while float(self.cdf(np.array([high]))[0]) < p:
            low, high = high, high * 1.5
        t = (low + high) / 2
        for _ in range(200):
            value = float(self.cdf(np.array([t]))[0]) - p
            low, high = (t, high) if value < 0 else (low, t)
            slope = float(poisson_mix(steps, np.array([t * self.rate]))[0]) * self.rate
            following = t - value / slope if slope > 0 else math.inf
            if not low < following < high:
                following = (low + high) / 2
            if abs(following - t) <= 1e-13 * t or high - low <= 1e-13 * high:
                return following
            t = following
        return t


def watch(
    space: StateSpace,
    rewards: FloatArray,
    *,
    frozen: NDArray[np.bool_] | None = None,
    horizon: float = 0.0,
    until: int | None = None,
) -> Watched:
    """Follow rewards (states x m) until `horizon`, and until column `until` is within 1e-13 of one or still.

    States in `frozen` are made absorbing.
    """
    from scipy.sparse import csr_matrix, diags

    rates = space.rates
    if frozen is not None:
        rates = diags((~frozen).astype(np.float64)) @ rates
    out = np.asarray(rates.sum(axis=1)).ravel()
    rate = float(out.max()) * 1.0001 if out.max() > 0 else 1.0
    step = csr_matrix((rates / rate + diags(1 - out / rate)).T)
    reach = horizon * rate
    needed = int(reach + 12 * math.sqrt(reach) + 26)
    vector = space.start.copy()
    seen = np.ascontiguousarray(rewards.T)
    rows = [seen @ vector]
    most = int(_MOST_WORK / max(step.nnz, 20_000))
    if needed > most:
        raise TooLongError(f"net {space.net.name}: {needed:,} steps of {step.nnz:,} rates; try --method simulation")
    for count in range(1, most + 1):
        following = step @ vector
        rows.append(seen @ following)
        if until is not None and count >= needed and rows[-1][until] > 1 - TAIL:
            break
        if until is None and count >= needed:
            break
        if count % 64 == 0 and float(np.abs(following - vector).sum()) < 1e-15:
            break
        if count % 8 == 0:
            following[following < _NOTHING] = 0.0
        vector = following
    else:
        raise TooLongError(f"net {space.net.name}: not absorbed after {most:,} steps; try --method simulation")
    return Watched(rate=rate, values=np.array(rows))


def steady_state(space: StateSpace) -> FloatArray:
    """Long-run probability of each state; several closed classes are weighted by the chance of ending in them."""
    from scipy.sparse.csgraph import connected_components

    count, labels = connected_components(space.rates, directed=True, connection="strong")
    edges = space.rates.tocoo()
    is_open = np.zeros(count, dtype=bool)
    is_open[labels[edges.row[labels[edges.row] != labels[edges.col]]]] = True
    result = np.zeros(space.size)
    closed = np.flatnonzero(~is_open)
    shares = _absorption(space, labels, closed)
    for share, component in zip(shares, closed, strict=True):
        members = np.flatnonzero(labels == component)
        result[members] = share * _stationary(space.rates[members][:, members])
    return result


def _absorption(space: StateSpace, labels: NDArray[np.int32], closed: NDArray[np.int64]) -> FloatArray:
    if len(closed) == 1:
        return np.ones(1)
    from scipy.sparse import csc_matrix, diags
    from scipy.sparse.linalg import splu

    passing = np.flatnonzero(~np.isin(labels, closed))
    shares = np.array([space.start[labels == c].sum() for c in closed])
    if passing.size:
        out = np.asarray(space.rates[passing].sum(axis=1)).ravel()
        inside = csc_matrix(diags(out) - space.rates[passing][:, passing])
        visits = splu(inside.T.tocsc()).solve(space.start[passing])
        flow = space.rates[passing].T @ visits
        shares += np.array([flow[labels == c].sum() for c in closed])
    return np.asarray(shares / shares.sum())


def _stationary(rates: object) -> FloatArray:
    """Grassmann-Taksar-Heyman elimination for small chains (no subtraction), a sparse factorisation for others."""
    from scipy.sparse import csr_matrix, diags, vstack
    from scipy.sparse.linalg import spsolve

    matrix = csr_matrix(rates)
    size = matrix.shape[0]
    if size == 1:
        return np.ones(1)
    if size <= _DENSE:
        dense = matrix.toarray()
        for last in range(size - 1, 0, -1):
            dense[:last, last] /= dense[last, :last].sum()
            dense[:last, :last] += np.outer(dense[:last, last], dense[last, :last])
            np.fill_diagonal(dense[:last, :last], 0.0)
        weights = np.ones(size)
        for i in range(1, size):
            weights[i] = weights[:i] @ dense[:i, i]
        return np.asarray(weights / weights.sum())
    generator = (matrix - diags(np.asarray(matrix.sum(axis=1)).ravel())).T.tocsr()
    system = vstack([generator[:-1], csr_matrix(np.ones((1, size)))]).tocsc()
    right = np.zeros(size)
    right[-1] = 1.0
    solution = np.maximum(spsolve(system, right), 0.0)
    return np.asarray(solution / solution.sum())
