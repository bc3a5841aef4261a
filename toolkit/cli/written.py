"""What a command wrote, told to people and programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import typer


def tell_written(files: Sequence[Path], *, as_json: bool) -> None:
    """A line for each file, or one document of them."""
    if as_json:
        typer.echo(json.dumps({"wrote": list(map(str, files))}))
        return
    for file in files:
        typer.echo(f"wrote {file}")
