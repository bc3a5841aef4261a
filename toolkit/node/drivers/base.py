"""What publisher and subscriber ask of a protocol.

Connections are opened blocking and are non-blocking from then on: the hot thread waits on `fileno()`, then calls
`answers` or `read`, which never wait. A lost connection raises ConnectionError; the caller opens a new one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from toolkit.contract.orders import RunOrder

Message = tuple[bytes, int]
"""(payload, flags): `Flag.REDELIVERED` and `Flag.RETAINED` as the protocol tells them."""

Key = tuple[int, int, int]
"""(stream, seq, flags) of a message that waits for its answer."""


class PublishingConnection(Protocol):
    """One connection of a publisher."""

    facts: dict[str, Any]

    def fileno(self) -> int:
        """The descriptor to wait on."""

    def local(self) -> tuple[str, int]:
        """Address and port of our end."""

    def publish(self, topic: int, header: bytes, key: Key) -> None:
        """Send one message on the topic of that number: `header`, then the fill. `key` comes back in `answers`."""

    def answers(self) -> tuple[int, list[Key], list[Key]]:
        """(instant of the read in ns, keys accepted, keys rejected) of what the broker has answered by now."""

    def backlog(self) -> int:
        """Bytes handed over and not sent yet, whatever they wait for."""

    def wants_write(self) -> bool:
        """Whether `flush` has something to do once the kernel takes more."""

    def flush(self) -> None:
        """Offer the backlog to the kernel again."""

    def close(self) -> None:
        """End the connection the way the protocol wants; never raises, never waits."""


class ForwardingConnection(PublishingConnection, Protocol):
    """One connection that sends on what others have made: a gateway's."""

    def forward(self, topic: str, payload: bytes, key: Key, qos: int) -> None:
        """Send one message as it is; at QoS 1 `key` comes back in `answers`, at QoS 0 it may."""


class SubscribingConnection(Protocol):
    """One connection of a subscriber, its subscriptions confirmed."""

    facts: dict[str, Any]

    def fileno(self) -> int:
        """The descriptor to wait on."""

    def local(self) -> tuple[str, int]:
        """Address and port of our end."""

    def read(self) -> int:
        """Read what is there; the instant right after the read, in ns."""

    def messages(self) -> list[Message]:
        """What the last `read` completed; valid until the next one. Acknowledges what asks for it.

        Called once before the first `read` too, for what came while subscribing.
        """

    def keep_alive(self) -> None:
        """Send what the protocol wants to see now and then; called about once a second."""

    def close(self) -> None:
        """End the connection the way the protocol wants; never raises, never waits."""


class Driver(Protocol):
    """One protocol."""

    name: str

    def check(self, order: RunOrder) -> None:
        """Raise ValueError for an order this protocol cannot carry out."""

    def answers(self, order: RunOrder) -> bool:
        """Whether the broker answers each publish (the closed loop waits for it)."""

    def open_publisher(
        self, order: RunOrder, *, connection: int, fill: bytes, timeout_s: float
    ) -> PublishingConnection:
        """A connection that publishes; raises OSError or WorkloadError."""

    def open_subscribers(
        self, order: RunOrder, *, identity: str, before: Sequence[SubscribingConnection], timeout_s: float
    ) -> list[SubscribingConnection]:
        """The connections of one logical subscriber (SSE needs one per topic); raises OSError or WorkloadError.

        `identity` is unique in the testbed; `before` are the lost connections that these take the place of.
        """
