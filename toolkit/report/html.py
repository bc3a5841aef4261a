"""A report on runs as one HTML page that needs nothing else: no network, no server, no testbed."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit import paths
from toolkit.measure.experiments import ExperimentFolder
from toolkit.measure.store import RunFolder
from toolkit.report.compare import Comparison
from toolkit.report.drops import drop_plots, plot_drops, sum_of_books
from toolkit.report.figures import run_figures
from toolkit.report.model import model_figures, model_section
from toolkit.report.plots import plot_run, plot_sequence, plot_sweep
from toolkit.report.protocols import HEADER as PROTOCOL_HEADER
from toolkit.report.protocols import WORDS as PROTOCOL_WORDS
from toolkit.report.protocols import protocol_cells, protocol_files, protocol_rows
from toolkit.report.sequence import draw_sequence
from toolkit.report.sweep import (
    FLOW_HEADER,
    HEADER,
    flow_rows,
    shown_hops,
    sweep_csv,
    sweep_document,
    sweep_latex,
    sweep_markdown,
    sweep_rows,
    sweep_title,
)
from toolkit.report.table import COLUMNS, HOP_TITLES, hop_rows, ledger_line, remarks, run_document, title
from toolkit.report.text import comma_separated, latex, markdown

if TYPE_CHECKING:
    from jinja2 import Environment

HOME = paths.TEMPLATES / "report"
ECHARTS = paths.TEMPLATES / "vendor" / "echarts" / "echarts.min.js"
"""The one copy of it; the console serves the same file."""
_SIZE = re.compile(r'width="([0-9.]+)pt" height="[0-9.]+pt"')
_ENLARGED = 1.3
"""Letters of figures for papers have 8 points."""


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


def write_figures(runs: Sequence[RunFolder], folder: Path, *, form: str) -> list[Path]:
    """Figures for papers: of one run into `folder`, of several into a folder each."""
    homes = [folder if len(runs) == 1 else folder / run.name for run in runs]
    made = []
    for run, home in zip(runs, homes, strict=True):
        document = run_document(run)
        made += plot_run(run_figures(run, document), home, form=form)
        if document.get("sequence"):
            made.append(plot_sequence(document["sequence"], home / f"sequence.{form}"))
    return made


def write_experiment(folder: ExperimentFolder, to: Path | None = None) -> list[Path]:
    """Tables, plots and page of an experiment, into its own folder unless `to` is another."""
    home = to or folder.path
    home.mkdir(parents=True, exist_ok=True)
    document = sweep_document(folder)
    plots, drops = _plots(document, home, "svg")
    protocols = protocol_rows(folder)
    made = {
        "table.md": sweep_markdown(document),
        "table.csv": sweep_csv(document),
        "table.tex": sweep_latex(document),
        "report.html": render_experiment(document, _drawings(plots), _drawings(drops), protocols),
        **protocol_files(protocols, sweep_title(document)),
    }
    for name, text in made.items():
        (home / name).write_text(text)
    return [*(home / name for name in made), *plots, *drops]


def write_experiment_figures(folder: ExperimentFolder, home: Path, *, form: str) -> list[Path]:
    """The plots of an experiment for papers, `form` svg or pdf."""
    plots, drops = _plots(sweep_document(folder), home, form)
    return [*plots, *drops]


def _plots(document: Mapping[str, Any], home: Path, form: str) -> tuple[list[Path], list[Path]]:
    """One for each hop shown, and one of drops for each QoS at which something was lost."""
    plots = [plot_sweep(document, home / f"{hop}.{form}", hop) for hop in shown_hops(document)]
    points = [(point["name"] or point["workload"], point["qos"], point["books"]) for point in document["points"]]
    lossy = [plot for plot in drop_plots(points) if plot["places"]]
    return plots, [plot_drops(plot, home / f"drops-qos-{plot['qos']}.{form}") for plot in lossy]


def _drawings(files: Sequence[Path]) -> list[str]:
    """SVG as it stands inside a page, its letters as large as those of the page."""
    texts = [file.read_text() for file in files]
    return [_SIZE.sub(_enlarged, text[text.index("<svg") :], count=1) for text in texts]


def _enlarged(size: re.Match[str]) -> str:
    return f'style="width: {float(size[1]) * _ENLARGED:.0f}pt"'


def render_experiment(
    document: Mapping[str, Any],
    drawings: Sequence[str],
    drops: Sequence[str] = (),
    protocols: Sequence[Mapping[str, Any]] = (),
) -> str:
    """The page of an experiment; SVG: `drawings`, one for each hop shown, and `drops`, one for each QoS."""
    hops = shown_hops(document)
    return (
        _templates()
        .get_template("experiment.html.j2")
        .render(
            heading=sweep_title(document),
            document=document,
            header=HEADER,
            tables=[(HOP_TITLES[hop], sweep_rows(document, hop)) for hop in hops],
            drawings=drawings,
            flow_header=FLOW_HEADER,
            flows=flow_rows(document),
            drops=drops,
            protocol_header=PROTOCOL_HEADER,
            protocol_words=PROTOCOL_WORDS,
            protocols=protocol_cells(protocols),
            texts={"Markdown": sweep_markdown(document), "CSV": sweep_csv(document), "LaTeX": sweep_latex(document)},
            style=(HOME / "report.css").read_text(),
        )
    )


def _templates() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(HOME), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


def render_report(runs: Sequence[RunFolder], *, comparisons: Sequence[Comparison] = ()) -> str:
    """The page as text."""
    documents = [run_document(run) for run in runs]
    sections = [_section(run, document) for run, document in zip(runs, documents, strict=True)]
    figures = [
        run_figures(run, document) | {"model": model_figures(run)}
        for run, document in zip(runs, documents, strict=True)
    ]
    books = ((_short_title(d, documents), d.get("qos"), sum_of_books([d["ledger"]["total"]])) for d in documents)
    drops = [plot for plot in drop_plots(books) if plot["places"]]
    return (
        _templates()
        .get_template("report.html.j2")
        .render(
            heading=title(documents[0]) if len(runs) == 1 else f"{len(runs)} runs",
            sections=sections,
            comparisons=comparisons,
            drops=drops,
            columns=[name for name, _ in COLUMNS],
            titles=dict(HOP_TITLES),
            tables={"Markdown": markdown(documents), "CSV": comma_separated(documents), "LaTeX": latex(documents)},
            data=_script_safe({"titles": dict(HOP_TITLES), "runs": figures, "drops": drops}),
            style=(HOME / "report.css").read_text(),
            program=(HOME / "report.js").read_text(),
            echarts=ECHARTS.read_text(),
        )
    )


def _short_title(document: Mapping[str, Any], documents: Sequence[Mapping[str, Any]]) -> str:
    """What tells a run from the others on the page."""
    name = str(document["label"] or document["workload"])
    alike = [each for each in documents if (each["label"] or each["workload"]) == name]
    return name if len(alike) == 1 else f"{name} {document['run'].partition('-')[0]}"


def _section(run: RunFolder, document: Mapping[str, Any]) -> dict[str, Any]:
    """What the template says of one run, beside its figures."""
    manifest = run.manifest()
    return {
        "title": title(document),
        "document": document,
        "window_s": run.resources().get("window_s"),
        "unwatched": run.resources().get("error", "the testbed had no monitor"),
        "rows": hop_rows(document),
        "sequence": draw_sequence(document.get("sequence", ())),
        "ledger": ledger_line(document["ledger"]["total"], closes=document["ledger"]["closes"]),
        "remarks": remarks(document)[1:],
        "manifest": manifest,
        "model": model_section(run),
        "workload": {name: value for name, value in manifest["workload"].items() if value not in ({}, [], None)},
    }


def _script_safe(value: Any) -> str:
    """JSON that can stand inside a <script> element."""
    text = json.dumps(value, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
