"""Which distribution a sample of delays follows: maximum likelihood over many families, ranked and tested."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from toolkit.errors import ModelError
from toolkit.model.distributions import NAMES, Deterministic, Distribution, Erlang, FloatArray, Gamma
from toolkit.model.families import FAMILIES, FITTERS, gamma_shape
from toolkit.model.likelihood import Likelihood, anderson_darling, ks_distance

MOST_NEGATIVE = 0.05
"""Share of negative delays up to which they are left out (and said so); above, the clocks are to blame."""
_MOST_VALUES = 10_000


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
    likelihood = Likelihood(used, resolution)
    fits = []
    for family in families:
        found = FITTERS[family](likelihood)
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
        log_likelihood=Likelihood(values, resolution)(rounded) * gamma.n / len(values),
        n=gamma.n,
        ks=ks_distance(values, rounded, resolution=resolution),
        ad=anderson_darling(values, rounded),
    )
