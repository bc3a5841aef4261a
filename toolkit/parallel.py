"""The same done to many things at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")
_LOOK_S = 0.5
"""An interrupt that comes just before a wait begins does not end it: this is how late it may be noticed."""


def on_each(items: Iterable[T], action: Callable[[T], R], *, at_once: int) -> list[R]:
    """`action` on all items, so many at once; the results in their order.

    An error is raised when all that has begun is over; what has not begun then does not begin. An interrupt waits for
    nothing: the threads are daemons and end with the program, as do their connections, and with those what was asked
    for over them.
    """
    rest = list(enumerate(items))
    shared = iter(rest)
    results: dict[int, R] = {}
    errors: dict[int, BaseException] = {}

    def work() -> None:
        for number, item in shared:
            try:
                results[number] = action(item)
            except BaseException as error:  # noqa: BLE001 - raised below
                errors[number] = error
                rest.clear()

    count = len(rest)
    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(at_once, count))]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            while thread.is_alive():
                thread.join(_LOOK_S)
    finally:
        rest.clear()
    if errors:
        raise errors[min(errors)]
    return [results[number] for number in range(count)]
