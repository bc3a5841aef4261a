"""The table that closes the loop: what the thesis estimated, the exact value, our prediction, what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.model.analyse import solve
from toolkit.model.netfile import load_document, read_net
from toolkit.model.samples import RunSamples

_CERTAIN = 0.9995
"""The thesis read the instant at which completion looked certain off a curve; this level reproduces its numbers."""
COLUMNS = (
    ("net", "net"),
    ("thesis_estimate", "thesis estimate"),
    ("exact_mean", "exact mean"),
    ("exact_p99", "exact p99"),
    ("exact_certain", f"exact p{_CERTAIN * 100:g}"),
    ("thesis_measured", "thesis measured mean"),
    ("exact_against_thesis_percent", "mean of the net against it, %"),
    ("predicted_mean", "our prediction, mean"),
    ("predicted_p99", "our prediction, p99"),
    ("measured_mean", "our run, mean"),
    ("measured_p99", "our run, p99"),
    ("error_percent", "mean error, %"),
)


def make_table(nets: list[Path], runs: Mapping[str, RunSamples]) -> list[dict[str, Any]]:
    """A row for each net; the last columns only for nets with a run (by the net's name)."""
    rows = []
    for file in nets:
        document = load_document(file)
        net = read_net(document, file=str(file))
        solution = solve(net, quantiles=(0.5, 0.99, _CERTAIN))
        thesis = document.get("thesis") or {}
        row: dict[str, Any] = {
            "net": net.name,
            "unit": net.unit,
            "method": solution.method,
            "thesis_estimate": thesis.get("estimate"),
            "thesis_measured": thesis.get("measured"),
        }
        if solution.time is not None:
            row |= {
                "exact_mean": solution.time.mean,
                "exact_p99": solution.time.quantiles[0.99],
                "exact_certain": solution.time.quantiles[_CERTAIN],
            }
            if measured := thesis.get("measured"):
                row["exact_against_thesis_percent"] = (solution.time.mean - measured) / measured * 100
        run = runs.get(net.name)
        if run is not None:
            row |= _measured(run)
        rows.append(row)
    return rows


def _measured(run: RunSamples) -> dict[str, Any]:
    from toolkit.model.validate import validate

    result = validate(run, run)
    mean, p99 = result.figure("mean"), result.figure("p99")
    return {
        "run": run.name,
        "predicted_mean": mean.predicted,
        "predicted_p99": p99.predicted,
        "measured_mean": mean.measured,
        "measured_p99": p99.measured,
        "error_percent": mean.error_percent,
    }


def table_text(rows: list[dict[str, Any]], *, markdown: bool = False) -> str:
    """The rows for people: nets as columns, since there are few of them."""
    shown = [[title, *(_cell(row.get(key)) for row in rows)] for key, title in COLUMNS]
    if markdown:
        head, *rest = shown
        lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
        return "\n".join([*lines, *("| " + " | ".join(line) + " |" for line in rest)])
    widths = np.max([[len(cell) for cell in line] for line in shown], axis=0)
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in shown)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.5g}" if isinstance(value, int | float) else str(value)
