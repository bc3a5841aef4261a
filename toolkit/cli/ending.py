"""How a command ends with an error once its results are out."""

from __future__ import annotations

from typing import NoReturn

import typer

from toolkit.errors import ToolkitError


def fail(error: ToolkitError) -> NoReturn:
    """Its words and exit code; with `--json` no document of it, since there is one of the results already."""
    typer.echo(str(error), err=True)
    raise typer.Exit(error.exit_code)
