"""`toolkit run`: play workloads and experiments on a deployed testbed and print what every hop took."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from toolkit.cli import completion
from toolkit.cli.ending import fail
from toolkit.cli.progress import progress
from toolkit.cli.target import JsonOption, SetOption, TestbedOption, deployed, settings
from toolkit.errors import UsageError, WorkloadError
from toolkit.spec.names import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping

    from toolkit.controller.experiment import Outcome
    from toolkit.spec.experiment import Experiment
    from toolkit.spec.load import Asked
    from toolkit.spec.testbed import Testbed
    from toolkit.state import Deployment


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("run")(run)


def run(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...",
            autocompletion=completion.workloads,
            help="Workloads, experiments, the testbed's file, or a file with experiments. "
            "Default: all experiments, and other workloads.",
        ),
    ] = None,
    testbed: TestbedOption = None,
    sets: SetOption = None,
    scale: Annotated[
        float | None,
        typer.Option(
            min=0.0001,
            max=1.0,
            metavar="FACTOR",
            help="Multiply messages and durations. Default: what deploy was scaled to.",
        ),
    ] = None,
    messages: Annotated[
        int | None,
        typer.Option(min=1, metavar="NUMBER", help="Another number of messages per publisher connection."),
    ] = None,
    repeat: Annotated[int | None, typer.Option(min=1, metavar="NUMBER", help="Another number of repetitions.")] = None,
    seed: Annotated[int | None, typer.Option(metavar="NUMBER", help="Another seed.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on: leave out points that have a complete run.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only problems and results.")] = False,
    json_output: JsonOption = False,
) -> None:
    """Play workloads and experiments. Exit code 7 if an assertion fails. Example: toolkit run quickstart

    The results stay in folders of their own: toolkit results list.
    """
    from toolkit.controller.asked import as_deployed
    from toolkit.controller.run import check_whole, find_experiment
    from toolkit.spec.scale import scale_traffic

    testbed, file, chosen = _told_apart(testbed, names or [])
    deployment = deployed(testbed)
    check_whole(deployment)
    asked = dataclasses.replace(as_deployed(deployment), also=file)
    base = asked.load()
    names_found = _chosen(base, chosen, file)
    base = _with(asked, base, names_found, settings(sets))
    base = scale_traffic(base, scale or deployment.scale)
    outcomes: list[Outcome] = []
    broken: WorkloadError | None = None
    for name in names_found:
        experiment = _changed(
            find_experiment(base, name), messages=messages, repeat=repeat, seed=seed, places=_places(sets)
        )
        outcome, broken = _play(base, deployment, experiment, quiet=quiet or json_output, resume=resume)
        outcomes.append(outcome)
        _print(outcome, quietly=json_output)
        if broken:
            break
    if json_output:
        typer.echo(json.dumps(_document(outcomes)))
    if broken:
        fail(broken)


# -- what is played ---------------------------------------------------------------------------------------------------


def _told_apart(testbed: str | None, given: list[str]) -> tuple[str | None, Path | None, list[str]]:
    """(the testbed, a file with experiments, names) of what stands on the command line."""
    from toolkit.spec.experiment_file import testbed_of

    files = [Path(name) for name in given if Path(name).suffix in {".yml", ".yaml"}]
    if missing := [file for file in files if not file.is_file()]:
        raise UsageError(f"there is no file {missing[0]}")
    names = [name for name in given if Path(name) not in files]
    meant = {path: testbed_of(path) for path in files}
    testbeds = [path for path in files if meant[path] == path]
    experiments = [path for path in files if meant[path] != path]
    for kind, some in (("testbed", testbeds), ("file with experiments", experiments)):
        if len(some) > 1:
            raise UsageError(f"one {kind} at a time, not {', '.join(map(str, some))}")
    if testbeds:
        testbed = str(testbeds[0])
    file = experiments[0] if experiments else None
    if testbed is None and file is not None and (named := meant[file]) is not None:
        testbed = str(named)
    return testbed, file, names


def _chosen(testbed: Testbed, names: list[str], file: Path | None) -> list[str]:
    """Names of what is played; a name means the experiment before the workload."""
    there = {**testbed.workloads, **testbed.experiments}
    if not there:
        raise UsageError(f"testbed {testbed.name} declares no workload; add a section `workloads:` to its file")
    for name in names:
        if name not in there:
            raise UsageError(f"there is no workload or experiment {name!r}{did_you_mean(name, there)}")
    if names:
        return names
    used = {cell.workload.name for experiment in testbed.experiments.values() for cell in experiment.cells}
    others = [] if file else [name for name in testbed.workloads if name not in used]
    return [*testbed.experiments, *(name for name in others if name not in testbed.experiments)]


def _with(asked: Asked, testbed: Testbed, names: list[str], given: Mapping[str, str]) -> Testbed:
    """The testbed with `--set`: places of the file as they are, keys of a workload in every workload played."""
    from toolkit.controller.run import find_experiment

    played = {cell.workload.name for name in names for cell in find_experiment(testbed, name).cells}
    own = {key: value for key, value in given.items() if not _is_place(key)}
    more = {f"workloads.{name}.{key}": value for name in sorted(played) for key, value in own.items()}
    if not given:
        return testbed
    places = {key: value for key, value in given.items() if _is_place(key)}
    return dataclasses.replace(asked, overrides={**asked.overrides, **places, **more}).load()


def _is_place(key: str) -> bool:
    from toolkit.spec.sweep import PLACES

    return key.partition(".")[0] in (*PLACES, "workloads", "experiments")


def _places(sets: list[str] | None) -> dict[str, str]:
    """What of `--set` needs a deploy."""
    return {
        key: value
        for key, value in settings(sets).items()
        if _is_place(key) and not key.startswith(("workloads.", "experiments."))
    }


def _changed(
    experiment: Experiment,
    *,
    messages: int | None,
    repeat: int | None,
    seed: int | None,
    places: Mapping[str, str],
) -> Experiment:
    """The experiment as the command line wants it."""
    cells = []
    for cell in experiment.cells:
        change: dict[str, Any] = {}
        if messages is not None:
            change |= {"messages": messages, "duration_s": None}
        if seed is not None:
            change["seed"] = seed
        cells.append(
            dataclasses.replace(
                cell,
                workload=dataclasses.replace(cell.workload, **change),
                parameters={**places, **cell.parameters},
                overrides={**places, **cell.overrides},
            )
        )
    return dataclasses.replace(
        experiment,
        cells=tuple(cells),
        repeat=experiment.repeat if repeat is None else repeat,
        seed=experiment.seed if seed is None else seed,
    )


def _play(
    testbed: Testbed, deployment: Deployment, experiment: Experiment, *, quiet: bool, resume: bool
) -> tuple[Outcome, WorkloadError | None]:
    """What it came to, and the assertions that do not hold: what was measured is shown all the same."""
    from toolkit.console.actions import Order, shown
    from toolkit.controller.run import play_experiment

    order = Order(verb="run", testbed=testbed.name, workload=experiment.name, by="command line")
    outcome: Outcome | None = None
    try:
        with shown(order) as journal, progress(quiet=quiet, also=journal.emit) as emit:
            outcome = play_experiment(testbed, deployment, experiment, emit=emit, resume=resume)
            journal.outcome |= outcome.told
            outcome.check()
    except WorkloadError as error:
        if outcome is None:
            raise
        return outcome, error
    return outcome, None


# -- what is printed --------------------------------------------------------------------------------------------------


def _print(outcome: Outcome, *, quietly: bool) -> None:
    """The result of an experiment is written down in any case."""
    from rich.console import Console

    from toolkit.report.html import write_experiment
    from toolkit.report.sweep import shown_hops, sweep_document, sweep_table
    from toolkit.report.table import print_hops, print_whole

    if outcome.folder is None:
        for folder in () if quietly else outcome.runs:
            print_hops(folder)
        return
    write_experiment(outcome.folder)
    if quietly:
        return
    document = sweep_document(outcome.folder)
    console = Console(highlight=False)
    for hop in shown_hops(document):
        print_whole(console, sweep_table(document, hop))
    for point in document["points"]:
        for fault in point["faults"]:
            console.print(
                f"{point['name'] or point['workload']}: not to be compared: {fault}", soft_wrap=True, markup=False
            )
    console.print(document["path"], soft_wrap=True, markup=False)


def _document(outcomes: list[Outcome]) -> dict[str, Any]:
    """The run of one, or everything that was played."""
    from toolkit.report.sweep import sweep_document
    from toolkit.report.table import run_document

    runs = [run_document(run) for outcome in outcomes for run in outcome.runs]
    experiments = [sweep_document(outcome.folder) for outcome in outcomes if outcome.folder]
    if len(runs) == 1 and not experiments:
        return runs[0]
    return {"runs": runs, "experiments": experiments}
