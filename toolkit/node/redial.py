"""Opens connections again after they are lost, away from the hot thread, with growing pauses."""

from __future__ import annotations

import collections
import os
import random
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 1.0
"""Short, or our own waiting would show as the broker's time to recover."""


class Redial(Generic[T]):
    """What was opened again waits in `opened`; `fd` becomes readable then."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._opened: collections.deque[tuple[int, T]] = collections.deque()
        self._lock = threading.Lock()
        self._stopped = threading.Event()

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
        return [self._opened.popleft() for _ in range(len(self._opened))]

    def stop(self) -> None:
        """Dial no more."""
        with self._lock:
            self._stopped.set()
            os.close(self.fd)
