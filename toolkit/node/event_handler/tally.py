"""What an Event Handler has counted since its start."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Tally:
    """Counters since the start, as `/metrics` shows them."""

    received: int = 0
    received_bytes: int = 0
    sent: int = 0
    sent_bytes: int = 0
    dropped_queue_full: int = 0
    dropped_disconnected: int = 0
    disconnected_slow: int = 0
    replayed: int = 0
