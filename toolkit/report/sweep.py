"""The result of an experiment: each point's runs summed up, beside what others published."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from toolkit.measure.experiments import ExperimentFolder
from toolkit.measure.kpis import wilson
from toolkit.report.drops import PLACES, known_rates, sum_of_books
from toolkit.report.table import COLUMNS, HOP_TITLES, in_ms, is_virtual, published_rows
from toolkit.report.text import latex_table, markdown_table

if TYPE_CHECKING:
    from rich.table import Table

SUMMED = ("mean_ms", "sd_ms", "p50_ms", "p75_ms", "p90_ms", "p95_ms", "p99_ms", "p999_ms")
"""Averaged over a point's runs; the smallest and the largest delay are those of all its runs."""
FLOWS = ("gateway_in", "gateway_out", "broker_in", "broker_out", "hub_in", "hub_out")
"""The platform's rates, in the order of the way."""


def sweep_document(folder: ExperimentFolder) -> dict[str, Any]:
    """`points.<i>.{name, parameters, runs, valid, hops.<hop>.<figure>, sent_per_s, loss, reference}` and what it is."""
    document = folder.document()
    runs = folder.runs()
    manifests = [run.manifest() for _, _, run in runs]
    points = []
    for point in document["points"]:
        found = [run.kpis() for cell, _, run in runs if cell == point["name"]]
        points.append({**point, "runs": [kpis["run"] for kpis in found], **_summary(found)})
    return {
        "path": str(folder.path),
        **{key: document[key] for key in ("experiment", "description", "testbed", "twin", "scale", "repeat", "varied")},
        "virtual": any(is_virtual(manifest) for manifest in manifests),
        "deleted": len(document["runs"]) - len(runs),
        "points": points,
    }


def _summary(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    books = [kpis["ledger"]["total"] for kpis in runs]
    lost = sum(book["lost"] for book in books)
    offered = sum(book["expected"] - book["refused"] for book in books)
    by_hop = {hop: [kpis["hops"][hop] for kpis in runs if kpis["hops"].get(hop, {}).get("count")] for hop in HOP_TITLES}
    return {
        "valid": sum(bool(kpis["valid"]) for kpis in runs),
        "faults": sorted({fault for kpis in runs for fault in kpis["faults"]}),
        "hops": {hop: _hop(found) for hop, found in by_hop.items() if found},
        "books": sum_of_books(books),
        "qos": runs[0].get("qos") if runs else None,
        "flows": _flows(runs),
        "sent_per_s": _spread([kpis["throughput"]["sent_per_s"] for kpis in runs]),
        "delivered_per_s": _spread([kpis["throughput"]["delivered_per_s"] for kpis in runs]),
        "loss": {
            "lost": lost, "offered": offered, "ratio": lost / offered if offered else None,
            "ratio_95": wilson(lost, offered) if offered else None,
            "duplicates": sum(book["duplicates"] for book in books),
        },
    }  # fmt: skip


def _flows(runs: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Messages a second in and out of gateway, broker and hub, means over the runs; empty without gateway and hub."""
    if not any(any(kpis.get("way", {}).values()) for kpis in runs):
        return {}
    rates = [known_rates(kpis) for kpis in runs]
    return {name: _spread([each.get(name) for each in rates])["value"] for name in FLOWS}


def _hop(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One hop over the runs of a point."""
    few = {name for hop in runs for name in hop["few"]}
    bounds = [hop["clock_bound_ms"] for hop in runs]
    return {
        "count": sum(hop["count"] for hop in runs),
        **{name: _spread([hop[name] for hop in runs]) for name in SUMMED},
        "min_ms": {"value": min(hop["min_ms"] for hop in runs)},
        "max_ms": {"value": max(hop["max_ms"] for hop in runs)},
        "few": sorted(few),
        "clock_bound_ms": None if None in bounds else max(bounds),
        "resolved": all(hop["resolved"] is not False for hop in runs),
    }


def _spread(given: Sequence[float | None]) -> dict[str, Any]:
    """The mean over the runs that know it and, from two runs on, its 95 % interval by Student's t.

    What was never below zero has no interval that is: few and uneven runs would let it.
    """
    values = [value for value in given if value is not None]
    if not values:
        return {"value": None, "low": None, "high": None}
    mean = fmean(values)
    if len(values) == 1:
        return {"value": mean, "low": None, "high": None}
    from scipy.stats import t

    half = float(t.ppf(0.975, len(values) - 1)) * stdev(values) / len(values) ** 0.5
    low = mean - half
    return {"value": mean, "low": low if min(values) < 0 else max(low, 0.0), "high": mean + half}


# -- tables -----------------------------------------------------------------------------------------------------------


def sweep_title(document: Mapping[str, Any]) -> str:
    """What was varied on what; smaller or virtual testbeds are never taken for the real ones."""
    twin = " (local twin)" if document["twin"] else " (virtual nodes)" if document["virtual"] else ""
    scale = "" if document["scale"] == 1 else f", scaled to {document['scale']:g}"
    gone = f", without {document['deleted']} runs that were deleted" if document["deleted"] else ""
    return f"{document['experiment']} on {document['testbed']}{twin}{scale}{gone}"


HEADER = ("point", "runs", "sent/s", "delivered/s", "lost", *(name for name, _ in COLUMNS), "mean, 95 %")


def sweep_rows(document: Mapping[str, Any], hop: str = "end_to_end") -> list[list[str]]:
    """A row per point, published figures below the point they belong to; times in ms."""
    rows = []
    for point in document["points"]:
        loss, summary = point["loss"], point["hops"].get(hop)
        runs = f"{len(point['runs'])}" + ("" if point["valid"] == len(point["runs"]) else f" ({point['valid']} valid)")
        rates = [_per_s(point[name]["value"]) for name in ("sent_per_s", "delivered_per_s")]
        cells = [point["name"] or point["workload"], runs, *rates, f"{loss['lost']}/{loss['offered']}"]
        if summary is None:
            cells += ["-"] * (len(HEADER) - len(cells))
        else:
            few = {f"{name}_ms" for name in summary["few"]}
            mean = summary["mean_ms"]
            cells += ["-" if name in few else in_ms(summary[name]["value"]) for _, name in COLUMNS]
            cells += ["-" if mean["low"] is None else f"{in_ms(mean['low'])} to {in_ms(mean['high'])}"]
        rows.append(cells)
        rows += [[name, "", "", "", "", *figures, ""] for name, figures in published_rows(point["reference"], hop)]
    return rows


FLOW_HEADER = ("point", *(f"{name.replace('_', ' ')}/s" for name in FLOWS), "broker p50", "broker p99", "drops")


def flow_rows(document: Mapping[str, Any]) -> list[list[str]]:
    """The platform's KPIs, a row per point with a gateway or a hub: rates, processing latency in ms, drops by place."""
    rows = []
    for point in document["points"]:
        if not point.get("flows"):
            continue
        broker = point["hops"].get("broker")
        few = broker["few"] if broker else ()
        latency = [in_ms(broker[f"{q}_ms"]["value"]) if broker and q not in few else "-" for q in ("p50", "p99")]
        drops = [f"{point['books'][name]} {place}" for name, place in PLACES.items() if point["books"].get(name)]
        rates = [_per_s(point["flows"][name]) for name in FLOWS]
        rows.append([point["name"] or point["workload"], *rates, *latency, ", ".join(drops) or "none"])
    return rows


def _per_s(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def shown_hops(document: Mapping[str, Any]) -> list[str]:
    """End to end, and every hop that figures were published for."""
    published = {reference["hop"] for point in document["points"] for reference in point["reference"]}
    there = {hop for point in document["points"] for hop in point["hops"]}
    return [hop for hop in HOP_TITLES if hop in there and (hop == "end_to_end" or hop in published)]


def sweep_table(document: Mapping[str, Any], hop: str) -> Table:
    """The table for a terminal."""
    from rich import box
    from rich.table import Table

    table = Table(
        title=sweep_title(document),
        caption=f"{HOP_TITLES[hop]}, times in ms; means over runs, max of all runs",
        box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left", caption_justify="left",
    )  # fmt: skip
    for name in HEADER:
        table.add_column(name, justify="left" if name == "point" else "right", no_wrap=True)
    for row in sweep_rows(document, hop):
        table.add_row(*row)
    return table


def sweep_markdown(document: Mapping[str, Any]) -> str:
    """A section per hop."""
    parts = [
        f"## {sweep_title(document)}: {HOP_TITLES[hop]} (ms)\n\n{markdown_table(HEADER, sweep_rows(document, hop))}"
        for hop in shown_hops(document)
    ]
    if flows := flow_rows(document):
        parts.append(f"## {sweep_title(document)}: platform (messages/s, ms)\n\n{markdown_table(FLOW_HEADER, flows)}")
    return "\n".join(parts)


def sweep_latex(document: Mapping[str, Any]) -> str:
    """A booktabs table per hop."""
    tables = [
        latex_table(f"{sweep_title(document)}: {HOP_TITLES[hop]} (ms)", HEADER, sweep_rows(document, hop))
        for hop in shown_hops(document)
    ]
    if flows := flow_rows(document):
        tables.append(latex_table(f"{sweep_title(document)}: platform (messages/s, ms)", FLOW_HEADER, flows))
    return "\n".join(tables)


def sweep_csv(document: Mapping[str, Any]) -> str:
    """One line per point and hop, and one per published figure's source, in full precision."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    figures = [*SUMMED, "min_ms", "max_ms"]
    head = ["experiment", "testbed", "twin", "scale", "point", *document["varied"], "runs", "valid"]
    writer.writerow([*head, "sent_per_s", "delivered_per_s", "lost", "offered", "hop", "source", "count", *figures,
                     "mean_low_ms", "mean_high_ms", *(f"{name}_per_s" for name in FLOWS)])  # fmt: skip
    for point in document["points"]:
        cell = [point["parameters"].get(name, "") for name in document["varied"]]
        what = [document[name] for name in ("experiment", "testbed", "twin", "scale")]
        start = [*what, point["name"], *cell, len(point["runs"]), point["valid"]]
        rates = [point["sent_per_s"]["value"], point["delivered_per_s"]["value"]]
        for hop, summary in point["hops"].items():
            mean = summary["mean_ms"]
            writer.writerow([*start, *rates, point["loss"]["lost"], point["loss"]["offered"], hop, "measured",
                             summary["count"], *(summary[name]["value"] for name in figures),
                             mean["low"], mean["high"],
                             *(point["flows"].get(name) for name in FLOWS)])  # fmt: skip
        for reference in point["reference"]:
            given = [reference["figures"].get(name.removesuffix("_ms"), "") for name in figures]
            texts = ["-".join(map(str, value)) if isinstance(value, list | tuple) else value for value in given]
            writer.writerow([*start, "", "", "", "", reference["hop"], reference["source"], "", *texts, "", "",
                             *("" for _ in FLOWS)])  # fmt: skip
    return out.getvalue()
