"""`toolkit status | verify`: what is there now, and whether the gates still let it through."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from toolkit.cli import completion
from toolkit.cli.progress import progress
from toolkit.cli.target import EventsOption, JsonOption, TestbedArgument, loaded
from toolkit.errors import UnreachableError

if TYPE_CHECKING:
    from toolkit.spec.testbed import Testbed
    from toolkit.state import Deployment


NARROW = 70
"""Columns of a terminal below which kind, address and clock are left out."""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("status")(status)
    app.command("inspect", hidden=True)(status)
    app.command("verify")(verify)


def status(
    testbed: TestbedArgument = None,
    nodes: Annotated[
        str,
        typer.Option(
            "--nodes",
            "-n",
            metavar="SELECTOR",
            autocompletion=completion.selectors,
            help="Such as role:broker, kind:pi1, @failed, a,!b",
        ),
    ] = "all",
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Look again every 2 s until interrupted.")] = False,
    json_output: JsonOption = False,
) -> None:
    """Show every node, its containers, their health and its clock. Example: toolkit status --nodes role:broker

    Exit code 4 if a node cannot be reached. Whether all is well is asked by: toolkit verify
    """
    from toolkit.controller.status import node_row
    from toolkit.provisioning.observe import observe
    from toolkit.spec.selectors import select

    asked, deployment = loaded(testbed)
    chosen = select(asked, nodes, failed=deployment.failed)
    if not chosen:
        typer.echo(f"{nodes} picks no node of {asked.name}", err=True)
    hosts = {node: deployment.hosts[node] for node in chosen if node in deployment.hosts}
    while True:
        seen = observe(hosts, asked.name)
        rows = [node_row(asked, deployment, node, seen.get(node)) for node in chosen]
        if json_output:
            document = {"testbed": asked.name, "stage": deployment.stage, "twin": deployment.twin, "nodes": rows}
            typer.echo(json.dumps(document))
        else:
            _print(asked, deployment, rows, clear=watch)
        if not watch:
            break
        time.sleep(2)
    if any(row["error"] and row["state"] in {"absent", "unreachable"} for row in rows):
        raise typer.Exit(UnreachableError.exit_code)  # what was printed says why


def _print(testbed: Testbed, deployment: Deployment, rows: list[dict[str, Any]], *, clear: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    from toolkit.controller.deploy import watching_link

    console = Console()
    if clear:
        console.clear()
    twin = " (local twin: virtual nodes on this machine)" if deployment.twin else ""
    table = Table(
        title=f"testbed {testbed.name}: {deployment.stage}{twin}", title_justify="left", box=None, padding=(0, 2, 0, 0)
    )
    whole = console.width >= NARROW
    for heading in (
        ("node", "kind", "address", "state", "services", "clock") if whole else ("node", "state", "services")
    ):
        table.add_column(heading, no_wrap=heading in {"node", "state"}, overflow="fold")
    for row in rows:
        services = " ".join(
            name
            if entry["state"] == "running" and entry["health"] != "unhealthy"
            else f"{name}({entry['health'] or entry['state']})"
            for name, entry in row["services"].items()
        )
        if whole:
            table.add_row(row["node"], row["kind"], row["address"] or "-", row["state"], services or "-", _clock(row))
        else:
            table.add_row(row["node"], row["state"], services or "-")
    console.print(table)
    for row in rows:
        if row["error"]:
            console.print(_trouble(row["node"], row["error"]), soft_wrap=True, highlight=False, markup=False)
    if link := watching_link(testbed, deployment):
        console.print(f"console  {link}   (read-only)", soft_wrap=True, highlight=False, markup=False)


def _trouble(node: str, words: str) -> str:
    """With the node's name once."""
    return words if words.startswith(f"node {node}") else f"node {node}: {words}"


def _clock(row: dict[str, Any]) -> str:
    clock = row["clock"]
    if clock is None:
        return "-"
    if clock.get("shared"):
        return "this machine's"
    if not clock.get("synchronised"):
        return "not synchronised"
    return f"{float(clock['offset_s']) * 1e6:+.0f} us"


def verify(
    testbed: TestbedArgument = None,
    gate: Annotated[
        list[str] | None, typer.Option("--gate", metavar="NAME", help="Only this gate; may be given again.")
    ] = None,
    json_output: EventsOption = False,
) -> None:
    """Ask the gates again on what runs now. Exit code 6 if one refuses. Example: toolkit verify --gate clock"""
    from toolkit.controller.deploy import bundles_of
    from toolkit.controller.gates import GATES, check_gates
    from toolkit.errors import UsageError
    from toolkit.spec.names import did_you_mean

    for name in gate or ():
        if name not in GATES:
            raise UsageError(f"there is no gate {name!r}{did_you_mean(name, GATES)}")
    asked, deployment = loaded(testbed)
    with progress(as_json=json_output) as emit:
        check_gates(asked, deployment.hosts, bundles_of(asked, deployment), emit, gates=tuple(gate or GATES))
