"""Fits, validations and transients as short lists of points, for the run folder and the report's figures."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from toolkit.model.analyse import Effort, solve
from toolkit.model.distributions import FloatArray
from toolkit.model.fit import FitReport
from toolkit.model.net import Net
from toolkit.model.simulate import message_places

_BINS = 50
_LEVELS = np.unique(np.concatenate([[0.001, 0.005], np.linspace(0.01, 0.99, 50), [0.992, 0.995, 0.997, 0.998, 0.999]]))
_TIMES = 41
_KIND = re.compile(r"(_\d+)+$")


def fit_curves(report: FitReport, *, best: int = 3) -> dict[str, Any]:
    """Density, distribution function and quantiles: measured, and of the best families."""
    values = report.values
    high = float(np.quantile(values, 0.995))
    shares, edges = np.histogram(values, bins=_BINS, range=(float(values.min()), max(high, float(values.min()) + 1e-9)))
    middles = (edges[1:] + edges[:-1]) / 2
    seen = np.quantile(values, _LEVELS)
    return {
        "density": points(middles, shares / len(values) / np.diff(edges)),
        "cdf": points(seen, _LEVELS),
        "fits": [
            {
                "family": fit.family,
                "density": points(middles, fit.distribution.pdf(middles)),
                "cdf": points(seen, fit.distribution.cdf(seen)),
                "qq": points(fit.distribution.quantile(_LEVELS), seen),
            }
            for fit in report.fits[:best]
        ],
    }


def distribution_curve(values: FloatArray) -> list[list[float]]:
    """[ms, share not above it], dense at the upper end."""
    return points(np.quantile(values, _LEVELS), _LEVELS)


def transient(net: Net, end: float, *, seed: int = 1) -> dict[str, Any]:
    """Probability over time that the message, or one of its copies, is at each stage; kinds taken together.

    Simulated: the nets of runs have delays that an exact answer would take minutes for.
    """
    at = np.linspace(0.0, end, _TIMES)
    solution = solve(net, method="simulation", at=at.tolist(), effort=Effort(seed=seed, most_seconds=5.0, workers=1))
    stages: dict[str, FloatArray] = {}
    way = set(net.places) if net.latency is None else message_places(net)
    # The last copy is the message itself: nothing tells its places but that those of other copies are called alike.
    copied = {_KIND.sub("", place) for place in _places_of_copies(net)}
    total = max(sum(net.places[place] for place in way), 1)
    for place, tokens in solution.tokens.items():
        if place in way:
            stage = _KIND.sub("", place)
            each = total * (net.latency.arrivals if net.latency is not None and stage in copied else 1)
            stages[stage] = stages.get(stage, np.zeros(len(at))) + np.array(tokens) / each
    # Immediate transitions leave some places empty at all times.
    shown = {stage: values for stage, values in stages.items() if values.max() > 1e-4}
    return {"at": _short(at), "places": {stage: _short(values) for stage, values in shown.items()}}


def _places_of_copies(net: Net) -> set[str]:
    """The places in which a message is once for each copy: from the first output of a transition that copies."""
    if net.latency is None or net.latency.copies is None:
        return set()
    way = message_places(net)
    moves = [(next(iter(t.inputs)), list(t.outputs)) for t in net.transitions if t.inputs and t.outputs]
    open_ = [outputs[0] for _, outputs in moves if len(way & set(outputs)) > 1]
    found = set(open_)
    while open_:
        place = open_.pop()
        fresh = {outputs[0] for before, outputs in moves if before == place} - found
        found |= fresh
        open_ += fresh
    return found | {net.latency.end}


def points(x: FloatArray, y: FloatArray) -> list[list[float]]:
    """Pairs with five digits; pairs that are not finite are left out."""
    pairs = zip(_short(np.asarray(x)), _short(np.asarray(y)), strict=True)
    return [[a, b] for a, b in pairs if np.isfinite(a) and np.isfinite(b)]


def _short(values: FloatArray) -> list[float]:
    return [float(f"{value:.5g}") for value in values]
