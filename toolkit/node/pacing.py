"""When messages are due, and how to be on time for them.

A schedule is a sequence of due instants in ns from the start, one per connection; its slots are dealt to the
connection's streams in turn. Each message keeps its slot as T0, however late it leaves: a slow broker cannot hide.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
import select
import time
from collections.abc import Iterator

from toolkit.contract.orders import Arrivals

_SECOND_NS = 1_000_000_000
SPIN_NS = 100_000
"""The last part of a wait is polled: Linux wakes a sleeper some 50 to 70 us late."""


def due_ns(arrivals: Arrivals, *, slots: int | None, duration_s: float | None, seed: int) -> Iterator[int]:
    """Due instants of an open loop, in ns from the start, never falling.

    `slots` and `duration_s` bound the schedule; one of them is needed except for `trace`.
    Raises ValueError on a schedule that has no rate, no end, or is closed.
    """
    if arrivals.kind == "trace":
        if not arrivals.offsets_ns:
            raise ValueError("arrivals of kind trace need offsets; give at least one")
        unbounded: Iterator[int] = iter(sorted(arrivals.offsets_ns))
    else:
        if slots is None and duration_s is None:
            raise ValueError("a schedule needs an end; give messages or a duration")
        if not arrivals.rate_per_s > 0 and arrivals.kind != "ramp":
            raise ValueError(f"arrivals of kind {arrivals.kind} need a rate above 0, not {arrivals.rate_per_s}")
        unbounded = _forever(arrivals, slots, duration_s, seed)
    if slots is not None:
        unbounded = itertools.islice(unbounded, slots)
    if duration_s is not None:
        end_ns = round(duration_s * _SECOND_NS)
        unbounded = itertools.takewhile(lambda due: due < end_ns, unbounded)
    return unbounded


def merged_due_ns(
    arrivals: Arrivals, *, connections: int, slots: int | None, duration_s: float | None, seed: int
) -> Iterator[tuple[int, int]]:
    """(due instant, connection) of several connections, in the order in which they are due.

    Each has the whole rate and a seed of its own; steady rates are set apart evenly so as not to beat together.
    """

    def one(connection: int) -> Iterator[tuple[int, int]]:
        shift_ns = 0
        if arrivals.kind == "rate":
            shift_ns = round(connection * _SECOND_NS / arrivals.rate_per_s / connections)
        due = due_ns(arrivals, slots=slots, duration_s=duration_s, seed=seed * 65_537 + connection)
        return ((at_ns + shift_ns, connection) for at_ns in due)

    if connections == 1:
        return one(0)
    return heapq.merge(*(one(connection) for connection in range(connections)))


def _forever(arrivals: Arrivals, slots: int | None, duration_s: float | None, seed: int) -> Iterator[int]:
    rate = arrivals.rate_per_s
    if arrivals.kind == "rate":
        return (round(slot * _SECOND_NS / rate) for slot in itertools.count())
    if arrivals.kind == "poisson":
        return _poisson(rate, random.Random(seed))  # noqa: S311  a seeded process, not a secret
    if arrivals.kind == "burst":
        burst = max(arrivals.burst, 1)
        return (round(slot // burst * burst * _SECOND_NS / rate) for slot in itertools.count())
    if arrivals.kind == "step":
        return _step(rate, arrivals.to_rate_per_s, arrivals.step_s)
    if arrivals.kind == "ramp":
        return _ramp(rate, arrivals.to_rate_per_s, slots, duration_s)
    raise ValueError(f"arrivals of kind {arrivals.kind} have no schedule")


def _poisson(rate_per_s: float, source: random.Random) -> Iterator[int]:
    at_s = 0.0
    while True:
        at_s += source.expovariate(rate_per_s)
        yield round(at_s * _SECOND_NS)


def _step(rate_per_s: float, to_rate_per_s: float, step_s: float) -> Iterator[int]:
    """One rate until `step_s`, the other from there on."""
    if not to_rate_per_s > 0 or not step_s > 0:
        raise ValueError("arrivals of kind step need a second rate and the instant of the step, both above 0")
    before = math.ceil(rate_per_s * step_s)
    for slot in itertools.count():
        if slot < before:
            yield round(slot * _SECOND_NS / rate_per_s)
        else:
            yield round((step_s + (slot - before) / to_rate_per_s) * _SECOND_NS)


def _ramp(rate_per_s: float, to_rate_per_s: float, slots: int | None, duration_s: float | None) -> Iterator[int]:
    """A rate that changes evenly from one value to the other over the whole schedule."""
    total = rate_per_s + to_rate_per_s
    if rate_per_s < 0 or to_rate_per_s < 0 or not total > 0:
        raise ValueError("arrivals of kind ramp need two rates, not both 0")
    over_s = duration_s if duration_s is not None else 2 * (slots or 0) / total
    slope = (to_rate_per_s - rate_per_s) / over_s if over_s > 0 else 0.0
    for slot in itertools.count():
        # slots so far = rate * t + slope * t^2 / 2, solved for t in the form that is exact for a slope near 0
        root = rate_per_s * rate_per_s + 2 * slope * slot
        if root < 0 or (root == 0 and slot > 0):
            return
        divisor = rate_per_s + math.sqrt(root)
        yield round(2 * slot / divisor * _SECOND_NS) if slot else 0


class Waiter:
    """Waits for sockets and for instants with microsecond truth; one per hot thread.

    `select` takes microseconds where `epoll_wait` takes milliseconds, so it waits on the epoll descriptor itself.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._fd = self._epoll.fileno()
        if self._fd >= 1024:  # noqa: PLR2004  FD_SETSIZE
            raise ValueError(f"descriptor {self._fd} is too high for select; make the waiter before the connections")
        self._armed = [self._fd]

    def watch(self, fd: int, *, writable: bool = False) -> None:
        """Report `fd` when it can be read, and when it can be written if `writable`."""
        events = select.EPOLLIN | (select.EPOLLOUT if writable else 0)
        try:
            self._epoll.register(fd, events)
        except FileExistsError:
            self._epoll.modify(fd, events)

    def forget(self, fd: int) -> None:
        """Report `fd` no more; a descriptor that is unknown or closed is no error."""
        try:
            self._epoll.unregister(fd)
        except (OSError, ValueError):
            return

    def ready(self) -> list[tuple[int, int]]:
        """What is ready now, without waiting."""
        return self._epoll.poll(0)

    def wait(self, until_ns: int) -> list[tuple[int, int]]:
        """What is ready, or nothing once CLOCK_MONOTONIC reads `until_ns`; polls through the last `SPIN_NS`."""
        armed = self._armed
        while True:
            left_ns = until_ns - time.monotonic_ns()
            if left_ns <= 0:
                return []
            sleep_s = (left_ns - SPIN_NS) / _SECOND_NS if left_ns > SPIN_NS else 0
            if select.select(armed, (), (), sleep_s)[0]:
                return self._epoll.poll(0)

    def wait_roughly(self, within_s: float) -> list[tuple[int, int]]:
        """What is ready, or nothing after some milliseconds' truth; one system call less than `wait`."""
        return self._epoll.poll(within_s)

    def close(self) -> None:
        """Give the descriptor back."""
        self._epoll.close()
