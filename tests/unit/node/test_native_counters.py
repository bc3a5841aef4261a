"""What brokers say of themselves, read from pages and frames as they write them."""

import socket
import threading
import time

from toolkit.node.drivers import stomp_frames
from toolkit.node.native_counters import NativeCounters, read_rabbitmq, take_advisory


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
        assert awaited(counters, 0)
        said.set()
        assert awaited(counters, 42)
    assert b"destination:/topic/ActiveMQ.Advisory.MessageDiscarded.Topic.>" in heard[0]


def awaited(counters: NativeCounters, dropped: int) -> bool:
    until = time.monotonic() + 10
    while counters.read().get("dropped") != dropped and time.monotonic() < until:
        time.sleep(0.01)
    return counters.read().get("dropped") == dropped


def test_rabbitmq_counts_by_type_of_queue_and_protocol_are_added() -> None:
    page = (
        "# TYPE rabbitmq_global_messages_dead_lettered_maxlen_total counter\n"
        'rabbitmq_global_messages_dead_lettered_maxlen_total{queue_type="rabbit_classic_queue"} 7\n'
        'rabbitmq_global_messages_dead_lettered_maxlen_total{queue_type="rabbit_quorum_queue"} 2\n'
        'rabbitmq_global_messages_unroutable_dropped_total{protocol="amqp091"} 3\n'
        "rabbitmq_consumers 1\n"
    )
    assert read_rabbitmq(page) == {"dropped": 9, "unroutable": 3, "subscriptions": 1}
