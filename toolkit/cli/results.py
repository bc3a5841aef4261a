"""`toolkit results`: the folders that runs left."""

from __future__ import annotations

import json
import re
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from toolkit.cli import completion
from toolkit.cli.ending import fail
from toolkit.cli.target import JsonOption, RunsOfOneOption, RunsOfOption
from toolkit.cli.written import tell_written
from toolkit.errors import MeasurementError, UsageError

if TYPE_CHECKING:
    from toolkit.measure.store import RunFolder

RunArgument = Annotated[
    str,
    typer.Argument(
        metavar="[RUN]",
        autocompletion=completion.runs,
        help="A run's id, a beginning of it, its folder, its workload (then the last one of it), or latest.",
    ),
]

app = typer.Typer(
    help="List, show, verify, export and prune the results of runs. Example: toolkit results list",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def register(parent: typer.Typer) -> None:
    """Add the commands."""
    parent.add_typer(app, name="results")


@app.command("list")
def listing(
    testbed: RunsOfOption = None,
    workload: Annotated[str | None, typer.Option(metavar="NAME", help="Only runs of this workload.")] = None,
    experiment: Annotated[str | None, typer.Option(metavar="NAME", help="Only runs of this experiment.")] = None,
    status: Annotated[
        Literal["running", "complete", "interrupted", "failed"] | None, typer.Option(help="Only runs that are so.")
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="DAY", help="Only runs from this UTC day on, such as 2026-11-22.")
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """List runs, oldest first. Example: toolkit results list --workload quickstart"""
    from toolkit import paths
    from toolkit.measure.store import list_runs

    if since is not None and not re.fullmatch(r"\d{4}-?\d{2}-?\d{2}", since):
        raise UsageError(f"--since {since}: write a day, such as 2026-11-22")
    home = paths.workspace()
    names = [testbed] if testbed else sorted(f.name for f in home.iterdir() if f.is_dir()) if home.is_dir() else []
    rows = [
        row
        for name in names
        for run in list_runs(name, workload=workload)
        if since is None or run.name >= since.replace("-", "")
        for row in [_row(name, run)]
        if experiment in (None, row["experiment"]) and status in (None, row["status"])
    ]
    if json_output:
        typer.echo(json.dumps(rows))
        return
    cells = [(row["run"], row["testbed"], *_ending(row), f"{row['bytes'] / 1e6:.1f} MB") for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for *words, size in cells:
        named = "  ".join(f"{word:<{width}}" for word, width in zip(words, widths, strict=False))
        typer.echo(f"{named}  {size:>{widths[-1]}}")
    if not rows:
        filtered = any((workload, experiment, status, since))
        of = f" of testbed {testbed}" if testbed else ""
        typer.echo(f"no runs{of} are so" if filtered else f"no runs{of} yet; try: toolkit run", err=True)


def _row(testbed: str, run: RunFolder) -> dict[str, Any]:
    """A run as `--json` shows it."""
    manifest = run.manifest()
    return {
        "run": run.name,
        "testbed": testbed,
        "workload": manifest.get("workload", {}).get("name"),
        "experiment": manifest.get("experiment") or None,
        "parameters": manifest.get("parameters", {}),
        "status": run.status,
        "faults": len(run.kpis()["faults"]) if run.has_kpis else None,
        "started_at": manifest.get("started_at"),
        "bytes": run.size_bytes(),
        "path": str(run.path),
    }


def _ending(row: dict[str, Any]) -> tuple[str, str]:
    """How a run ended, and when it began."""
    faults = f", {row['faults']} fault{'s' * (row['faults'] > 1)}" if row["faults"] else ""
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(row["started_at"])) if row["started_at"] else "-"
    return f"{row['status'] or '-'}{faults}", when


@app.command("show")
def show(run: RunArgument = "latest", testbed: RunsOfOption = None, json_output: JsonOption = False) -> None:
    """Print a run's per-hop table again. Example: toolkit results show latest"""
    from toolkit.measure.store import find_run
    from toolkit.report.table import print_hops, run_document

    folder = find_run(run, testbed)
    if json_output:
        typer.echo(json.dumps(run_document(folder)))
    else:
        print_hops(folder)


@app.command("verify")
def verify(run: RunArgument = "latest", testbed: RunsOfOption = None, json_output: JsonOption = False) -> None:
    """Compare a run's files with their checksums. Exit code 7 if one differs. Example: toolkit results verify latest"""
    from toolkit.measure.store import find_run

    folder = find_run(run, testbed)
    problems = folder.verify()
    if json_output:
        typer.echo(json.dumps({"run": folder.name, "problems": problems}))
    if problems:
        fail(MeasurementError("\n".join(f"{folder.name}: {problem}" for problem in problems)))
    if not json_output:
        typer.echo(f"{folder.name}: every file is as it was when the run ended")


@app.command("export")
def export(
    run: RunArgument = "latest",
    to: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="The file to write: a .tar.gz of the run's folder. Default: RUN.tar.gz, here."
        ),
    ] = None,
    testbed: RunsOfOption = None,
    json_output: JsonOption = False,
) -> None:
    """Pack a run's folder for somebody else. Unpacked, it makes a report there: toolkit report FOLDER.

    Example: toolkit results export latest --to run.tar.gz
    """
    from toolkit.measure.store import find_run

    if to is not None and not to.name.endswith(".tar.gz"):
        raise UsageError(f"{to} does not end in .tar.gz")
    folder = find_run(run, testbed)
    to = to or Path(f"{folder.name}.tar.gz")
    shutil.make_archive(str(to)[: -len(".tar.gz")], "gztar", folder.path.parent, folder.name)
    tell_written([to], as_json=json_output)


@app.command("prune")
def prune(
    testbed: RunsOfOneOption,
    keep: Annotated[int, typer.Option(min=0, metavar="NUMBER", help="How many of the newest runs stay.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say which would go.")] = False,
    json_output: JsonOption = False,
) -> None:
    """Delete all but the newest runs of a testbed. Example: toolkit results prune -t lab --keep 20"""
    from toolkit.measure.experiments import list_experiments
    from toolkit.measure.store import prune as prune_runs

    gone = prune_runs(testbed, keep=keep, dry_run=dry_run)
    names = [run.name for run in gone]
    if json_output:
        typer.echo(json.dumps({"would_delete" if dry_run else "deleted": names}))
    else:
        for name in names:
            typer.echo(f"{'would delete' if dry_run else 'deleted'} {name}")
    for experiment in list_experiments(testbed):
        if lacks := len({entry["run"] for entry in experiment.document()["runs"]}.intersection(names)):
            verb = "would lack" if dry_run else "lacks"
            typer.echo(
                f"{experiment.name} {verb} {lacks} of its runs: its page stays as it is, and one made again says so",
                err=True,
            )
    if not gone and not json_output:
        typer.echo(f"nothing to do: testbed {testbed} has no more than {keep} run{'' if keep == 1 else 's'}")
