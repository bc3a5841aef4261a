"""`toolkit gc`: what belongs to no testbed any more."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from toolkit.cli.target import JsonOption


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("gc")(gc)


def gc(
    everything: Annotated[
        bool, typer.Option("--all", help="Also caches: built images, prepared engine stores, disks, registry.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would go.")] = False,
    json_output: JsonOption = False,
) -> None:
    """Remove what belongs to no testbed of any workspace. Example: toolkit gc --dry-run"""
    from toolkit.controller.teardown import collect_garbage

    removed = collect_garbage(everything=everything, dry_run=dry_run)
    if json_output:
        typer.echo(json.dumps([{"kind": r.kind, "name": r.name, "bytes": r.size_bytes or None} for r in removed]))
        return
    for resource in removed:
        size = f" ({resource.size_bytes:,} bytes)" if resource.size_bytes else ""
        typer.echo(f"{'would remove' if dry_run else 'removed'} {resource.kind} {resource.name}{size}")
    if not removed:
        typer.echo("nothing to do")
