"""The report of a run shows its models beside its measurement."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from toolkit.measure.store import RunFolder
from toolkit.model.curves import distribution_curve, fit_curves, transient
from toolkit.model.fit import fit
from toolkit.model.netfile import load_net
from toolkit.report.html import render_report
from toolkit.report.model import model_figures, model_section

NET = Path(__file__).parents[3] / "examples" / "models" / "event-handler.yml"


def write_model(run: RunFolder) -> None:
    rng = np.random.Generator(np.random.Philox(1))
    measured, predicted = rng.gamma(3, 1, 2000), rng.gamma(3, 1.02, 2000)
    report = fit(measured, name="publish", families=("gamma", "lognormal"))
    home = run.path / "model"
    home.mkdir()
    figure = {"measured": 3.0, "low": 2.9, "high": 3.1, "predicted": 3.06, "error_percent": 2.0}
    judged = {
        "run": run.name, "fitted_on_it": False, "within_target": True, "figures": {"mean": figure, "p99": figure},
        "ks": 0.02, "ks_confidence": [0.01, 0.031], "wasserstein_ms": 0.05, "wasserstein_confidence_ms": [0.04, 0.07],
        "above_model_p99_percent": 1.1, "explanations": ["a <reason>"],
    }  # fmt: skip
    curves = {run.name: {"measured": distribution_curve(measured), "predicted": distribution_curve(predicted)}}
    followed = transient(load_net(NET), 20.0)
    validation = {"fitted_on": "other", "runs": [judged], "curves": curves, "transient": followed}
    (home / "validation.json").write_text(json.dumps(validation))
    fits = {"hops": {"publish": report.document()}, "curves": {"publish": fit_curves(report)}}
    (home / "fits.json").write_text(json.dumps(fits))


def test_a_run_with_models_has_a_section_and_figures_for_them(tmp_path: Path):
    from test_report import make_run

    run = make_run(tmp_path / "r", n=300)
    assert model_section(run) is None
    write_model(run)
    page = render_report([run])
    assert "which it was not fitted on" in page
    assert "+2.0 %" in page
    assert "a &lt;reason&gt;" in page
    for kind in ("validation", "transient", "density", "fitted", "qq"):
        assert f'data-kind="{kind}"' in page
    figures = model_figures(run)
    places = figures["transient"]["places"]
    assert sum(values[5] for values in places.values()) == pytest.approx(1.0, abs=0.01)
    assert places["Subscriber"][-1] > 0.99
    best = figures["fits"]["publish"]["fits"][0]
    assert all(abs(fitted - seen) < 0.5 for fitted, seen in best["qq"][:50])
    assert run.verify()[0].endswith("never sealed: it was interrupted before its end")
