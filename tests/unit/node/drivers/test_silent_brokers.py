"""Brokers that take the connection and never say a word: clients give up in their own time and say where."""

from __future__ import annotations

import socket
import time

import pytest

from toolkit.contract.orders import RunOrder
from toolkit.node.drivers import make_driver


@pytest.mark.parametrize("protocol", ["mqtt", "amqp", "stomp", "xmpp", "sse"])
def test_a_broker_that_takes_connections_and_says_nothing_is_given_up(protocol: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # the kernel accepts, nobody reads
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        order = RunOrder(run="r", testbed="t", role="subscriber", protocol=protocol, broker=address, topics=["a"])
        began_s = time.monotonic()
        with pytest.raises(OSError, match=f"{address} does not answer"):
            make_driver(protocol).open_subscribers(order, identity="n-s-0-0", before=(), timeout_s=0.3)
        assert time.monotonic() - began_s < 10
