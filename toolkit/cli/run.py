"""`toolkit run`: play workloads on a deployed testbed and print what every hop took."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Annotated

import typer

from toolkit.cli.progress import progress
from toolkit.cli.target import JsonOption, TestbedOption, loaded
from toolkit.errors import UsageError
from toolkit.spec.names import did_you_mean

if TYPE_CHECKING:
    from toolkit.spec.testbed import Testbed
    from toolkit.spec.workload import Workload


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("run")(run)


def run(
    workloads: Annotated[
        list[str] | None, typer.Argument(metavar="[WORKLOAD]...", help="Default: all of them.")
    ] = None,
    testbed: TestbedOption = None,
    messages: Annotated[int | None, typer.Option(help="Another number of messages per publisher connection.")] = None,
    repeat: Annotated[int | None, typer.Option(help="Another number of repetitions.")] = None,
    seed: Annotated[int | None, typer.Option(help="Another seed.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Leave out points that have a complete run.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only problems and results.")] = False,
    json_output: JsonOption = False,
) -> None:
    """Play workloads and print the per-hop table; exit code 7 if one fails. Example: toolkit run quickstart

    The results stay in a folder of their own: toolkit results list.
    """
    from toolkit.controller.control import ssh_control
    from toolkit.controller.deploy import deploy_settings
    from toolkit.controller.experiment import run_experiment
    from toolkit.measure.collect import SshCollector
    from toolkit.report.table import print_hops, run_document
    from toolkit.state import locked

    asked, deployment = loaded(testbed)
    if deployment.stage != "deployed":
        raise UsageError(f"testbed {asked.name} is not deployed whole; first: toolkit deploy {deployment.file}")
    changes = {key: value for key, value in (("messages", messages), ("repeat", repeat), ("seed", seed)) if value}
    documents = []
    for workload in _chosen(asked, workloads):
        with progress(quiet=quiet or json_output) as emit, locked(asked.name):
            folders = run_experiment(
                asked,
                deployment,
                dataclasses.replace(workload, **changes),  # type: ignore[arg-type]
                control=ssh_control(deployment.hosts),
                collector=SshCollector(asked.name, deployment.hosts),
                emit=emit,
                apply_settings=lambda _, settings: deploy_settings(deployment, settings, emit),
                resume=resume,
            )
        for folder in folders:
            documents.append(run_document(folder))
            if not json_output:
                print_hops(folder)
    if json_output:
        typer.echo(json.dumps(documents[0] if len(documents) == 1 else {"runs": documents}))


def _chosen(testbed: Testbed, names: list[str] | None) -> list[Workload]:
    if not testbed.workloads:
        raise UsageError(f"testbed {testbed.name} declares no workload; add a section `workloads:` to its file")
    for name in names or ():
        if name not in testbed.workloads:
            raise UsageError(f"there is no workload {name!r}{did_you_mean(name, testbed.workloads)}")
    return [testbed.workloads[name] for name in names or testbed.workloads]
