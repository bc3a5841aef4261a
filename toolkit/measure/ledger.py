"""The books of a run: where every message due to a subscriber ended, and what else a join counts."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(slots=True, kw_only=True)
class Ledger:
    """Where every message due to a subscriber ended; the classes exclude each other and add up to `expected`."""

    expected: int = 0
    delivered: int = 0
    """First copy within the loss timeout."""
    late: int = 0
    """First copy after the loss timeout."""
    dropped: int = 0
    """Sent at QoS 0, or acknowledged at QoS 1 and 2, and never delivered."""
    refused: int = 0
    """The client did not take it; never offered to the broker."""
    unconfirmed: int = 0
    """Sent at QoS 1 or 2, neither acknowledged nor delivered: nobody's promise broken."""
    in_flight: int = 0
    """Its waiting time was not over when watching ended (interrupted runs, killed subscribers)."""
    duplicates: int = 0
    """Second and later copies; beside the classes."""
    redelivered: int = 0
    """Of the duplicates, those the broker marked as such."""
    reordered: int = 0
    """First copies that came after one with a higher number (RFC 4737); beside the classes."""
    lost_before_gateway: int = 0
    """Of the dropped, those last seen at the device that sent them; without a gateway there are none."""
    lost_in_gateway: int = 0
    lost_before_broker: int = 0
    """Of the dropped, those that left for the broker and that no broker stamped as received."""
    lost_in_broker: int = 0
    """Of the dropped, those received and never sent on to this subscriber, or to its hub."""
    lost_after_broker: int = 0
    lost_in_hub: int = 0
    lost_after_hub: int = 0

    @property
    def classified(self) -> int:
        """The sum of the classes."""
        return sum(getattr(self, name) for name in CLASSES)

    @property
    def closes(self) -> bool:
        """Whether every pair is in exactly one class."""
        return self.classified == self.expected


PLACES = (
    "lost_before_gateway", "lost_in_gateway", "lost_before_broker", "lost_in_broker", "lost_after_broker",
    "lost_in_hub", "lost_after_hub",
)  # fmt: skip
"""Where the dropped were seen last, in the order of the way; they add up to `dropped`."""
CLASSES = ("delivered", "late", "dropped", "refused", "unconfirmed", "in_flight")
"""Where a message due to a subscriber ends; they add up to `expected`."""


def total(ledgers: Iterable[Ledger]) -> Ledger:
    """The sum over subscribers."""
    out = Ledger()
    for ledger in ledgers:
        for item in dataclasses.fields(Ledger):
            setattr(out, item.name, getattr(out, item.name) + getattr(ledger, item.name))
    return out


@dataclass(slots=True, kw_only=True)
class Joined:
    """What a join found, beside the two tables it wrote."""

    ledgers: dict[str, Ledger]
    """By subscriber."""
    messages: int = 0
    """Counted messages that were sent (without warm-up and probes)."""
    refused: int = 0
    acknowledged: int = 0
    gateway_received: int = 0
    gateway_sent: int = 0
    broker_received: int = 0
    broker_sent: int = 0
    """Sends to subscribers and to hubs."""
    broker_lost: int = 0
    """Of those, the ones that were due and never left it."""
    hub_received: int = 0
    hub_sent: int = 0
    excluded: int = 0
    """Stamps of warm-up, probe and retained messages."""
    foreign: int = 0
    """Stamps of streams that are not of this run."""
    unrecorded: int = 0
    """Received, though no publisher recorded to have sent it (a killed publisher's last ones)."""
    unmatched_flows: int = 0
    """Broker sends on flows that belong to no subscriber."""
    lost: dict[str, int | None] = field(default_factory=dict)
    """Hop -> messages that entered and did not leave it; None where the hop has no stamps."""
    stepped: dict[str, int] = field(default_factory=dict)
    """Hop -> delays that nobody knows, since a clock had stepped before it stamped one of their ends."""
    bins: dict[str, dict[int, int]] = field(default_factory=dict)
    """offered, sent, accepted, gateway_in, gateway_out, broker_in, broker_out, hub_in, hub_out, delivered, dropped (at
    the instant of sending) -> second since the epoch -> events in it; second 0: those at instants nobody knows."""
    first_ns: int = 0
    last_ns: int = 0

    @property
    def total(self) -> Ledger:
        """The sum over subscribers."""
        return total(self.ledgers.values())
