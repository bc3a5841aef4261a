"""`toolkit init | validate | schema`: the testbed file before anything is touched."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from toolkit.cli.target import DEFAULT_FILE, JsonOption, ProviderOption
from toolkit.cli.written import tell_written
from toolkit.errors import FileInvalidError, Problem, UsageError
from toolkit.events import counted
from toolkit.spec.names import NAME_PATTERN

_EXAMPLE = """\
# A testbed: machines, what runs on them, and the traffic to measure. `toolkit validate` checks it.
version: 1
name: {name}
provider: container       # virtual nodes on this machine; `ssh` for a rack (docs/nodes.md)

nodes:
  base: {{kind: vm}}
  eh: {{kind: pi3}}
  pub: {{kind: pi3}}
  sub: {{kind: pi1, count: 2}}

services:
  ntp: {{on: base}}
  monitor: {{on: base}}
  broker: {{on: eh, image: event-handler}}
  publisher: {{on: pub}}
  subscriber: {{on: sub}}

workloads:
  hello: {{messages: 2000, payload: 71B}}
"""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("init")(init)
    app.command("validate")(validate)
    app.command("schema")(schema)


def init(
    file: Annotated[Path, typer.Argument(metavar="[FILE]", help="The file to write.")] = DEFAULT_FILE,
    name: Annotated[str, typer.Option(metavar="NAME", help="The testbed's name.")] = "lab",
    json_output: JsonOption = False,
) -> None:
    """Write a small testbed file to start from. Example: toolkit init && toolkit deploy"""
    if not re.fullmatch(NAME_PATTERN, name):
        raise UsageError(f"--name {name}: expected small letters, digits and dashes, a letter first, at most 40 long")
    if file.exists():
        raise UsageError(f"{file} is there already; choose another name: toolkit init OTHER.yml")
    file.write_text(_EXAMPLE.format(name=name))
    tell_written([file], as_json=json_output)
    typer.echo(f"next: toolkit deploy {file}", err=True)


def validate(
    files: Annotated[list[Path] | None, typer.Argument(metavar="[FILE]...", help="Default: ./testbed.yml")] = None,
    provider: ProviderOption = None,
    resolved: Annotated[bool, typer.Option("--resolved", help="Print each with every default worked in.")] = False,
    json_output: JsonOption = False,
) -> None:
    """Check testbed files; every problem is reported with its place.

    A file of experiments is checked with the testbed that it names.

    Example: toolkit validate testbed.yml
    """
    from toolkit.spec.dump import dump_testbed
    from toolkit.spec.experiment_file import testbed_of
    from toolkit.spec.load import load_testbed

    documents: list[dict[str, Any]] = []
    problems: list[Problem] = []
    for file in files or [DEFAULT_FILE]:
        try:
            of = testbed_of(file) or file
            testbed = load_testbed(of, provider=provider, also=file if of != file else None)
        except FileInvalidError as error:
            problems += error.problems
            continue
        documents.append(
            {
                "file": str(file),
                "name": testbed.name,
                "nodes": len(testbed.nodes),
                "services": len(testbed.services),
                "workloads": sorted(testbed.workloads),
                "twin": testbed.twin,
            }
        )
        if resolved:
            documents[-1]["resolved"] = dump_testbed(testbed)
        if resolved and not json_output:
            typer.echo(documents[-1]["resolved"], nl=False)
        elif not json_output:
            typer.echo(
                f"{file}: valid: testbed {testbed.name}, "
                f"{counted(len(testbed.nodes), 'node')}, {counted(len(testbed.services), 'service')}"
                + (", as a local twin" if testbed.twin else "")
            )
    if problems:
        raise FileInvalidError(problems)
    if json_output:
        typer.echo(json.dumps(documents))


def schema(
    json_output: Annotated[bool, typer.Option("--json", help="The form it has anyway.")] = True,  # noqa: ARG001
) -> None:
    """Print the JSON Schema of testbed files, for editors. Example: toolkit schema > testbed.schema.json"""
    from toolkit.spec.file import json_schema

    typer.echo(json.dumps(json_schema(), indent=2, sort_keys=True))
