"""Writes the stamps of one process in one run, without a system call beside the measured socket.

The hot thread puts four words a stamp on a list, and does nothing else; of messages that it sends or receives it keeps
the headers, in which nearly all is said already. A background thread makes stamps of both, saves all of them, watches
the clock for steps, and sends some to the hop exporter. Beside the stamps a JSON document (`StampsInfo`) says who wrote
them.
"""

from __future__ import annotations

import array
import contextlib
import dataclasses
import errno
import functools
import itertools
import json
import os
import struct
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from toolkit.contract.orders import RunOrder
from toolkit.contract.samples import HEADER_BYTES, STAMP_BYTES, STAMP_WORDS, StampsInfo, received_stamps, sent_stamps
from toolkit.contract.settings import ProcessSettings
from toolkit.node.live import LiveSender

_OF_READ = 4
"""Entries of each read."""
_SEQ = struct.Struct("<8xQ16x")
"""Its sequence number."""
_AT_ONCE = 4096
"""Stamps made in one go, in steps of 50 us; where the hot thread asks for the interpreter it gets it in between."""
_BYTES_AT_ONCE = 1 << 18
"""Written in one go: after each system call the two threads wait for one another."""
_MOST_WAITING = 1 << 18
"""Stamps in words, or reads, 45 MB: what a stalled disk may cost in memory before stamps are given up."""
_MOST_WAITING_HEADERS = 1 << 20
_PERIOD_S = 0.2
_STEP_NS = 100_000
_PLACEHOLDER_BYTES = 64 * 1024
_MOST_SAMPLED = 128
"""In a period, for the hop exporter; what they cost is some 1 ms a second."""
_MASK = (1 << 64) - 1
_Waiting = TypeVar("_Waiting", bytearray, "list[Any]")


class StampWriter:
    """The stamps of one process in one run; one thread adds them, `close` ends it, and `live` with it."""

    def __init__(self, settings: ProcessSettings, order: RunOrder, *, live: LiveSender | None = None) -> None:
        """Raises OSError when the samples folder cannot be written."""
        self._settings = settings
        self._order = order
        self.recording = order.record
        folder = Path(settings.samples_dir) / order.run
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{settings.service}-{settings.instance}.stamps"
        self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        self.info_path = self.path.with_suffix(".json")
        # The document's blocks are taken now, so that a disk that fills up can still be told about.
        self.info_path.write_bytes(b" " * _PLACEHOLDER_BYTES)
        self.words: list[int] = []
        """Stamps as `contract.samples.STAMP` has them: point, flags, peer and stream from the lowest bit of the first
        word on, then seq, at_ns and aux_ns."""
        self._sent: list[tuple[int, bytearray]] = []
        self.reads: list[Any] = []
        """Of each read the headers without checksums of its messages, one after the other; the first word of their
        stamps, `contract.samples.received_as`; its instant in ns; and how many messages it brought."""
        self._made = bytearray()
        """Stamps to be written."""
        self._taken = 0
        """Stamps that were made, saved or given up."""
        self._saved_bytes = 0
        self._error: str | None = None
        self._live = live
        self._live_flows: dict[str, list[Any]] = {}
        self._live_every = int(order.options.get("live_every", 0) or 0) if live is not None else 0
        self._sampled_every = self._live_every
        self._sampled: list[bytes] = []
        self._clock = ClockWatch()
        self._closing = threading.Event()
        self._background = threading.Thread(target=self._work, name="stamps", daemon=True)
        self._background.start()

    def add(self, point: int, flags: int, peer: int, stream: int, seq: int, at_ns: int, aux_ns: int = 0) -> None:
        """Note one stamp, without a system call."""
        self.words += (point | flags << 8 | peer << 16 | stream << 32, seq, at_ns & _MASK, aux_ns & _MASK)

    def sent(self, peer: int) -> bytearray:
        """Where the thread that sends over a connection appends the header of each message that it has handed over."""
        headers = bytearray()
        self._sent.append((peer, headers))
        return headers

    def close(
        self, *, counts: dict[str, int], flows: dict[str, list[Any]], facts: dict[str, Any], error: str | None = None
    ) -> StampsInfo:
        """Save what is left and the document; never raises for a full disk but says so in `StampsInfo.error`."""
        self._closing.set()
        self._background.join()
        self._save()
        self._send_sampled(flows)
        if self._live is not None:
            self._live.close()
        saved = self._saved_bytes // STAMP_BYTES
        with contextlib.suppress(OSError):
            os.ftruncate(self._file, saved * STAMP_BYTES)
            os.fsync(self._file)
        os.close(self._file)
        lost = self._taken - saved
        problems = [
            text for text in (error, self._error and f"{self._error}; {saved} stamps saved, {lost} lost") if text
        ]
        info = StampsInfo(
            run=self._order.run,
            testbed=self._order.testbed,
            node=self._settings.node,
            service=self._settings.service,
            role=self._order.role,
            instance=self._settings.instance,
            stamps=saved,
            counts=counts,
            flows=flows,
            clock=self._clock.document(),
            facts=facts,
            error="; ".join(problems) or None,
        )
        self._write_info(info)
        return info

    def flows_for_live(self, flows: dict[str, list[Any]]) -> None:
        """Where each peer is; read by the background thread when it sends sampled stamps."""
        self._live_flows = flows

    def _work(self) -> None:
        while not self._closing.wait(_PERIOD_S):
            self._clock.look()
            self._save()
            self._send_sampled(self._live_flows)

    def _save(self) -> None:
        for peer, headers in self._sent:
            while waiting := len(headers) // HEADER_BYTES:
                self._see_waiting(waiting, _MOST_WAITING_HEADERS)
                self._keep(sent_stamps(_take(headers, _AT_ONCE * HEADER_BYTES), peer))
        while waiting := len(self.reads) // _OF_READ:
            self._save_reads(waiting, messages=sum(self.reads[_OF_READ - 1 :: _OF_READ]))
        while waiting := len(self.words) // STAMP_WORDS:
            self._see_waiting(waiting, _MOST_WAITING)
            stamps = array.array("Q", _take(self.words, _AT_ONCE * STAMP_WORDS))
            if sys.byteorder == "big":
                stamps.byteswap()
            self._keep(stamps.tobytes())
        self._write()

    def _save_reads(self, waiting: int, messages: int) -> None:
        """As many at once as brought the messages that are made stamps of in one go."""
        self._see_waiting(waiting, _MOST_WAITING)
        self._see_waiting(messages, _MOST_WAITING_HEADERS)
        at_once = max(1, _AT_ONCE * waiting // messages)
        for _ in range(0, waiting, at_once):
            reads = _take(self.reads, at_once * _OF_READ)
            self._keep(received_stamps(*(reads[place::_OF_READ] for place in range(_OF_READ))))

    def _see_waiting(self, messages: int, most: int) -> None:
        if messages > most:
            self._error = self._error or f"the disk under {self.path.parent} is too slow"

    def _keep(self, stamps: bytes | bytearray) -> None:
        self._taken += len(stamps) // STAMP_BYTES
        if self._live_every > 0:
            self._sampled += _every(self._sampled_every, stamps)
            if len(self._sampled) > _MOST_SAMPLED:
                self._sample_less()
        self._made += stamps
        if len(self._made) >= _BYTES_AT_ONCE:
            self._write()

    def _write(self) -> None:
        data, self._made = memoryview(self._made), bytearray()
        if self._error is not None:
            return
        try:
            while data:
                done = os.write(self._file, data)
                self._saved_bytes += done
                data = data[done:]
        except OSError as error:
            where = f"{self.path.parent} on node {self._settings.node}"
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                self._error = f"the disk under {where} is full; free space there and run again"
            else:
                self._error = f"cannot write stamps to {where}: {error.strerror}"

    def _sample_less(self) -> None:
        """Every second one of them, which others that have too many keep, too."""
        twice = 2 * self._sampled_every
        kept = [stamp for stamp in self._sampled if not _SEQ.unpack(stamp)[0] % twice]
        if len(kept) < len(self._sampled):  # not only the first messages of many streams
            self._sampled_every, self._sampled = twice, kept

    def _send_sampled(self, flows: dict[str, list[Any]]) -> None:
        """From a period with few on the next has twice as many."""
        if self._live is None:
            return
        if len(self._sampled) < _MOST_SAMPLED // 4:
            self._sampled_every = max(self._live_every, self._sampled_every // 2)
        self._live.send(self._order, self._sampled, flows)
        self._sampled = []

    def _write_info(self, info: StampsInfo) -> None:
        text = json.dumps(dataclasses.asdict(info), indent=1).encode()
        with contextlib.suppress(OSError), self.info_path.open("r+b") as file:
            # Over the placeholder, so that no new block is needed; what is too long for it may fail on a full disk.
            file.write(text)
            file.truncate()


def _take(waiting: _Waiting, count: int) -> _Waiting:
    """The first of what waits, copied: the other thread adds meanwhile, which a view would forbid."""
    taken = waiting[:count]
    del waiting[: len(taken)]
    return taken


def _every(count: int, stamps: bytes | bytearray) -> Iterator[bytes]:
    """The stamps of every `count`-th message; whether a power of two in `count` fits is seen of all of them at once."""
    low = stamps[8::STAMP_BYTES].translate(_remainders(min(count & -count, 256)))
    place = low.find(0)
    while place >= 0:
        start = place * STAMP_BYTES
        if not _SEQ.unpack_from(stamps, start)[0] % count:
            yield bytes(stamps[start : start + STAMP_BYTES])
        place = low.find(0, place + 1)


@functools.cache
def _remainders(divisor: int) -> bytes:
    """Of each byte."""
    return bytes(number % divisor for number in range(256))


class ClockWatch:
    """Sees the wall clock step: D = CLOCK_REALTIME - CLOCK_MONOTONIC moves only when it does (slewing moves both)."""

    def __init__(self) -> None:
        self._last_ns, self._window_ns = _wall_minus_monotonic_ns()
        self.steps: list[tuple[int, int]] = []
        """(CLOCK_MONOTONIC ns, size ns), the first thousand."""

    def look(self) -> None:
        """Note a step of more than 100 us, and more than the reading can be wrong, since the last look."""
        now_ns, window_ns = _wall_minus_monotonic_ns()
        wrong_by_ns = (window_ns + self._window_ns) // 2
        if abs(now_ns - self._last_ns) > _STEP_NS + wrong_by_ns and len(self.steps) < 1000:  # noqa: PLR2004
            self.steps.append((time.monotonic_ns(), now_ns - self._last_ns))
        elif window_ns > self._window_ns and wrong_by_ns > _STEP_NS:
            return  # on a machine so busy the last good reading says more
        self._last_ns, self._window_ns = now_ns, window_ns

    def document(self) -> dict[str, Any]:
        """The `clock` of a `StampsInfo`."""
        self.look()
        resolution_ns, read_cost_ns = _clock_quality()
        return {
            "resolution_ns": resolution_ns,
            "read_cost_ns": read_cost_ns,
            "steps": [list(step) for step in self.steps],
        }


def both_clocks_ns() -> tuple[int, int, int]:
    """(CLOCK_REALTIME, CLOCK_MONOTONIC at the same instant, how long the reading took), the tightest of seven."""
    tightest: tuple[int, int, int] | None = None
    for _ in range(7):
        before = time.monotonic_ns()
        wall = time.time_ns()
        after = time.monotonic_ns()
        reading = (after - before, wall, (before + after) // 2)
        tightest = min(tightest, reading) if tightest else reading
    assert tightest is not None  # noqa: S101
    window, wall, monotonic = tightest
    return wall, monotonic, window


def _wall_minus_monotonic_ns() -> tuple[int, int]:
    """(difference of the two clocks, how long the reading took)."""
    wall, monotonic, window = both_clocks_ns()
    return wall - monotonic, window


def _clock_quality(reads: int = 200) -> tuple[int, int]:
    """(smallest step seen, cost of one read) of `time.time_ns`, in ns."""
    started = time.perf_counter_ns()
    values = [time.time_ns() for _ in range(reads)]
    cost_ns = (time.perf_counter_ns() - started) // reads
    steps = [later - earlier for earlier, later in itertools.pairwise(values) if later > earlier]
    return (min(steps) if steps else cost_ns), cost_ns
