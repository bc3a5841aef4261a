"""Estimates from independent values with their 95 % confidence intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from toolkit.model.distributions import FloatArray

_Z95 = 1.959963984540054


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """An estimate with its 95 % confidence interval."""

    value: float
    low: float
    high: float

    @property
    def relative(self) -> float:
        """Half the interval's width over the estimate."""
        return (self.high - self.low) / 2 / abs(self.value) if self.value else math.inf


def mean_interval(values: FloatArray) -> Interval:
    """Mean of independent values with a 95 % interval (normal: there are thousands)."""
    mean = float(values.mean(dtype=np.float64))
    half = _Z95 * float(values.std(ddof=1, dtype=np.float64)) / math.sqrt(len(values))
    return Interval(value=mean, low=mean - half, high=mean + half)


def sd_interval(values: FloatArray) -> Interval:
    """Standard deviation with a 95 % interval, from the spread of the squared deviations."""
    squares = (values - values.mean(dtype=np.float64)) ** 2
    inner = mean_interval(squares)
    return Interval(
        value=math.sqrt(inner.value), low=math.sqrt(max(inner.low, 0.0)), high=math.sqrt(max(inner.high, 0.0))
    )


def quantile_interval(values: FloatArray, p: float) -> Interval:
    """Quantile of independent values with the order statistics around it as a 95 % interval."""
    size = len(values)
    half = _Z95 * math.sqrt(size * p * (1 - p))
    ranks = [int(min(max(r, 0), size - 1)) for r in (size * p - half - 1, size * p, size * p + half)]
    low, value, high = np.partition(values, sorted(set(ranks)))[ranks]
    return Interval(value=float(value), low=float(low), high=float(high))
