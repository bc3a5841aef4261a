"""How well a distribution describes a sample: likelihood, Kolmogorov-Smirnov, Anderson-Darling; of rounded clocks too.

Delays read from clocks of a coarse resolution r are differences of two floored instants: a delay X is seen as k with
probability E max(0, 1 - |X - k| / r). With `resolution` given, that is the likelihood; otherwise the density is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from toolkit.errors import ModelError
from toolkit.model.distributions import Distribution, FloatArray

TINY = 1e-300


class Likelihood:
    """Log-likelihood of a sample, ties counted once."""

    def __init__(self, values: FloatArray, resolution: float) -> None:
        self.all = values
        self.resolution = resolution
        self.values, counts = np.unique(values, return_counts=True)
        self.counts = counts.astype(np.float64)
        self.n = len(values)
        positive = np.maximum(values, max(resolution / 4, TINY)) if resolution > 0 else values
        self.mean = float(values.mean()) or resolution / 4
        self.variance = max(float(values.var()), 1e-18 * self.mean**2)
        self.mean_log = float(np.log(positive).mean())
        self.sd_log = max(float(np.log(positive).std()), 1e-9)

    def __call__(self, distribution: Distribution) -> float:
        """The log-likelihood of a distribution; minus infinity where it makes a value impossible."""
        with np.errstate(divide="ignore", invalid="ignore", over="ignore", under="ignore"):
            if self.resolution > 0:
                seen = rounded_probability(distribution, self.values, self.resolution)
            else:
                seen = distribution.pdf(self.values)
            return float(self.counts @ np.log(seen)) if (seen > 0).all() else -math.inf

    def best(self, make: Callable[[FloatArray], Distribution], start: Sequence[float]) -> Distribution | None:
        """The most likely member of a family, from a start in free parameters (Nelder and Mead)."""
        from scipy.optimize import minimize

        def badness(free: FloatArray) -> float:
            try:
                value = -self(make(free))
            except (ModelError, OverflowError, ValueError, ZeroDivisionError):
                return 1e300
            return value if math.isfinite(value) else 1e300

        options = {"xatol": 1e-9, "fatol": 1e-9, "maxiter": 2000, "maxfev": 4000}
        result = minimize(badness, np.asarray(start, dtype=np.float64), method="Nelder-Mead", options=options)
        return make(result.x) if result.fun < 1e299 else None


def rounded_probability(distribution: Distribution, seen: FloatArray, resolution: float) -> FloatArray:
    """Probability of seeing each delay as the difference of two instants floored to `resolution`."""
    nodes, weights = np.polynomial.legendre.leggauss(12)
    nodes, weights = (nodes + 1) / 2 * resolution, weights / 2
    up = distribution.cdf((seen[:, None] + nodes).ravel()).reshape(len(seen), -1) @ weights
    below = np.maximum(seen[:, None] - resolution + nodes, 0.0)
    inside = seen[:, None] - resolution + nodes >= 0
    down = (distribution.cdf(below.ravel()).reshape(len(seen), -1) * inside) @ weights
    return np.asarray(np.maximum(up - down, 0.0))


def ks_distance(values: FloatArray, distribution: Distribution, *, resolution: float = 0.0) -> float:
    """Largest difference of the distribution functions; for rounded data after rounding the distribution too."""
    ordered, counts = np.unique(values, return_counts=True)
    after = np.cumsum(counts) / len(values)
    if resolution > 0:
        grid = np.arange(0.0, float(ordered[-1]) + 2 * resolution, resolution)
        expected = np.cumsum(rounded_probability(distribution, grid, resolution))
        seen = np.searchsorted(np.sort(values), grid + resolution / 2) / len(values)
        return float(np.abs(expected - seen).max())
    expected = distribution.cdf(ordered)
    return float(max(np.abs(expected - after).max(), np.abs(expected - (after - counts / len(values))).max()))


def anderson_darling(values: FloatArray, distribution: Distribution) -> float:
    """A^2 for a fully specified distribution; infinite if a value is impossible."""
    ordered = np.sort(values)
    n = len(ordered)
    below = distribution.cdf(ordered)
    if below[0] <= 0 or below[-1] >= 1:
        return math.inf
    i = 2 * np.arange(1, n + 1) - 1
    return float(-n - (i @ (np.log(below) + np.log1p(-below[::-1]))) / n)
