"""`toolkit console`: the web page to watch testbeds and to drive them."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from toolkit import paths


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("console")(console)


def console(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            exists=True,
            dir_okay=False,
            metavar="[FILE]...",
            help="Testbed files. Default: every testbed.yml below this folder.",
        ),
    ] = None,
    host: Annotated[
        str,
        typer.Option(metavar="ADDRESS", help="The address to listen on; others than loopback let others in."),
    ] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, metavar="NUMBER", help="Default: 8400, or a free one.")
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option("--allow-host", metavar="NAME", help="A further name it may be asked under.")
    ] = None,
    read_only: Annotated[bool, typer.Option("--read-only", help="Nobody can start or remove anything.")] = False,
) -> None:
    """Serve web pages that show and drive testbeds, until Ctrl-C. Example: toolkit console

    Only who has the printed link gets in. Actions go on when the page or the console is closed.
    """
    from toolkit.console.serve import is_loopback, serve

    def tell(links: dict[str, str]) -> None:
        if "act" in links:
            typer.echo(f"console   {links['act']}")
        typer.echo(f"{'to share' if 'act' in links else 'console'}  {links['watch']}   (read-only)")
        if not is_loopback(host):
            typer.echo(
                f"this console listens on {host}: whoever has a link and reaches this machine gets in, and nothing on "
                "the way is encrypted; an SSH tunnel to a console on loopback is",
                err=True,
            )
        typer.echo(f"workspace {paths.workspace()}; Ctrl-C ends the console, actions that run go on", err=True)

    with contextlib.suppress(KeyboardInterrupt):  # which is how it is ended
        serve(
            Path.cwd(),
            host=host,
            port=port,
            named=[file.resolve() for file in files or ()],
            names=allow_host or (),
            read_only=read_only,
            tell=tell,
        )
