"""`toolkit dashboards`: the Grafana dashboards as files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toolkit.cli.target import JsonOption
from toolkit.cli.written import tell_written

app = typer.Typer(
    help="Export the Grafana dashboards. Example: toolkit dashboards export",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.callback()
def group() -> None:
    """Export the Grafana dashboards."""


def register(parent: typer.Typer) -> None:
    """Add the commands."""
    parent.add_typer(app, name="dashboards")


@app.command("export")
def export(
    to: Annotated[Path, typer.Option(metavar="FOLDER", help="The folder to write to.")] = Path("dashboards"),
    json_output: JsonOption = False,
) -> None:
    """Write every dashboard as JSON, for a Grafana of your own. Example: toolkit dashboards export --to dashboards"""
    from toolkit.provisioning.dashboards import dashboards

    to.mkdir(parents=True, exist_ok=True)
    made = dashboards()
    for name, text in made.items():
        (to / name).write_text(text)
    tell_written([to / name for name in made], as_json=json_output)
