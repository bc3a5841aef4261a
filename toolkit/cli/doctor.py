"""`toolkit doctor`: what this machine and the nodes lack."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from toolkit.cli.ending import fail
from toolkit.cli.target import DEFAULT_FILE, JsonOption, TestbedArgument, name_of, testbed_file
from toolkit.errors import UnreachableError
from toolkit.state import deployed_names, load_deployment

if TYPE_CHECKING:
    from toolkit.controller.doctor import Finding


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("doctor")(doctor)


def doctor(
    testbed: TestbedArgument = None,
    local: Annotated[bool, typer.Option("--local", help="Only this machine, not the nodes.")] = False,
    json_output: JsonOption = False,
) -> None:
    """Look what this machine and the nodes lack. Exit code 4 if something is missing.

    Example: toolkit doctor
    """
    from toolkit.controller.doctor import check_machine

    there = testbed or DEFAULT_FILE.is_file() or deployed_names()
    findings = check_machine() + (_nodes(testbed) if there and not local else [])
    if json_output:
        typer.echo(json.dumps([asdict(finding) for finding in findings]))
    else:
        for finding in findings:
            advice = f"; try: {finding.advice}" if finding.advice and not finding.well else ""
            typer.echo(f"{'ok  ' if finding.well else 'LACK'} {finding.where}: {finding.what}: {finding.found}{advice}")
    lacking = [f for f in findings if not f.well]
    if lacking:
        fail(UnreachableError(f"{len(lacking)} of {len(findings)} things are not as they should be"))


def _nodes(target: str | None) -> list[Finding]:
    """The nodes of a testbed, deployed or not."""
    from toolkit.controller.asked import as_deployed
    from toolkit.controller.doctor import check_nodes
    from toolkit.spec.load import load_testbed

    deployment = load_deployment(name_of(target))
    asked = as_deployed(deployment).load() if deployment else load_testbed(testbed_file(target))
    return check_nodes(asked, deployment)
