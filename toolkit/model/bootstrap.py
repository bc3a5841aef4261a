"""What resampling says of a fit: intervals of its numbers, and whether the sample could have come from it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from toolkit.model.distributions import Distribution, FloatArray, HyperErlang
from toolkit.model.em import hyper_em, thinned
from toolkit.model.families import FITTERS
from toolkit.model.fit import Fit
from toolkit.model.likelihood import Likelihood, anderson_darling, ks_distance


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
    sample = Likelihood(values, resolution)
    if isinstance(best.distribution, HyperErlang):
        # The same shapes from the same start: the search for shapes is what takes long.
        known = best.distribution
        groups = list(zip(known.weights, known.shapes, known.rates, strict=True))
        return hyper_em(*thinned(sample), list(known.shapes), groups, steps=100)[1]
    found = FITTERS[best.family](sample)
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
