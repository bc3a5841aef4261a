"""What an Event Handler has counted since its start."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Tally:
    """Counters since the start, as `/metrics` shows them."""

    received: int = 0
    received_bytes: int = 0
    sent: int = 0
    sent_bytes: int = 0
    dropped_queue_full: int = 0
    dropped_disconnected: int = 0
    replayed: int = 0
    overflows: dict[str, int] = field(default_factory=lambda: {"block": 0, "drop-oldest": 0, "disconnect": 0})
    """What was done about full queues: publishers that waited, events dropped, subscribers cut off."""
