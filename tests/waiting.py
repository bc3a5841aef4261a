"""Waiting for something to be so, however slow the machine is."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(
    look: Callable[[], T],
    *,
    within_s: float = 30.0,
    every_s: float = 0.02,
    instead: Callable[[], object] = lambda: "nothing",
) -> T:
    """What `look` returns as soon as that is true; raises AssertionError with `instead` where it never is.

    Whoever does not answer yet, which is an OSError, is asked again.
    """
    end_s = time.monotonic() + within_s
    while True:
        with contextlib.suppress(OSError):
            if found := look():
                return found
        assert time.monotonic() < end_s, f"waited {within_s} s, and found {instead()}"
        time.sleep(every_s)
