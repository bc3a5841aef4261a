"""One driver per protocol: how messages of a run are published and subscribed to."""

from __future__ import annotations

import importlib

from toolkit.errors import WorkloadError
from toolkit.node.drivers.base import Driver

_MODULES = {
    "sse": "toolkit.node.drivers.sse",
    "http": "toolkit.node.drivers.http_callback",
    "mqtt": "toolkit.node.drivers.mqtt",
    "rest": "toolkit.node.drivers.rest",
    "amqp": "toolkit.node.drivers.amqp",
    "stomp": "toolkit.node.drivers.stomp",
    "xmpp": "toolkit.node.drivers.xmpp",
    "dds": "toolkit.node.drivers.dds",
}
"""Imported when asked for: a Pi 1 pays for one protocol only."""


def make_driver(protocol: str) -> Driver:
    """The driver of a protocol; raises WorkloadError naming those that exist."""
    if protocol not in _MODULES:
        raise WorkloadError(f"no driver for protocol {protocol!r}; there are {', '.join(sorted(_MODULES))}")
    driver: Driver = importlib.import_module(_MODULES[protocol]).DRIVER
    return driver
