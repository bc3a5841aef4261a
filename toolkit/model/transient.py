"""Markov chains over time and for ever: uniformisation, first-passage times, steady state.

The powers of the uniformised chain are computed once; every instant, moment and quantile is then a Poisson mixture of
what was watched at each power. Its error is rounding and a tail below 1e-13.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import ModelError
from toolkit.model.distributions import FloatArray, poisson_mix
from toolkit.model.semantics import StateSpace

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

TAIL = 1e-13
_MOST_WORK = 4e10
"""Multiplications (steps x non-zeros) after which another method is the better one."""
_CHUNK = 32
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

    def quantile(self, p: float) -> float | None:
        """Smallest t with P(arrived by t) >= p; None if that is never reached."""
        if p >= self.reached[-1]:
            return None
        steps = np.diff(self.reached, append=self.reached[-1])
        high = (float(np.searchsorted(self.reached, p)) + 1) / self.rate
        low = 0.0
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
    """Follow rewards (markings x m) until `horizon`, and until column `until` is within 1e-13 of one or still.

    States whose marking is in `frozen` are made absorbing.
    """
    from scipy.sparse import csr_matrix, diags

    rates, leak = space.rates, space.leak
    if frozen is not None:
        moving = (~frozen[space.marking_of]).astype(np.float64)
        rates, leak = diags(moving) @ rates, leak * moving
    out = np.asarray(rates.sum(axis=1)).ravel() + leak
    rate = float(out.max()) * 1.0001 if out.max() > 0 else 1.0
    step = csr_matrix((rates / rate + diags(1 - out / rate)).T)
    reach = horizon * rate
    needed = int(reach + 12 * math.sqrt(reach) + 26)
    window = _Window(step)
    vector = space.start.copy()
    low, high = 0, space.size
    rows = [np.bincount(space.marking_of, weights=vector, minlength=len(rewards)) @ rewards]
    work = 0.0
    count = 0
    while True:
        low, high = window.around(vector)
        part = window.rows(low, high)
        first = int(space.marking_of[low:high].min())
        classes = space.marking_of[low:high] - first
        width = int(classes.max()) + 1
        shares = np.empty((_CHUNK, width))
        for i in range(_CHUNK):
            following = part @ vector
            change = following - vector[low:high] if i == _CHUNK - 1 else following
            vector[low:high] = following
            shares[i] = np.bincount(classes, weights=following, minlength=width)
        rows.extend(shares @ rewards[first : first + width])
        count += _CHUNK
        work += _CHUNK * (part.nnz + 10_000)
        is_reached = until is not None and rows[-1][until] > 1 - TAIL
        if count >= needed and (is_reached or until is None):
            break
        if float(np.abs(change).sum()) < _STILL:
            break
        if work > _MOST_WORK or (needed - count) * part.nnz > _MOST_WORK:
            raise TooLongError(
                f"net {space.net.name}: {max(count, needed):,} steps are not enough for {space.size:,} states; "
                "try --method simulation"
            )
    return Watched(rate=rate, values=np.array(rows), lost=max(0.0, 1 - float(vector.sum())))


class _Window:
    """The rows of a step matrix that matter: probability moves through the states like a wave.

    Within a chunk of steps nothing can leave the window; what is below 1e-18 outside it is dropped between chunks.
    """

    def __init__(self, step: csr_matrix) -> None:
        self.step = step
        columns = step.tocsc()
        size = step.shape[0]
        is_empty = np.diff(columns.indptr) == 0
        last = np.where(is_empty, 0, columns.indices[np.maximum(columns.indptr[1:] - 1, 0)])
        begin = np.minimum(columns.indptr[:-1], max(columns.nnz - 1, 0))
        first = np.where(is_empty, size, columns.indices[begin])
        self.furthest = np.maximum.accumulate(np.maximum(last, np.arange(size)))
        self.nearest = np.minimum.accumulate(np.minimum(first, np.arange(size))[::-1])[::-1]

    def around(self, vector: FloatArray) -> tuple[int, int]:
        """First and last row (exclusive) that the next chunk of steps can touch."""
        live = np.flatnonzero(vector > _NOTHING)
        low, last = int(live[0]), int(live[-1])
        vector[:low] = 0.0
        vector[last + 1 :] = 0.0
        inside = vector[low : last + 1]
        inside[inside < _TINY] = 0.0
        for _ in range(_CHUNK):
            low, last = int(self.nearest[low]), int(self.furthest[last])
        return low, last + 1

    def rows(self, low: int, high: int) -> csr_matrix:
        """That part of the step matrix, without a copy of its numbers."""
        from scipy.sparse import csr_matrix

        begin, end = self.step.indptr[low], self.step.indptr[high]
        parts = (self.step.data[begin:end], self.step.indices[begin:end], self.step.indptr[low : high + 1] - begin)
        return csr_matrix(parts, shape=(high - low, self.step.shape[1]), copy=False)


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
