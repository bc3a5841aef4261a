"""Which testbed a command means: a file, the name of a deployed one, or the only one there is."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from toolkit import paths
from toolkit.cli import completion
from toolkit.errors import FileInvalidError, UsageError
from toolkit.spec.names import did_you_mean

if TYPE_CHECKING:
    from toolkit.spec.testbed import Testbed
    from toolkit.state import Deployment

DEFAULT_FILE = Path("testbed.yml")

TestbedArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[TESTBED]",
        autocompletion=completion.testbeds,
        help="A testbed file, its folder, or the name of a deployed testbed. "
        "Default: ./testbed.yml, else the only one deployed.",
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
        autocompletion=completion.testbeds,
    ),
]
_RUNS_OF = typer.Option(
    "--testbed",
    "-t",
    metavar="TESTBED",
    help="Only runs of this testbed: its name, its file or the folder of that.",
    callback=lambda target: None if target is None else name_of(target),
    autocompletion=completion.testbeds,
)
RunsOfOption = Annotated[str | None, _RUNS_OF]
RunsOfOneOption = Annotated[str, _RUNS_OF]
ProviderOption = Annotated[
    str | None,
    typer.Option(
        "--provider",
        metavar="NAME",
        help="Take every node from this provider: `container` makes the file's local twin.",
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Another value for a place of the file; may be given again."),
]
ScaleOption = Annotated[
    float,
    typer.Option(
        "--scale",
        metavar="FACTOR",
        min=0.001,
        max=1.0,
        help="Multiply node counts, and the events of later runs, for a small machine.",
    ),
]
EventsOption = Annotated[bool, typer.Option("--json", help="Print events and the result as JSON lines.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]


def testbed_file(target: str | None) -> Path:
    """The file a command works from; a deployed testbed's name stands for the file it was deployed from."""
    if target is None and DEFAULT_FILE.is_file():
        return DEFAULT_FILE
    if target is not None and (file := _file(target)) is not None:
        return file
    from toolkit.state import file_of

    return file_of(deployed(target))


def _file(target: str) -> Path | None:
    """The testbed file that is meant, there or not; None for a name. A deployed name comes before a folder of it."""
    from toolkit.state import deployed_names

    path = Path(target)
    if path.is_dir() and target not in deployed_names():
        if not (path / DEFAULT_FILE).is_file():
            raise UsageError(
                f"there is no {DEFAULT_FILE} in the folder {target}; try: toolkit init {path / DEFAULT_FILE}"
            )
        return path / DEFAULT_FILE
    return path if path.suffix in {".yml", ".yaml"} or path.is_file() else None


def deployed(target: str | None) -> Deployment:
    """The deployment a command means; raises UsageError where it cannot be told, naming the candidates."""
    from toolkit.state import deployed_names, load_deployment

    name = name_of(target)
    deployment = load_deployment(name)
    if deployment is None:
        hint = did_you_mean(name, deployed_names()) or "; nothing is"
        file = _file(target) if target else DEFAULT_FILE
        raise UsageError(f"testbed {name} is not deployed here{hint}; try: toolkit deploy {file or 'FILE'}")
    return deployment


def name_of(target: str | None) -> str:
    """The testbed's name, deployed or not, its file valid or not; raises UsageError where it cannot be told."""
    from toolkit.state import deployed_names

    names = deployed_names()
    if target is not None:
        file = _file(target)
        if file is not None and not file.is_file():
            known = f"name the testbed itself: {', '.join(names)}" if names else "nothing is deployed here"
            raise UsageError(f"there is no file {file}; {known}")
        return _name_in(file, names) if file else target
    if DEFAULT_FILE.is_file():
        name = _name_in(DEFAULT_FILE, names)
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


def _name_in(file: Path, names: list[str]) -> str:
    """Also of a file that is no YAML any more, where a testbed was deployed from it."""
    from toolkit.spec.load import name_in
    from toolkit.state import load_deployment

    try:
        return name_in(file)
    except FileInvalidError:
        for deployment in filter(None, map(load_deployment, names)):
            if Path(deployment.file).resolve() == file.resolve():
                return deployment.name
        raise


def loaded(target: str | None) -> tuple[Testbed, Deployment]:
    """A deployed testbed: what was asked for, as it was deployed, and what exists.

    Where its file was spoilt since, the copy of the last deploy serves, and it is said so.
    """
    from toolkit.controller.asked import as_deployed
    from toolkit.state import kept_file

    deployment = deployed(target)
    asked = as_deployed(deployment)
    try:
        return asked.load(), deployment
    except FileInvalidError:
        kept = kept_file(deployment)
        if not kept.is_file():
            raise
        try:
            testbed = dataclasses.replace(asked, file=kept).load()
        except FileInvalidError:
            testbed = None
        if testbed is None:  # as where the environment lacks what both refer to
            raise
        typer.echo(f"{asked.file} is invalid now (toolkit validate); this goes by it as it was deployed", err=True)
        return testbed, deployment


def settings(given: list[str] | None) -> dict[str, str]:
    """KEY=VALUE of `--set` as a mapping; raises UsageError for one without its sign."""
    found = {}
    for text in given or ():
        key, sign, value = text.partition("=")
        if not sign or not key:
            raise UsageError(f"--set {text}: write KEY=VALUE, such as services.broker.settings.mode=direct")
        found[key] = value
    return found
