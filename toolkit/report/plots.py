"""Figures for papers, drawn by matplotlib as SVG or PDF."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from toolkit.report.sequence import shown_steps
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


def plot_run(figures: Mapping[str, Any], folder: Path, *, form: str) -> list[Path]:
    """The figures of one run's report for a paper, `form` svg or pdf; what has nothing to show is left out."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    drawings = {
        "distribution": (_draw_distribution, figures["cdf"]),
        "percentiles": (_draw_percentiles, figures["percentiles"]),
        "heat-map": (_draw_heat, figures["heat"]),
        "rates": (_draw_rates, figures["rates"]),
        "cpu": (_draw_cpu, figures["resources"]),
    }
    made = []
    with rc_context(STYLE):
        for name, (draw, data) in drawings.items():
            figure = Figure(figsize=(3.4, 2.6), layout="constrained")
            if data and draw(figure.add_subplot(), data):
                save(figure, folder / f"{name}.{form}")
                made.append(folder / f"{name}.{form}")
    return made


def plot_sequence(sequence: Sequence[Mapping[str, Any]], to: Path) -> Path:
    """The way of an orchestration request: a line for each system, an arrow for each message, a box for each query."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    steps, systems = shown_steps(sequence)
    with rc_context(STYLE):
        figure = Figure(figsize=(1.3 * len(systems), 0.24 * (len(steps) + 2)), layout="constrained")
        axis = figure.add_subplot()
        axis.axis("off")
        axis.set(xlim=(-0.5, len(systems) - 0.3), ylim=(len(steps) + 0.5, -1.2))
        for x, system in enumerate(systems):
            axis.text(x, -0.8, system, ha="center", weight="bold")
            axis.axvline(x, ymax=1 - 0.7 / (len(steps) + 1.7), color="0.6", linewidth=0.6, linestyle=":")
        for y, step in enumerate(steps):
            start, end = systems.index(step["from"]), systems.index(step["to"])
            if step["kind"] == "query":
                axis.plot([start], [y], marker="s", markersize=4, color="C0")
                axis.text(start + 0.06, y, f"database {step['mean_ms']:.3g} ms", va="center")
                continue
            axis.annotate(
                "", (end, y), (start, y), arrowprops={"arrowstyle": "-|>", "linewidth": 0.7, "shrinkA": 0, "shrinkB": 0}
            )
            axis.text(
                (start + end) / 2, y - 0.08, f"{step['operation']} {step['mean_ms']:.3g} ms", ha="center", va="bottom"
            )
        save(figure, to)
    return to


def _draw_distribution(axis: Any, hops: Mapping[str, Any]) -> bool:
    shown = {hop: points for hop, points in hops.items() if points}
    for hop, points in shown.items():
        axis.plot(*zip(*points, strict=True), label=HOP_TITLES[hop], linewidth=1)
    if shown and all(points[0][0] > 0 for points in shown.values()):
        axis.set_xscale("log")
    axis.set(xlabel="delay (ms)", ylabel="share of messages", ylim=(0, 1))
    axis.legend(fontsize=6)
    return bool(shown)


def _draw_percentiles(axis: Any, lines: Mapping[str, Any]) -> bool:
    for name in ("p50", "p90", "p99", "max"):
        points = [(x, y) for x, y in zip(lines["seconds"], lines[name], strict=True) if y is not None]
        axis.plot(*zip(*points, strict=True), label=name, linewidth=0.8)
    if all(value is None or value > 0 for value in lines["p50"]):
        axis.set_yscale("log")
    axis.set(xlabel="s since the first message", ylabel="end to end (ms)")
    axis.legend(fontsize=6)
    return True


def _draw_heat(axis: Any, heat: Mapping[str, Any]) -> bool:
    import numpy as np

    cells = np.full((len(heat["ms"]), len(heat["seconds"])), np.nan)
    for x, y, n in heat["cells"]:
        cells[y, x] = n
    mesh = axis.pcolormesh(heat["seconds"], heat["ms"], cells, norm="log", shading="nearest", rasterized=True)
    if len(heat["ms"]) > 1:
        axis.set_yscale("log")
    axis.grid(visible=False)
    axis.set(xlabel="s since the first message", ylabel="end to end (ms)")
    axis.figure.colorbar(mesh, ax=axis, label="messages")
    return True


def _draw_rates(axis: Any, rates: Mapping[str, Any]) -> bool:
    for name, values in rates.items():
        if name != "seconds":
            axis.plot(rates["seconds"], values, label=name.replace("_", " "), linewidth=0.8)
    axis.set(xlabel="s since the first message", ylabel="messages/s", ylim=(0, None))
    axis.legend(fontsize=6)
    return True


def _draw_cpu(axis: Any, spent: Mapping[str, Any]) -> bool:
    nodes = {node: figures["cpu_cores"] for node, figures in spent.get("nodes", {}).items() if "cpu_cores" in figures}
    for node, values in nodes.items():
        axis.plot(spent["seconds"], [float("nan") if v is None else v for v in values], label=node, linewidth=0.8)
    axis.set(xlabel="s since the start", ylabel="busy cores", ylim=(0, None))
    axis.legend(fontsize=6)
    return bool(nodes)


def save(figure: Any, to: Path) -> None:
    """Write SVG or PDF without the date, so that a figure made again is the same file."""
    to.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"Date": None} if to.suffix == ".svg" else {"CreationDate": None}
    figure.savefig(to, metadata=metadata)
