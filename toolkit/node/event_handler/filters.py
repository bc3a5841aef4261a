"""The filters of mode `original` and the rows of its log: in memory, or in one SQLite file that outlives a restart."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from toolkit.errors import WorkloadError
from toolkit.node.event_handler.documents import Filter, Reader, iso
from toolkit.node.event_handler.problems import Problem
from toolkit.node.event_handler.settings import HandlerSettings

T = TypeVar("T")

_LOCKED_AT_MOST_S = 2.0
_AGAIN_AFTER_S = 0.2
_TABLES = """
CREATE TABLE IF NOT EXISTS arrowhead_system (system_name TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS event_filter (
    id INTEGER PRIMARY KEY, event_type TEXT NOT NULL, system_name TEXT NOT NULL, consumer TEXT NOT NULL,
    document TEXT NOT NULL, UNIQUE (event_type, consumer));
CREATE TABLE IF NOT EXISTS logs (id INTEGER PRIMARY KEY, date TEXT NOT NULL, origin TEXT, level TEXT, message TEXT);
"""


class FilterStore:
    """One database connection that all threads share, a statement at a time; each change is on the disk when done."""

    def __init__(self, settings: HandlerSettings) -> None:
        """Raises WorkloadError where the file cannot be used."""
        in_file = settings.database == "sqlite" or settings.sql_log
        path = Path(settings.database_path)
        self._turn = threading.Lock()
        self._closing = threading.Event()
        self._count = 0
        self._logs = settings.sql_log
        self._reader = Reader(settings.validation_status)
        try:
            if in_file:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(
                path if in_file else ":memory:",
                timeout=_LOCKED_AT_MOST_S,
                check_same_thread=False,
                isolation_level=None,
            )
            if self._logs:  # as InnoDB does it: a row costs one flush of a log, not three of a journal and the table
                self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = FULL")
            self._database.executescript(_TABLES)
            if settings.database == "none":  # a file for the log alone keeps no filters
                self._database.executescript("DELETE FROM event_filter; DELETE FROM arrowhead_system;")
        except (sqlite3.Error, OSError) as error:
            raise WorkloadError(
                f"cannot use {path}: {error}; try another TOOLKIT_EVENT_HANDLER_DATABASE_PATH"
            ) from error

    def __len__(self) -> int:
        with contextlib.suppress(Problem), self._answering():
            self._count = int(self._database.execute("SELECT count(*) FROM event_filter").fetchone()[0])
        return self._count

    @contextlib.contextmanager
    def _answering(self) -> Iterator[None]:
        """A turn at the database; raises Problem where the file is locked by others, full or gone."""
        with self._turn:
            try:
                yield
            except sqlite3.Error as error:
                raise Problem(503, "UNAVAILABLE", f"the subscriptions cannot be reached: {error}; try again") from error

    def _patiently(self, work: Callable[[], T]) -> T:
        """For what was accepted already: again and again until the database takes it, or `close`."""
        while True:
            try:
                with self._answering():
                    return work()
            except Problem:
                if self._closing.wait(_AGAIN_AFTER_S):
                    raise

    def add(self, wanted: Filter) -> int | None:
        """The filter's number; None where one of that type and consumer is there already (it stays as it is).

        Raises Problem where it could not be stored.
        """
        consumer = wanted.consumer
        names = {consumer.name, *(source.name for source in wanted.sources)}
        with self._answering():
            self._database.executemany("INSERT OR IGNORE INTO arrowhead_system VALUES (?)", [(n,) for n in names])
            cursor = self._database.execute(
                "INSERT OR IGNORE INTO event_filter (event_type, system_name, consumer, document) VALUES (?, ?, ?, ?)",
                (
                    wanted.event_type,
                    consumer.name,
                    json.dumps([consumer.name, consumer.address, consumer.port]),
                    json.dumps(wanted.document(0)),
                ),
            )
            return cursor.lastrowid if cursor.rowcount else None

    def remove(self, event_type: str, system_name: str) -> bool:
        """Remove the filters of one type of every consumer of that name; False for a name never heard of.

        Raises Problem where they could not be removed.
        """
        with self._answering():
            self._database.execute(
                "DELETE FROM event_filter WHERE event_type = ? AND system_name = ?", (event_type, system_name)
            )
            known = self._database.execute("SELECT 1 FROM arrowhead_system WHERE system_name = ?", (system_name,))
            return known.fetchone() is not None

    def of_type(self, event_type: str) -> list[Filter]:
        """Every filter for a type, looked up anew for each event; waits for a database that is away."""
        rows = self._patiently(
            lambda: self._database.execute(
                "SELECT document FROM event_filter WHERE event_type = ? ORDER BY id", (event_type,)
            ).fetchall()
        )
        return [self._reader.event_filter(document.encode()) for (document,) in rows]

    def log(self, line: str) -> None:
        """Write a line of the log, where a log is wanted; whoever logs waits for it."""
        if self._logs:
            row = iso(datetime.now(UTC)), line[:2047]
            self._patiently(
                lambda: self._database.execute(
                    "INSERT INTO logs (date, origin, level, message) VALUES (?, 'event_handler', 'INFO', ?)", row
                )
            )

    def give_up(self) -> None:
        """Wait no more for a database that is away."""
        self._closing.set()

    def close(self) -> None:
        """Close the file."""
        with self._turn:
            self._database.close()
