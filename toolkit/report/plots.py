"""Figures for papers, drawn by matplotlib as SVG or PDF."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from toolkit.report.sequence import shown_steps
from toolkit.report.table import HOP_TITLES, in_ms

STYLE: Any = {
    "font.size": 8, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.3,
    "legend.frameon": False, "svg.fonttype": "none", "svg.hashsalt": "toolkit", "pdf.fonttype": 42,
}  # fmt: skip
"""Text stays text, and equal figures are equal files."""
SHORT_NAME = 6
"""Names up to so many letters stand level below an axis."""
LONG_NAME = 20
"""Names of more letters stand level beside an axis."""
WIDE_RANGE = 30
"""From this ratio of largest to smallest a logarithmic axis shows more."""


def plot_sweep(document: Mapping[str, Any], to: Path, hop: str = "end_to_end") -> Path:
    """Mean with its interval, p99 and max of every point, published figures hollow beside them.

    Points stand beside each other; where their names are long, below each other.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    points = [point for point in document["points"] if hop in point["hops"]]
    names, varied = without_key([point["name"] or point["workload"] for point in points])
    flat = are_long(names)
    with rc_context(STYLE):
        figure = Figure(figsize=size_for(names, flat=flat), layout="constrained")
        axis = figure.add_subplot()
        values = _ours(axis, points, hop, flat=flat)
        values += _published(axis, points, hop, flat=flat)
        if values and min(values) > 0 and max(values) / min(values) > WIDE_RANGE:
            axis.set_xscale("log") if flat else axis.set_yscale("log")
        elif values:
            axis.set_xlim(left=0) if flat else axis.set_ylim(bottom=0)
        name_places(axis, names, flat=flat)
        measured = f"{HOP_TITLES[hop]} (ms)"
        axis.set(xlabel=measured if flat else varied, ylabel=varied if flat else measured, title=document["experiment"])
        if points:
            named = sorted(zip(*axis.get_legend_handles_labels(), strict=True), key=lambda item: _rank(item[1]))
            figure.legend(*zip(*named, strict=True), fontsize=7, loc="outside upper center", ncols=3)
        save(figure, to)
    return to


def _rank(label: str) -> tuple[bool, int]:
    """The measured before the published, mean before p99 before max."""
    name, _, published = label.partition(", ")
    return bool(published), ("mean", "p99", "max").index(name)


def without_key(names: Sequence[str]) -> tuple[list[str], str]:
    """Where every name is a value of one parameter: the values alone, and the parameter for the axis."""
    parts = [name.partition("=") for name in names]
    keys = {key for key, equals, value in parts if equals and "=" not in value}
    if len(keys) == 1 and all(equals for _, equals, _ in parts):
        return [value for _, _, value in parts], keys.pop()
    return list(names), ""


def are_long(names: Sequence[str]) -> bool:
    """Whether names would leave no room for the figure above them."""
    return max(map(len, names), default=0) > LONG_NAME


def size_for(names: Sequence[str], *, flat: bool) -> tuple[float, float]:
    """Width and height in inches of a figure with a place for each name."""
    if flat:
        return 3.2 + 0.06 * max(map(len, names)), 1.3 + 0.24 * len(names)
    return max(3.4, 1.2 + 0.45 * len(names)), 3.0


def name_places(axis: Any, names: Sequence[str], *, flat: bool) -> None:
    """Write a name at each place, the first one leftmost, or topmost."""
    ends = -0.5, max(len(names), 1) - 0.5
    if flat:
        axis.set_yticks(range(len(names)), names)
        axis.set_ylim(*reversed(ends))
    else:
        slanted: Any = {"rotation": 30, "ha": "right"} if max(map(len, names), default=0) > SHORT_NAME else {}
        axis.set_xticks(range(len(names)), names, **slanted)
        axis.set_xlim(*ends)


def _ours(axis: Any, points: list[Mapping[str, Any]], hop: str, *, flat: bool) -> list[float]:
    values = []
    for name, colour, marker in (("mean_ms", "C0", "o"), ("p99_ms", "C1", "^"), ("max_ms", "C3", "s")):
        found = [point["hops"][hop][name]["value"] for point in points]
        label = name.removesuffix("_ms")
        across, up = _turned(range(len(points)), found, flat=flat)
        if name == "mean_ms":
            spans = [point["hops"][hop][name] for point in points]
            low = [s["value"] - s["low"] if s["low"] is not None else 0.0 for s in spans]
            high = [s["high"] - s["value"] if s["high"] is not None else 0.0 for s in spans]
            spread: Any = {"xerr" if flat else "yerr": (low, high)}
            axis.errorbar(across, up, **spread, fmt=marker, color=colour, capsize=3, label=label)
        else:
            axis.plot(across, up, marker, color=colour, markersize=4, label=label)
        values += found
    return values


def _published(axis: Any, points: list[Mapping[str, Any]], hop: str, *, flat: bool) -> list[float]:
    values: list[float] = []
    for name, colour, marker in (("mean", "C0", "o"), ("p99", "C1", "^"), ("max", "C3", "s")):
        given = [
            (place + 0.18, figure)
            for place, point in enumerate(points)
            for reference in point["reference"]
            if reference["hop"] == hop and (figure := reference["figures"].get(name)) is not None
        ]
        ranges = [(place, figure) for place, figure in given if isinstance(figure, list | tuple)]
        for place, (low, high) in ranges:
            axis.plot(*_turned((place, place), (low, high), flat=flat), color=colour, linewidth=1)
        where = [
            (place, f) for place, figure in given for f in (figure if isinstance(figure, list | tuple) else [figure])
        ]
        if where:
            ends = _turned([place for place, _ in where], [f for _, f in where], flat=flat)
            axis.plot(*ends, marker, markerfacecolor="none", color=colour, label=f"{name}, published")
            values += [figure for _, figure in where]
    return values


def _turned(places: Sequence[float], values: Sequence[float], *, flat: bool) -> tuple[Sequence[float], Sequence[float]]:
    """Places across and values up, or the other way round."""
    return (values, places) if flat else (places, values)


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
                axis.text(start + 0.06, y, f"database {in_ms(step['mean_ms'])} ms", va="center")
                continue
            axis.annotate(
                "", (end, y), (start, y), arrowprops={"arrowstyle": "-|>", "linewidth": 0.7, "shrinkA": 0, "shrinkB": 0}
            )
            words = f"{step['operation']} {in_ms(step['mean_ms'])} ms"
            axis.text((start + end) / 2, y - 0.08, words, ha="center", va="bottom")
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
    named = {name: values for name, values in lines.items() if name != "seconds"}
    for name, values in named.items():
        points = [(x, y) for x, y in zip(lines["seconds"], values, strict=True) if y is not None]
        axis.plot(*zip(*points, strict=True), label=name, linewidth=0.8)
    if all(value is None or value > 0 for values in named.values() for value in values):
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
