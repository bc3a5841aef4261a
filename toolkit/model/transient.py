"""Markov chains over time and for ever: uniformisation, first-passage times, steady state.

The powers of the uniformised chain are computed once; every instant, moment and quantile is then a Poisson mixture of
what was watched at each power. Its error is rounding and a tail below 1e-13.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import ModelError
from toolkit.model.distributions import FloatArray, poisson_mix
from toolkit.model.rates import Steps, Window
from toolkit.model.semantics import StateSpace

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

TAIL = 1e-13
MOST_WORK = 4e10
"""Multiplications (steps x moves) after which another method is the better one; 1e9 take 5 to 10 s."""
_PROGRESS = 0.25
"""Part of the states that half the probability has left behind before the whole work is foretold from it."""
_CHUNK = 32
_AHEAD = 4
"""Chunks that a window is made for."""
_NOTHING = 1e-18
_TINY = 1e-40
"""Set to zero: numbers near the end of the floating-point range are tens of times slower to multiply."""
_STILL = 1e-15
_DENSE = 1500


class TooLongError(ModelError):
    """Uniformisation would need too many steps: fast and slow rates, or a far horizon."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """Rewards of a uniformised chain, step by step: `values[k]` is expected after k jumps at `rate`."""

    rate: float
    values: FloatArray
    """Shape (steps, rewards); the last row holds from there on."""
    lost: float = 0.0
    """Probability that went to states that were left out, or was rounded away."""

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

    def density(self, times: FloatArray) -> FloatArray:
        """Of the time of arrival."""
        return self.rate * poisson_mix(np.diff(self.reached, append=self.reached[-1]), times * self.rate)

    def quantile(self, p: float) -> float | None:
        """Smallest t with P(arrived by t) >= p; None if that is never reached."""
        if p >= self.reached[-1]:
            return None
        both = np.stack([self.reached, np.diff(self.reached, append=self.reached[-1]) * self.rate], axis=1)
        low, high = 0.0, (float(np.searchsorted(self.reached, p)) + 1) / self.rate
        t = high
        while float(self.cdf(np.array([high]))[0]) < p:
            low, high = high, high * 1.5
        for _ in range(200):
            value, slope = poisson_mix(both, np.array([t * self.rate]))[0]
            low, high = (t, high) if value < p else (low, t)
            following = t - (value - p) / slope if slope > 0 else math.inf
            if not low < following < high:
                following = (low + high) / 2
            if abs(following - t) <= 1e-13 * t or high - low <= 1e-13 * high:
                return float(following)
            t = float(following)
        return t


def watch(
    space: StateSpace,
    rewards: FloatArray,
    *,
    frozen: NDArray[np.bool_] | None = None,
    horizon: float = 0.0,
    until: int | None = None,
    most_work: float = MOST_WORK,
) -> Watched:
    """Follow rewards (markings x m) until `horizon`, and until all but 1e-13 is in column `until` or nothing moves.

    States whose marking is in `frozen` are made absorbing.
    """
    rates, leak = space.rates, space.leak
    if frozen is not None:
        moving = (~frozen[space.marking_of]).astype(np.float64)
        rates, leak = replace(rates, value=rates.value * moving[rates.source]), leak * moving
    steps = Steps(rates, leak)
    reach = horizon * steps.rate
    needed = int(reach + 12 * math.sqrt(reach) + 26)
    vector = space.start.copy()
    rows = [np.bincount(space.marking_of, weights=vector, minlength=len(rewards)) @ rewards]
    work = 0.0
    count = 0
    window: Window | None = None
    while True:
        live = steps.clear(vector, nothing=_NOTHING, tiny=_TINY)
        low, high = steps.reach(*live, _CHUNK)
        if window is None or not (window.low <= low and high <= window.high and _is_most(low, high, window)):
            window = Window(steps, *steps.reach(*live, _AHEAD * _CHUNK), space.marking_of)
        block = window.advance(vector, _CHUNK)
        rows.extend(window.sums(block) @ rewards[window.labels])
        count += _CHUNK
        work += _CHUNK * (window.moves + 10_000)
        if count >= needed and (until is None or float(block[-1].sum()) - rows[-1][until] < TAIL):
            break
        if float(np.abs(block[-1] - block[-2]).sum()) < _STILL:
            break
        passed = np.cumsum(vector)
        done = int(np.searchsorted(passed, passed[-1] / 2)) / space.size
        # Without an end to wait for, all steps up to the horizon are to come.
        ahead = (needed - count) * window.moves if until is None else 0
        if max(work / done if done > _PROGRESS else work, ahead) > most_work:
            raise TooLongError(
                f"net {space.net.name}: {space.size:,} states need too many steps; try --method simulation"
            )
    return Watched(rate=steps.rate, values=np.array(rows), lost=max(0.0, 1 - float(vector.sum())))


def _is_most(low: int, high: int, window: Window) -> bool:
    """Whether so much of a window is in use that another one is not worth making."""
    return (high - low) * 4 >= (window.high - window.low) * 3


def steady_state(space: StateSpace) -> FloatArray:
    """Long-run probability of each state; several closed classes are weighted by the chance of ending in them."""
    from scipy.sparse.csgraph import connected_components

    rates = space.rates.matrix()
    count, labels = connected_components(rates, directed=True, connection="strong")
    source, target = space.rates.source, space.rates.target
    is_open = np.zeros(count, dtype=bool)
    is_open[labels[source[labels[source] != labels[target]]]] = True
    result = np.zeros(space.size)
    closed = np.flatnonzero(~is_open)
    shares = _absorption(space.start, rates, labels, closed)
    for share, component in zip(shares, closed, strict=True):
        members = np.flatnonzero(labels == component)
        result[members] = share * _stationary(rates[members][:, members])
    return result


def _absorption(
    start: FloatArray, rates: csr_matrix, labels: NDArray[np.int32], closed: NDArray[np.int64]
) -> FloatArray:
    if len(closed) == 1:
        return np.ones(1)
    from scipy.sparse import csc_matrix, diags
    from scipy.sparse.linalg import splu

    passing = np.flatnonzero(~np.isin(labels, closed))
    shares = np.array([start[labels == c].sum() for c in closed])
    if passing.size:
        out = np.asarray(rates[passing].sum(axis=1)).ravel()
        inside = csc_matrix(diags(out) - rates[passing][:, passing])
        visits = splu(inside.T.tocsc()).solve(start[passing])
        flow = rates[passing].T @ visits
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
