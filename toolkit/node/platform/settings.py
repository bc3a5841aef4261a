"""How a gateway or hub is set: TOOLKIT_SETTINGS (JSON, as in testbed.yml) and TOOLKIT_UPSTREAM…, read once."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeVar

Overflow = Literal["block", "drop-newest", "drop-oldest", "disconnect"]
_OVERFLOWS = {
    "gateway": ("block", "drop-newest", "drop-oldest"),
    "hub": ("block", "drop-newest", "drop-oldest", "disconnect"),
}
_SIZE = re.compile(r"(\d+)(B|K|M|G)")
_UNITS = {"B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


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
    values: dict[str, Any] = json.loads(environ.get("TOOLKIT_SETTINGS") or "{}")
    for name in ("broker", "protocol"):  # what they come to is in TOOLKIT_UPSTREAM and TOOLKIT_UPSTREAM_PROTOCOL
        values.pop(name, None)
    known = {entry.name: entry.default for entry in fields(kind)}
    if unknown := sorted(values.keys() - known.keys()):
        raise ValueError(f"TOOLKIT_SETTINGS: a {role} has no setting {', '.join(unknown)}")
    for name, value in values.items():
        if isinstance(known[name], int) and isinstance(value, str):
            values[name] = _size(name, value)
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


def _size(name: str, text: str) -> int:
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f"{name} {text!r} is not a size such as 64K")
    return int(match[1]) * _UNITS[match[2]]
