"""Predicted against measured: the same quantity from a model and from a run, with the measurement's own uncertainty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from toolkit.errors import ModelError
from toolkit.model.broker import buffer_bytes, run_settings
from toolkit.model.build import net_from_run
from toolkit.model.distributions import FloatArray
from toolkit.model.intervals import Interval
from toolkit.model.net import Net
from toolkit.model.netfile import read_net
from toolkit.model.predict import latencies
from toolkit.model.samples import FULL, RunSamples

PERCENTILES = (0.5, 0.9, 0.95, 0.99, 0.999)
_ROUNDS = 200
_MOST = 20_000
_ENOUGH = 100
_LEVELS = 4_000
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
    """Whether the model was fitted on this very run (among others)."""
    n: int
    settings: dict[str, float]
    """Of the judged run, as the net was given them."""
    figures: tuple[Figure, ...]
    ks: Interval
    """Kolmogorov-Smirnov distance; what is left of it with a perfect model is part of it, so 0 is never inside."""
    wasserstein_ms: Interval
    above_model_p99_percent: float
    """Share of measured latencies above the model's p99; 1 % would be perfect."""
    explanations: tuple[str, ...]
    net: Net
    """The model, with the judged run's settings."""
    measured: FloatArray
    predicted: FloatArray

    def figure(self, name: str) -> Figure:
        """By name: mean, sd, p50, p90, p95, p99, p99.9."""
        return _figure(self.figures, name)

    @property
    def is_good(self) -> bool:
        """Mean within 3 % and p99 within 10 %."""
        return _is_within(self.figures)

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "run": self.run,
            "fitted_on_it": self.is_own,
            "n": self.n,
            "quantity": "transport: T4 - T1, a value for each delivery",
            "settings": self.settings,
            "figures": {f.name: f.document() for f in self.figures},
            "ks": self.ks.value,
            "ks_confidence": [self.ks.low, self.ks.high],
            "wasserstein_ms": self.wasserstein_ms.value,
            "wasserstein_confidence_ms": [self.wasserstein_ms.low, self.wasserstein_ms.high],
            "wasserstein_relative": self.wasserstein_ms.value / self.figure("mean").measured,
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
            f"  KS {self.ks.value:.4f} [{self.ks.low:.4f}, {self.ks.high:.4f}], Wasserstein "
            f"{self.wasserstein_ms.value:.4g} ms [{self.wasserstein_ms.low:.4g}, {self.wasserstein_ms.high:.4g}], "
            f"{self.above_model_p99_percent:.2f} % above the model's p99"
        )
        return lines + [f"  {text}" for text in self.explanations]


def _is_within(figures: Sequence[Figure]) -> bool:
    mean, p99 = _figure(figures, "mean"), _figure(figures, "p99")
    return abs(mean.error_percent) <= _TARGET_MEAN and abs(p99.error_percent) <= _TARGET_P99


def validate(
    fitted: RunSamples,
    judged: RunSamples,
    *,
    document: Any = None,
    settings: Mapping[str, float] | None = None,
    seed: int = 1,
) -> Validation:
    """The net of one run (or a net document) under the settings of another run, against what that one measured."""
    is_built = document is None
    if is_built:
        document = net_from_run(fitted, subscribers=judged.subscribers)
    params = document.get("params") or {}
    own = run_settings(judged) if judged.hops else {}
    chosen = {name: value for name, value in own.items() if name in params} | dict(settings or {})
    net = read_net(document, chosen, file=f"model of {fitted.name}")
    predicted = latencies(net, seed=seed).ravel()
    measured = judged.end_to_end[judged.end_to_end >= 0]
    if not len(measured) or not len(predicted):
        raise ModelError(f"run {judged.name}: nothing to compare: {len(measured)} measured, {len(predicted)} predicted")
    figures = compare(measured, predicted, seed=seed, parts=judged.parts)
    ks, wasserstein = distances(measured, predicted, seed=seed, parts=judged.parts)
    is_own = set(judged.names) <= set(fitted.names)
    own_figures: tuple[Figure, ...] = ()
    same_buffer: tuple[Figure, ...] = ()
    if is_built and not _is_within(figures) and "buffer" in params and judged.freed and judged.freed.held_copies:
        changed = chosen | {"buffer": buffer_bytes(judged)}
        like = latencies(read_net(document, changed), seed=seed).ravel()
        same_buffer = compare(measured, like, seed=seed) if len(like) else ()
    if is_built and not (is_own or _is_within(figures)):
        itself = latencies(read_net(net_from_run(judged), dict(settings or {})), seed=seed).ravel()
        own_figures = compare(measured, itself, seed=seed) if len(itself) else ()
    return Validation(
        run=judged.name,
        is_own=is_own,
        n=len(measured),
        settings=chosen,
        figures=figures,
        ks=ks,
        wasserstein_ms=wasserstein,
        above_model_p99_percent=float((measured > np.quantile(predicted, 0.99)).mean() * 100),
        explanations=explain(fitted, judged, figures, params=params, own=own_figures, same_buffer=same_buffer),
        net=net,
        measured=measured,
        predicted=predicted,
    )


def compare(
    measured: FloatArray, predicted: FloatArray, *, seed: int = 1, parts: Sequence[FloatArray] = ()
) -> tuple[Figure, ...]:
    """Mean, standard deviation and percentiles both ways; p99.9 only where there are ten values beyond it.

    `parts` are the runs that the measurement consists of: intervals then include how much runs differ.
    """
    used = [p for p in PERCENTILES if len(measured) * (1 - p) >= 10 or p <= 0.99]
    names = ["mean", "sd", *(f"p{p * 100:g}" for p in used)]

    def figures(values: FloatArray) -> FloatArray:
        return np.array([values.mean(), values.std(), *np.quantile(values, used)])

    found = np.array([figures(resampled) for resampled in _blocks(parts or (measured,), seed)])
    low, high = np.quantile(found, [0.025, 0.975], axis=0)
    rows = zip(names, figures(measured), low, high, figures(predicted), strict=True)
    return tuple(
        Figure(name=n, measured=float(m), low=float(a), high=float(b), predicted=float(p)) for n, m, a, b, p in rows
    )


def _blocks(parts: Sequence[FloatArray], seed: int) -> list[FloatArray]:
    """Resamples of runs, and within them of blocks of neighbours, since successive latencies resemble each other."""
    rng = np.random.Generator(np.random.Philox(seed))
    most = max(_MOST // len(parts), 1)
    made = []
    for _ in range(_ROUNDS):
        drawn = rng.integers(0, len(parts), size=len(parts)) if len(parts) > 1 else [0]
        pieces = []
        for index in drawn:
            values = parts[index][:most]
            n = len(values)
            length = max(1, round(2 * n ** (1 / 3)))
            starts = rng.integers(0, n, size=-(-n // length))
            pieces.append(values[((starts[:, None] + np.arange(length)) % n).ravel()[:n]])
        made.append(np.concatenate(pieces))
    return made


def distances(
    measured: FloatArray, predicted: FloatArray, *, seed: int = 1, parts: Sequence[FloatArray] = ()
) -> tuple[Interval, Interval]:
    """(Kolmogorov-Smirnov, Wasserstein-1) of the two samples with their 95 % intervals, as in `compare`."""
    levels = (np.arange(_LEVELS) + 0.5) / _LEVELS
    ordered, curve = np.sort(predicted), _quantiles(predicted, levels)
    found = np.array(
        [
            (_ks(np.sort(resampled), curve), np.abs(_quantiles(resampled, levels) - curve).mean())
            for resampled in _blocks(parts or (measured,), seed)
        ]
    )
    low, high = np.quantile(found, [0.025, 0.975], axis=0)
    ks = _ks(np.sort(measured), ordered)
    wasserstein = float(np.abs(_quantiles(measured, levels) - curve).mean())
    return (
        Interval(value=ks, low=float(low[0]), high=float(high[0])),
        Interval(value=wasserstein, low=float(low[1]), high=float(high[1])),
    )


def _ks(a: FloatArray, b: FloatArray) -> float:
    """Of two sorted samples."""
    grid = np.concatenate([a, b])
    at_a = np.searchsorted(a, grid, side="right") / len(a)
    at_b = np.searchsorted(b, grid, side="right") / len(b)
    return float(np.abs(at_a - at_b).max())


def _quantiles(values: FloatArray, levels: FloatArray) -> FloatArray:
    """Quantiles as numpy gives them, from one sort: np.quantile partitions again for each of many levels."""
    return np.interp(levels * (len(values) - 1), np.arange(len(values)), np.sort(values))


def explain(
    fitted: RunSamples,
    judged: RunSamples,
    figures: tuple[Figure, ...],
    *,
    params: Mapping[str, Any],
    own: tuple[Figure, ...] = (),
    same_buffer: tuple[Figure, ...] = (),
) -> tuple[str, ...]:
    """Where a miss comes from, each reason with its figures; nothing where both targets are met.

    `own` are the figures of the net that the judged run itself gives: what that net misses as well is the net's, the
    rest is a difference between the runs. `same_buffer` are those of the net with what the kernel held in that run.
    """
    mean, p99 = _figure(figures, "mean"), _figure(figures, "p99")
    missed = [(f, t) for f, t in ((mean, _TARGET_MEAN), (p99, _TARGET_P99)) if abs(f.error_percent) > t]
    if not missed:
        return ()
    found = _noise(fitted, judged, missed)
    if own:
        found += [_structure(figure, _figure(own, figure.name)) for figure, _ in missed]
    found += _full_cable(fitted, judged, params, [_figure(same_buffer, f.name) for f, _ in missed if same_buffer])
    for figure, _ in missed:
        found += _changes(fitted, judged, figure.name)
    if judged.subscribers > 1 and "S" in params and fitted.subscribers == 1:
        found.append(
            "the run of the fit had one subscriber: it does not tell what a further one costs beside the cable"
        )
    if ("W" in params) != (judged.window is not None) and judged.messages:
        found.append("one of the two runs is a closed loop and the other an open one")
    for run, where in ((judged, "here"), *(((fitted, "in the run of the fit"),) if judged is not fitted else ())):
        found += _backlog(run, where)
    if len(judged.end_to_end) < 1000 and any(f is p99 for f, _ in missed):
        found.append(f"p99 of {len(judged.end_to_end)} values rests on {len(judged.end_to_end) // 100} of them")
    return tuple(found) or ("no hop's mean changed by more than 1 %: the shape of a hop's distribution did",)


def _figure(figures: Sequence[Figure], name: str) -> Figure:
    return next(f for f in figures if f.name == name)


def _structure(figure: Figure, own: Figure) -> str:
    """Which part of a miss a net of the judged run's own hops shares."""
    between = figure.error_percent - own.error_percent
    return (
        f"{figure.name}: a net fitted on this very run is off by {own.error_percent:+.1f} %; the other "
        f"{between:+.1f} % are what differs between the runs"
    )


def _noise(fitted: RunSamples, judged: RunSamples, missed: list[tuple[Figure, float]]) -> list[str]:
    """How well the two measurements themselves are known; a model of one cannot be nearer to the other."""
    found = []
    # Runs with other numbers of subscribers differ for other reasons than noise: then the judged one stands for both.
    is_alike = len(set(fitted.part_subscribers)) == 1
    there = compare(fitted.end_to_end, fitted.end_to_end, parts=fitted.parts) if is_alike else ()
    for figure, target in missed:
        pair = (figure, _figure(there, figure.name) if there else figure)
        halves = [(f.high - f.low) / 2 / f.measured * 100 for f in pair if f.measured]
        both = float(np.hypot(halves[0], halves[1])) if len(halves) > 1 else 0.0
        miss = abs(figure.error_percent)
        verdict = "within" if miss <= both else "beyond"
        left = f", which leaves {miss - both:.1f} % to the model" if miss > both else ""
        found.append(
            f"{figure.name}: the miss of {figure.error_percent:+.1f} % is {verdict} the {both:.1f} % by which two such "
            f"measurements differ (95 %; {len(fitted.parts)} and {len(judged.parts)} runs){left}"
        )
        if min(len(fitted.parts), len(judged.parts)) == 1:
            found.append(f"{figure.name}: a single run does not tell by how much runs with equal settings differ")
        for run, what in ((judged, "judged by"), (fitted, "fitted on")):
            if len(run.parts) > 1 and (run is judged or is_alike):
                values = [_figure_of(figure.name, part) for part in run.parts]
                scatter = (max(values) - min(values)) / float(np.median(values)) * 100
                more = f": repetitions differ by {scatter:.0f} %, where {target:g} % are asked of the model"
                found.append(
                    f"{figure.name} of the runs {what}, one by one: {', '.join(f'{v:.4g}' for v in values)} ms"
                    + (more if scatter > target else "")
                )
    slices = [part for run in judged.parts for part in np.array_split(run, 10) if len(part)]
    means = [float(part.mean()) for part in slices]
    if min(means) > 0 and max(means) > 1.5 * min(means):
        found.append(
            f"the measured run is not steady: the mean of its tenths goes from {min(means):.4g} to {max(means):.4g} ms"
        )
    return found


def _figure_of(name: str, values: FloatArray) -> float:
    return float(values.mean() if name == "mean" else np.quantile(values, 0.99))


def _changes(fitted: RunSamples, judged: RunSamples, name: str) -> list[str]:
    """Hops whose mean (or p99) is another one in the judged run, largest first: what a net cannot know."""
    total = _figure_of(name, judged.end_to_end)
    here, there = ({hop: v[~np.isnan(v)] for hop, v in _hops(run).items()} for run in (judged, fitted))
    pairs = [(hop, _figure_of(name, here[hop]), _figure_of(name, there[hop])) for hop in here if hop in there]
    pairs.sort(key=lambda pair: -abs(pair[1] - pair[2]))
    what = "" if name == "mean" else f" ({name})"
    return [
        f"{hop}{what}: {a:.4g} ms here, {b:.4g} ms in the run of the fit ({(a - b) / total * 100:+.1f} % of the whole)"
        for hop, a, b in pairs
        if abs(a - b) > 0.01 * total
    ][:4]


def _hops(run: RunSamples) -> Mapping[str, FloatArray]:
    """What the net takes from a run: its hops, of a broker's those without the cables."""
    if run.freed is None:
        return run.hops or run.steps
    cable = " without the cable" if run.freed.cables.out_mbps else ""
    hops = {f"publish{cable}": run.freed.publish, "broker": run.messages["broker"]}
    # Behind a full cable the rest of the way is mostly the turns that connections took.
    return hops if run.is_cable_full else hops | {f"deliver{cable}": run.freed.deliver}


def _full_cable(
    fitted: RunSamples, judged: RunSamples, params: Mapping[str, Any], same_buffer: Sequence[Figure]
) -> list[str]:
    """Whether the cable to the subscribers was full, here or in the run of the fit."""
    here, there = judged.cable_load, fitted.cable_load
    if max(here, there) < FULL:
        return []
    busy = (
        f"the cable to the subscribers is busy for {min(here, 1) * 100:.0f} % of the time here and for "
        f"{min(there, 1) * 100:.0f} % in the run of the fit: messages pile up before a full one until the kernel takes "
        "no more"
    )
    is_paced = judged.freed is None or judged.freed.cables.is_paced
    found = [f"{busy}, and connections then take uneven turns" if is_paced else busy]
    is_set = "buffer" in run_settings(judged)
    if here >= FULL and judged.freed is not None and judged.freed.held_copies and "buffer" in params and not is_set:
        held = f"{float(params['buffer']) / 1000:.0f} kB"
        is_seen = fitted.freed is not None and fitted.freed.held_copies
        known = (
            f"{held} in the run of the fit" if is_seen else f"{held} are supposed, since the fit's broker never waited"
        )
        text = (
            f"the kernel sets anew for each connection how much it holds before the broker waits: {known}, "
            f"{buffer_bytes(judged) / 1000:.0f} kB here"
        )
        figures = ", ".join(f"{f.name} {f.error_percent:+.1f} %" for f in same_buffer)
        found.append(text + (f". With what was seen here the same net is off by {figures}" if figures else ""))
    if fitted.is_rest_hidden and here < FULL:
        found.append(
            "what is left of the way to the subscribers cannot be seen behind the full cable of the run of the fit: it "
            "is taken to be nothing"
        )
    return found


def _backlog(run: RunSamples, where: str) -> list[str]:
    """Whether messages piled up before the subscriber: then tiny changes of speed decide the latency."""
    deliver = run.arrivals[:, 0]
    if len(deliver) < _ENOUGH:
        return []
    least, typical = np.quantile(deliver, [0.02, 0.5])
    waiting = float(np.corrcoef(deliver[:-1], deliver[1:])[0, 1]) if deliver.std() > 0 else 0.0
    if max(typical, float(deliver.mean())) < 5 * least or waiting < 0.9:
        return []
    text = (
        f"{where} the subscriber fell behind: half of the deliveries took {typical:.4g} ms and more where "
        f"{least:.4g} ms is possible, and neighbours wait alike (correlation {waiting:.2f}); at its limit a "
        "subscriber's backlog depends on differences of speed that no fit can know"
    )
    return [text]
