"""The platform's HTTP: devices POST messages to a gateway, customers read a stream of events from a hub.

`POST /topics/<topic>?qos=1` with the payload as its body; `GET /topics/<topic>` as Server-Sent Events, whose data is
the payload in base64. A POST at QoS 1 is answered once the broker has taken the message.
"""

from __future__ import annotations

import collections
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from toolkit.contract.orders import RunOrder
from toolkit.node.drivers.base import Driver, Key, PublishingConnection, SubscribingConnection
from toolkit.node.drivers.http import Responses
from toolkit.node.drivers.sse import SsePublisher, SseSubscriber
from toolkit.node.drivers.wire import Wire


class RestPublisher(SsePublisher):
    """One kept connection; answers come back in order."""

    def __init__(self, order: RunOrder, *, fill: bytes, timeout_s: float) -> None:
        self._wire = Wire(order.broker, options=order.options, timeout_s=timeout_s)
        self._wire.blocking(None)
        self._fill = fill
        self._heads = [
            f"POST {target(topic, order.qos)} HTTP/1.1\r\nHost: {order.broker}\r\n"
            f"Content-Type: application/octet-stream\r\nContent-Length: {order.payload_bytes}\r\n\r\n".encode()
            for topic in order.topics
        ]
        self._waiting: collections.deque[Key] = collections.deque()
        self._responses = Responses()
        self.facts: dict[str, Any] = {"encoding": "binary"}

    def publish(self, topic: int, header: bytes, key: Key) -> None:
        """One request, one system call."""
        self._waiting.append(key)
        self._wire.send(self._heads[topic] + header + self._fill)


class RestSubscriber(SseSubscriber):
    """The events of one topic."""

    def _request(self, order: RunOrder, topic: str) -> str:
        return f"GET {target(topic, order.qos)} HTTP/1.1\r\nHost: {order.broker}\r\nAccept: text/event-stream\r\n\r\n"


class RestDriver:
    """Gateway and hub, over HTTP."""

    name = "rest"

    def check(self, order: RunOrder) -> None:
        """There is no QoS 2."""
        if order.qos not in (0, 1):
            raise ValueError(f"the platform's HTTP has QoS 0 and 1, not {order.qos}")

    def answers(self, order: RunOrder) -> bool:  # noqa: ARG002
        """Every POST is answered."""
        return True

    def open_publisher(
        self,
        order: RunOrder,
        *,
        connection: int,  # noqa: ARG002
        fill: bytes,
        timeout_s: float,
    ) -> PublishingConnection:
        """One kept connection."""
        return RestPublisher(order, fill=fill, timeout_s=timeout_s)

    def open_subscribers(
        self,
        order: RunOrder,
        *,
        identity: str,  # noqa: ARG002
        before: Sequence[SubscribingConnection],  # noqa: ARG002
        timeout_s: float,
    ) -> list[SubscribingConnection]:
        """One connection per topic."""
        opened: list[SubscribingConnection] = []
        try:
            for topic in order.topics:
                opened.append(RestSubscriber(order, topic, timeout_s=timeout_s))  # noqa: PERF401  closed if one fails
        except BaseException:
            for subscriber in opened:
                subscriber.close()
            raise
        return opened


def target(topic: str, qos: int) -> str:
    """The request target of a topic."""
    return f"/topics/{quote(topic, safe='/')}?qos={qos}"


DRIVER: Driver = RestDriver()
