"""`toolkit exec | ssh | logs`: into the nodes."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from toolkit import paths
from toolkit.cli import completion
from toolkit.cli.ending import fail
from toolkit.cli.target import JsonOption, TestbedOption, loaded
from toolkit.errors import ToolkitError, UnreachableError, UsageError, WorkloadError
from toolkit.spec.names import did_you_mean
from toolkit.spec.selectors import select

if TYPE_CHECKING:
    from toolkit.spec.testbed import Testbed
    from toolkit.state import Deployment, Host


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("exec", context_settings={"ignore_unknown_options": True})(execute)
    app.command("ssh", context_settings={"ignore_unknown_options": True})(ssh)
    app.command("logs")(logs)


def execute(
    nodes: Annotated[
        str,
        typer.Argument(
            metavar="NODES",
            autocompletion=completion.selectors,
            help="Selector: all, role:broker, kind:pi1, @failed, sub,!sub-2",
        ),
    ],
    command: Annotated[
        list[str],
        typer.Argument(
            metavar="COMMAND...", help="What to run, after --; a single text is a line for the shell there."
        ),
    ],
    testbed: TestbedOption = None,
    root: Annotated[bool, typer.Option(help="Run as root.")] = True,
    json_output: JsonOption = False,
) -> None:
    """Run a command on nodes at the same time. Every node is reported. Example: toolkit exec kind:pi1 -- uptime"""
    from toolkit import ssh as remote

    asked, deployment = loaded(testbed)
    hosts, absent = _machines(asked, deployment, nodes)
    words = command if len(command) > 1 else command[0]  # as OpenSSH: one text is a line for the shell there
    results: dict[str, remote.Completed | ToolkitError] = dict(absent)
    results |= remote.on_every(
        hosts, lambda host: remote.run(host, words, as_root=root, leashed=True, timeout_s=None, check=False)
    )
    failed = []
    documents: dict[str, dict[str, object]] = {}
    for node, result in results.items():
        if isinstance(result, ToolkitError):
            failed.append(str(result))
            documents[node] = {"error": str(result)}
            continue
        documents[node] = {"status": result.status, "stdout": result.stdout, "stderr": result.stderr}
        if result.status:
            failed.append(f"node {node}: `{' '.join(command)}` ended with status {result.status}")
        if not json_output:
            for line in result.stdout.splitlines():
                typer.echo(f"{node}: {line}")
            for line in result.stderr.splitlines():
                typer.echo(f"{node}: {line}", err=True)
    if json_output:
        typer.echo(json.dumps(documents))
    if failed:
        unreachable = any("error" in document for document in documents.values())
        fail((UnreachableError if unreachable else WorkloadError)("\n".join(failed)))


def _machines(
    asked: Testbed, deployment: Deployment, selector: str
) -> tuple[dict[str, Host], dict[str, UnreachableError]]:
    """The hosts of the nodes that are chosen, and why those without a machine have none."""
    chosen = select(asked, selector, failed=deployment.failed)
    if not chosen:  # of @failed, since any other selector that picks nothing is an error
        typer.echo(f"nothing to do: {selector} picks no node", err=True)
        raise typer.Exit
    hosts = {node: deployment.hosts[node] for node in chosen if node in deployment.hosts}
    absent = {
        node: UnreachableError(f"node {node} has no machine: {deployment.failed.get(node, 'try: toolkit deploy')}")
        for node in chosen
        if node not in hosts
    }
    return hosts, absent


def ssh(
    node: Annotated[str, typer.Argument(metavar="NODE", autocompletion=completion.nodes, help="The node's name.")],
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[ARGUMENT]...", help="More for ssh, after --")
    ] = None,
    testbed: TestbedOption = None,
) -> None:
    """Open a shell on a node with OpenSSH. Example: toolkit ssh eh"""
    from toolkit.provisioning.inventory import write_ssh_config

    _, deployment = loaded(testbed)
    if node not in deployment.hosts:
        raise UsageError(f"no node is named {node!r}{did_you_mean(node, deployment.hosts)}")
    config = write_ssh_config(deployment.hosts, paths.testbed_dir(deployment.name))
    sys.stdout.flush()
    os.execvp("ssh", ["ssh", "-F", str(config), node, *(arguments or [])])  # noqa: S606 - there is no shell here


def logs(
    nodes: Annotated[
        str,
        typer.Argument(metavar="[NODES]", autocompletion=completion.selectors, help="Selector: all, role:broker, eh"),
    ] = "all",
    testbed: TestbedOption = None,
    service: Annotated[
        str | None,
        typer.Option("--service", "-s", metavar="NAME", autocompletion=completion.services, help="Only this service."),
    ] = None,
    lines: Annotated[
        int, typer.Option("--lines", min=1, metavar="NUMBER", help="Of each container, the last so many.")
    ] = 20,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="One container only: go on until interrupted.")
    ] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print a JSON document for each line.")] = False,
) -> None:
    """Show the logs of services on nodes. Example: toolkit logs eh --service broker --follow"""
    from toolkit import ssh as remote
    from toolkit.provisioning.observe import observe

    asked, deployment = loaded(testbed)
    hosts, absent = _machines(asked, deployment, nodes)
    seen = {**absent, **observe(hosts, asked.name)}
    found = [
        (hosts[node], container)
        for node, what in seen.items()
        if not isinstance(what, ToolkitError)
        for container in what.containers.values()
        if service in {None, container.service}
    ]
    silent = [what for what in seen.values() if isinstance(what, ToolkitError)]
    if not found and not silent:
        raise UsageError(f"no container of {service or 'any service'} on {nodes}; see: toolkit status")
    if follow and len(found) > 1:
        names = ", ".join(f"{host.node}/{container.service}" for host, container in found)
        raise UsageError(f"--follow follows one container, these are {len(found)}: {names}; add --service")
    for host, container in found:
        command = ["docker", "logs", "--tail", str(lines), *(["--follow"] if follow else []), container.name]
        for line in remote.stream(host, command, as_root=True):
            if json_output:
                typer.echo(json.dumps({"node": host.node, "service": container.service, "line": line}))
            else:
                typer.echo(f"{host.node}/{container.service}: {line}")
    if silent:
        fail(UnreachableError("\n".join(map(str, silent))))
