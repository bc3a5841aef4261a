"""A report on runs as one HTML page that needs nothing else: no network, no server, no testbed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from toolkit import paths
from toolkit.measure.store import RunFolder
from toolkit.report.compare import Comparison
from toolkit.report.figures import run_figures
from toolkit.report.table import COLUMNS, HOP_TITLES, hop_rows, ledger_line, remarks, run_document, title
from toolkit.report.text import comma_separated, latex, markdown

HOME = paths.TEMPLATES / "report"


def write_report(runs: Sequence[RunFolder], to: Path, *, comparisons: Sequence[Comparison] = ()) -> Path:
    """Write the page for one run or several; returns `to`."""
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_text(render_report(runs, comparisons=comparisons))
    return to


def write_tables(runs: Sequence[RunFolder], folder: Path) -> list[Path]:
    """`hops.md`, `hops.csv` and `hops.tex` of these runs."""
    folder.mkdir(parents=True, exist_ok=True)
    documents = [run_document(run) for run in runs]
    made = {"hops.md": markdown(documents), "hops.csv": comma_separated(documents), "hops.tex": latex(documents)}
    for name, text in made.items():
        (folder / name).write_text(text)
    return [folder / name for name in made]


def render_report(runs: Sequence[RunFolder], *, comparisons: Sequence[Comparison] = ()) -> str:
    """The page as text."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    templates = Environment(
        loader=FileSystemLoader(HOME), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    documents = [run_document(run) for run in runs]
    sections = [_section(run, document) for run, document in zip(runs, documents, strict=True)]
    figures = [run_figures(run, document) for run, document in zip(runs, documents, strict=True)]
    return templates.get_template("report.html.j2").render(
        heading=title(documents[0]) if len(runs) == 1 else f"{len(runs)} runs",
        sections=sections,
        comparisons=comparisons,
        columns=[name for name, _ in COLUMNS],
        tables={"Markdown": markdown(documents), "CSV": comma_separated(documents), "LaTeX": latex(documents)},
        data=_script_safe({"titles": dict(HOP_TITLES), "runs": figures}),
        style=(HOME / "report.css").read_text(),
        program=(HOME / "report.js").read_text(),
        echarts=(HOME / "echarts" / "echarts.min.js").read_text(),
    )


def _section(run: RunFolder, document: Mapping[str, Any]) -> dict[str, Any]:
    """What the template says of one run, beside its figures."""
    manifest = run.manifest()
    return {
        "title": title(document),
        "document": document,
        "rows": hop_rows(document),
        "ledger": ledger_line(document["ledger"]["total"], closes=document["ledger"]["closes"]),
        "remarks": remarks(document)[1:],
        "manifest": manifest,
        "workload": {name: value for name, value in manifest["workload"].items() if value not in ({}, [], None)},
    }


def _script_safe(value: Any) -> str:
    """JSON that can stand inside a <script> element."""
    text = json.dumps(value, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
