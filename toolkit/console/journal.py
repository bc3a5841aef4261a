"""The journal of an action: its events as they happen, and how it ended; written by whoever plays the story."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from toolkit.errors import ToolkitError
from toolkit.events import Event

INTERRUPTED = 130
"""The exit code of a story that was interrupted."""


@dataclass(slots=True)
class Journal:
    """Takes the events of a story, from any thread."""

    outcome: dict[str, Any] = field(default_factory=dict)
    """What a story that came to its end has to tell: message, notes, runs."""
    _events: TextIO | None = None
    """None: nobody is to read it."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def emit(self, event: Event) -> None:
        """Write an event down; one that comes after the end is left out."""
        with self._lock:
            if self._events and not self._events.closed:
                self._events.write(json.dumps(dataclasses.asdict(event)) + "\n")
                self._events.flush()


@contextlib.contextmanager
def journal(folder: Path) -> Iterator[Journal]:
    """Write a story down into an action's folder, however it ends; what it raises goes on to the caller."""
    with (folder / "events.jsonl").open("a") as events:
        written = Journal(_events=events)
        try:
            yield written
            ended = {"state": "done", "exit_code": 0, **written.outcome}
        except BaseException as error:
            ended = _end(error, folder)
            raise
        finally:
            write_json(folder / "outcome.json", {**ended, "ended_at": time.time()})


def _end(error: BaseException, folder: Path) -> dict[str, Any]:
    """How a story ended that raised this; the traceback of a bug goes to the log, its last line to the page."""
    if isinstance(error, ToolkitError):
        return {"state": "failed", "exit_code": error.exit_code, "message": str(error)}
    if isinstance(error, KeyboardInterrupt):
        words = "interrupted; the state is saved: deploy again to go on, or tear down"
        return {"state": "interrupted", "exit_code": INTERRUPTED, "message": words}
    lines = traceback.format_exception(error)
    with (folder / "log").open("a") as log:
        log.writelines(lines)
    last = lines[-1].strip()
    words = f"internal error: {last}\nThis is a bug in toolkit; the traceback is in {folder / 'log'}"
    return {"state": "failed", "exit_code": 1, "message": words}


def read_events(folder: Path, after: int) -> tuple[list[str], int]:
    """Whole lines of a journal from a byte on, and where the next ones begin."""
    with (folder / "events.jsonl").open("rb") as events:
        events.seek(after)
        whole, _, _ = events.read().rpartition(b"\n")
    if not whole:
        return [], after
    return whole.decode().split("\n"), after + len(whole) + 1


def write_json(file: Path, document: dict[str, Any]) -> None:
    """The old or the new document is there, never half of one."""
    draft = file.with_suffix(".new")
    draft.write_text(json.dumps(document, indent=1))
    draft.replace(file)


def read_json(file: Path) -> dict[str, Any] | None:
    """The document, or None where there is none (yet)."""
    try:
        return dict(json.loads(file.read_text()))
    except FileNotFoundError:
        return None
