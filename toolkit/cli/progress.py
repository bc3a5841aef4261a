"""How events are shown: a live table on a terminal, plain lines elsewhere, JSON lines for programs."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
import threading
import time
from collections.abc import Iterator

from toolkit.events import Emit, Event

_MARKS = {"done": "✓", "failed": "✗", "started": "·", "note": " "}
_STYLES = {"info": "", "warning": "yellow", "error": "red"}


@contextlib.contextmanager
def progress(*, as_json: bool = False, quiet: bool = False, also: Emit | None = None) -> Iterator[Emit]:
    """Yield the function that shows events; every event is also given to `also`."""
    lock = threading.Lock()
    started = time.monotonic()
    if as_json:
        show = _json_line
    elif quiet:
        show = _only_problems
    elif sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        with _live(started) as shown, _locked(shown, lock, also) as emit:
            yield emit
        return
    else:

        def show(event: Event) -> None:
            _plain(event, started)

    with _locked(show, lock, also) as emit:
        yield emit


@contextlib.contextmanager
def _locked(show: Emit, lock: threading.Lock, also: Emit | None) -> Iterator[Emit]:
    def emit(event: Event) -> None:
        with lock:
            if also:  # whoever has seen it finds it written down
                also(event)
            show(event)

    yield emit


def _json_line(event: Event) -> None:
    print(json.dumps(dataclasses.asdict(event)), flush=True)


def _only_problems(event: Event) -> None:
    if event.level != "info":
        _plain(event, time.monotonic())


def _plain(event: Event, started: float) -> None:
    if event.state == "started" and event.node:
        return
    where = f"{event.node}: " if event.node else ""
    took = f" ({event.duration_s:.1f} s)" if event.duration_s is not None else ""
    change = " [changed]" if event.changed else ""
    print(
        f"[{time.monotonic() - started:5.1f} s] {_MARKS[event.state]} {event.stage}: "
        f"{where}{event.message}{change}{took}",
        file=sys.stderr,
        flush=True,
    )


@contextlib.contextmanager
def _live(started: float) -> Iterator[Emit]:
    """One line per node with its latest step, under the stages that are over."""
    from rich.console import Console, Group
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text

    console = Console(stderr=True)
    nodes: dict[str, Event] = {}
    stage = {"name": ""}

    def picture() -> Group:
        table = Table.grid(padding=(0, 2))
        for node, event in nodes.items():
            style = _STYLES[event.level] or ("green" if event.state == "done" else "")
            table.add_row(Text(node, style="bold"), Text(f"{_MARKS[event.state]} {event.message}"[:110], style=style))
        head = Text(f"[{time.monotonic() - started:5.1f} s] {stage['name']} …", style="bold cyan")
        return Group(head, table)

    with Live(console=console, refresh_per_second=8, transient=True, get_renderable=picture):

        def show(event: Event) -> None:
            stage["name"] = event.stage
            if event.node:
                nodes[event.node] = event
            if not event.node or event.level != "info":
                took = f" ({event.duration_s:.1f} s)" if event.duration_s is not None else ""
                where = f"{event.node}: " if event.node else ""
                console.print(
                    Text(
                        f"[{time.monotonic() - started:5.1f} s] {_MARKS[event.state]} {event.stage}: "
                        f"{where}{event.message}{took}",
                        style=_STYLES[event.level],
                    )
                )

        yield show
