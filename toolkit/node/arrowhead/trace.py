"""Records the steps of requests without touching the disk on their way."""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from toolkit.contract.steps import HEADER, StepRecord

log = logging.getLogger(__name__)

_ID = re.compile(r"(?:[A-Za-z0-9_][\w.-]{0,79}:)?[\w.-]{1,80}(?:/\d{1,6}){0,16}", re.ASCII)
_FLUSH_S = 0.25
_MOST_RUNS = 1000
"""A header can name any run; only so many get a folder."""
_MOST_WAITING = 100_000


class Trace:
    """One request as this system serves it; `None` in its place records nothing."""

    __slots__ = ("_recorder", "_serial", "call", "request")

    def __init__(self, recorder: Recorder, request: str, call: str) -> None:
        self._recorder = recorder
        self._serial = itertools.count(1)
        self.request = request
        self.call = call

    def next_call(self) -> str:
        """The path of the next call made for this request."""
        return f"{self.call}/{next(self._serial)}"

    def header(self, call: str) -> dict[str, str]:
        """What goes with that call."""
        return {HEADER: call}

    def record(
        self, kind: Literal["call", "serve", "query"], operation: str, start_ns: int, end_ns: int, call: str = ""
    ) -> None:
        """Keep one record in memory until the next flush."""
        self._recorder.add(
            StepRecord(
                request=self.request,
                call=call or self.call,
                kind=kind,
                system=self._recorder.system,
                cloud=self._recorder.cloud,
                operation=operation,
                start_ns=start_ns,
                end_ns=end_ns,
            )
        )


class Recorder:
    """Gathers the records of one process and appends them to its file, one for each run, four times a second.

    With `samples` None nothing is recorded, and headers of others are still passed on.
    """

    def __init__(self, *, system: str, cloud: str, samples: Path | None, name: str) -> None:
        self.system = system
        self.cloud = cloud
        self.dropped = 0
        self._samples = samples
        self._name = f"{name}.steps.jsonl"
        self._runs: set[str] = set()
        self._waiting: list[StepRecord] = []
        self._numbers = itertools.count(1)
        self._start_ns = time.time_ns()

    def trace(self, headers: Mapping[str, str], *, begin: bool = False) -> Trace | None:
        """The trace of an arriving request; with `begin` a new one when it carries none."""
        given = headers.get(HEADER, "")
        if given and _ID.fullmatch(given):
            return Trace(self, given.partition("/")[0], given)
        if begin and self._samples is not None:
            request = f"{self.system}-{self._start_ns:x}-{next(self._numbers)}"
            return Trace(self, request, request)
        return None

    def add(self, record: StepRecord) -> None:
        """Keep a record; beyond a bound they are counted and let go."""
        if self._samples is None:
            return
        if len(self._waiting) >= _MOST_WAITING:
            self.dropped += 1
            return
        self._waiting.append(record)

    async def run(self) -> None:
        """Flush for ever."""
        while True:
            await asyncio.sleep(_FLUSH_S)
            if self._waiting:
                await asyncio.to_thread(self.flush)

    def flush(self) -> None:
        """Write what waits."""
        if self._samples is None or not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        lines: dict[str, list[str]] = {}
        for record in waiting:
            run, colon, _ = record.request.partition(":")
            lines.setdefault(run if colon else "", []).append(record.to_json() + "\n")
        for run, some in lines.items():
            if run not in self._runs and len(self._runs) >= _MOST_RUNS:
                self.dropped += len(some)
                continue
            self._runs.add(run)
            folder = self._samples / run
            try:
                folder.mkdir(parents=True, exist_ok=True)
                with (folder / self._name).open("a", encoding="utf-8") as file:
                    file.writelines(some)
            except OSError as error:
                self.dropped += len(some)
                log.warning("%d step records are lost: %s: %s", len(some), folder, error.strerror)
