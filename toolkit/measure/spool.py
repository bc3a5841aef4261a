"""Stamps on their way to the partition they belong to."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Records: TypeAlias = NDArray[np.void]

RECORD = np.dtype(
    [("row", "<i8"), ("at", "<i8"), ("aux", "<i8"), ("order", "<i8"), ("sub", "<i4"), ("point", "u1"), ("flags", "u1")]
)
"""A stamp with its message's row and its subscriber; `order` numbers all stamps of one process."""


class Spool:
    """Kept in memory, or in a file per partition."""

    def __init__(self, folder: Path, cuts: NDArray[np.int64], *, in_memory: bool) -> None:
        self._folder = folder
        self._cuts = cuts
        self._kept: dict[int, list[Records]] | None = {} if in_memory else None

    def __len__(self) -> int:
        return len(self._cuts) - 1

    def add(self, records: Records) -> None:
        """Put each record to its partition; their order within one stays."""
        partition = np.searchsorted(self._cuts, records["row"], side="right") - 1
        for number in np.unique(partition):
            mine = records[partition == number]
            if self._kept is not None:
                self._kept.setdefault(int(number), []).append(mine)
            else:
                with (self._folder / f"{number}.stamps").open("ab") as file:
                    mine.tofile(file)

    def take(self, number: int) -> Records:
        """A partition's stamps, in the order they were added; gone from the spool afterwards."""
        if self._kept is not None:
            return np.concatenate(self._kept.pop(number, [np.empty(0, dtype=RECORD)]))
        file = self._folder / f"{number}.stamps"
        records = np.fromfile(file, dtype=RECORD) if file.is_file() else np.empty(0, dtype=RECORD)
        file.unlink(missing_ok=True)
        return records
