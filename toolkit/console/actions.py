"""Actions: a controller's story that somebody started, with its events in a journal that anybody can follow.

`<workspace>/.console/actions/<id>/`: `order.json` (what was asked for), `events.jsonl` (one event a line, as the
terminal shows them), `outcome.json` (how it ended), `log` (what a console's process printed; the traceback of a bug).
A console plays a story in a process of its own, which outlives the page, the browser and the console; the command line
plays it itself. `<workspace>/.console/<testbed>.busy` is locked as long as the process lives.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TextIO

from toolkit import paths
from toolkit.console.journal import Journal, journal, read_json, write_json
from toolkit.errors import LockedError, UsageError
from toolkit.measure.store import folder_of_now
from toolkit.state import lock_holder

Verb = Literal["deploy", "redeploy", "teardown", "run"]
State = Literal["running", "done", "failed", "interrupted", "lost"]
PROGRAM = ("-m", "toolkit.console.acting")
"""What an action's process runs, given the action's folder and the descriptor of its lock."""
INTERRUPTS = (signal.SIGINT, signal.SIGTERM)
KEPT = 50
"""Journals that stay; older ones go when a new action starts."""
_ID = re.compile(r"[0-9]{8}T[0-9]{6}Z-[a-z0-9-]{1,120}")
_NAME = re.compile(r"[a-z0-9-]{1,100}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What an action is to do."""

    verb: Verb
    testbed: str
    file: str = ""
    provider: str | None = None
    workload: str = ""
    by: Literal["console", "command line"] = "console"


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One action, running or ended, as its folder tells."""

    id: str
    order: Order
    started_at: float
    process: int
    state: State
    """lost: its process ended without saying how, for example when the machine was switched off."""
    outcome: dict[str, Any] = field(default_factory=dict)
    """message, exit_code, ended_at, and what the story returned."""

    @property
    def folder(self) -> Path:
        """Where it is written down."""
        return _home() / "actions" / self.id

    @property
    def title(self) -> str:
        """What it does, in words."""
        what = f"run {self.order.workload} on" if self.order.verb == "run" else self.order.verb
        return f"{what} {self.order.testbed}"


class Actions:
    """Starts actions and finds them again; several consoles on one workspace see the same ones."""

    def __init__(self) -> None:
        self._children: list[subprocess.Popen[bytes]] = []

    def start(self, order: Order) -> Action:
        """Start an action; raises LockedError where another one, or a command, works on the testbed."""
        with _lock_file(order.testbed) as lock:
            if not _take(lock):
                lock.seek(0)
                raise LockedError(f"testbed {order.testbed} is busy with {lock.read() or 'another action'}")
            if holder := lock_holder(order.testbed):
                raise LockedError(f"testbed {order.testbed} is busy: {holder} works on it")
            folder = _open_folder(order, lock)
            child = _spawn(folder, lock.fileno())
            _sign(folder, order, child.pid)
        self._children.append(child)
        return self.find(folder.name)

    def find(self, name: str) -> Action:
        """The action of this id; raises UsageError where there is none."""
        folder = _home() / "actions" / name
        if not _ID.fullmatch(name) or not (folder / "order.json").is_file():
            raise UsageError(f"there is no action {name!r}; the console keeps the newest {KEPT}")
        written = json.loads((folder / "order.json").read_text())
        order = Order(**written["order"])
        outcome = read_json(folder / "outcome.json")
        if outcome is None and _busy_with(order.testbed) == name:
            state: State = "running"
        else:
            outcome = outcome or read_json(folder / "outcome.json")  # it may have ended between two looks
            state = outcome["state"] if outcome else "lost"
        return Action(
            id=name,
            order=order,
            started_at=written["started_at"],
            process=written["process"],
            state=state,
            outcome=outcome or {},
        )

    def running(self, testbed: str) -> Action | None:
        """What is done to this testbed right now."""
        name = _busy_with(testbed)
        if not name:
            return None
        try:
            return self.find(name)
        except UsageError:
            return None  # it is just being written down

    def latest(self, testbed: str | None = None, *, most: int = 10) -> list[Action]:
        """The newest actions, newest first."""
        self._children = [child for child in self._children if child.poll() is None]
        home = _home() / "actions"
        names = sorted((f.name for f in home.iterdir()), reverse=True) if home.is_dir() else []
        found = []
        for name in names:
            try:
                action = self.find(name)
            except UsageError:
                continue
            if testbed in {None, action.order.testbed}:
                found.append(action)
            if len(found) == most:
                break
        return found

    def stop(self, name: str) -> None:
        """Interrupt a running action, as Ctrl-C does: the state is saved and the same button goes on from there.

        Raises LockedError for one of the command line: its terminal stops it.
        """
        action = self.find(name)
        if action.order.by != "console":
            raise LockedError(
                f"{action.title}: it was started on the command line, by process {action.process}; press Ctrl-C there"
            )
        if action.state == "running":
            os.killpg(action.process, signal.SIGINT)


@contextlib.contextmanager
def shown(order: Order) -> Iterator[Journal]:
    """Journal a story that this process plays itself, so that consoles show it.

    Where another action holds the testbed nothing is journalled: the story finds the lock taken and says by whom.
    """
    if not _NAME.fullmatch(order.testbed):
        yield Journal()
        return
    with _lock_file(order.testbed) as lock:
        if not _take(lock):
            yield Journal()
            return
        folder = _open_folder(order, lock)
        _sign(folder, order, os.getpid())
        try:
            with journal(folder) as written:
                yield written
        finally:
            release(lock.fileno())


def release(lock: int) -> None:
    """Say that an action is over, before its process is: closing connections may take it a while."""
    os.ftruncate(lock, 0)
    fcntl.flock(lock, fcntl.LOCK_UN)


def _spawn(folder: Path, lock: int) -> subprocess.Popen[bytes]:
    """The action's process. It lets signals in when it is ready to write down that it was interrupted."""
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPTS)
    try:
        with (folder / "log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, *PROGRAM, str(folder), str(lock)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C ends the console, not what it has started
                pass_fds=(lock,),  # the kernel frees the lock when the process has ended, however
                env={**os.environ, "TOOLKIT_HOME": str(paths.workspace())},
            )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _home() -> Path:
    return paths.workspace() / ".console"


def _lock_file(testbed: str) -> TextIO:
    (_home() / "actions").mkdir(parents=True, exist_ok=True, mode=0o700)
    return _busy_file(testbed).open("a+")


def _take(lock: TextIO) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _busy_file(testbed: str) -> Path:
    return _home() / f"{testbed}.busy"


def _busy_with(testbed: str) -> str:
    """The id of the action that holds a testbed's busy file; empty: none."""
    try:
        with _busy_file(testbed).open() as handle:
            if not handle.read():  # a free lock is not even tried, so that looking gets in nobody's way
                return ""
            handle.seek(0)
            try:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return handle.read()
    except FileNotFoundError:
        pass
    return ""


def _open_folder(order: Order, lock: TextIO) -> Path:
    """A new action's folder, named in its testbed's busy file; folders of old actions go."""
    folder = folder_of_now(_home() / "actions", f"{order.verb}-{order.testbed}")
    (folder / "events.jsonl").touch()
    lock.truncate(0)
    lock.write(folder.name)
    lock.flush()
    _prune(folder.parent)
    return folder


def _sign(folder: Path, order: Order, process: int) -> None:
    """Write down what was asked for and which process is at it; from now on the action can be found."""
    written = {"order": dataclasses.asdict(order), "started_at": time.time(), "process": process}
    write_json(folder / "order.json", written)


def _prune(home: Path) -> None:
    for folder in sorted(home.iterdir())[:-KEPT]:
        if (folder / "outcome.json").is_file():
            shutil.rmtree(folder, ignore_errors=True)
