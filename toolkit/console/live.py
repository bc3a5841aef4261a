"""What moves on a testbed's page: health and rates of every node, asked once a second however many look."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field

from toolkit.console.prometheus import Prometheus
from toolkit.contract.watching import EVERY_S, figures, question
from toolkit.errors import ToolkitError


@dataclass(slots=True)
class Feed:
    """One testbed's figures; asked for while somebody follows, silent otherwise."""

    testbed: str
    source: Callable[[], Prometheus]
    """Finds the server each time: a redeployed testbed has another one."""
    every_s: float = EVERY_S
    latest: str = ""
    _followers: int = 0
    _asking: asyncio.Task[None] | None = None
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def follow(self) -> AsyncGenerator[str]:
        """JSON documents, the latest at once and then one a second."""
        self._followers += 1
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask())
        try:
            if self.latest:
                yield self.latest
            while True:
                changed = self._changed
                await changed.wait()
                yield self.latest
        finally:
            self._followers -= 1

    async def _ask(self) -> None:
        query = question(self.testbed)
        while self._followers:
            started = time.monotonic()
            try:
                document = figures(await asyncio.to_thread(lambda: self.source().vector(query)))
            except ToolkitError as error:
                document = {"error": str(error)}
            self.latest = json.dumps({"at": round(time.time(), 3), **document}, separators=(",", ":"))
            changed, self._changed = self._changed, asyncio.Event()
            changed.set()
            await asyncio.sleep(max(0.0, self.every_s - (time.monotonic() - started)))
        self.latest = ""
