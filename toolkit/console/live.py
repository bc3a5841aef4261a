"""What moves on a testbed's page: health and rates of every node, asked once a second however many look."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Any

from toolkit.console.prometheus import Prometheus
from toolkit.contract import metrics as m
from toolkit.errors import ToolkitError

EVERY_S = 1.0
WINDOW = "5s"
RATES = {
    "sent": (m.MESSAGES_SENT, m.GATEWAY_SENT, m.HUB_SENT),
    "received": (m.MESSAGES_RECEIVED, m.GATEWAY_RECEIVED, m.HUB_RECEIVED),
    "in": (m.BROKER_RECEIVED,),
    "out": (m.BROKER_SENT,),
}
"""Figure of a service -> the counters it is the rate of; the brokers' own stand apart from the clients'."""


def question(testbed: str) -> str:
    """Everything in one query: series with a label `figure`, so that a look costs one answer."""
    mine = f'testbed="{testbed}"'

    def named(figure: str, expr: str) -> str:
        return f'label_replace({expr}, "figure", "{figure}", "", "")'

    parts = [named("up", f"max by (node, service, role) (up{{{mine}}})")]
    parts += [
        named(figure, f"sum by (node, service) (rate({metric.name}{{{mine}}}[{WINDOW}]))")
        for figure, counters in RATES.items()
        for metric in counters
    ]
    delays = f"rate({m.HOP_DELAY.name}_bucket{{{mine}}}[{WINDOW}])"
    parts += [
        named("hop", f"histogram_quantile(0.5, sum by (hop, le) ({delays}))"),
        named("bound", f"max by (node) ({m.CLOCK_BOUND.name}{{{mine}}})"),
        named("hot", f"max by (node) (node_thermal_zone_temp{{{mine}}})"),
        named("alert", f'max by (alertname, node, service) (ALERTS{{{mine}, alertstate="firing"}})'),
    ]
    return " or ".join(parts)


def figures(series: list[tuple[dict[str, str], float]]) -> dict[str, Any]:
    """What the page is sent: services by node, hops, clocks, alerts."""
    services: dict[str, dict[str, dict[str, float]]] = {}
    found: dict[str, Any] = {"services": services, "hops": {}, "bound": {}, "hot": {}, "alerts": []}
    for labels, value in series:
        figure = labels.get("figure", "")
        node, service = labels.get("node", ""), labels.get("service", "")
        if value != value:  # noqa: PLR0124 - NaN: a quantile of nothing
            continue
        if figure == "hop":
            found["hops"][labels["hop"]] = value
        elif figure in {"bound", "hot"}:
            found[figure][node] = value
        elif figure == "alert":
            found["alerts"].append({"name": labels.get("alertname", ""), "node": node, "service": service})
        elif figure:
            services.setdefault(node, {}).setdefault(service, {})[figure] = round(value, 3)
    return found


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
