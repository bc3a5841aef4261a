"""Phase-type stand-ins: every distribution as a small absorbing Markov chain, exactly or with matched moments."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from toolkit.errors import ModelError
from toolkit.model.distributions import (
    Distribution,
    Erlang,
    Exponential,
    FloatArray,
    Gamma,
    HyperErlang,
    IntArray,
    PhaseType,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Phases:
    """Start probabilities and generator among the phases; `is_exact` when nothing was approximated."""

    start: FloatArray
    generator: FloatArray
    is_exact: bool

    @property
    def exits(self) -> FloatArray:
        """Rate of leaving for good from each phase; what is mere rounding is 0."""
        out = -self.generator.sum(axis=1)
        return np.where(out > -1e-14 * self.generator.diagonal(), out, 0.0)

    @property
    def moves(self) -> tuple[IntArray, IntArray, FloatArray]:
        """(from, to, rate) of each move between phases, sorted by the first."""
        inner = np.where(np.eye(len(self.start), dtype=bool), 0.0, self.generator)
        origin, following = np.nonzero(inner > 0)
        return origin, following, inner[origin, following]

    def moment(self, order: int) -> float:
        """E X^order."""
        vector: FloatArray = np.ones(len(self.start))
        for _ in range(order):
            vector = np.asarray(np.linalg.solve(-self.generator, vector), dtype=np.float64)
        return math.factorial(order) * float(self.start @ vector)


@lru_cache(maxsize=256)
def expand(distribution: Distribution, order: int) -> Phases:
    """The phases of a distribution; `order` is how many a bounded one without phases of its own may use.

    Exponential, Erlang, hyper-Erlang and phase-type are exact. Others become a mixture of Erlangs that keeps the first
    three moments (two where three cannot be had) and lies closest to the distribution function in least squares.
    """
    match distribution:
        case Exponential(rate=rate):
            return Phases(start=np.ones(1), generator=np.array([[-rate]]), is_exact=True)
        case Erlang(shape=shape, rate=rate):
            return _chain(_unit(0, int(shape)), rate, is_exact=True)
        case Gamma(shape=shape, rate=rate) if float(shape).is_integer():
            return _chain(_unit(0, int(shape)), rate, is_exact=True)
        case HyperErlang():
            branches = [(w, int(e.shape), e.rate) for w, e in distribution.branches()]
            return _branches(branches, is_exact=True)
        case PhaseType(start=start, generator=generator):
            return Phases(start=np.asarray(start), generator=np.asarray(generator), is_exact=True)
    if distribution.variance <= 0:
        raise ModelError(f"{distribution} is a constant: it has no phases; use the simulator")
    return _mixture(distribution, order)


def _unit(index: int, size: int) -> FloatArray:
    vector = np.zeros(size)
    vector[index] = 1.0
    return vector


def _chain(start: FloatArray, rate: float, *, is_exact: bool) -> Phases:
    size = len(start)
    return Phases(start=start, generator=rate * (np.eye(size, k=1) - np.eye(size)), is_exact=is_exact)


def _branches(branches: list[tuple[float, int, float]], *, is_exact: bool) -> Phases:
    size = sum(shape for _, shape, _ in branches)
    start, generator = np.zeros(size), np.zeros((size, size))
    at = 0
    for weight, shape, rate in branches:
        start[at] = weight
        generator[at : at + shape, at : at + shape] = rate * (np.eye(shape, k=1) - np.eye(shape))
        at += shape
    return Phases(start=start, generator=generator, is_exact=is_exact)


def _mixture(distribution: Distribution, order: int) -> Phases:
    spread = distribution.variance / distribution.mean**2
    if spread < 1:
        size = max(order, math.ceil(1 / spread) + order // 2)
        # The rates at which the third moment can be matched lie in a narrow window: 14.3 to 14.9 for U(0, 1) with 9.
        rates = np.linspace(0.56, 1.0, 23) * size / distribution.mean
        for moments in (3, 2):
            best: tuple[float, FloatArray, float] | None = None
            for rate in rates:
                found = _weights(distribution, [(i + 1, rate) for i in range(size)], moments)
                if found is None and best is not None:
                    break
                if found is not None and (best is None or found[0] < best[0]):
                    best = (*found, float(rate))
            if best is not None:
                return _chain(best[1][::-1].copy(), best[2], is_exact=False)
    else:
        median, top = distribution.quantile(np.array([0.5, 1 - 1e-7]))
        rates = np.geomspace(2 / top, 10 * order / median, 4 * order)
        dictionary = [(shape, shape * float(rate)) for rate in rates for shape in (1, 2, 4)]
        for moments in (3, 2):
            found = _weights(distribution, dictionary, moments)
            if found is not None:
                kept = [(w, *part) for w, part in zip(found[1], dictionary, strict=True) if w > 0]
                return _branches(kept, is_exact=False)
    raise ModelError(f"no phase-type stand-in found for {distribution}; use the simulator")


def _erlang_cdf(shape: int, x: FloatArray) -> FloatArray:
    """As the closed sum, which is exact enough here and needs nothing that takes long to import."""
    term = np.exp(-x)
    total = term.copy()
    for k in range(1, shape):
        term = term * x / k
        total += term
    return 1 - total


def _weights(
    distribution: Distribution, dictionary: list[tuple[int, float]], moments: int
) -> tuple[float, FloatArray] | None:
    """Mixture weights that keep the moments: (largest error of the distribution function, weights) or None."""
    parts = [Erlang(shape=shape, rate=rate) for shape, rate in dictionary]
    low, top = (float(q) for q in distribution.quantile(np.array([1e-3, 1 - 1e-6])))
    is_wide = distribution.variance >= distribution.mean**2
    grid = np.geomspace(low + 1e-12, 1.5 * top, 80) if is_wide else np.linspace(0, 1.2 * top, 61)[1:]
    target = distribution.cdf(grid)
    matrix = np.stack([_erlang_cdf(shape, rate * grid) for shape, rate in dictionary], axis=1)
    scale = [distribution.moment(i) for i in range(1, moments + 1)]
    equal = np.array([[part.moment(i + 1) / scale[i] for part in parts] for i in range(moments)])
    equal = np.vstack([np.ones(len(parts)), equal])
    weights = _nonnegative(matrix, target, equal)
    if np.abs(equal @ weights - 1).max() > 1e-9:
        return None
    return float(np.abs(matrix @ weights - target).max()), weights


def _nonnegative(matrix: FloatArray, target: FloatArray, equal: FloatArray) -> FloatArray:
    """Least squares with weights >= 0 and `equal @ weights == 1`: Lawson and Hanson's active set, then exact rows."""
    heavy = 1e4
    a = np.vstack([matrix, heavy * equal])
    b = np.concatenate([target, np.full(len(equal), heavy)])
    size = a.shape[1]
    passive = np.zeros(size, dtype=bool)
    x = np.zeros(size)
    for _ in range(3 * size):
        gradient = a.T @ (b - a @ x)
        gradient[passive] = -np.inf
        if passive.all() or gradient.max() <= 1e-9 * heavy:
            break
        passive[int(np.argmax(gradient))] = True
        while True:
            trial = np.zeros(size)
            trial[passive] = np.linalg.lstsq(a[:, passive], b, rcond=None)[0]
            if (trial[passive] > 0).all():
                x = trial
                break
            blocked = passive & (trial <= 0)
            step = float((x[blocked] / np.maximum(x[blocked] - trial[blocked], 1e-300)).min())
            x = x + step * (trial - x)
            passive &= x > 1e-14
            x[~passive] = 0.0
            if not passive.any():
                break
    kept = np.flatnonzero(x > 0)
    exact = _equality_least_squares(matrix[:, kept], target, equal[:, kept])
    if exact is not None and (exact >= 0).all():
        x[kept] = exact
    return x


def _equality_least_squares(matrix: FloatArray, target: FloatArray, equal: FloatArray) -> FloatArray | None:
    """Least squares under `equal @ x == 1` through the null space of the equalities."""
    particular = np.linalg.lstsq(equal, np.ones(len(equal)), rcond=None)[0]
    _, values, right = np.linalg.svd(equal)
    rank = int((values > 1e-12 * values[0]).sum()) if values.size else 0
    free = right[rank:].T
    if free.size:
        shift = np.linalg.lstsq(matrix @ free, target - matrix @ particular, rcond=None)[0]
        particular = particular + free @ shift
    return np.asarray(particular) if np.abs(equal @ particular - 1).max() < 1e-10 else None
