"""Which distribution a sample of delays follows: maximum likelihood over many families, ranked and tested.

Delays read from clocks of a coarse resolution r are differences of two floored instants: a delay X is seen as k with
probability E max(0, 1 - |X - k| / r). With `resolution` given, that is the likelihood; otherwise the density is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from toolkit.errors import ModelError
from toolkit.model.distributions import (
    NAMES,
    Deterministic,
    Distribution,
    Erlang,
    Exponential,
    FloatArray,
    Gamma,
    HyperErlang,
    Loglogistic,
    Lognormal,
    PhaseType,
    Shifted,
    Uniform,
    Weibull,
)

FAMILIES = (
    "exponential", "erlang", "gamma", "lognormal", "weibull", "loglogistic", "uniform", "deterministic",
    "shifted_exponential", "shifted_erlang", "shifted_gamma", "shifted_lognormal", "shifted_weibull",
    "hypererlang", "phasetype",
)  # fmt: skip
MOST_NEGATIVE = 0.05
"""Share of negative delays up to which they are left out (and said so); above, the clocks are to blame."""
_MOST_VALUES = 10_000
_EM_VALUES = 200
_TINY = 1e-300
_MOST_SHAPE = 1e6
"""A gamma this narrow is a constant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """One family's best distribution for a sample."""

    family: str
    distribution: Distribution
    parameters: int
    log_likelihood: float
    n: int
    ks: float
    """Kolmogorov-Smirnov distance, at the cells' edges if the sample is rounded."""
    ad: float
    """Anderson-Darling statistic."""

    @property
    def aic(self) -> float:
        """Akaike's criterion: lower is better."""
        return 2 * self.parameters - 2 * self.log_likelihood

    @property
    def aicc(self) -> float:
        """The same, corrected for small samples."""
        room = self.n - self.parameters - 1
        return self.aic + (2 * self.parameters * (self.parameters + 1) / room if room > 0 else math.inf)

    @property
    def bic(self) -> float:
        """Bayesian criterion."""
        return self.parameters * math.log(self.n) - 2 * self.log_likelihood

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "family": self.family,
            "distribution": str(self.distribution),
            "mean": self.distribution.mean,
            "sd": self.distribution.sd,
            "log_likelihood": self.log_likelihood,
            "parameters": self.parameters,
            "aic": self.aic,
            "aicc": self.aicc if math.isfinite(self.aicc) else None,
            "bic": self.bic,
            "ks": self.ks,
            "ad": self.ad if math.isfinite(self.ad) else None,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlier:
    """How much one value moves the gamma shape when it is left out."""

    value: float
    shape_with: float
    shape_without: float

    @property
    def factor(self) -> float:
        """Shape without over shape with."""
        return self.shape_without / self.shape_with


@dataclass(frozen=True, slots=True, kw_only=True)
class FitReport:
    """All fits of one sample, best first by AICc."""

    name: str
    n: int
    mean: float
    sd: float
    fits: tuple[Fit, ...]
    notes: tuple[str, ...]
    outliers: tuple[Outlier, ...]
    values: FloatArray

    @property
    def best(self) -> Fit:
        """The lowest AICc."""
        return self.fits[0]

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "name": self.name,
            "n": self.n,
            "mean": self.mean,
            "sd": self.sd,
            "best": str(self.best.distribution),
            "fits": [fit.document() for fit in self.fits],
            "outliers": [
                {"value": o.value, "shape_with": o.shape_with, "shape_without": o.shape_without} for o in self.outliers
            ],
            "notes": list(self.notes),
        }


def fit(
    sample: Sequence[float] | FloatArray,
    *,
    name: str = "sample",
    families: Sequence[str] = FAMILIES,
    resolution: float = 0.0,
    seed: int = 1,
) -> FitReport:
    """Fit every family and rank by AICc.

    Negative delays (clock error) are left out and noted, above 5 % they are an error. A constant sample is
    deterministic. `resolution` is the clocks' step, for stamps that were rounded down to it.
    """
    unknown = [f for f in families if f not in FAMILIES]
    if unknown:
        raise ModelError(f"unknown family {', '.join(unknown)}; known are {', '.join(FAMILIES)}")
    values, notes = _cleaned(name, np.asarray(sample, dtype=np.float64), resolution)
    n = len(values)
    if n < 2 or np.ptp(values) == 0:
        note = "the sample has one value" if n == 1 else f"all {n} values are {values[0]:g}"
        constant = Deterministic(value=float(values[0]))
        only = Fit(family="deterministic", distribution=constant, parameters=1, log_likelihood=0.0, n=n, ks=0.0, ad=0.0)
        return FitReport(
            name=name, n=n, mean=float(values[0]), sd=0.0, fits=(only,), outliers=(), values=values,
            notes=(*notes, f"{note}: a constant delay"),
        )  # fmt: skip
    used = values
    if n > _MOST_VALUES:
        used = np.random.Generator(np.random.Philox(seed)).choice(values, _MOST_VALUES, replace=False)
        notes.append(f"fitted on {_MOST_VALUES:,} of {n:,} values, taken at random")
    likelihood = _Likelihood(used, resolution)
    fits = []
    for family in families:
        found = _FITTERS[family](likelihood)
        if found is None:
            continue
        distribution, count = found
        fits.append(
            Fit(
                family=family,
                distribution=distribution,
                parameters=count,
                log_likelihood=likelihood(distribution),
                n=len(used),
                ks=ks_distance(used, distribution, resolution=resolution),
                ad=anderson_darling(used, distribution),
            )
        )
    fits = sorted((f for f in fits if math.isfinite(f.log_likelihood)), key=lambda f: (f.aicc, f.aic))
    if not fits:
        raise ModelError(f"{name}: none of {', '.join(families)} can describe this sample of {n} values")
    return FitReport(
        name=name, n=n, mean=float(values.mean()), sd=float(values.std(ddof=1)), fits=tuple(fits),
        notes=tuple(notes), outliers=outliers(values), values=values,
    )  # fmt: skip


def _cleaned(name: str, sample: FloatArray, resolution: float) -> tuple[FloatArray, list[str]]:
    notes = []
    finite = sample[np.isfinite(sample)]
    if len(finite) < len(sample):
        notes.append(f"{len(sample) - len(finite)} values that are not numbers were left out")
    if not len(finite):
        raise ModelError(f"{name}: the sample is empty; was anything delivered in this run?")
    negative = int((finite < 0).sum())
    if resolution <= 0 and negative:
        if negative > MOST_NEGATIVE * len(finite):
            raise ModelError(
                f"{name}: {negative} of {len(finite)} delays are negative, down to {finite.min():g}: the clocks of the "
                "two nodes differ by more than the delay; synchronise them better, or model end_to_end only"
            )
        notes.append(f"{negative} negative delays (clock error, down to {finite.min():g}) were left out")
        finite = finite[finite >= 0]
    zeros = int((finite == 0).sum())
    if resolution <= 0 and zeros and zeros < len(finite):
        least = float(finite[finite > 0].min())
        notes.append(f"{zeros} values of 0 were taken as {least / 2:g}, half the smallest other; try --resolution")
        finite = np.where(finite == 0, least / 2, finite)
    return finite, notes


class _Likelihood:
    """Log-likelihood of a sample, ties counted once."""

    def __init__(self, values: FloatArray, resolution: float) -> None:
        self.all = values
        self.resolution = resolution
        self.values, counts = np.unique(values, return_counts=True)
        self.counts = counts.astype(np.float64)
        self.n = len(values)
        positive = np.maximum(values, max(resolution / 4, _TINY)) if resolution > 0 else values
        self.mean = float(values.mean()) or resolution / 4
        self.variance = max(float(values.var()), 1e-18 * self.mean**2)
        self.mean_log = float(np.log(positive).mean())
        self.sd_log = max(float(np.log(positive).std()), 1e-9)

    def __call__(self, distribution: Distribution) -> float:
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


# One function for each family: the likelihood in, a distribution and its number of parameters out.

_Found = tuple[Distribution, int] | None


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


def _exponential(sample: _Likelihood) -> _Found:
    if sample.resolution <= 0:
        return Exponential(rate=1 / sample.mean), 1
    return _count(sample.best(lambda x: Exponential(rate=math.exp(x[0])), [-math.log(sample.mean)]), 1)


def _gamma(sample: _Likelihood) -> _Found:
    shape = min(gamma_shape(sample.mean, sample.mean_log), _MOST_SHAPE)
    if sample.resolution <= 0:
        return Gamma(shape=shape, rate=shape / sample.mean), 2
    start = [math.log(shape), math.log(shape / sample.mean)]
    return _count(sample.best(lambda x: Gamma(shape=math.exp(x[0]), rate=math.exp(x[1])), start), 2)


def _erlang(sample: _Likelihood) -> _Found:
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


def _lognormal(sample: _Likelihood) -> _Found:
    if sample.resolution <= 0:
        return Lognormal(mu=sample.mean_log, sigma=sample.sd_log), 2
    start = [sample.mean_log, math.log(sample.sd_log)]
    return _count(sample.best(lambda x: Lognormal(mu=x[0], sigma=math.exp(x[1])), start), 2)


def _weibull_shape(sample: _Likelihood) -> float:
    """Root of the likelihood equation, by bisection in the logarithm; every term is scaled by the largest value."""
    values = np.maximum(sample.values, max(sample.resolution / 4, _TINY))
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


def _weibull(sample: _Likelihood) -> _Found:
    shape = _weibull_shape(sample)
    if sample.resolution <= 0:
        scale = float(sample.counts @ (sample.values / sample.values[-1]) ** shape / sample.n) ** (1 / shape)
        return Weibull(shape=shape, scale=scale * float(sample.values[-1])), 2
    start = [math.log(shape), math.log(sample.mean)]
    return _count(sample.best(lambda x: Weibull(shape=math.exp(x[0]), scale=math.exp(x[1])), start), 2)


def _loglogistic(sample: _Likelihood) -> _Found:
    start = [math.log(max(1.8 / sample.sd_log - 2, 0.1)), sample.mean_log]
    return _count(sample.best(lambda x: Loglogistic(shape=2 + math.exp(x[0]), scale=math.exp(x[1])), start), 2)


def _uniform(sample: _Likelihood) -> _Found:
    low, high = max(float(sample.values[0]), 0.0), float(sample.values[-1])
    if sample.resolution <= 0:
        return Uniform(low=low, high=high), 2
    start = [math.log(max(low, sample.resolution / 10)), math.log(high - low + sample.resolution / 10)]
    return _count(sample.best(lambda x: Uniform(low=math.exp(x[0]), high=math.exp(x[0]) + math.exp(x[1])), start), 2)


def _deterministic(sample: _Likelihood) -> _Found:
    if sample.resolution <= 0 or np.ptp(sample.values) > sample.resolution:
        return None
    return Deterministic(value=sample.mean), 1


def _count(found: Distribution | None, parameters: int) -> _Found:
    return (found, parameters) if found is not None else None


def _shifted(inner: Callable[[_Likelihood], _Found]) -> Callable[[_Likelihood], _Found]:
    """The family moved right: the offset by a search below the smallest value, the rest by its own fit."""

    def fitted(sample: _Likelihood) -> _Found:
        from scipy.optimize import minimize_scalar

        least = float(sample.values[0])
        # Any closer to the smallest value and the likelihood of a shape below 1 has no bound.
        highest = least - (sample.mean - least) / sample.n
        if highest <= 0 or sample.resolution > 0:
            return None

        def at(offset: float) -> tuple[float, _Found]:
            found = inner(_Likelihood(sample.all - offset, 0.0))
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


def _groups(sample: _Likelihood, branches: int) -> list[tuple[float, int, float]]:
    """Start of the hyper-Erlang search: the sorted sample in equal parts, an Erlang by moments for each."""
    parts = np.array_split(np.sort(np.maximum(sample.all, sample.mean * 1e-6)), branches)
    made = []
    for part in parts:
        mean, variance = float(part.mean()), float(part.var())
        shape = int(np.clip(round(mean**2 / max(variance, 1e-12 * mean**2)), 1, 60))
        made.append((len(part) / sample.n, shape, shape / mean))
    return made


def _hypererlang(sample: _Likelihood) -> _Found:
    """EM over weights and rates for two and three branches; shapes moved as long as that helps."""
    if sample.resolution > 0 or sample.values[0] <= 0:
        return None
    values, counts = _thinned(sample)
    best: tuple[float, HyperErlang] | None = None
    for branches in (2, 3):
        groups = _groups(sample, branches)
        shapes = [k for _, k, _ in groups]
        found = _hyper_em(values, counts, shapes, groups)
        for factor in (0.5, 0.75, 1.3, 2.0):
            for i in range(branches):
                trial = list(shapes)
                trial[i] = int(np.clip(round(trial[i] * factor), 1, 100))
                if trial[i] == shapes[i]:
                    continue
                other = _hyper_em(values, counts, trial, groups, steps=25)
                if other[0] > found[0] + 1e-6:
                    found, shapes = other, trial
        found = _hyper_em(values, counts, shapes, groups, steps=300)
        price = 3 * branches - 1
        if best is None or -2 * found[0] + 2 * price < best[0]:
            best = (-2 * found[0] + 2 * price, found[1])
    assert best is not None
    return best[1], 3 * len(best[1].weights) - 1


def _thinned(sample: _Likelihood) -> tuple[FloatArray, FloatArray]:
    """At most a few hundred values with counts that sum to n: means of neighbours, for methods that iterate."""
    if len(sample.values) <= _EM_VALUES:
        return sample.values, sample.counts
    parts = np.array_split(np.sort(sample.all), _EM_VALUES)
    return np.array([p.mean() for p in parts]), np.array([float(len(p)) for p in parts])


def _hyper_em(
    values: FloatArray,
    counts: FloatArray,
    shapes: list[int],
    groups: list[tuple[float, int, float]],
    *,
    steps: int = 100,
) -> tuple[float, HyperErlang]:
    k = np.array(shapes, dtype=np.float64)
    weights = np.array([w for w, _, _ in groups])
    rates = np.array([rate * shape / start for (_, start, rate), shape in zip(groups, shapes, strict=True)])
    logs = np.log(values)[:, None]
    constant = np.array([math.lgamma(s) for s in shapes])
    before = -math.inf
    for _ in range(steps):
        with np.errstate(divide="ignore"):
            density = np.log(weights) + k * np.log(rates) + (k - 1) * logs - rates * values[:, None] - constant
        top = density.max(axis=1, keepdims=True)
        parts = np.exp(density - top)
        total = parts.sum(axis=1, keepdims=True)
        likelihood = float(counts @ (np.log(total) + top)[:, 0])
        share = parts / total * counts[:, None]
        mass = np.maximum(share.sum(axis=0), 1e-12)
        weights, rates = mass / mass.sum(), k * mass / np.maximum(share.T @ values, _TINY)
        if likelihood - before < 1e-9 * abs(likelihood):
            break
        before = likelihood
    made = HyperErlang(
        weights=tuple(float(w) for w in weights / weights.sum()),
        shapes=tuple(shapes),
        rates=tuple(float(r) for r in rates),
    )
    return likelihood, made


def _phasetype(sample: _Likelihood) -> _Found:
    return (fit_phase_type(sample), 4 * 4 + 4 - 1) if sample.resolution <= 0 and sample.values[0] > 0 else None


def fit_phase_type(sample: _Likelihood, *, phases: int = 4, steps: int = 120, seed: int = 7) -> PhaseType:
    """General phase-type distribution by EM (Asmussen, Nerman, Olsson 1996), integrals by block exponentials."""
    values, counts = _thinned(sample)
    if len(values) > 80:
        parts = np.array_split(np.arange(len(values)), 80)
        values, counts = (
            np.array([np.average(values[p], weights=counts[p]) for p in parts]),
            np.array([counts[p].sum() for p in parts]),
        )
    scale = float(np.average(values, weights=counts))
    x = values / scale
    rng = np.random.Generator(np.random.Philox(seed))
    n = phases
    start = rng.random(n) + 0.1
    start /= start.sum()
    rates = rng.random((n, n)) + n * np.eye(n, k=1)
    np.fill_diagonal(rates, 0.0)
    ends = rng.random(n) * 0.5 + 0.1
    ends[-1] += n
    before = -math.inf
    for _ in range(steps):
        generator = rates - np.diag(rates.sum(axis=1) + ends)
        block = np.zeros((2 * n, 2 * n))
        block[:n, :n] = block[n:, n:] = generator
        block[:n, n:] = np.outer(ends, start)
        powers = _exponentials(block, x)
        forward = start @ powers[:, :n, :n]
        backward = powers[:, :n, :n] @ ends
        density = np.maximum(backward @ start, _TINY)
        likelihood = float(counts @ np.log(density))
        if likelihood - before < 1e-7 * abs(likelihood):
            break
        before = likelihood
        share = counts / density
        both = np.einsum("v,vij->ij", share, powers[:, :n, n:])
        stay = np.maximum(np.diag(both), _TINY)
        start = np.maximum(start * (share @ backward), 0.0)
        start /= start.sum()
        rates = rates * both.T / stay[:, None]
        ends = ends * (share @ forward) / stay
    generator = (rates - np.diag(rates.sum(axis=1) + ends)) / scale
    return PhaseType(
        start=tuple(float(v) for v in start), generator=tuple(tuple(float(v) for v in r) for r in generator)
    )


def _exponentials(matrix: FloatArray, times: FloatArray) -> FloatArray:
    """exp(matrix t) for each t at once: Taylor series of a scaled matrix, squared back."""
    size = float(np.abs(matrix).sum(axis=1).max() * times.max())
    halvings = max(0, math.ceil(math.log2(max(size, 1e-9))) + 1)
    scaled = matrix * (times / 2.0**halvings)[:, None, None]
    term = np.broadcast_to(np.eye(len(matrix)), scaled.shape)
    total = term.copy()
    for k in range(1, 15):
        term = term @ scaled / k
        total += term
    for _ in range(halvings):
        total = total @ total
    return total


_FITTERS: dict[str, Callable[[_Likelihood], _Found]] = {
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


def outliers(values: FloatArray, *, most: int = 5) -> tuple[Outlier, ...]:
    """The values whose absence changes the gamma shape by a tenth or more, most influential first."""
    n = len(values)
    if n < 4 or values.min() <= 0:
        return ()
    total, logs = float(values.sum()), float(np.log(values).sum())
    shape = gamma_shape(total / n, logs / n)
    found = []
    distinct = np.unique(values)
    for value in np.concatenate([distinct[:20], distinct[-50:]]) if len(distinct) > 70 else distinct:
        without = gamma_shape((total - value) / (n - 1), (logs - math.log(value)) / (n - 1))
        found.append(Outlier(value=float(value), shape_with=shape, shape_without=without))
    found.sort(key=lambda o: -abs(math.log(o.factor)))
    return tuple(o for o in found[:most] if abs(math.log(o.factor)) > math.log(1.1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Bootstrap:
    """What resampling says of a fit."""

    intervals: dict[str, tuple[float, float]]
    """95 % percentile intervals of each number of the distribution, its mean and its standard deviation."""
    ks_p: float
    """Share of samples drawn from the fit (and fitted again) that lie farther from their fit than the data does."""
    ad_p: float
    rounds: int

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "confidence": {name: list(pair) for name, pair in self.intervals.items()},
            "ks_p": self.ks_p,
            "ad_p": self.ad_p,
            "rounds": self.rounds,
        }


def bootstrap(values: FloatArray, best: Fit, *, rounds: int = 200, resolution: float = 0.0, seed: int = 1) -> Bootstrap:
    """Intervals by resampling the data, p-values by sampling the fit; each sample is fitted again."""
    rng = np.random.Generator(np.random.Philox(seed))
    values = values if len(values) <= 2000 else rng.choice(values, 2000, replace=False)
    seen: dict[str, list[float]] = {}
    worse_ks = worse_ad = done = 0
    ks = ks_distance(values, best.distribution, resolution=resolution)
    ad = anderson_darling(values, best.distribution)
    for _ in range(rounds):
        again = _again(rng.choice(values, len(values)), best, resolution)
        if again is not None:
            for key, number in numbers(again).items():
                seen.setdefault(key, []).append(number)
        drawn = best.distribution.sample(rng, len(values))
        if resolution > 0:
            first = rng.random(len(values)) * resolution
            drawn = np.floor((first + drawn) / resolution) * resolution
        again = _again(drawn, best, resolution)
        if again is not None:
            done += 1
            worse_ks += ks_distance(drawn, again, resolution=resolution) >= ks
            worse_ad += anderson_darling(drawn, again) >= ad
    return Bootstrap(
        intervals={key: (float(np.quantile(v, 0.025)), float(np.quantile(v, 0.975))) for key, v in seen.items()},
        ks_p=(worse_ks + 1) / (done + 1),
        ad_p=(worse_ad + 1) / (done + 1),
        rounds=rounds,
    )


def _again(values: FloatArray, best: Fit, resolution: float) -> Distribution | None:
    if np.ptp(values) == 0:
        return None
    sample = _Likelihood(values, resolution)
    if isinstance(best.distribution, HyperErlang):
        # The same shapes from the same start: the search for shapes is what takes long.
        known = best.distribution
        groups = list(zip(known.weights, known.shapes, known.rates, strict=True))
        return _hyper_em(*_thinned(sample), list(known.shapes), groups, steps=100)[1]
    found = _FITTERS[best.family](sample)
    return found[0] if found is not None else None


def numbers(distribution: Distribution) -> dict[str, float]:
    """Every plain number of a distribution by name, with mean and standard deviation."""
    made: dict[str, float] = {"mean": distribution.mean, "sd": distribution.sd}
    for field in fields(distribution):  # type: ignore[arg-type]
        value = getattr(distribution, field.name)
        if isinstance(value, Distribution):
            made |= {k: v for k, v in numbers(value).items() if k not in made}
        elif isinstance(value, int | float):
            made[field.name] = float(value)
        elif isinstance(value, tuple) and value and isinstance(value[0], int | float):
            made |= {f"{field.name}_{i + 1}": float(v) for i, v in enumerate(value)}
    return made


def rounded_shape(distribution: Distribution) -> Distribution:
    """The thesis' compromise for a tool that only knows Erlang: a gamma's shape rounded, its rate kept."""
    if isinstance(distribution, Gamma) and not isinstance(distribution, Erlang):
        return Erlang(shape=max(1, round(distribution.shape)), rate=distribution.rate)
    raise ModelError(f"only a gamma's shape can be rounded, not that of {NAMES[type(distribution)]}")


def compromise(report: FitReport, *, resolution: float = 0.0) -> Fit | None:
    """The gamma of a report with its shape rounded, judged like the fits; None where no gamma was fitted."""
    gamma = next((f for f in report.fits if f.family == "gamma"), None)
    if gamma is None:
        return None
    values, rounded = report.values, rounded_shape(gamma.distribution)
    return Fit(
        family="rounded_gamma",
        distribution=rounded,
        parameters=gamma.parameters,
        log_likelihood=_Likelihood(values, resolution)(rounded) * gamma.n / len(values),
        n=gamma.n,
        ks=ks_distance(values, rounded, resolution=resolution),
        ad=anderson_darling(values, rounded),
    )
