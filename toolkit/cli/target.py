"""Which testbed a command means: a file, the name of a deployed one, or the only one there is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from toolkit import paths
from toolkit.errors import UsageError
from toolkit.state import Deployment, deployed_names, load_deployment

if TYPE_CHECKING:
    from toolkit.spec.testbed import Testbed

DEFAULT_FILE = Path("testbed.yml")

TestbedArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[TESTBED]",
        help="A testbed file, or the name of a deployed testbed. Default: ./testbed.yml, else the only one deployed.",
    ),
]
TestbedOption = Annotated[
    str | None,
    typer.Option(
        "--testbed",
        "-t",
        metavar="TESTBED",
        help="A testbed file or the name of a deployed testbed.",
        envvar="TOOLKIT_TESTBED",
    ),
]
ProviderOption = Annotated[
    str | None,
    typer.Option("--provider", help="Take every node from this provider: `container` makes the file's local twin."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]


def testbed_file(target: str | None) -> Path:
    """The file a command works from; a deployed testbed's name stands for the file it was deployed from."""
    if target is None and DEFAULT_FILE.is_file():
        return DEFAULT_FILE
    if target is not None and (Path(target).suffix in {".yml", ".yaml"} or Path(target).is_file()):
        return Path(target)
    deployment = deployed(target)
    file = Path(deployment.file)
    return file if file.is_file() else paths.testbed_dir(deployment.name) / "testbed.yml"


def deployed(target: str | None) -> Deployment:
    """The deployment a command means; raises UsageError where it cannot be told, naming the candidates."""
    name = name_of(target)
    deployment = load_deployment(name)
    if deployment is None:
        names = ", ".join(deployed_names()) or "none"
        raise UsageError(
            f"testbed {name} is not deployed here (deployed: {names}); try: toolkit deploy {target or name}"
        )
    return deployment


def name_of(target: str | None) -> str:
    """The testbed's name, deployed or not; raises UsageError where it cannot be told."""
    from toolkit.spec.load import load_testbed

    if target is not None:
        if Path(target).is_file():
            return load_testbed(Path(target)).name
        return target
    names = deployed_names()
    if DEFAULT_FILE.is_file():
        name = load_testbed(DEFAULT_FILE).name
        if name in names or not names:
            return name
    if len(names) == 1:
        return names[0]
    if not names:
        raise UsageError(
            f"no testbed is deployed in this workspace ({paths.workspace()}) and there is no testbed.yml here; "
            "try: toolkit init, then toolkit deploy testbed.yml"
        )
    raise UsageError(f"which testbed? deployed here are {', '.join(names)}; name one")


def loaded(target: str | None) -> tuple[Testbed, Deployment]:
    """A deployed testbed: what was asked for, as the same twin if it is one, and what exists."""
    from toolkit.spec.load import load_testbed

    deployment = deployed(target)
    file = testbed_file(deployment.name)
    return load_testbed(file, provider=deployment.provider or None), deployment
