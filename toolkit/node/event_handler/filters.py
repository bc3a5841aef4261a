"""The filters of mode `original` and the rows of its log: in memory, or in one SQLite file that outlives a restart."""

from __future__ import annotations

import json
import sqlite3
import threading
from datetime import UTC, datetime
from pathlib import Path

from toolkit.errors import WorkloadError
from toolkit.node.event_handler.documents import Filter, Reader, iso
from toolkit.node.event_handler.settings import HandlerSettings

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
        self._logs = settings.sql_log
        self._reader = Reader(settings.validation_status)
        try:
            if in_file:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(
                path if in_file else ":memory:", check_same_thread=False, isolation_level=None
            )
            self._database.execute("PRAGMA synchronous = FULL")
            self._database.executescript(_TABLES)
            if settings.database == "none":  # a file for the log alone keeps no filters
                self._database.executescript("DELETE FROM event_filter; DELETE FROM arrowhead_system;")
        except (sqlite3.Error, OSError) as error:
            raise WorkloadError(
                f"cannot use {path}: {error}; try another TOOLKIT_EVENT_HANDLER_DATABASE_PATH"
            ) from error

    def __len__(self) -> int:
        with self._turn:
            return int(self._database.execute("SELECT count(*) FROM event_filter").fetchone()[0])

    def add(self, wanted: Filter) -> int | None:
        """The filter's number; None where one of that type and consumer is there already (it stays as it is)."""
        consumer = wanted.consumer
        names = {consumer.name, *(source.name for source in wanted.sources)}
        with self._turn:
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
        """Remove the filters of one type of every consumer of that name; False for a name never heard of."""
        with self._turn:
            self._database.execute(
                "DELETE FROM event_filter WHERE event_type = ? AND system_name = ?", (event_type, system_name)
            )
            known = self._database.execute("SELECT 1 FROM arrowhead_system WHERE system_name = ?", (system_name,))
            return known.fetchone() is not None

    def of_type(self, event_type: str) -> list[Filter]:
        """Every filter for a type, looked up anew for each event."""
        with self._turn:
            rows = self._database.execute(
                "SELECT document FROM event_filter WHERE event_type = ? ORDER BY id", (event_type,)
            ).fetchall()
        return [self._reader.event_filter(document.encode()) for (document,) in rows]

    def log(self, line: str) -> None:
        """Write a line of the log, where a log is wanted; whoever logs waits for it."""
        if self._logs:
            with self._turn:
                self._database.execute(
                    "INSERT INTO logs (date, origin, level, message) VALUES (?, 'event_handler', 'INFO', ?)",
                    (iso(datetime.now(UTC)), line[:2047]),
                )

    def close(self) -> None:
        """Close the file."""
        with self._turn:
            self._database.close()
