"""The `toolkit` command: every sub-command, and the one place where errors become exit codes."""

from __future__ import annotations

import contextlib
import errno
import importlib
import io
import json
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer

from toolkit import __version__, paths
from toolkit.errors import EXIT_CODES, FileInvalidError, Problem, ToolkitError, UnreachableError, UsageError

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


def version(
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")] = False,
) -> None:
    """Print toolkit's version. Example: toolkit version"""
    typer.echo(json.dumps({"version": __version__}) if json_output else __version__)


INTERRUPTED = 130
ACTING = frozenset({"deploy", "up", "redeploy", "run", "teardown", "down", "destroy"})
"""Commands that can be gone on from where they were interrupted."""


ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, asked to end, and the terminal is gone: all the same to a command."""


def main() -> NoReturn:
    """Run the command line; always ends with one of the documented exit codes."""
    _at_endings(signal.default_int_handler)
    streams = [stream for stream in (sys.stdout, sys.stderr) if isinstance(stream, io.TextIOWrapper)]  # or closed: None
    for stream in streams:  # a terminal may lack a sign or two of ours
        stream.reconfigure(errors="replace")
    try:
        code = _exit_code()
    except KeyboardInterrupt:  # once more, while the first one was told of
        code = INTERRUPTED
    _at_endings(lambda *_: os._exit(code))
    for stream in streams:
        with contextlib.suppress(OSError):  # nobody reads on
            stream.flush()
    os._exit(code)  # in the time that Python takes to end, a signal would still make another code of it


def _at_endings(do: Callable[[int, FrameType | None], object]) -> None:
    for ending in ENDINGS:
        if signal.getsignal(ending) is not signal.SIG_IGN:  # as under nohup
            signal.signal(ending, do)


def _exit_code() -> int:
    try:
        code = application(sys.argv[1] if len(sys.argv) > 1 else "")(standalone_mode=False, prog_name="toolkit")
    except KeyboardInterrupt:
        code = INTERRUPTED
    except SystemExit as ended:  # of typer or rich: a shell has its completion, or nobody reads on
        if not isinstance(ended.__context__, BrokenPipeError):
            raise
        code = INTERRUPTED if _acts() else 0
    except Exception as error:  # noqa: BLE001 - whatever it is, people get words and no traceback
        return _explain(error)
    if code == INTERRUPTED:  # typer, too, makes this of an interrupt
        saved = "; the state is saved: deploy again to go on, or teardown" if _acts() else ""
        typer.echo(f"interrupted{saved}", err=True)
    return code if isinstance(code, int) else 0  # a command that raised typer.Exit comes back as its code


def _explain(error: Exception) -> int:
    """Say what went wrong; returns the exit code for it."""
    if isinstance(error, ToolkitError):
        return _say(str(error), error.exit_code, error.problems if isinstance(error, FileInvalidError) else ())
    if isinstance(error, typer.Abort):
        typer.echo("stopped; nothing was changed", err=True)
        return INTERRUPTED
    if isinstance(error, typer.TyperException):
        return _say(_misused(error), error.exit_code)
    if isinstance(error, OSError) and _is_of_this_machine(error):
        return _say(_without_access(error), UsageError.exit_code)
    from toolkit import engine

    if words := engine.said(error):
        return _explain(UnreachableError(f'the Docker engine of this machine: {words}; try "docker version"'))
    return _bug()


def _misused(error: typer.TyperException) -> str:
    """What is wrong with the command line, and what to type; a group without its sub-command gets the group's help."""
    context = getattr(error, "ctx", None)
    if context is not None and error.message == context.get_help():
        return error.message
    named = sys.argv[1] if sys.argv[1:] and any(sys.argv[1] in names for names in COMMANDS.values()) else ""
    command = context.command_path if context else f"toolkit {named}".rstrip()
    instead = _typed_instead(error)
    said = error.message if instead else error.format_message().rstrip(".")
    return f"{said}; {instead or f'try: {command} --help'}"


def _typed_instead(error: typer.TyperException) -> str:
    """For an option that the command has not; empty for all else."""
    from toolkit.cli.mistakes import instead

    option, context = getattr(error, "option_name", None), getattr(error, "ctx", None)
    if not option or context is None:
        return ""
    options = [param for param in context.command.params if param.param_type_name == "option"]
    arguments = {param.name for param in context.command.params if param.param_type_name == "argument"}
    known = {spelt for param in options for spelt in param.opts}
    return instead(option, sys.argv[1:], frozenset(known), frozenset(arguments))


def _acts() -> bool:
    """Whether the command changes machines, so that something is left to go on from."""
    return any(word in ACTING for word in sys.argv[1:2]) and not {"--help", "--dry-run"} & set(sys.argv)


def _is_of_this_machine(error: OSError) -> bool:
    """A disk that is full, a folder that may not be written, a path of somebody's that does not lead anywhere."""
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR}:
        return True
    place = str(error.filename or "")
    own = (str(paths.workspace()), str(paths.TEMPLATES.parent))
    return error.errno in {errno.ENOENT, errno.EISDIR, errno.EEXIST} and bool(place) and not place.startswith(own)


def _without_access(error: OSError) -> str:
    place = str(error.filename or "this machine")
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return (
            f"{place}: {error.strerror}; the workspace is {paths.workspace()}, what is shared lies in {paths.cache()}; "
            "try: df -h, toolkit gc"
        )
    kept = {paths.workspace(): "workspace: TOOLKIT_HOME", paths.cache(): "place for what is shared: TOOLKIT_CACHE"}
    instead = next((f"; try another {what}=FOLDER" for folder, what in kept.items() if _is_below(place, folder)), "")
    return f"{place}: {error.strerror}{instead}"


def _is_below(place: str, folder: Path) -> bool:
    """Or above it, where the folder is to be made."""
    path = Path(place)
    return path.is_absolute() and (path.is_relative_to(folder) or folder.is_relative_to(path))


def _bug() -> int:
    """The whole traceback goes to a file, its path to the screen."""
    log = paths.workspace() / "errors" / f"{time.strftime('%Y%m%d-%H%M%S')}.log"
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
    except OSError:
        log = Path(tempfile.mkdtemp(prefix="toolkit-")) / log.name
    log.write_text(f"toolkit {__version__}: {' '.join(sys.argv)}\n{traceback.format_exc()}")
    last = traceback.format_exc().strip().splitlines()[-1]
    return _say(f"internal error: {last}\nThis is a bug in toolkit; the traceback is in {log}", ToolkitError.exit_code)


def _say(words: str, exit_code: int, problems: Sequence[Problem] = ()) -> int:
    """To people and, where they asked for it, to programs; returns the exit code."""
    if "--json" in sys.argv:
        document: dict[str, object] = {"error": words, "exit_code": exit_code}
        if problems:
            document["problems"] = [
                {"file": p.file, "line": p.line, "column": p.column, "message": p.message} for p in problems
            ]
        with contextlib.suppress(OSError):  # which may be what is told
            typer.echo(json.dumps(document))
    typer.echo(words, err=True)
    return exit_code
