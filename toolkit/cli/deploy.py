"""`toolkit plan | deploy | redeploy`: make the machines match the file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from toolkit import paths
from toolkit.cli.progress import progress
from toolkit.cli.target import (
    EventsOption,
    JsonOption,
    ProviderOption,
    ScaleOption,
    SetOption,
    TestbedArgument,
    settings,
    testbed_file,
)
from toolkit.events import counted

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from toolkit.console.actions import Verb
    from toolkit.console.journal import Journal
    from toolkit.controller.deploy import Outcome
    from toolkit.plan import Plan
    from toolkit.spec.load import Asked

DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only print what would be done; touch nothing.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Only problems and results.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("plan")(plan)
    app.command("deploy")(deploy)
    app.command("up", hidden=True)(deploy)
    app.command("redeploy")(redeploy)


def plan(
    testbed: TestbedArgument = None,
    provider: ProviderOption = None,
    sets: SetOption = None,
    scale: ScaleOption = 1.0,
    detailed_exitcode: Annotated[
        bool, typer.Option("--detailed-exitcode", help="Exit with 10 when something differs.")
    ] = False,
    json_output: JsonOption = False,
) -> None:
    """Show what deploy would do, and what would stop it. Example: toolkit plan testbed.yml"""
    from toolkit.controller.deploy import plan_deploy

    found = plan_deploy(_asked(testbed, provider, sets, scale))
    if json_output:
        told = {"obstacles": list(found.obstacles), "notes": list(found.notes)}
        typer.echo(json.dumps({**_document(found), **told}))
    elif found:
        for action in found.actions:
            typer.echo(str(action))
        for note in found.notes:
            typer.echo(note, err=True)
        for obstacle in found.obstacles:
            typer.echo(f"deploy would stop: {obstacle}", err=True)
        typer.echo(f"{counted(len(found.actions), 'difference')}; next: toolkit deploy", err=True)
    else:
        typer.echo("nothing to do: the testbed is as its file says")
    if found and detailed_exitcode:
        raise typer.Exit(10)


def _document(found: Plan) -> dict[str, Any]:
    actions = [
        {"verb": a.verb, "subject": a.subject, "node": a.node, "name": a.name, "reason": a.reason}
        for a in found.actions
    ]
    return {"actions": actions}


def deploy(
    testbed: TestbedArgument = None,
    provider: ProviderOption = None,
    sets: SetOption = None,
    scale: ScaleOption = 1.0,
    dry_run: DryRunOption = False,
    quiet: QuietOption = False,
    json_output: EventsOption = False,
) -> None:
    """Make the machines match the file. Done again it changes nothing. Example: toolkit deploy testbed.yml"""
    if dry_run:
        plan(testbed, provider, sets, scale, json_output=json_output)
        return
    from toolkit.controller import deploy as story

    asked = _asked(testbed, provider, sets, scale)
    with _shown("deploy", asked) as journal, progress(as_json=json_output, quiet=quiet, also=journal.emit) as emit:
        outcome = story.deploy(asked, emit)
        journal.outcome |= {"message": outcome.in_short, "notes": list(outcome.deployment.notes.values())}
    _tell(outcome, json_output=json_output)


def redeploy(
    testbed: TestbedArgument = None,
    provider: ProviderOption = None,
    sets: SetOption = None,
    scale: ScaleOption = 1.0,
    dry_run: DryRunOption = False,
    quiet: QuietOption = False,
    json_output: EventsOption = False,
) -> None:
    """Remove the testbed and make it anew. The file is checked before anything goes. Example: toolkit redeploy"""
    from toolkit.controller import deploy as story

    asked = _asked(testbed, provider, sets, scale)
    if dry_run:
        gone, found = story.plan_redeploy(asked)
        if json_output:
            removed = [f"{resource.kind} {resource.name}" for resource in gone]
            typer.echo(json.dumps({"removed": removed, **_document(found)}))
            return
        for resource in gone:
            typer.echo(f"would remove {resource.kind} {resource.name}")
        for action in found.actions:
            typer.echo(str(action))
        return
    with _shown("redeploy", asked) as journal, progress(as_json=json_output, quiet=quiet, also=journal.emit) as emit:
        outcome = story.redeploy(asked, emit)
        journal.outcome |= {"message": outcome.in_short, "notes": list(outcome.deployment.notes.values())}
    _tell(outcome, json_output=json_output)


def _asked(testbed: str | None, provider: str | None, sets: list[str] | None, scale: float) -> Asked:
    from toolkit.controller.asked import asked_anew

    return asked_anew(testbed_file(testbed), provider=provider, overrides=settings(sets), scale=scale)


def _shown(verb: Verb, asked: Asked) -> AbstractContextManager[Journal]:
    """What consoles are shown of the story."""
    from toolkit.console.actions import Order, shown

    order = Order(
        verb=verb,
        testbed=asked.load().name,
        file=str(asked.file.resolve()),
        provider=asked.provider,
        by="command line",
    )
    return shown(order)


def _tell(outcome: Outcome, *, json_output: bool) -> None:
    deployment = outcome.deployment
    if json_output:
        document = {
            "result": "deployed",
            "testbed": deployment.name,
            "changed": outcome.changed,
            "nodes": {name: host.address for name, host in deployment.hosts.items()},
            "urls": outcome.urls,
            "notes": dict(deployment.notes),
            "seconds": round(outcome.seconds, 1),
        }
        typer.echo(json.dumps(document))
        return
    typer.echo(outcome.in_short)
    for name, url in outcome.urls.items():
        typer.echo(f"  {name:<12} {url}")
    if outcome.console:
        typer.echo(f"  {'console':<12} {outcome.console}   (read-only)")
    for note in deployment.notes.values():
        typer.echo(f"  note: {note}")
    typer.echo(
        f"next: toolkit run · toolkit status · toolkit teardown   (logs: {paths.testbed_dir(deployment.name) / 'logs'})"
    )
