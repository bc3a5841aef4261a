"""The distribution that a net gets for a measured delay: the best fit where it is good, else what was measured."""

from __future__ import annotations

import numpy as np

from toolkit.model.distributions import Deterministic, Distribution, FloatArray, empirical
from toolkit.model.fit import FitReport, fit

FAMILIES = (
    "exponential", "erlang", "gamma", "lognormal", "weibull", "loglogistic",
    "shifted_exponential", "shifted_gamma", "shifted_lognormal", "hypererlang",
)  # fmt: skip
_NEVER_NEGATIVE = 1e-6
_POOR = 0.03
_ENOUGH = 10
_WRONG_MEAN = 0.02
_NOTHING_MS = 1e-3


def delay_of(name: str, values: FloatArray) -> Distribution:
    """The best fit; the measured quantiles themselves where it is far off (Kolmogorov-Smirnov above 0.03, or its mean
    or 99th percentile)."""  # noqa: D205, D209 - one sentence
    report = fit(np.where((values < 0) & (values > -_NEVER_NEGATIVE), 0.0, values), name=name, families=FAMILIES)
    return empirical(report.values) if report.n >= _ENOUGH and _is_poor(report) else report.best.distribution


def rest_of(name: str, values: FloatArray) -> Distribution:
    """The same for what is left of a hop, which may be nothing, or negative where too much was taken out.

    Negative ones become 0, and all are lowered until their mean is right again.
    """
    kept = _never_negative(values)
    if float(np.quantile(kept, 0.99)) < _NOTHING_MS:
        return Deterministic(value=0.0)
    return empirical(kept) if float((kept < _NOTHING_MS).mean()) > _WRONG_MEAN else delay_of(name, kept)


def _never_negative(values: FloatArray) -> FloatArray:
    mean = max(float(values.mean()), 0.0)
    low, high = 0.0, max(float(values.max()), 0.0)
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if np.maximum(values - middle, 0.0).mean() > mean else (low, middle)
    return np.maximum(values - high if (values < 0).any() else values, 0.0)


def _is_poor(report: FitReport) -> bool:
    best = report.best
    if isinstance(best.distribution, Deterministic):
        return False
    if best.ks > max(_POOR, 1.5 / np.sqrt(report.n)):
        return True
    high = float(np.quantile(report.values, 0.99))
    fitted_high = float(best.distribution.quantile(np.array([0.99]))[0])
    return abs(best.distribution.mean - report.mean) > _WRONG_MEAN * report.mean or abs(fitted_high - high) > 0.1 * high
