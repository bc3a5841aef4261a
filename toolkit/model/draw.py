"""Pictures: nets as SVG without any other program; fits, sweeps, solutions and comparisons through matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.model.expressions import Expression
from toolkit.model.fit import FitReport
from toolkit.model.net import Immediate, Net
from toolkit.model.predict import Point
from toolkit.model.solution import Solution
from toolkit.model.validate import Validation

_STEP_X, _STEP_Y, _MARGIN = 130, 110, 70
_IN_A_ROW = 8


def net_svg(net: Net) -> str:
    """Places as circles with their tokens, timed transitions as boxes, immediate ones as bars, in the order of flow."""
    order = _flow(net)
    spots: dict[str, tuple[int, int]] = {}
    for i, name in enumerate(order):
        row, column = divmod(i, _IN_A_ROW)
        column = column if row % 2 == 0 else _IN_A_ROW - 1 - column
        spots[name] = (_MARGIN + column * _STEP_X, _MARGIN + row * _STEP_Y)
    width = 2 * _MARGIN + (_IN_A_ROW - 1) * _STEP_X
    height = 2 * _MARGIN + (len(order) - 1) // _IN_A_ROW * _STEP_Y
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11">',  # noqa: E501 - one element of the drawing
        f"<title>{escape(net.name)}</title>",
        '<defs><marker id="a" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'  # noqa: ISC004 - one element
        '<path d="M0 0 8 4 0 8z"/></marker><marker id="o" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" '
        'markerHeight="7"><circle cx="4" cy="4" r="3" fill="white" stroke="black"/></marker></defs>',
    ]
    for transition in net.transitions:
        for place, count in transition.inputs.items():
            parts.append(_line(spots[place], spots[transition.name], "a", count))
        for place, count in transition.outputs.items():
            parts.append(_line(spots[transition.name], spots[place], "a", count))
        for place, count in transition.inhibitors.items():
            parts.append(_line(spots[place], spots[transition.name], "o", count, bend=28))
    for place, tokens in net.places.items():
        x, y = spots[place]
        inside = "&#9679;" if tokens == 1 else str(tokens or "")
        parts.append(f'<circle cx="{x}" cy="{y}" r="16" fill="white" stroke="black"/>')
        parts.append(f'<text x="{x}" y="{y + 4}" text-anchor="middle">{inside}</text>')
        parts.append(f'<text x="{x}" y="{y + 30}" text-anchor="middle">{escape(place)}</text>')
    for transition in net.transitions:
        x, y = spots[transition.name]
        is_immediate = isinstance(transition.timing, Immediate)
        half, fill = (3, "black") if is_immediate else (8, "white")
        parts.append(f'<rect x="{x - half}" y="{y - 18}" width="{2 * half}" height="36" fill="{fill}" stroke="black"/>')
        parts.append(
            f'<text x="{x}" y="{y + 32}" text-anchor="middle" font-style="italic">{escape(transition.name)}</text>'
        )
        if not isinstance(transition.timing, Immediate):
            delay = transition.timing.delay
            text = f"exponential({delay})" if isinstance(delay, Expression) else str(delay)
            parts.append(f'<text x="{x}" y="{y - 24}" text-anchor="middle" font-size="9">{escape(text[:28])}</text>')
        if transition.guard is not None:
            parts.append(
                f'<text x="{x}" y="{y - 34}" text-anchor="middle" font-size="8">[{escape(str(transition.guard)[:44])}]</text>'  # noqa: E501 - one element of the drawing
            )
    return "\n".join([*parts, "</svg>", ""])


def _flow(net: Net) -> list[str]:
    """Places and transitions along the arcs, from what is marked first."""
    following: dict[str, list[str]] = {}
    for transition in net.transitions:
        for place in transition.inputs:
            following.setdefault(place, []).append(transition.name)
        following.setdefault(transition.name, []).extend(transition.outputs)
    roots = [p for p, tokens in net.places.items() if tokens] + [t.name for t in net.transitions if not t.inputs]
    order: list[str] = []
    for root in [*roots, *net.places, *(t.name for t in net.transitions)]:
        queue = [root]
        while queue:
            name = queue.pop(0)
            if name not in order:
                order.append(name)
                queue += following.get(name, [])
    return order


def _line(a: tuple[int, int], b: tuple[int, int], end: str, count: int, bend: int = 0) -> str:
    length = max(((b[0] - a[0]) ** 2 + (b[1] - a[1]) ** 2) ** 0.5, 1.0)
    dx, dy = (b[0] - a[0]) / length, (b[1] - a[1]) / length
    x1, y1, x2, y2 = a[0] + 17 * dx, a[1] + 17 * dy, b[0] - 17 * dx, b[1] - 17 * dy
    mx, my = (x1 + x2) / 2 - dy * bend, (y1 + y2) / 2 + dx * bend
    path = f'<path d="M{x1:.0f} {y1:.0f}Q{mx:.0f} {my:.0f} {x2:.0f} {y2:.0f}" fill="none" stroke="black" marker-end="url(#{end})"/>'  # noqa: E501 - one element of the drawing
    return path + (f'<text x="{mx:.0f}" y="{my - 4:.0f}">{count}</text>' if count > 1 else "")


def _figure(columns: int = 1, *, width: float = 6.0) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns, 4.0), layout="constrained")
    axes = [figure.add_subplot(1, columns, i + 1) for i in range(columns)]
    return figure, axes


def plot_solution(solution: Solution, file: Path) -> None:
    """Probability of each place over the asked times, as the thesis' transient charts."""
    figure, (axis,) = _figure()
    for place, values in solution.occupied.items():
        axis.plot(solution.at, values, label=place, marker="." if len(solution.at) < 30 else None)
    axis.set(xlabel=f"time ({solution.net.unit})", ylabel="probability of holding a token", title=solution.net.name)
    axis.legend(fontsize=7)
    figure.savefig(file)


def plot_fit(report: FitReport, file: Path) -> None:
    """Density, distribution function and Q-Q plot of the three best families."""
    figure, (density, function, quantile) = _figure(3, width=4.0)
    values = np.sort(report.values)
    grid = np.linspace(values[0], float(np.quantile(values, 0.999)), 300)
    density.hist(values, bins=min(60, max(10, len(values) // 20)), range=(grid[0], grid[-1]), density=True, alpha=0.4)
    function.step(values, np.arange(1, len(values) + 1) / len(values), where="post", label="measured", color="black")
    levels = (np.arange(min(len(values), 500)) + 0.5) / min(len(values), 500)
    seen = np.quantile(values, levels)
    for fit in report.fits[:3]:
        density.plot(grid, fit.distribution.pdf(grid), label=fit.family)
        function.plot(grid, fit.distribution.cdf(grid), label=fit.family)
        quantile.plot(fit.distribution.quantile(levels), seen, ".", markersize=3, label=fit.family)
    quantile.axline((seen[0], seen[0]), slope=1, color="black", linewidth=0.7)
    density.set(xlabel="ms", ylabel="density", title=report.name)
    function.set(xlabel="ms", ylabel="cumulative share")
    quantile.set(xlabel="fitted quantile (ms)", ylabel="measured quantile (ms)")
    for axis in (density, function, quantile):
        axis.legend(fontsize=7)
    figure.savefig(file)


def plot_sweep(points: Sequence[Point], file: Path) -> None:
    """Mean, p50 and p99 over the first parameter that has several values."""
    figure, (axis,) = _figure()
    names = list(points[0].settings)
    name = next((n for n in names if len({p.settings[n] for p in points}) > 1), names[0] if names else "")
    others = sorted({tuple((k, v) for k, v in p.settings.items() if k != name) for p in points})
    for other in others:
        chosen = [p for p in points if tuple((k, v) for k, v in p.settings.items() if k != name) == other]
        label = ", ".join(f"{k}={v:g}" for k, v in other)
        x = [p.settings.get(name, 0.0) for p in chosen]
        for what, style in ((0.5, "--"), (0.99, "-")):
            axis.plot(
                x, [p.latency.quantiles[what] for p in chosen], style, marker="o", label=f"p{what * 100:g} {label}"
            )
    axis.set(xlabel=name, ylabel="latency (ms)", ylim=(0, None))
    axis.legend(fontsize=7)
    figure.savefig(file)


def plot_validation(results: Sequence[Validation], file: Path) -> None:
    """Measured and predicted distribution functions, run by run."""
    figure, axes = _figure(len(results), width=4.0)
    for axis, result in zip(axes, results, strict=True):
        for values, label in ((result.measured, "measured"), (result.predicted, "predicted")):
            levels = np.linspace(0, 0.9995, 800)
            axis.plot(np.quantile(values, levels), levels, label=label)
        axis.set(xlabel="end to end (ms)", ylabel="cumulative share", title=result.run)
        axis.legend(fontsize=7)
    figure.savefig(file)
