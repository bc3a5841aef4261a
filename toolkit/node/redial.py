"""Opens connections again after they are lost, away from the hot thread, with growing pauses.

A broker that takes a client and drops it at once, again and again, is not tried for ever: two clients of one id push
each other out so, and what sends a message that the broker refuses is cut off with each.
"""

from __future__ import annotations

import collections
import os
import random
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from toolkit.errors import WorkloadError

T = TypeVar("T")

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 1.0
"""Short, or our own waiting would show as the broker's time to recover."""
_SHORT_S = 3.0
"""A connection that is lost sooner was of little use. Clients commonly wait one second before they enter again, so that
one whose name another client has too lives about that long."""
_MOST_SHORT = 5
_OVER_S = 3.0
"""So many short ones in a row, over so long a time: a broker that stumbles while it starts is over it by then."""


class Redial(Generic[T]):
    """What was opened again waits in `opened`; `fd` becomes readable then."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._opened: collections.deque[tuple[int, T]] = collections.deque()
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._opened_s: dict[int, float] = {}
        self._short: dict[int, list[float]] = {}
        """Slot -> when each of its last short connections was lost."""

    def lost(self, slot: int, why: str, *, name: str = "") -> None:
        """A connection of this slot was lost; raises WorkloadError where it is of no use to open another.

        `name`: by which the broker knows this client.
        """
        now_s = time.monotonic()
        is_short = now_s - self._opened_s.get(slot, float("-inf")) < _SHORT_S
        short = self._short[slot] = [*self._short.get(slot, ()), now_s] if is_short else []
        if len(short) < _MOST_SHORT or now_s - short[0] < _OVER_S:
            return
        known = f" by the name {name}" if name else ""
        raise WorkloadError(
            f"{len(short)} connections in a row were lost within {_SHORT_S:g} s of being taken, the last: {why}; "
            f"does somebody else enter{known} too, or is a message more than the broker takes?"
        )

    def begin(self, slot: int, dial: Callable[[], T], close: Callable[[T], None]) -> None:
        """Call `dial` until it succeeds; `close` gets what comes when nobody waits any more."""

        def work() -> None:
            pause_s = _FIRST_PAUSE_S
            while not self._stopped.wait(pause_s * random.uniform(0.5, 1.0)):  # noqa: S311
                pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
                try:
                    connection = dial()
                except Exception:  # noqa: BLE001, S112  whatever it was, it is tried again
                    continue
                with self._lock:
                    if not self._stopped.is_set():
                        self._opened.append((slot, connection))
                        os.eventfd_write(self.fd, 1)
                        return
                close(connection)
                return

        threading.Thread(target=work, name=f"redial-{slot}", daemon=True).start()

    def opened(self) -> list[tuple[int, T]]:
        """(slot, connection) of each one opened since the last call."""
        try:
            os.eventfd_read(self.fd)
        except BlockingIOError:
            return []
        opened = [self._opened.popleft() for _ in range(len(self._opened))]
        self._opened_s.update(dict.fromkeys((slot for slot, _ in opened), time.monotonic()))
        return opened

    def stop(self) -> None:
        """Dial no more."""
        with self._lock:
            self._stopped.set()
            os.close(self.fd)
