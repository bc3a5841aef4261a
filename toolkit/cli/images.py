"""`toolkit images`: build what nodes run, see what is there."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from toolkit.cli.progress import progress
from toolkit.cli.target import JsonOption, TestbedArgument, testbed_file
from toolkit.events import ignore

app = typer.Typer(help="Build and list the images that nodes run.", no_args_is_help=True, rich_markup_mode=None)


def register(parent: typer.Typer) -> None:
    """Add the commands."""
    parent.add_typer(app, name="images")


@app.command("build")
def build(
    names: Annotated[list[str] | None, typer.Argument(metavar="[IMAGE]...", help="Default: all of them.")] = None,
    architecture: Annotated[
        str | None, typer.Option(metavar="NAME", help="amd64, arm64, arm/v7 or arm/v6. Default: this machine's.")
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Build images whose content changed; the others cost nothing. Example: toolkit images build mosquitto"""
    from toolkit.provisioning.images import Builder, available_images
    from toolkit.spec.testbed import operator_architecture

    with progress(quiet=json_output) as emit:
        wanted = {(name, architecture or str(operator_architecture())) for name in names or available_images()}
        built = Builder(emit).build(wanted)
    _print({name: reference.reference for (name, _), reference in sorted(built.items())}, as_json=json_output)


@app.command("list")
def listing(json_output: JsonOption = False) -> None:
    """List toolkit's images, each with its name on this machine. Example: toolkit images list"""
    from toolkit.provisioning.images import Builder, available_images
    from toolkit.spec.testbed import operator_architecture

    found = Builder(ignore).references({(name, str(operator_architecture())) for name in available_images()})
    _print({name: reference.reference for (name, _), reference in sorted(found.items())}, as_json=json_output)


@app.command("needed")
def needed(testbed: TestbedArgument = None, json_output: JsonOption = False) -> None:
    """List which images each node of a testbed runs. Example: toolkit images needed testbed.yml"""
    from toolkit.provisioning.render import images_of
    from toolkit.spec.load import load_testbed

    wanted = images_of(load_testbed(testbed_file(testbed)))
    _print({node: " ".join(sorted(images)) for node, images in wanted.items()}, as_json=json_output)


def _print(rows: dict[str, str], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(rows))
        return
    for name, value in rows.items():
        typer.echo(f"{name:<18} {value}")
