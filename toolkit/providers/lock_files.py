"""Locks on what testbeds share in the cache, among processes; their files go with what they lock."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO


@contextlib.contextmanager
def held(file: Path, how: int) -> Iterator[None]:
    """`how` as in fcntl.flock; BlockingIOError where LOCK_NB is in it and somebody else holds the lock."""
    file.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with file.open("w") as lock:
            fcntl.flock(lock, how)
            if _is_at(lock, file):  # or it was removed with what it locks while we waited for it
                yield
                return


def _is_at(lock: IO[str], file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(lock.fileno()), file.stat())
    except FileNotFoundError:
        return False
