"""Families of distributions, each with the function that finds its most likely member for a sample."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from toolkit.model.distributions import (
    Deterministic,
    Distribution,
    Erlang,
    Exponential,
    Gamma,
    Loglogistic,
    Lognormal,
    Shifted,
    Uniform,
    Weibull,
)
from toolkit.model.em import fit_hyper_erlang, fit_phase_type
from toolkit.model.likelihood import TINY, Likelihood

_MOST_SHAPE = 1e6
"""A gamma this narrow is a constant."""

# One function for each family: the likelihood in, a distribution and its number of parameters out.

Found = tuple[Distribution, int] | None


def gamma_shape(mean: float, mean_log: float) -> float:
    """Maximum-likelihood shape of a gamma from the mean and the mean logarithm (Minka's iteration)."""
    from scipy.special import digamma, polygamma

    gap = math.log(mean) - mean_log
    if gap < 1e-14:
        return 1e14
    shape = (3 - gap + math.sqrt((gap - 3) ** 2 + 24 * gap)) / (12 * gap)
    for _ in range(50):
        value = math.log(shape) - float(digamma(shape)) - gap
        slope = 1 / shape - float(polygamma(1, shape))
        following = 1 / (1 / shape + value / (shape**2 * slope))
        if abs(following - shape) < 1e-13 * shape:
            return following
        shape = following
    return shape


def _exponential(sample: Likelihood) -> Found:
    if sample.resolution <= 0:
        return Exponential(rate=1 / sample.mean), 1
    return _count(sample.best(lambda x: Exponential(rate=math.exp(x[0])), [-math.log(sample.mean)]), 1)


def _gamma(sample: Likelihood) -> Found:
    shape = min(gamma_shape(sample.mean, sample.mean_log), _MOST_SHAPE)
    if sample.resolution <= 0:
        return Gamma(shape=shape, rate=shape / sample.mean), 2
    start = [math.log(shape), math.log(shape / sample.mean)]
    return _count(sample.best(lambda x: Gamma(shape=math.exp(x[0]), rate=math.exp(x[1])), start), 2)


def _erlang(sample: Likelihood) -> Found:
    found = _gamma(sample)
    if found is None:
        return None
    middle = found[0].shape if isinstance(found[0], Gamma) else 1.0
    candidates: list[Distribution] = []
    for shape in {max(1, math.floor(middle)), max(1, math.ceil(middle))}:
        if sample.resolution <= 0:
            candidates.append(Erlang(shape=shape, rate=shape / sample.mean))
        else:
            best = sample.best(lambda x, k=shape: Erlang(shape=k, rate=math.exp(x[0])), [math.log(shape / sample.mean)])  # type: ignore[misc]
            candidates += [best] if best is not None else []
    return (max(candidates, key=sample), 2) if candidates else None


def _lognormal(sample: Likelihood) -> Found:
    if sample.resolution <= 0:
        return Lognormal(mu=sample.mean_log, sigma=sample.sd_log), 2
    start = [sample.mean_log, math.log(sample.sd_log)]
    return _count(sample.best(lambda x: Lognormal(mu=x[0], sigma=math.exp(x[1])), start), 2)


def _weibull_shape(sample: Likelihood) -> float:
    """Root of the likelihood equation, by bisection in the logarithm; every term is scaled by the largest value."""
    values = np.maximum(sample.values, max(sample.resolution / 4, TINY))
    logs = np.log(values / values[-1])
    mean_log = float(sample.counts @ logs) / sample.n
    low, high = -5.0, 12.0
    for _ in range(80):
        middle = (low + high) / 2
        k = math.exp(middle)
        powers = sample.counts * np.exp(k * logs)
        if float(powers @ logs) / float(powers.sum()) - 1 / k - mean_log > 0:
            high = middle
        else:
            low = middle
    return math.exp((low + high) / 2)


def _weibull(sample: Likelihood) -> Found:
    shape = _weibull_shape(sample)
    if sample.resolution <= 0:
        scale = float(sample.counts @ (sample.values / sample.values[-1]) ** shape / sample.n) ** (1 / shape)
        return Weibull(shape=shape, scale=scale * float(sample.values[-1])), 2
    start = [math.log(shape), math.log(sample.mean)]
    return _count(sample.best(lambda x: Weibull(shape=math.exp(x[0]), scale=math.exp(x[1])), start), 2)


def _loglogistic(sample: Likelihood) -> Found:
    start = [math.log(max(1.8 / sample.sd_log - 2, 0.1)), sample.mean_log]
    return _count(sample.best(lambda x: Loglogistic(shape=2 + math.exp(x[0]), scale=math.exp(x[1])), start), 2)


def _uniform(sample: Likelihood) -> Found:
    low, high = max(float(sample.values[0]), 0.0), float(sample.values[-1])
    if sample.resolution <= 0:
        return Uniform(low=low, high=high), 2
    start = [math.log(max(low, sample.resolution / 10)), math.log(high - low + sample.resolution / 10)]
    return _count(sample.best(lambda x: Uniform(low=math.exp(x[0]), high=math.exp(x[0]) + math.exp(x[1])), start), 2)


def _deterministic(sample: Likelihood) -> Found:
    if sample.resolution <= 0 or np.ptp(sample.values) > sample.resolution:
        return None
    return Deterministic(value=sample.mean), 1


def _count(found: Distribution | None, parameters: int) -> Found:
    return (found, parameters) if found is not None else None


def _shifted(inner: Callable[[Likelihood], Found]) -> Callable[[Likelihood], Found]:
    """The family moved right: the offset by a search below the smallest value, the rest by its own fit."""

    def fitted(sample: Likelihood) -> Found:
        from scipy.optimize import minimize_scalar

        least = float(sample.values[0])
        # Any closer to the smallest value and the likelihood of a shape below 1 has no bound.
        highest = least - (sample.mean - least) / sample.n
        if highest <= 0 or sample.resolution > 0:
            return None

        def at(offset: float) -> tuple[float, Found]:
            found = inner(Likelihood(sample.all - offset, 0.0))
            if found is None:
                return math.inf, None
            moved = Shifted(offset=offset, base=found[0])
            return -sample(moved), (moved, found[1] + 1)

        result = minimize_scalar(
            lambda x: min(at(x)[0], 1e300), bounds=(0, highest), method="bounded", options={"xatol": 1e-4 * highest}
        )
        best = min((at(x) for x in (float(result.x), highest)), key=lambda pair: pair[0])
        return best[1] if math.isfinite(best[0]) else None

    return fitted


def _hypererlang(sample: Likelihood) -> Found:
    if sample.resolution > 0 or sample.values[0] <= 0:
        return None
    found = fit_hyper_erlang(sample)
    return found, 3 * len(found.weights) - 1


def _phasetype(sample: Likelihood) -> Found:
    return (fit_phase_type(sample), 4 * 4 + 4 - 1) if sample.resolution <= 0 and sample.values[0] > 0 else None


FITTERS: dict[str, Callable[[Likelihood], Found]] = {
    "exponential": _exponential,
    "erlang": _erlang,
    "gamma": _gamma,
    "lognormal": _lognormal,
    "weibull": _weibull,
    "loglogistic": _loglogistic,
    "uniform": _uniform,
    "deterministic": _deterministic,
    "shifted_exponential": _shifted(_exponential),
    "shifted_erlang": _shifted(_erlang),
    "shifted_gamma": _shifted(_gamma),
    "shifted_lognormal": _shifted(_lognormal),
    "shifted_weibull": _shifted(_weibull),
    "hypererlang": _hypererlang,
    "phasetype": _phasetype,
}
FAMILIES = tuple(FITTERS)
