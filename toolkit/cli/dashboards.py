"""`toolkit dashboards`: the Grafana dashboards as files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
) -> None:
    """Write every dashboard as JSON, for a Grafana of your own. Example: toolkit dashboards export --to dashboards"""
    from toolkit.provisioning.dashboards import dashboards

    to.mkdir(parents=True, exist_ok=True)
    for name, text in dashboards().items():
        (to / name).write_text(text)
        typer.echo(f"wrote {to / name}")
