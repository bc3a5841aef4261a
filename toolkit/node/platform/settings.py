"""How a gateway or hub is set: TOOLKIT_SETTINGS and TOOLKIT_UPSTREAM…, read once."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeVar

from toolkit.contract.settings import service_settings

Overflow = Literal["block", "drop-newest", "drop-oldest", "disconnect"]
_OVERFLOWS = {
    "gateway": ("block", "drop-newest", "drop-oldest"),
    "hub": ("block", "drop-newest", "drop-oldest", "disconnect"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class EndSettings:
    """What both ends have in common."""

    upstream: tuple[str, ...] = ()
    """host:port of each broker."""
    protocol: str = "mqtt"
    """What they speak."""
    mqtt: str = "3.1.1"
    """Version of MQTT towards the broker."""
    entry: Mapping[str, Any] = field(default_factory=dict)
    """How the brokers are entered: the options of orders for TLS and logins."""
    address: str = "0.0.0.0"
    overflow: Overflow = "drop-oldest"
    queue_limit: int = 1000
    """Messages that wait: at the gateway for the broker, at the hub for each customer."""
    max_inflight: int = 20
    """QoS 1 messages without an answer: at the gateway of the broker, at the hub of each customer."""
    max_payload: int = 1 << 20
    max_connections: int = 20_000
    send_buffer: int = 128 << 10
    """Bytes the kernel holds for the broker, or for each customer: what waits there is in no queue, never dropped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings(EndSettings):
    """Every setting of one gateway."""

    mqtt_port: int = 1884
    http_port: int = 8084


@dataclass(frozen=True, slots=True, kw_only=True)
class HubSettings(EndSettings):
    """Every setting of one hub."""

    mqtt_port: int = 1885
    http_port: int = 8085


S = TypeVar("S", bound=EndSettings)


def read_settings(role: str, kind: type[S], environ: Mapping[str, str] = os.environ) -> S:
    """The defaults, then TOOLKIT_SETTINGS, then TOOLKIT_UPSTREAM…; raises ValueError naming what is wrong."""
    values = service_settings(f"a {role}", {entry.name: entry.default for entry in fields(kind)}, environ)
    if upstream := environ.get("TOOLKIT_UPSTREAM"):
        values["upstream"] = tuple(upstream.split(","))
    if protocol := environ.get("TOOLKIT_UPSTREAM_PROTOCOL"):
        values["protocol"] = protocol
    if entry := environ.get("TOOLKIT_UPSTREAM_OPTIONS"):
        values["entry"] = json.loads(entry)
    settings = kind(**values)
    if not settings.upstream:
        raise ValueError(f"a {role} needs TOOLKIT_UPSTREAM=host:port of its broker")
    if settings.overflow not in _OVERFLOWS[role]:
        raise ValueError(f"overflow {settings.overflow!r} is not one of {', '.join(_OVERFLOWS[role])}")
    return settings
