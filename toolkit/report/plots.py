"""Figures for papers, drawn by matplotlib as SVG or PDF."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from toolkit.report.table import HOP_TITLES

STYLE: Any = {
    "font.size": 8, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.3,
    "legend.frameon": False, "svg.fonttype": "none", "svg.hashsalt": "toolkit", "pdf.fonttype": 42,
}  # fmt: skip
"""Text stays text, and equal figures are equal files."""
SHORT_NAME = 6
"""Names up to so many letters stand level below an axis."""
WIDE_RANGE = 30
"""From this ratio of largest to smallest a logarithmic axis shows more."""


def plot_sweep(document: Mapping[str, Any], to: Path, hop: str = "end_to_end") -> Path:
    """Mean with its interval, p99 and max of every point, published figures hollow beside them."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    points = [point for point in document["points"] if hop in point["hops"]]
    names = [point["name"] or point["workload"] for point in points]
    with rc_context(STYLE):
        figure = Figure(figsize=(max(3.4, 1.2 + 0.45 * len(points)), 2.8), layout="constrained")
        axis = figure.add_subplot()
        values = _ours(axis, points, hop)
        values += _published(axis, points, hop)
        if values and min(values) > 0 and max(values) / min(values) > WIDE_RANGE:
            axis.set_yscale("log")
        elif values:
            axis.set_ylim(bottom=0)
        slanted: Any = {"rotation": 30, "ha": "right"} if max(map(len, names), default=0) > SHORT_NAME else {}
        axis.set_xticks(range(len(points)), names, **slanted)
        axis.set(ylabel=f"{HOP_TITLES[hop]} (ms)", title=document["experiment"])
        axis.legend(fontsize=7)
        save(figure, to)
    return to


def _ours(axis: Any, points: list[Mapping[str, Any]], hop: str) -> list[float]:
    values = []
    for name, colour, marker in (("mean_ms", "C0", "o"), ("p99_ms", "C1", "^"), ("max_ms", "C3", "s")):
        heights = [point["hops"][hop][name]["value"] for point in points]
        label = name.removesuffix("_ms")
        if name == "mean_ms":
            spans = [point["hops"][hop][name] for point in points]
            low = [s["value"] - s["low"] if s["low"] is not None else 0.0 for s in spans]
            high = [s["high"] - s["value"] if s["high"] is not None else 0.0 for s in spans]
            axis.errorbar(range(len(points)), heights, (low, high), fmt=marker, color=colour, capsize=3, label=label)
        else:
            axis.plot(range(len(points)), heights, marker, color=colour, markersize=4, label=label)
        values += heights
    return values


def _published(axis: Any, points: list[Mapping[str, Any]], hop: str) -> list[float]:
    values: list[float] = []
    for name, colour, marker in (("mean", "C0", "o"), ("p99", "C1", "^"), ("max", "C3", "s")):
        given = [
            (x, figure)
            for x, point in enumerate(points)
            for reference in point["reference"]
            if reference["hop"] == hop and (figure := reference["figures"].get(name)) is not None
        ]
        for x, figure in given:
            if isinstance(figure, list | tuple):
                axis.vlines(x + 0.18, *figure, color=colour, linewidth=1)
                values += figure
        where = [
            (x + 0.18, f) for x, figure in given for f in (figure if isinstance(figure, list | tuple) else [figure])
        ]
        if where:
            axis.plot(
                *zip(*where, strict=True), marker, markerfacecolor="none", color=colour, label=f"{name}, published"
            )
            values += [height for _, height in where]
    return values


def save(figure: Any, to: Path) -> None:
    """Write SVG or PDF without the date, so that a figure made again is the same file."""
    to.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"Date": None} if to.suffix == ".svg" else {"CreationDate": None}
    figure.savefig(to, metadata=metadata)
