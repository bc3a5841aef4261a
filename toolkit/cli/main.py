"""The `toolkit` command: every sub-command, and the one place where errors become exit codes."""

from __future__ import annotations

import importlib
import json
import signal
import sys
import time
import traceback
from collections.abc import Mapping

import typer

from toolkit import __version__, paths
from toolkit.errors import EXIT_CODES, FileInvalidError, ToolkitError

COMMANDS: Mapping[str, tuple[str, ...]] = {
    "files": ("init", "validate", "schema"),
    "deploy": ("plan", "deploy", "up", "redeploy"),
    "status": ("status", "inspect", "verify"),
    "run": ("run",),
    "results": ("results",),
    "report": ("report", "compare"),
    "nodes": ("exec", "ssh", "logs"),
    "inventory": ("inventory",),
    "doctor": ("doctor",),
    "graph": ("graph",),
    "console": ("console",),
    "gc": ("gc",),
    "teardown": ("teardown", "down", "destroy"),
    "images": ("images",),
    "dashboards": ("dashboards",),
    "model": ("model",),
}
"""Module of `toolkit.cli` -> the commands it registers."""


def application(first_word: str = "") -> typer.Typer:
    """The command line; with only the module of the command named, where one is, so that it starts soon."""
    app = typer.Typer(
        name="toolkit",
        help="Make declared testbeds real, measure publish/subscribe systems on them, and remove them again.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        epilog="Exit codes: " + "; ".join(f"{code} {meaning}" for code, meaning in EXIT_CODES.items()),
    )
    app.callback()(_one_of_many)
    asked = [module for module, commands in COMMANDS.items() if first_word in commands]
    for module in asked or (() if first_word == "version" else COMMANDS):
        importlib.import_module(f"toolkit.cli.{module}").register(app)
    app.command("version")(version)
    return app


def _one_of_many() -> None:  # keeps the command's name an argument also where only one is registered
    pass


def version() -> None:
    """Print toolkit's version. Example: toolkit version"""
    typer.echo(__version__)


INTERRUPTED = 130


def main() -> None:
    """Run the command line; always ends with one of the documented exit codes."""
    for ending in (signal.SIGTERM, signal.SIGHUP):  # asked to end, or the terminal is gone: as by Ctrl-C
        if signal.getsignal(ending) is not signal.SIG_IGN:  # as under nohup
            signal.signal(ending, signal.default_int_handler)
    sys.exit(_exit_code())


def _exit_code() -> int:
    try:
        code = application(sys.argv[1] if len(sys.argv) > 1 else "")(standalone_mode=False)
    except ToolkitError as error:
        _report(error)
        return error.exit_code
    except KeyboardInterrupt:
        code = INTERRUPTED
    except typer.Abort:
        typer.echo("stopped; nothing was changed", err=True)
        return 130
    except typer.TyperException as error:
        typer.echo(f"{error.format_message()}; try: toolkit --help", err=True)
        return error.exit_code
    except BrokenPipeError:
        return 0
    except Exception:  # noqa: BLE001 - a bug: the whole traceback goes to a file, its path to the screen
        log = paths.workspace() / "errors" / f"{time.strftime('%Y%m%d-%H%M%S')}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(f"toolkit {__version__}: {' '.join(sys.argv)}\n{traceback.format_exc()}")
        last = traceback.format_exc().strip().splitlines()[-1]
        typer.echo(f"internal error: {last}\nThis is a bug in toolkit; the traceback is in {log}", err=True)
        return 1
    if code == INTERRUPTED:  # typer, too, makes this of an interrupt
        typer.echo("interrupted; the state is saved: deploy again to go on, or teardown", err=True)
    return code if isinstance(code, int) else 0  # a command that raised typer.Exit comes back as its code


def _report(error: ToolkitError) -> None:
    if "--json" in sys.argv:
        document = {"error": str(error), "exit_code": error.exit_code}
        if isinstance(error, FileInvalidError):
            document["problems"] = [
                {"file": p.file, "line": p.line, "column": p.column, "message": p.message} for p in error.problems
            ]
        typer.echo(json.dumps(document))
    typer.echo(str(error), err=True)
