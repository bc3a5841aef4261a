"""`toolkit report` and `toolkit compare`: pages and tables from the folders of runs; no testbed needed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from toolkit.cli.target import JsonOption, RunsOfOption
from toolkit.cli.written import tell_written


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("report")(report)
    app.command("compare")(compare)


def report(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN]...",
            help="Ids, folders, workloads (the last run of each), or latest (default); or one experiment.",
        ),
    ] = None,
    testbed: RunsOfOption = None,
    to: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The page to write. Default: report.html in the first run's folder."),
    ] = None,
    tables: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Also write hops.md, hops.csv and hops.tex into this folder.")
    ] = None,
    figures: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Also draw the figures for a paper into this folder.")
    ] = None,
    form: Annotated[Literal["svg", "pdf"], typer.Option("--format", help="Of those figures.")] = "svg",
    json_output: JsonOption = False,
) -> None:
    """Write one page on one run or several that works offline. Example: toolkit report latest --to report.html"""
    from toolkit.measure.experiments import find_experiment
    from toolkit.measure.store import find_run
    from toolkit.report.html import (
        write_experiment,
        write_experiment_figures,
        write_figures,
        write_report,
        write_tables,
    )

    if runs and len(runs) == 1 and (experiment := find_experiment(runs[0], testbed)):
        made = write_experiment(experiment, tables)
        made += write_experiment_figures(experiment, figures, form=form) if figures else []
        if to:
            page = next(file for file in made if file.name == "report.html")
            to.write_text(page.read_text())
            made.append(to)
    else:
        folders = [find_run(run, testbed) for run in runs or ["latest"]]
        made = [write_report(folders, to or folders[0].path / "report.html")]
        made += write_tables(folders, tables) if tables else []
        made += write_figures(folders, figures, form=form) if figures else []
    tell_written(made, as_json=json_output)


def compare(
    a: Annotated[
        str, typer.Argument(metavar="A", help="A run (id, folder, or workload: its last one), or several with commas.")
    ],
    b: Annotated[str, typer.Argument(metavar="B", help="What is compared with A.")],
    testbed: RunsOfOption = None,
    seed: Annotated[int, typer.Option(metavar="NUMBER", help="Of the bootstrap.")] = 1,
    to: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write a page with both sides.")] = None,
    json_output: JsonOption = False,
) -> None:
    """Say how runs differ, with 95 % intervals and effect sizes. Example: toolkit compare RUN1,RUN2 RUN3,RUN4"""
    from rich.console import Console

    from toolkit.measure.store import find_run
    from toolkit.report.compare import compare as compare_runs
    from toolkit.report.compare import comparison_table
    from toolkit.report.html import write_report
    from toolkit.report.table import print_whole

    sides = [[find_run(name, testbed) for name in names.split(",")] for names in (a, b)]
    comparison = compare_runs(sides[0], sides[1], seed=seed)
    if json_output:
        typer.echo(json.dumps(dataclasses.asdict(comparison)))
    else:
        console = Console(highlight=False)
        print_whole(console, comparison_table(comparison))
        for caution in comparison.cautions:
            console.print(caution, soft_wrap=True, markup=False)
    if to:
        page = write_report([*sides[0], *sides[1]], to, comparisons=[comparison])
        typer.echo(f"wrote {page}", err=json_output)
