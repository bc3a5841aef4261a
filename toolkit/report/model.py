"""The models of a run beside its measurement: what `toolkit model` left in the run's folder, as rows and figures."""

from __future__ import annotations

import json
from typing import Any

from toolkit.measure.store import RunFolder
from toolkit.report.table import in_ms

FIGURES = ("mean", "sd", "p50", "p90", "p95", "p99", "p99.9")


def model_section(run: RunFolder) -> dict[str, Any] | None:
    """What the template says of the models; None where there are none."""
    validation, fits, predictions = (_read(run, name) for name in ("validation", "fits", "predictions"))
    if not (validation or fits or predictions):
        return None
    judged = [
        {
            "run": found["run"],
            "is_own": found["fitted_on_it"],
            "within": found["within_target"],
            "rows": [_figure_row(name, found["figures"][name]) for name in FIGURES if name in found["figures"]],
            "ks": found["ks"],
            "ks_confidence": found["ks_confidence"],
            "wasserstein": in_ms(found["wasserstein_ms"]),
            "wasserstein_confidence": [in_ms(bound) for bound in found["wasserstein_confidence_ms"]],
            "above": found["above_model_p99_percent"],
            "explanations": found["explanations"],
        }
        for found in validation.get("runs", ())
    ]
    return {
        "fitted_on": validation.get("fitted_on", run.name),
        "judged": judged,
        "fits": [
            {"hop": hop, "best": found["best"], "ks": found["fits"][0]["ks"], "n": found["n"]}
            for hop, found in fits.get("hops", {}).items()
        ],
        "points": [_point_row(point) for point in predictions.get("points", ())],
        "capacity": predictions.get("capacity"),
        "hops": list(fits.get("curves", {})),
        "has_transient": "transient" in validation,
    }


def model_figures(run: RunFolder) -> dict[str, Any]:
    """Points of the figures: density, distribution and Q-Q of each fit; both distributions; places over time."""
    validation, fits = _read(run, "validation"), _read(run, "fits")
    return {
        "fits": fits.get("curves", {}),
        "validation": validation.get("curves", {}),
        "transient": validation.get("transient"),
    }


def _read(run: RunFolder, name: str) -> dict[str, Any]:
    file = run.path / "model" / f"{name}.json"
    if not file.is_file():
        return {}
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def _figure_row(name: str, figure: dict[str, Any]) -> list[str]:
    interval = f"{in_ms(figure['low'])} to {in_ms(figure['high'])}"
    return [
        name, in_ms(figure["measured"]), interval, in_ms(figure["predicted"]), f"{figure['error_percent']:+.1f} %"
    ]  # fmt: skip


def _point_row(point: dict[str, Any]) -> list[str]:
    named = ", ".join(f"{name} = {value:g}" for name, value in point["settings"].items()) or "as it was"
    quantiles = point["quantiles"]
    return [named, in_ms(point["mean"]), in_ms(quantiles["0.5"]), in_ms(quantiles["0.99"]), point["method"]]
