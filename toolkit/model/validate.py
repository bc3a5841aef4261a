"""Predicted against measured: the same quantity from a model and from a run, with the measurement's own uncertainty."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from toolkit.errors import ModelError
from toolkit.model.build import net_from_run, run_settings
from toolkit.model.distributions import FloatArray
from toolkit.model.netfile import read_net
from toolkit.model.samples import RunSamples
from toolkit.model.simulate import simulate

PERCENTILES = (0.5, 0.9, 0.95, 0.99, 0.999)
_ROUNDS = 200
_MOST = 50_000
_TARGET_MEAN, _TARGET_P99 = 3.0, 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One number, both ways; the interval is the measured one's (95 %, block bootstrap)."""

    name: str
    measured: float
    low: float
    high: float
    predicted: float

    @property
    def error_percent(self) -> float:
        """Predicted minus measured, over measured."""
        return (self.predicted - self.measured) / self.measured * 100 if self.measured else float("inf")

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "measured": self.measured, "low": self.low, "high": self.high, "predicted": self.predicted,
            "error_percent": self.error_percent,
        }  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """How a model does on one run."""

    run: str
    is_own: bool
    """Whether the model was fitted on this very run."""
    n: int
    figures: tuple[Figure, ...]
    ks: float
    wasserstein_ms: float
    above_model_p99_percent: float
    """Share of measured latencies above the model's p99; 1 % would be perfect."""
    explanations: tuple[str, ...]
    measured: FloatArray
    predicted: FloatArray

    def figure(self, name: str) -> Figure:
        """By name: mean, sd, p50, p90, p95, p99, p99.9."""
        return next(f for f in self.figures if f.name == name)

    @property
    def is_good(self) -> bool:
        """Mean within 3 % and p99 within 10 %."""
        return (
            abs(self.figure("mean").error_percent) <= _TARGET_MEAN
            and abs(self.figure("p99").error_percent) <= _TARGET_P99
        )

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "run": self.run,
            "fitted_on_it": self.is_own,
            "n": self.n,
            "figures": {f.name: f.document() for f in self.figures},
            "ks": self.ks,
            "wasserstein_ms": self.wasserstein_ms,
            "wasserstein_relative": self.wasserstein_ms / self.figure("mean").measured,
            "above_model_p99_percent": self.above_model_p99_percent,
            "within_target": self.is_good,
            "explanations": list(self.explanations),
        }

    def lines(self) -> list[str]:
        """For people."""
        lines = [f"{self.run}: {self.n} messages{' (the model was fitted on them)' if self.is_own else ''}"]
        for f in self.figures:
            lines.append(  # noqa: PERF401 - clearer so
                f"  {f.name:<6} measured {f.measured:9.4g} [{f.low:.4g}, {f.high:.4g}]  predicted {f.predicted:9.4g}  "
                f"{f.error_percent:+.1f} %"
            )
        lines.append(
            f"  KS {self.ks:.4f}, Wasserstein {self.wasserstein_ms:.4g} ms, "
            f"{self.above_model_p99_percent:.2f} % above the model's p99"
        )
        return lines + [f"  {text}" for text in self.explanations]


def validate(
    fitted: RunSamples,
    judged: RunSamples,
    *,
    document: Any = None,
    settings: Mapping[str, float] | None = None,
    seed: int = 1,
) -> Validation:
    """The net of one run (or a net document) under the settings of another run, against what that one measured."""
    if document is None:
        document = net_from_run(fitted)
    params = document.get("params") or {}
    own = run_settings(judged) if judged.hops else {}
    chosen = {name: value for name, value in own.items() if name in params} | dict(settings or {})
    net = read_net(document, chosen, file=f"model of {fitted.folder.name}")
    outcome = simulate(net, seed=seed, least=2048, most=2048)
    if outcome.latency is not None:
        late = outcome.latency[:, outcome.latency.shape[1] // 2 :]
        predicted = np.asarray(late[np.isfinite(late)], dtype=np.float64)
    else:
        predicted = outcome.completed[np.isfinite(outcome.completed)]
    measured = judged.end_to_end[judged.end_to_end >= 0]
    if not len(measured) or not len(predicted):
        raise ModelError(
            f"run {judged.folder.name}: nothing to compare: {len(measured)} measured, {len(predicted)} predicted"
        )
    result = compare(measured, predicted, seed=seed)
    return Validation(
        run=judged.folder.name,
        is_own=judged.folder == fitted.folder,
        n=len(measured),
        figures=result,
        ks=_ks(measured, predicted),
        wasserstein_ms=_wasserstein(measured, predicted),
        above_model_p99_percent=float((measured > np.quantile(predicted, 0.99)).mean() * 100),
        explanations=explain(fitted, judged, result),
        measured=measured,
        predicted=predicted,
    )


def compare(measured: FloatArray, predicted: FloatArray, *, seed: int = 1) -> tuple[Figure, ...]:
    """Mean, standard deviation and percentiles both ways; p99.9 only where there are ten values beyond it."""
    used = [p for p in PERCENTILES if len(measured) * (1 - p) >= 10 or p <= 0.99]
    names = ["mean", "sd", *(f"p{p * 100:g}" for p in used)]

    def figures(values: FloatArray) -> FloatArray:
        return np.array([values.mean(), values.std(), *np.quantile(values, used)])

    found = np.array([figures(resampled) for resampled in _blocks(measured, seed)])
    low, high = np.quantile(found, [0.025, 0.975], axis=0)
    rows = zip(names, figures(measured), low, high, figures(predicted), strict=True)
    return tuple(
        Figure(name=n, measured=float(m), low=float(a), high=float(b), predicted=float(p)) for n, m, a, b, p in rows
    )


def _blocks(values: FloatArray, seed: int) -> list[FloatArray]:
    """Resamples by blocks of neighbours, since successive latencies resemble each other."""
    rng = np.random.Generator(np.random.Philox(seed))
    values = values[:_MOST]
    n = len(values)
    length = max(1, round(2 * n ** (1 / 3)))
    made = []
    for _ in range(_ROUNDS):
        starts = rng.integers(0, n, size=-(-n // length))
        made.append(values[((starts[:, None] + np.arange(length)) % n).ravel()[:n]])
    return made


def _ks(a: FloatArray, b: FloatArray) -> float:
    grid = np.concatenate([a, b])
    at_a = np.searchsorted(np.sort(a), grid, side="right") / len(a)
    at_b = np.searchsorted(np.sort(b), grid, side="right") / len(b)
    return float(np.abs(at_a - at_b).max())


def _wasserstein(a: FloatArray, b: FloatArray) -> float:
    levels = (np.arange(20_000) + 0.5) / 20_000
    return float(np.abs(np.quantile(a, levels) - np.quantile(b, levels)).mean())


def explain(fitted: RunSamples, judged: RunSamples, figures: tuple[Figure, ...]) -> tuple[str, ...]:
    """Where a miss comes from: hops whose delay changed between the runs, hops that depend on each other."""
    mean = next(f for f in figures if f.name == "mean")
    p99 = next(f for f in figures if f.name == "p99")
    if abs(mean.error_percent) <= _TARGET_MEAN and abs(p99.error_percent) <= _TARGET_P99:
        return ()
    found = []
    total = float(judged.end_to_end.mean())
    here, there = judged.hops or judged.steps, fitted.hops or fitted.steps
    for hop in here:
        if hop in there:
            change = float(here[hop].mean() - there[hop].mean())
            if abs(change) > 0.01 * total:
                found.append(
                    f"hop {hop}: {here[hop].mean():.4g} ms here, {there[hop].mean():.4g} ms in the run of the fit "
                    f"({change / total * 100:+.1f} % of the whole)"
                )
    names = [hop for hop in judged.hops if judged.hops[hop].std() > 0]
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            r = float(np.corrcoef(judged.hops[a], judged.hops[b])[0, 1])
            if abs(r) > 0.1:
                found.append(
                    f"hops {a} and {b} depend on each other (correlation {r:+.2f}); the net takes them as independent"
                )
    size = max(len(judged.end_to_end), 1)
    if p99.low <= p99.predicted <= p99.high:
        found.append("the predicted p99 lies within the measured one's interval")
    elif size < 1000:
        found.append(f"p99 of {size} messages rests on {size // 100} of them")
    return tuple(found) or ("no hop's mean changed by more than 1 %: the shape of a hop's distribution did",)
