"""A workload as asked for: who publishes what to whom, how often, for how long."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from toolkit.contract.orders import Arrivals
from toolkit.contract.payloads import Payload


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """Published figures to print beside ours."""

    source: str = "published"
    hop: str = "end_to_end"
    where: Mapping[str, Any] = field(default_factory=dict)
    """Parameters of the points it is for; empty: all of them."""
    figures: Mapping[str, float | tuple[float, float]] = field(default_factory=dict)
    """mean, sd, min, p50 … max -> ms; two numbers where a range was published."""


BROKERLESS = frozenset({"dds"})
"""Protocols whose publishers and subscribers find each other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """What ends a run before everything is sent; such a run is at fault and says so."""

    after_s: float | None = None
    """Wall time from the start."""
    backlog: int | None = None
    """Deliveries that are due and have not come, as the processes' live counts tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Disturbance:
    """Something done on purpose to a service while messages flow."""

    at_s: float
    """From the start."""
    action: Literal["restart", "stop", "pause"]
    service: str
    node: str = ""
    """Only the containers on this node; empty: all of the service's."""
    lasts_s: float = 0.0
    """Of a stop or pause: how long until it goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """The traffic of a run."""

    name: str
    publishers: str = "publisher"
    """A service's name or role."""
    subscribers: str = "subscriber"
    broker: str = "broker"
    gateway: str = ""
    """Where publishers hand their messages in; empty: at the broker itself."""
    hub: str = ""
    """Where subscribers get them; empty: from the broker itself."""
    consumers: str | None = None
    """A service's name or role: this workload asks for orchestration, nothing is published."""
    connections: int = 1
    """Per publisher process."""
    subscriber_connections: int = 1
    topics: int = 1
    qos: int = 0
    messages: int | None = 2000
    """Per publisher connection."""
    duration_s: float | None = None
    payload_bytes: int = 71
    """Of every message, or of the largest where they differ."""
    payload: Payload = field(default_factory=Payload)
    arrivals: Arrivals = field(default_factory=Arrivals)
    warmup_messages: int = 0
    drain_s: float = 2.0
    stop: Stop = field(default_factory=Stop)
    disturb: tuple[Disturbance, ...] = ()
    join: Mapping[str, float] = field(default_factory=dict)
    """Service or node of subscribers that come in late -> seconds from the start; the others are there before it."""
    repeat: int = 1
    seed: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)
    asserts: Mapping[str, str] = field(default_factory=dict)
    """KPI -> condition, for example `lost: "== 0"`; a broken one is exit code 7."""
    reference: tuple[Reference, ...] = ()

    @property
    def brokerless(self) -> bool:
        """Whether its publishers speak to its subscribers with nothing between them."""
        return self.options.get("protocol") in BROKERLESS
