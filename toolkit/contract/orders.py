"""What the controller asks of a process on a node, and what that process answers.

Every client, broker and probe of ours listens on 127.0.0.1:<control port> and speaks HTTP/1.1 with JSON bodies:
`PUT /run` (a RunOrder: connect, subscribe, be ready), `POST /run/start` ({"at_ns": …}), `POST /run/stop`,
`GET /run` (a RunStatus). On its metrics port it serves `GET /metrics` and `GET /healthz`.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, Literal

from toolkit.contract.payloads import Payload

Phase = Literal["idle", "preparing", "ready", "running", "draining", "done", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrivals:
    """When messages are due. `closed` sends the next one after the answer to the last; all others are open loop."""

    kind: Literal["closed", "rate", "poisson", "burst", "ramp", "step", "trace"] = "closed"
    rate_per_s: float = 0.0
    to_rate_per_s: float = 0.0
    burst: int = 1
    step_s: float = 0.0
    offsets_ns: list[int] = field(default_factory=list)
    """For `trace`: due instants from the start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOrder:
    """One process' part in a run."""

    run: str
    testbed: str
    role: Literal["publisher", "subscriber", "broker", "probe", "gateway", "hub", "consumer", "provider"]
    protocol: str
    """sse, http, mqtt, amqp, stomp, xmpp, dds, arrowhead."""
    broker: str = ""
    """host:port; several, with commas between, are entrances of one broker: connections take turns."""
    topics: list[str] = field(default_factory=list)
    streams: list[int] = field(default_factory=list)
    """Publisher: one stream id per (connection, topic), unique in the run."""
    connections: int = 1
    qos: int = 0
    messages: int | None = None
    """Per stream; None with `duration_s`."""
    duration_s: float | None = None
    warmup_messages: int = 0
    payload_bytes: int = 40
    """Of every message, or of the largest where they differ."""
    payload: Payload = field(default_factory=Payload)
    arrivals: Arrivals = field(default_factory=Arrivals)
    seed: int = 0
    drain_s: float = 2.0
    record: bool = True
    """False counts only; used to state what sampling costs."""
    options: dict[str, Any] = field(default_factory=dict)
    """What one protocol needs beside: tls, reuse, mqtt version, consume_delay_s …; secrets never travel here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStatus:
    """How far a process is; counts are live and cheap to read."""

    phase: Phase = "idle"
    run: str = ""
    sent: int = 0
    received: int = 0
    error: str | None = None
    first_sent_ns: int | None = None
    last_ns: int | None = None


def to_json(value: RunOrder | RunStatus) -> str:
    """The JSON document of an order or a status."""
    return json.dumps(dataclasses.asdict(value))


def order_from_json(text: str | bytes) -> RunOrder:
    """Read an order; raises TypeError or ValueError on unknown or missing fields."""
    raw = json.loads(text)
    raw["arrivals"] = Arrivals(**raw.get("arrivals", {}))
    raw["payload"] = Payload(**raw.get("payload", {}))
    return RunOrder(**raw)


def status_from_json(text: str | bytes) -> RunStatus:
    """Read a status; raises TypeError or ValueError on unknown or missing fields."""
    return RunStatus(**json.loads(text))
