"""`toolkit inventory`: the testbed as an Ansible dynamic inventory."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from toolkit import paths
from toolkit.cli import completion
from toolkit.cli.target import TestbedArgument, loaded
from toolkit.errors import UsageError
from toolkit.spec.names import did_you_mean


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("inventory")(inventory)


def inventory(
    testbed: TestbedArgument = None,
    listing: Annotated[bool, typer.Option("--list", help="The whole inventory (the default).")] = True,  # noqa: ARG001
    host: Annotated[
        str | None,
        typer.Option("--host", metavar="NODE", autocompletion=completion.nodes, help="Only one node's variables."),
    ] = None,
    script: Annotated[bool, typer.Option("--script", help="Write an inventory script and print its path.")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="The form it has anyway.")] = True,  # noqa: ARG001
) -> None:
    """Answer as an Ansible inventory script does. Example: ansible all -i "$(toolkit inventory --script)" -m ping"""
    import shlex
    import sys

    from toolkit.provisioning.inventory import dynamic_inventory, write_ssh_config

    asked, deployment = loaded(testbed)
    directory = paths.testbed_dir(deployment.name)
    write_ssh_config(deployment.hosts, directory)
    if script:
        file = directory / "inventory.sh"
        command = f"{shlex.quote(sys.executable)} -m toolkit"
        home = shlex.quote(str(paths.workspace()))
        file.write_text(
            f'#!/bin/sh\nTOOLKIT_HOME={home} exec {command} inventory {shlex.quote(deployment.name)} "$@"\n'
        )
        file.chmod(0o755)
        typer.echo(str(file))
        return
    answer = dynamic_inventory(deployment, asked)
    known = answer["_meta"]["hostvars"]
    if host is not None and host not in known:
        raise UsageError(f"no node is named {host!r}{did_you_mean(host, known)}")
    typer.echo(json.dumps(answer if host is None else known[host], indent=1))
