"""`toolkit images`: build what nodes run, see what is there."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from toolkit.cli.progress import progress
from toolkit.cli.target import JsonOption, TestbedArgument, testbed_file
from toolkit.errors import UsageError
from toolkit.events import ignore
from toolkit.spec.names import did_you_mean

app = typer.Typer(
    help="Build and list the images that nodes run. Example: toolkit images needed",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def register(parent: typer.Typer) -> None:
    """Add the commands."""
    parent.add_typer(app, name="images")


ArchitectureOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="amd64, arm64, arm/v7 or arm/v6. Default: this machine's.")
]
OF_THIS_MACHINE = frozenset({"node", "registry", "vm"})
"""Images that run on the operator's machine alone, not on nodes."""
_HERE = "this machine"
"""Where those run; no node has such a name."""


@app.command("build")
def build(
    names: Annotated[list[str] | None, typer.Argument(metavar="[IMAGE]...", help="Default: all of them.")] = None,
    architecture: ArchitectureOption = None,
    json_output: JsonOption = False,
) -> None:
    """Build images whose content changed; the others cost nothing. Example: toolkit images build mosquitto"""
    from toolkit.provisioning.images import Builder

    asked = _architecture(architecture)
    with progress(quiet=json_output) as emit:
        built = Builder(emit).build({(name, asked) for name in names or _of(asked)})
    _print({name: reference.reference for (name, _), reference in sorted(built.items())}, as_json=json_output)


@app.command("list")
def listing(architecture: ArchitectureOption = None, json_output: JsonOption = False) -> None:
    """List toolkit's images, each with its name on this machine. Example: toolkit images list"""
    from toolkit.provisioning.images import Builder

    asked = _architecture(architecture)
    found = Builder(ignore).references({(name, asked) for name in _of(asked)})
    _print({name: reference.reference for (name, _), reference in sorted(found.items())}, as_json=json_output)


def _architecture(asked: str | None) -> str:
    """Raises UsageError for one that nodes cannot have."""
    from toolkit.spec.testbed import Architecture, operator_architecture

    if asked is None:
        return str(operator_architecture())
    if asked not in set(Architecture):
        raise UsageError(f"there are no images for architecture {asked!r}{did_you_mean(asked, map(str, Architecture))}")
    return asked


def _of(architecture: str) -> list[str]:
    """Images that there can be for it."""
    from toolkit.provisioning.images import available_images
    from toolkit.spec.testbed import operator_architecture

    elsewhere = architecture != str(operator_architecture())
    return [name for name in available_images() if not (elsewhere and name in OF_THIS_MACHINE)]


@app.command("needed")
def needed(testbed: TestbedArgument = None, json_output: JsonOption = False) -> None:
    """List the images that nodes and this machine run.

    Example: toolkit images needed testbed.yml
    """
    from toolkit.controller.deploy import MACHINE_IMAGES, grafana_image
    from toolkit.provisioning.render import images_of
    from toolkit.spec.load import load_testbed

    asked = load_testbed(testbed_file(testbed))
    wanted = {node: sorted(images) for node, images in images_of(asked).items()}
    if grafana := grafana_image(asked):
        wanted[asked.service_of_role("monitor")[0].nodes[0]].append(grafana[0])
    types = {settings.type for settings in asked.providers.values()}
    wanted[_HERE] = sorted({"registry", *(image for kind, image in MACHINE_IMAGES.items() if kind in types)})
    _print({where: " ".join(images) for where, images in wanted.items()}, as_json=json_output)


def _print(rows: dict[str, str], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(rows))
        return
    for name, value in rows.items():
        typer.echo(f"{name:<18} {value}")
