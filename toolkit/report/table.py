"""The per-hop table of a run: for people on a terminal, and as a JSON document for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from toolkit.measure.promises import promise_line
from toolkit.measure.resources import summarise_resources
from toolkit.report.drops import kpi_lines
from toolkit.spec.nodes import VIRTUAL

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from toolkit.measure.store import RunFolder

COLUMNS = (("mean", "mean_ms"), ("p50", "p50_ms"), ("p90", "p90_ms"), ("p99", "p99_ms"), ("max", "max_ms"))
HOP_TITLES: Mapping[str, str] = {
    "uplink": "uplink",
    "gateway": "gateway",
    "publish": "publish",
    "broker": "broker",
    "deliver": "deliver",
    "hub": "hub",
    "downlink": "downlink",
    "end_to_end": "end to end",
}
TOO_FEW = "-"
"""Stands for a percentile with fewer than ten samples above it."""


def hop_title(hop: str) -> str:
    """A hop in tables; the steps of orchestration requests are called as their systems call them."""
    return HOP_TITLES.get(hop, hop)


def run_document(run: RunFolder) -> dict[str, Any]:
    """Everything known of a run: `hops.<name>.{count, lost, mean_ms, …, clock_bound_ms}`, the ledger, and more."""
    manifest = run.manifest()
    return {
        "path": str(run.path),
        "repetition": manifest.get("repetition", 1),
        "scale": manifest["testbed"].get("scale", 1.0),
        "virtual": is_virtual(manifest),
        "label": manifest.get("label", ""),
        "reference": manifest.get("reference", []),
        "resources": summarise_resources(run.resources()),
        **run.kpis(),
    }


def is_virtual(manifest: Mapping[str, Any]) -> bool:
    """Whether a run was on nodes that share the operator's processors."""
    return any(node.get("provider") in VIRTUAL for node in manifest.get("nodes", {}).values())


def print_hops(run: RunFolder, console: Console | None = None) -> None:
    """Print the table, the books, and whatever a reader must know to believe them."""
    from rich.console import Console

    out = console or Console(highlight=False)
    document = run_document(run)
    print_whole(out, hop_table(document))
    out.print(document["path"], soft_wrap=True, markup=False)
    for line in remarks(document):
        out.print(line, soft_wrap=True, markup=False)


def print_whole(console: Console, table: Table) -> None:
    """Print a table as wide as it is: a figure that is cut short is a wrong figure."""
    from rich.measure import Measurement

    needed = Measurement.get(console, console.options.update(max_width=400), table).maximum
    width, console.width = console.width, max(console.width, needed)
    console.print(table)
    console.width = width


def title(document: Mapping[str, Any]) -> str:
    """What was run on what; virtual nodes are never taken for the machines they imitate."""
    twin = " (local twin)" if document["twin"] else " (virtual nodes)" if document["virtual"] else ""
    scale = "" if document["scale"] == 1 else f", scaled to {document['scale']:g}"
    cells = [f"{name.removeprefix('services.')}={value}" for name, value in document["parameters"].items()]
    cell = document["label"] or ", ".join(cells)
    return f"{document['workload']} on {document['testbed']}{twin}{scale}{cell and f', {cell}'}"


def hop_table(document: Mapping[str, Any]) -> Table:
    """Rows are hops, published figures below the hop they belong to; times in ms."""
    from rich import box
    from rich.table import Table

    table = Table(
        title=title(document),
        caption="times in ms",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        title_justify="left",
        caption_justify="left",
    )
    first = "step" if document.get("sequence") else "hop"
    for name in (first, "count", "lost", *(name for name, _ in COLUMNS), "clock bound"):
        table.add_column(name, justify="left" if name == first else "right", no_wrap=True)
    for row in hop_rows(document):
        table.add_row(*row)
    return table


def hop_rows(document: Mapping[str, Any]) -> list[list[str]]:
    """The table's cells as text."""
    rows = []
    for hop, summary in document["hops"].items():
        marks = "" if summary["resolved"] is not False else " *"
        few = {f"{name}_ms" for name in summary["few"]}
        times = [TOO_FEW if column in few else in_ms(summary[column]) for _, column in COLUMNS]
        lost = "?" if summary["lost"] is None else str(summary["lost"])
        bound = "unknown" if summary["clock_bound_ms"] is None else f"±{in_ms(summary['clock_bound_ms'])}"
        rows.append([hop_title(hop) + marks, str(summary["count"]), lost, *times, bound])
        rows += [[name, "", "", *figures, ""] for name, figures in published_rows(document["reference"], hop)]
    return rows


def published_rows(references: Sequence[Mapping[str, Any]], hop: str) -> list[tuple[str, list[str]]]:
    """Who says so, and the figures for each column; empty where nothing was published."""
    return [
        (f"  {each['source']}", [_published(each["figures"].get(name)) for name, _ in COLUMNS])
        for each in references
        if each["hop"] == hop
    ]


def _published(figure: Any) -> str:
    if figure is None:
        return ""
    return " to ".join(f"{value:g}" for value in (figure if isinstance(figure, list | tuple) else (figure,)))


def in_ms(value: float | None) -> str:
    """Milliseconds with the digits that mean something: 0.0123, 1.234, 123.4."""
    if value is None:
        return TOO_FEW
    size = abs(value)
    digits = 1 if size >= 100 else 3 if size >= 0.1 or not size else 4 if size >= 0.001 else 6  # noqa: PLR2004
    return f"{value:.{digits}f}"


def remarks(document: Mapping[str, Any]) -> list[str]:
    """The books in a line, then everything that limits what the table says."""
    whole = document["ledger"]["total"]
    lines = [ledger_line(whole, closes=document["ledger"]["closes"])]
    if whole["duplicates"] or whole["reordered"]:
        lines.append(f"{whole['duplicates']} duplicates, {whole['reordered']} reordered")
    if promises := promise_line(document):
        lines.append(promises)
    rates = document["throughput"]
    arrived = "answered" if "sequence" in document else "delivered"
    if rates["sent_per_s"] is None:
        lines.append(f"rates unknown: a clock stepped; {document['pacing']} loop")
    else:
        lines.append(
            f"{rates['sent_per_s']:.1f} sent/s, {rates['delivered_per_s']:.1f} {arrived}/s, {document['pacing']} loop"
        )
    lines += kpi_lines(document)
    if share := database_share(document):
        lines.append(share)
    lines += last_problems(document)
    for hop, summary in document["hops"].items():
        if summary.get("stepped"):
            lines.append(f"{summary['stepped']} delays of {hop_title(hop)} are left out: stamped after a clock stepped")
        if summary["negative"]:
            lines.append(f"{summary['negative']} delays of {hop_title(hop)} are negative (kept in all figures)")
    if any(summary["resolved"] is False for summary in document["hops"].values()):
        lines.append("* not resolved by the clocks: the bound is more than half of the median")
    if document["twin"] or document["virtual"]:
        lines.append("virtual nodes: these figures are this machine's, not those of the machines they imitate")
    lines += document.get("notes", [])
    lines += [f"not to be compared: {fault}" for fault in document["faults"]]
    return lines


def last_problems(document: Mapping[str, Any]) -> list[str]:
    """Why a consumer's last request without a good answer had none, as it was told."""
    told = {each["process"]: each["facts"].get("last_problem") for each in document.get("processes", ())}
    return [f"{process}: the last bad answer was {' '.join(text.split())}" for process, text in told.items() if text]


def database_share(document: Mapping[str, Any]) -> str:
    """What of an orchestration request's time its database queries take; empty where none is on record."""
    queries = [step for step in document.get("sequence", ()) if step["kind"] == "query"]
    whole = document["hops"]["end_to_end"]
    if not queries or not whole["count"]:
        return ""
    spent_ms = sum(step["mean_ms"] * step["requests"] for step in queries) / whole["count"]
    return f"database queries: {in_ms(spent_ms)} of {in_ms(whole['mean_ms'])} ms a request, {len(queries)} of them"


def ledger_line(whole: Mapping[str, Any], *, closes: bool) -> str:
    """`expected = delivered + …`, without the classes that are empty."""
    parts = [f"{whole['delivered']} delivered"]
    parts += [
        f"{whole[name]} {name.replace('_', ' ')}"
        for name in ("late", "dropped", "refused", "unconfirmed", "in_flight")
        if whole[name]
    ]
    return f"{whole['expected']} expected = {' + '.join(parts)}" + ("" if closes else "  THE BOOKS DO NOT CLOSE")
