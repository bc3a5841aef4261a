"""What the kernel holds for subscribers of the Event Handler, and how it sends: in every mode, as the kernel tells."""

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.ports import free_port
from tests.unit.node.processes import Bench, play
from toolkit.contract.orders import Arrivals
from toolkit.node.event_handler.callbacks import CallbackSubscriptions
from toolkit.node.event_handler.enhanced import EnhancedHandler
from toolkit.node.event_handler.exchange import SseSubscriber
from toolkit.node.event_handler.original import _connect
from toolkit.node.event_handler.recorder import Recorder
from toolkit.node.event_handler.server import EventHandler
from toolkit.node.event_handler.settings import HandlerSettings
from toolkit.node.event_handler.tally import Tally
from toolkit.node.event_handler.workers import Workers
from toolkit.node.sending import Sending

ASKED = 48 << 10
SUBSCRIBE = b"GET /eventhandler/subscription HTTP/1.1\r\nHost: x\r\neventtype: pressure\r\n\r\n"


def settings(mode: str, **more: Any) -> HandlerSettings:
    asked = {"mode": mode, "send_buffer": ASKED, "congestion": "reno", **more}
    return HandlerSettings.from_environment({"TOOLKIT_SETTINGS": json.dumps(asked)})


def told(connection: Any) -> tuple[int, str]:
    name = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0").decode()
    return connection.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF), name


def of_subscriber(subscriber: SseSubscriber) -> tuple[int, str]:
    return told(subscriber.outlet.transport.get_extra_info("socket"))


@pytest.fixture
def consumer() -> Iterator[tuple[str, int]]:
    """Answers one POST with 200."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        with contextlib.suppress(OSError):
            connection, _ = listener.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                connection.recv(1)

    threading.Thread(target=answer, daemon=True).start()
    yield listener.getsockname()
    listener.close()


def test_a_stream_of_the_event_loop_has_what_was_set() -> None:
    async def subscribe() -> tuple[int, str]:
        handler = EventHandler(settings("direct"), Recorder())
        server = await asyncio.get_running_loop().create_server(handler.make_connection, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(SUBSCRIBE)
        await reader.readuntil(b"\r\n\r\n")
        [subscriber] = handler.exchange.subscribers()
        found = of_subscriber(subscriber)
        writer.close()
        await writer.wait_closed()
        server.close()
        return found

    assert asyncio.run(subscribe()) == (2 * ASKED, "reno")


def test_a_stream_of_the_pool_has_what_was_set() -> None:
    handler = EnhancedHandler(settings("enhanced", port=free_port(), thread_pool_size=2))
    workers = Workers(handler, 2)
    workers.start()
    with socket.create_connection(("127.0.0.1", handler.settings.port)) as client:
        client.sendall(SUBSCRIBE)
        assert client.recv(100).startswith(b"HTTP/1.1 200")
        [subscriber] = handler.exchange.subscribers()
        assert of_subscriber(subscriber) == (2 * ASKED, "reno")
    workers.stop(0)


def test_connections_of_callbacks_have_what_was_set(consumer: tuple[str, int]) -> None:
    async def post() -> tuple[int, str]:
        owner = CallbackSubscriptions(settings("direct"), Recorder(), Tally(), None)
        caller = owner.caller(consumer)
        assert (await caller.post("notify", b"{}"))[0]
        assert caller._streams is not None
        found = told(caller._streams[1].get_extra_info("socket"))
        caller.close()
        return found

    assert asyncio.run(post()) == (2 * ASKED, "reno")


def test_notifications_of_the_original_have_what_was_set(consumer: tuple[str, int]) -> None:
    with _connect(consumer, None, settings("original").sending) as connection:
        assert told(connection) == (2 * ASKED, "reno")
    assert HandlerSettings().sending == Sending()


def test_a_run_tells_what_came_of_it(bench: Bench) -> None:
    broker = bench.event_handler(
        TOOLKIT_SETTINGS=json.dumps({"mode": "enhanced", "send_buffer": 32 << 10, "congestion": "reno"})
    )
    publisher, subscriber = bench.publisher(), bench.subscriber()
    play(broker, [publisher], [subscriber], run="s", protocol="sse", broker=f"127.0.0.1:{broker.port}",
         messages=20, payload_bytes=100_000, arrivals=Arrivals(kind="closed"))  # fmt: skip
    assert subscriber.info("s").counts["received"] == 20
    facts = broker.info("s").facts
    assert (facts["send_buffer_held"], facts["congestion"]) == (65_536, "reno")


@pytest.mark.parametrize(
    ("asked", "wrong"),
    [
        ({"send_buffer": 1 << 30}, r"send_buffer: the kernel gives at most \d+ bytes of 1073741824; raise sysctl"),
        ({"send_buffer": "128K"}, "send_buffer '128K' is not a number"),
        ({"congestion": "vegas"}, "congestion 'vegas' is not one of kernel, reno, cubic, bbr"),
    ],
)
def test_what_cannot_be_is_refused_at_the_start(bench: Bench, asked: dict[str, Any], wrong: str) -> None:
    with pytest.raises(AssertionError, match=wrong):
        bench.event_handler(TOOLKIT_SETTINGS=json.dumps(asked))


def test_a_congestion_control_that_the_kernel_lacks_is_named() -> None:
    with pytest.raises(ValueError, match=r"the kernel refuses 'nothing' \(No such file"):
        Sending(congestion="nothing").effective()
    assert Sending().effective()["send_buffer_held"] == 0
