"""Waiting for something to be so, however slow the machine is."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(look: Callable[[], T], *, within_s: float = 30.0, instead: Callable[[], object] = lambda: "nothing") -> T:
    """What `look` returns as soon as that is true; raises AssertionError with `instead` where it never is."""
    end_s = time.monotonic() + within_s
    while not (found := look()):
        assert time.monotonic() < end_s, f"waited {within_s} s, and found {instead()}"
        time.sleep(0.02)
    return found
