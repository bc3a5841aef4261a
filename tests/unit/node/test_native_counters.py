"""What brokers say of themselves, read from pages and frames as they write them."""

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from tests.waiting import until
from toolkit.node import exposition
from toolkit.node.drivers import stomp_frames
from toolkit.node.native_counters import NativeCounters, grown, read_rabbitmq, take_advisory


def advisory(consumer: str, count: int) -> bytes:
    """As ActiveMQ 5.17 sends it, less the headers that nobody reads."""
    headers = {
        "destination": "/topic/ActiveMQ.Advisory.MessageDiscarded.Topic.a",
        "consumerId": f"ID:toolkit-1-{consumer}",
        "discardedCount": str(count),
        "type": "Advisory",
    }
    return stomp_frames.head("MESSAGE", headers) + b'{"ActiveMQBytesMessage":{}}\0'


def test_activemq_tells_what_each_subscription_has_lost_and_the_sum_counts() -> None:
    frames = stomp_frames.FrameReader().take(
        advisory("3:1", 1) + advisory("4:1", 1) + advisory("3:1", 2) + stomp_frames.frame("RECEIPT", {})
    )
    discarded: dict[bytes, int] = {}
    for frame in frames:
        take_advisory(discarded, frame)
    assert sorted(discarded.values()) == [1, 2]


def test_activemq_is_asked_on_loopback_and_known_to_have_dropped_nothing_before_it_says_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        said = threading.Event()
        heard: list[bytes] = []

        def broker() -> None:
            connection, _ = server.accept()
            with connection:
                heard.append(connection.recv(65536))
                connection.sendall(
                    stomp_frames.frame("CONNECTED", {"version": "1.2"})
                    + stomp_frames.frame("RECEIPT", {"receipt-id": "0"})
                )
                said.wait(10)
                connection.sendall(advisory("3:1", 41) + advisory("4:1", 1))
                connection.recv(1)

        threading.Thread(target=broker, daemon=True).start()
        counters = NativeCounters("activemq", server.getsockname()[1])
        counters.start()
        await_dropped(counters, 0)
        said.set()
        await_dropped(counters, 42)
    assert b"destination:/topic/ActiveMQ.Advisory.MessageDiscarded.Topic.>" in heard[0]


def await_dropped(counters: NativeCounters, dropped: int) -> None:
    until(lambda: counters.read().get("dropped") == dropped, instead=counters.read)


def test_rabbitmq_counts_by_type_of_queue_and_protocol_are_added() -> None:
    page = (
        "# TYPE rabbitmq_global_messages_dead_lettered_maxlen_total counter\n"
        'rabbitmq_global_messages_dead_lettered_maxlen_total{queue_type="rabbit_classic_queue"} 7\n'
        'rabbitmq_global_messages_dead_lettered_maxlen_total{queue_type="rabbit_quorum_queue"} 2\n'
        'rabbitmq_global_messages_unroutable_dropped_total{protocol="amqp091"} 3\n'
        "rabbitmq_consumers 1\n"
    )
    assert read_rabbitmq(page) == {"dropped": 9, "unroutable": 3, "subscriptions": 1}


@contextlib.contextmanager
def mosquitto_saying(topics: dict[str, str]) -> Iterator[NativeCounters]:
    """Asked of a broker that answers the subscription to `$SYS` with these topics, retained, and no others."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def broker() -> None:
            connection, _ = server.accept()
            with connection, contextlib.suppress(OSError):
                connection.recv(1024)
                connection.sendall(b"\x20\2\0\0")
                asked = connection.recv(4096)
                answer = bytearray(b"\x90\5\0\1\0\0\0")
                for topic, value in topics.items():
                    if topic.encode() in asked:
                        body = struct.pack(">H", len(topic)) + topic.encode() + value.encode()
                        answer += bytes([0x31, len(body)]) + body
                connection.sendall(answer)
                connection.recv(1)

        threading.Thread(target=broker, daemon=True).start()
        counters = NativeCounters("mqtt", server.getsockname()[1])
        counters.start()
        until(lambda: "subscriptions" in counters.read(), instead=counters.read)
        yield counters


SUBSCRIPTIONS = {"$SYS/broker/subscriptions/count": "10"}


@pytest.mark.parametrize(
    "dropped",
    ["$SYS/broker/publish/messages/dropped", "$SYS/broker/mqtt/publish/dropped"],
    ids=["2.0.11 and 2.1.2", "as 2.1 documents it"],
)
def test_mosquittos_count_is_read_under_each_of_its_names(dropped: str) -> None:
    with mosquitto_saying({dropped: "41"} | SUBSCRIPTIONS) as counters:
        await_dropped(counters, 41)
        page = exposition.expose(counters.readings()).decode()
    assert 'toolkit_broker_messages_dropped_total{reason="queue_full"} 41' in page
    assert "toolkit_broker_subscribers 7\n" in page, "less the three of the one who asks"


def test_a_counter_that_mosquitto_does_not_tell_is_absent_and_not_zero() -> None:
    with mosquitto_saying(SUBSCRIPTIONS) as counters:
        assert counters.read(settled=True) == {"subscriptions": 7}
        page = exposition.expose(counters.readings()).decode()
    assert "toolkit_broker_messages_dropped_total{" not in page
    assert "toolkit_broker_subscribers 7\n" in page


def test_what_it_counts_from_is_awaited_for_a_moment() -> None:
    with mosquitto_saying({"$SYS/broker/publish/messages/dropped": "41"} | SUBSCRIPTIONS) as counters:
        assert counters.first()["dropped"] == 41
    assert NativeCounters("mqtt", 1).first() == {}
    assert grown({"subscriptions": 3}, {"dropped": 41, "subscriptions": 2}) == {"subscriptions": -1}
    assert grown({"dropped": 40}, {"dropped": 41}) == {"dropped": 1}
