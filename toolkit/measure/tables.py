"""The two tables of a run as Parquet files, written part by part and read by column; DuckDB does both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import duckdb
import numpy as np
from numpy.typing import NDArray

from toolkit.measure.layout import UNKNOWN_NS

Column: TypeAlias = NDArray[Any]
MEMORY = "256MB"
FORMAT = "FORMAT parquet, PARQUET_VERSION v2"
"""Version 2 stores instants as differences: 3 bytes where version 1 needs 8."""


class TableWriter:
    """Writes `<table>.parquet` into `folder` out of parts that may come in any order."""

    def __init__(self, *, folder: Path, scratch: Path, subscribers: Sequence[str]) -> None:
        self._folder = folder
        self._scratch = scratch
        self._parts: dict[str, set[int]] = {}
        self._db = connect()
        self._db.execute("SET VARIABLE subscribers = ?", [list(subscribers) or [""]])

    def write(self, table: str, part: int, columns: Mapping[str, Column]) -> None:
        """One part; instants of 0 ns and unknown ones become NULL, the column `subscriber` becomes a name."""
        self._parts.setdefault(table, set()).add(part)
        shown = ", ".join(_shown(name) for name in columns)
        part_columns = dict(columns)  # noqa: F841  # DuckDB finds it by its name
        target = _quoted(self._part(table, part))
        self._db.execute(f"COPY (SELECT {shown} FROM part_columns) TO {target} ({FORMAT})")  # noqa: S608

    def close(self) -> None:
        """Put the parts together, in their order."""
        for table, parts in self._parts.items():
            files = ", ".join(_quoted(self._part(table, part)) for part in sorted(parts))
            target = _quoted(self._folder / f"{table}.parquet")
            self._db.execute(f"COPY (FROM read_parquet([{files}])) TO {target} ({FORMAT}, COMPRESSION zstd)")
        self._db.close()

    def _part(self, table: str, part: int) -> Path:
        return self._scratch / f"{table}-{part}.parquet"


def _quoted(file: Path) -> str:
    """A path as an SQL literal."""
    text = str(file).replace("'", "''")
    return f"'{text}'"


def connect() -> duckdb.DuckDBPyConnection:
    """A database in memory that keeps to a small part of it and to the order of its inputs."""
    return duckdb.connect(config={"memory_limit": MEMORY, "threads": 2, "preserve_insertion_order": "true"})


def write_table(file: Path, columns: Mapping[str, Column | Sequence[str]]) -> None:
    """One table at once; instants of 0 ns become NULL."""
    rows = {name: np.asarray(values, dtype=None if len(values) else object) for name, values in columns.items()}  # noqa: F841  # DuckDB finds it by its name
    shown = ", ".join(_shown(name) for name in columns)
    with connect() as db:
        db.execute(f"COPY (SELECT {shown} FROM rows) TO {_quoted(file)} ({FORMAT}, COMPRESSION zstd)")  # noqa: S608


def read_column(table: Path, expression: str, where: str = "true") -> NDArray[np.int64]:
    """An integer expression over a table's rows, shape (rows for which it is not NULL,), in the table's order."""
    with connect() as db:
        query = (
            f"SELECT ({expression})::BIGINT AS value FROM read_parquet(?) WHERE {where} AND ({expression}) IS NOT NULL"  # noqa: S608
        )
        value = db.execute(query, [str(table)]).fetchnumpy()["value"]
    return np.ascontiguousarray(np.ma.getdata(value), dtype=np.int64)


def read_sums(table: Path, expression: str, where: str, *, by: str) -> NDArray[np.int64]:
    """The sum of an integer expression for each value of a column, by the instant at which its rows begin."""
    with connect() as db:
        query = (
            f"SELECT sum({expression})::BIGINT AS value FROM read_parquet(?) "  # noqa: S608
            f"WHERE {where} AND ({expression}) IS NOT NULL GROUP BY {by} ORDER BY min(start_ns)"
        )
        value = db.execute(query, [str(table)]).fetchnumpy()["value"]
    return np.ascontiguousarray(np.ma.getdata(value), dtype=np.int64)


def _shown(name: str) -> str:
    if name == "subscriber":
        return "getvariable('subscribers')[subscriber + 1] AS subscriber"
    if name.endswith("_ns"):
        return f"CASE WHEN {name} NOT IN (0, {UNKNOWN_NS}) THEN {name} END AS {name}"
    return name
