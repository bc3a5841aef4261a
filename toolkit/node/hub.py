"""The hub's process: brokers in, customers out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable

from toolkit.contract import metrics
from toolkit.contract.settings import ProcessSettings
from toolkit.node import exposition
from toolkit.node.platform.hub import Hub
from toolkit.node.platform.journal import Journal
from toolkit.node.platform.process import dropped_readings, run
from toolkit.node.platform.settings import HubSettings, read_settings

ROLE = "hub"


def readings(hub: Hub) -> Iterable[exposition.Reading]:
    """What `/metrics` shows."""
    journal = hub.journal
    return [
        (metrics.HUB_RECEIVED, (), journal.received),
        (metrics.HUB_SENT, (), journal.sent),
        (metrics.HUB_QUEUED, (), sum(len(customer.queue) for customer in list(hub.customers))),
        (metrics.HUB_CUSTOMERS, (), len(hub.customers)),
        *dropped_readings(journal, ROLE),
    ]


def make(process: ProcessSettings) -> tuple[Hub, Callable[[], Iterable[exposition.Reading]], Callable[[], None]]:
    """The hub of this process; raises ValueError for settings that it does not have."""
    identity = f"{process.node}-{process.service}-{process.instance}"
    hub = Hub(read_settings(ROLE, HubSettings), Journal(), identity=identity)
    return hub, lambda: readings(hub), hub.keep_alive


if __name__ == "__main__":
    sys.exit(run(ROLE, make))
