"""The gateway's process: devices in, the broker out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable

from toolkit.contract import metrics
from toolkit.contract.settings import ProcessSettings
from toolkit.node import exposition
from toolkit.node.platform.gateway import Gateway
from toolkit.node.platform.journal import Journal
from toolkit.node.platform.process import dropped_readings, run
from toolkit.node.platform.settings import GatewaySettings, read_settings

ROLE = "gateway"


def readings(gateway: Gateway) -> Iterable[exposition.Reading]:
    """What `/metrics` shows."""
    journal = gateway.journal
    return [
        (metrics.GATEWAY_RECEIVED, (), journal.received),
        (metrics.GATEWAY_SENT, (), journal.sent),
        (metrics.GATEWAY_QUEUED, (), len(gateway.queue)),
        (metrics.GATEWAY_DEVICES, (), len(gateway.sessions)),
        *dropped_readings(journal, ROLE),
    ]


def make(
    process: ProcessSettings,
) -> tuple[Gateway, Callable[[], Iterable[exposition.Reading]], Callable[[], None]]:
    """The gateway of this process; raises ValueError or WorkloadError for what it cannot be."""
    identity = f"{process.node}-{process.service}-{process.instance}"
    gateway = Gateway(read_settings(ROLE, GatewaySettings), Journal(), identity=identity)
    return gateway, lambda: readings(gateway), lambda: None


if __name__ == "__main__":
    sys.exit(run(ROLE, make))
