"""Where messages were dropped: the platform's KPIs in words, and its two drop plots, for QoS 0 and QoS 1."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from toolkit.measure.probes import missed_some

PLACES: Mapping[str, str] = {
    "refused": "not sent",
    "lost_before_gateway": "to the gateway",
    "lost_in_gateway": "in the gateway",
    "lost_before_broker": "to the broker",
    "lost_in_broker": "in the broker",
    "lost_after_broker": "after the broker",
    "lost_in_hub": "in the hub",
    "lost_after_hub": "after the hub",
    "late": "too late",
    "unconfirmed": "never answered for",
}
"""Class of the books -> where it happened, in the order of the way."""
_RATES = (("gateway", "gateway"), ("broker", "broker"), ("hub", "hub"))


def known_rates(kpis: Mapping[str, Any]) -> dict[str, float]:
    """Messages a second by place; not those of a broker whose hop probe missed some, since it would be too few."""
    blurred = any(process["role"] == "probe" and missed_some(process["counts"]) for process in kpis["processes"])
    return {
        name: float(found["mean_per_s"])
        for name, found in kpis["throughput"].items()
        if isinstance(found, Mapping) and "mean_per_s" in found and not (blurred and name.startswith("broker_"))
    }


def kpi_lines(document: Mapping[str, Any]) -> list[str]:
    """The platform's KPIs of a run; nothing for a run without gateway and hub."""
    if not any(document.get("way", {}).values()):
        return []
    rates = known_rates(document)
    lines = []
    flows = [
        f"{title} in {rates[f'{name}_in']:.1f}, out {rates[f'{name}_out']:.1f}"
        for title, name in _RATES
        if f"{name}_in" in rates and f"{name}_out" in rates
    ]
    if flows:
        lines.append("messages/s: " + "; ".join(flows))
    broker = document["hops"]["broker"]
    if broker["count"]:
        lines.append(f"processing latency: p50 {broker['p50_ms']:.3f}, p99 {broker['p99_ms']:.3f} ms")
    whole = document["ledger"]["total"]
    places = [f"{whole[name]} {title}" for name, title in PLACES.items() if whole.get(name)]
    lines.append("drops: " + (", ".join(places) if places else "none"))
    counted = {
        f"{process['role']} {reason.removeprefix('dropped_').replace('_', ' ')}": count
        for process in document["processes"]
        if process["role"] in {"gateway", "hub"}
        for reason, count in process["counts"].items()
        if reason.startswith("dropped_") and count
    }
    if counted:
        lines.append("counted where it happened: " + ", ".join(f"{name} {n}" for name, n in counted.items()))
    return lines


def sum_of_books(books: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """What was expected, and every place of `PLACES`, over several runs; empty without runs."""
    return {name: sum(int(book.get(name, 0)) for book in books) for name in ("expected", *PLACES)} if books else {}


def drop_plots(points: Iterable[tuple[str, int | None, Mapping[str, int]]]) -> list[dict[str, Any]]:
    """One plot per QoS: `{qos, names, places: {title: [share of the expected deliveries]}}`.

    `points`: name, QoS, `sum_of_books`. Places where nothing was ever dropped are left out.
    """
    by_qos: dict[int, list[tuple[str, Mapping[str, int]]]] = {}
    for name, qos, books in points:
        if qos is not None and books.get("expected"):
            by_qos.setdefault(qos, []).append((name, books))
    return [
        {
            "qos": qos,
            "names": [name for name, _ in group],
            "places": {
                title: [books[place] / books["expected"] for _, books in group]
                for place, title in PLACES.items()
                if any(books[place] for _, books in group)
            },
        }
        for qos, group in sorted(by_qos.items())
    ]


def plot_drops(plot: Mapping[str, Any], to: Path) -> Path:
    """One of the plots as SVG or PDF: a bar for each point, stacked by place."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    from toolkit.report.plots import STYLE, are_long, name_places, save, size_for, without_key

    names, varied = without_key(plot["names"])
    flat = are_long(names)
    with rc_context(STYLE):
        figure = Figure(figsize=size_for(names, flat=flat), layout="constrained")
        axis = figure.add_subplot()
        floor = [0.0] * len(names)
        for title, shares in plot["places"].items():
            heights = [100 * share for share in shares]
            how: Any = {"left": floor, "height": 0.6} if flat else {"bottom": floor, "width": 0.6}
            (axis.barh if flat else axis.bar)(range(len(names)), heights, **how, label=title, color=_colour_of(title))
            floor = [low + height for low, height in zip(floor, heights, strict=True)]
        name_places(axis, names, flat=flat)
        lost, most = "deliveries lost (%)", None if any(floor) else 1
        axis.set(xlabel=lost if flat else varied, ylabel=varied if flat else lost, title=f"QoS {plot['qos']}")
        axis.set_xlim(0, most) if flat else axis.set_ylim(0, most)
        if plot["places"]:
            figure.legend(fontsize=7, loc="outside upper center", ncols=3)
        save(figure, to)
    return to


def _colour_of(title: str) -> str:
    """The same for a place in every plot."""
    return f"C{list(PLACES.values()).index(title)}"
