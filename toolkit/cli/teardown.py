"""`toolkit teardown`: back to nothing, proved by looking."""

from __future__ import annotations

import json
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated

import typer

from toolkit.cli import completion
from toolkit.cli.progress import progress
from toolkit.cli.target import JsonOption, TestbedArgument, name_of
from toolkit.errors import UsageError
from toolkit.events import counted

if TYPE_CHECKING:
    from toolkit.controller.teardown import Removal


def register(app: typer.Typer) -> None:
    """Add the command and its aliases."""
    app.command("teardown")(teardown)
    app.command("down", hidden=True)(teardown)
    app.command("destroy", hidden=True)(teardown)


def teardown(
    testbed: TestbedArgument = None,
    everything: Annotated[bool, typer.Option("--all", help="Every testbed of this workspace.")] = False,
    forget: Annotated[
        list[str] | None,
        typer.Option(
            "--forget",
            metavar="NODE",
            autocompletion=completion.nodes,
            help="Only strike a node whose machine is gone for good off the list; may be given again.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would be removed.")] = False,
    json_output: JsonOption = False,
) -> None:
    """Remove all that deploy made, and look that nothing is left. Example: toolkit teardown

    Results of runs stay in the workspace. Exit code 8 and a list if something could not be removed.
    """
    from toolkit.controller import teardown as story
    from toolkit.state import deployed_names

    names = deployed_names() if everything else [name_of(testbed)]
    if forget:
        _forget(names, forget, json_output=json_output)
        return
    documents = []
    for name in names:
        outcome = story.look(name) if dry_run else _tear_down(name, quiet=json_output)
        documents.append(
            {
                "testbed": name,
                "removed": [f"{r.kind} {r.name}" for r in outcome.removed],
                "left": [f"{r.kind} {r.name}" for r in outcome.left],
                "seconds": round(outcome.seconds, 1),
            }
        )
        if not json_output:
            verb = "would remove" if dry_run else "removed"
            for resource in outcome.left if dry_run else outcome.removed:
                typer.echo(f"{verb} {resource.kind} {resource.name}")
            if not dry_run:
                typer.echo(_in_short(name, outcome))
            elif not outcome.left:
                typer.echo(f"nothing to do: nothing of a testbed {name} is there")
    if json_output:
        typer.echo(json.dumps(documents))
    elif not names:
        typer.echo("nothing to do: no testbed is deployed in this workspace")


def _forget(names: list[str], nodes: list[str], *, json_output: bool) -> None:
    from toolkit.controller import teardown as story

    if len(names) != 1:
        raise UsageError("--forget takes nodes of one testbed; name it")
    left = story.forget(names[0], nodes)
    if json_output:
        document = {"testbed": names[0], "forgot": nodes, "left": [f"{r.kind} {r.name} on {r.node}" for r in left]}
        typer.echo(json.dumps(document))
        return
    for node in nodes:
        typer.echo(f"forgot node {node}")
    for resource in left:
        typer.echo(f"if it comes back, still there: {resource.kind} {resource.name} on {resource.node}", err=True)


def _tear_down(name: str, *, quiet: bool) -> Removal:
    """The story, shown here and, where there is a testbed to remove, in consoles."""
    from toolkit.console.actions import Order, shown
    from toolkit.console.journal import Journal
    from toolkit.controller import teardown as story
    from toolkit.state import deployed_names

    order = Order(verb="teardown", testbed=name, by="command line")
    known = name in deployed_names()
    with (
        shown(order) if known else nullcontext(Journal()) as journal,
        progress(quiet=quiet, also=journal.emit) as emit,
    ):
        removal = story.teardown(name, emit=emit)
        journal.outcome |= {"message": _in_short(name, removal)}
    return removal


def _in_short(name: str, removal: Removal) -> str:
    if not removal.removed:
        return f"nothing to do: looked, and nothing of a testbed {name} is there, {removal.seconds:.1f} s"
    return f"testbed {name} is gone: {counted(len(removal.removed), 'thing')} removed, {removal.seconds:.1f} s"
