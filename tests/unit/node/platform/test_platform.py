"""Gateway and hub as processes, between real clients and a real broker: who gets what, and the books of each."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any, ClassVar, Self

import pytest

from tests.mosquitto import Mosquitto
from tests.unit.node.processes import Bench, Front, NodeProcess, await_quiet, free_port, of_point
from tests.waiting import until
from toolkit.contract.orders import Arrivals, RunOrder
from toolkit.contract.samples import Flag, Point
from toolkit.node.drivers import mqtt_packets as client
from toolkit.node.drivers.mqtt_packets import PacketReader
from toolkit.node.platform import packets


def play(
    gateway: Front, hub: Front, publisher: NodeProcess, subscriber: NodeProcess, *, quiet_s: float = 0.4, **order: Any
) -> None:
    """One run over the whole chain."""
    devices, customers = order.pop("devices", "mqtt"), order.pop("customers", "mqtt")
    connections, consumers = order.pop("connections", 1), order.pop("subscriber_connections", 1)
    receiving = {"options": order.pop("receiving", {})}
    order = {"run": "r", "testbed": "unit", "topics": ["plant/pressure"], "payload_bytes": 100} | order
    for front, role in ((gateway, "gateway"), (hub, "hub")):
        front.process.order(RunOrder(role=role, protocol="mqtt", run="r", testbed="unit"))  # type: ignore[arg-type]
        front.process.wait_for("ready")
    sides = {"qos": order["qos"], "run": "r", "testbed": "unit", "topics": order["topics"], "payload_bytes": 100}
    subscriber.order(RunOrder(role="subscriber", protocol=customers, broker=hub.address(customers),
                              connections=consumers, **sides, **receiving))  # fmt: skip
    subscriber.wait_for("ready")
    publisher.order(
        RunOrder(role="publisher", protocol=devices, broker=gateway.address(devices), connections=connections,
                 streams=list(range(100, 100 + connections * len(order["topics"]))), **order)
    )  # fmt: skip
    publisher.wait_for("ready")
    at_ns = time.time_ns() + 100_000_000
    for process in (gateway.process, hub.process, subscriber, publisher):
        process.start(at_ns)
    publisher.wait_for("done")
    await_quiet([subscriber], quiet_s)
    for process in (subscriber, hub.process, gateway.process):
        process.stop()
        process.wait_for("done")


@pytest.mark.parametrize(
    ("devices", "customers", "qos"),
    [("mqtt", "mqtt", 0), ("mqtt", "rest", 1), ("rest", "mqtt", 1), ("rest", "rest", 0)],
)
def test_every_message_passes_once_and_is_stamped_at_every_point(
    bench: Bench, mosquitto: int, devices: str, customers: str, qos: int
) -> None:
    gateway, hub = bench.gateway(mosquitto), bench.hub(mosquitto)
    publisher, subscriber = bench.publisher(), bench.subscriber()
    play(gateway, hub, publisher, subscriber, devices=devices, customers=customers, qos=qos, connections=5,
         subscriber_connections=2, messages=40, warmup_messages=2,
         arrivals=Arrivals(kind="rate", rate_per_s=200))  # fmt: skip

    instants: dict[tuple[int, int], dict[int, int]] = {}
    for process in (publisher, gateway.process, hub.process, subscriber):
        for point, _, _, stream, seq, at_ns, _ in process.stamps("r"):
            instants.setdefault((stream, seq), {}).setdefault(point, at_ns)
    assert len(instants) == 5 * 42
    way = (Point.SENT, Point.GATEWAY_RECEIVED, Point.GATEWAY_SENT, Point.HUB_RECEIVED, Point.HUB_SENT, Point.RECEIVED)
    for passed in instants.values():
        times = [passed[point] for point in way]
        assert times == sorted(times)
        if qos:
            assert passed[Point.ACKED] > passed[Point.GATEWAY_SENT]  # the answer comes from behind the gateway
    assert subscriber.info("r").counts["received"] == 5 * 40 * 2
    assert subscriber.info("r").counts["duplicate"] == 0
    assert hub.process.info("r").counts["sent"] == 2 * hub.process.info("r").counts["received"]
    own_ends = {tuple(end) for end in subscriber.info("r").flows.values()}
    flows = hub.process.info("r").flows
    assert {tuple(flows[str(s[2])]) for s in of_point(hub.process.stamps("r"), Point.HUB_SENT)} == own_ends
    page = gateway.process.metrics()
    assert "toolkit_gateway_messages_received_total 215" in page  # 5 probes, 10 of warm-up, 200
    assert 'toolkit_messages_dropped_total{run="r",stage="gateway",reason="queue_full"} 0' in page


def test_payloads_pass_unchanged_whatever_their_size(bench: Bench, mosquitto: int) -> None:
    gateway, hub = bench.gateway(mosquitto), bench.hub(mosquitto)
    customer, device = Client(hub.ports["mqtt"]), Client(gateway.ports["mqtt"])
    customer.send(client.subscribe(4, 1, ["plant/#"], 1))
    assert customer.next()[0] == client.SUBACK
    for size in (0, 1, 40, 200_000):
        payload = bytes(range(256)) * (size // 256) + bytes(size % 256)
        before, after = client.publish_head(4, "plant/a", size, 1)
        device.send(before + b"\0\7" + after + payload)
        assert device.next()[0] == client.PUBACK
        kind, flags, body = customer.next()
        topic, qos, packet_id, got = packets.read_publish(4, flags, body)
        assert (kind, topic, qos, got) == (client.PUBLISH, b"plant/a", 1, payload)
        customer.send(packets.puback(4, packet_id))


def test_a_slow_customer_loses_what_its_queue_cannot_hold_and_nobody_else_does(bench: Bench, mosquitto: int) -> None:
    gateway, hub = bench.gateway(mosquitto), bench.hub(mosquitto, queue_limit=100, send_buffer=4 << 10)
    publisher, subscriber = bench.publisher(), bench.subscriber()
    messages, rate = (
        1000,
        500.0,
    )  # a hundred are 0.2 s, which no machine that is only busy keeps the other customer waiting
    slow = Client(hub.ports["mqtt"], receive_buffer=4096)
    slow.send(client.subscribe(4, 1, ["plant/pressure"], 0))
    assert slow.next()[0] == client.SUBACK  # and never reads again
    play(gateway, hub, publisher, subscriber, qos=0, messages=messages, arrivals=Arrivals(kind="rate", rate_per_s=rate))
    counts = hub.process.info("r").counts
    assert subscriber.info("r").counts["received"] == messages
    to_slow = len(of_point(hub.process.stamps("r"), Point.HUB_SENT)) - messages
    assert counts["received"] == messages + 1  # and a probe
    assert 0 < counts["dropped_queue_full"] < messages
    assert messages - to_slow == counts["dropped_queue_full"] + 100  # a hundred still wait for it


@pytest.mark.parametrize("overflow", ["drop-newest", "drop-oldest", "block"])
def test_a_gateway_without_its_broker_keeps_as_much_as_it_may(bench: Bench, overflow: str) -> None:
    port = free_port()
    gateway = bench.gateway(port, overflow=overflow, queue_limit=50)
    device = Client(gateway.ports["mqtt"])
    heads = client.publish_head(4, "plant/a", 2, 0)
    for number in range(80):
        device.send(b"".join(heads) + number.to_bytes(2, "big"))
    device.send(client.PINGREQ)
    if overflow == "block":
        assert device.nothing_within(0.5)  # it is not read from
    else:
        assert device.next()[0] == client.PINGRESP
    dropped = 0 if overflow == "block" else 30
    page = gateway.process.metrics()
    assert "toolkit_gateway_queued_messages 50" in page
    assert f'reason="queue_full"}} {dropped}' in page
    with Recorder(port) as broker:
        broker.await_payloads(80 - dropped)
    kept = {"drop-newest": range(50), "drop-oldest": range(30, 80), "block": range(80)}[overflow]
    assert [int.from_bytes(payload, "big") for payload in broker.payloads] == list(kept)
    if overflow == "block":
        assert device.next()[0] == client.PINGRESP


def test_qos_1_is_answered_only_once_the_broker_has_taken_it_and_sent_again_to_the_next_connection(
    bench: Bench,
) -> None:
    port = free_port()
    gateway = bench.gateway(port)
    device = Client(gateway.ports["mqtt"])
    before, after = client.publish_head(4, "plant/a", 3, 1)
    with Recorder(port, answers=False) as silent:
        device.send(before + b"\0\x2a" + after + b"one")
        silent.await_payloads(1)
        assert device.nothing_within(0.3)
    with Recorder(port) as broker:
        broker.await_payloads(1)
        assert broker.payloads == [b"one"]
        assert device.next() == (client.PUBACK, 0, b"\0\x2a")


@pytest.mark.parametrize(
    ("where", "packet", "said"),
    [
        ("gateway", client.subscribe(4, 1, ["a"], 0), (client.SUBACK, 0, b"\0\1\x80")),
        ("gateway", b"".join(client.publish_head(4, "a", 0, 2)).replace(b"\x00\x01a", b"\x00\x01a\0\1"), None),
        ("gateway", b"".join(client.publish_head(4, "a/#", 0, 0)), None),
        ("gateway", b"\xf0\x00", None),
        ("hub", b"".join(client.publish_head(4, "a", 0, 0)), None),
        ("hub", client.subscribe(4, 1, ["a#"], 0), (client.SUBACK, 0, b"\0\1\x80")),
        ("hub", b"\x82\xff\xff\xff\xff\x01", None),
    ],
)  # fmt: skip
def test_what_is_not_served_is_refused_as_mqtt_has_it(fronts, where: str, packet: bytes, said) -> None:
    asking = Client(fronts[where].ports["mqtt"])
    asking.send(packet)
    assert asking.next() == said if said else asking.is_closed()


def test_mqtt_5_says_why(fronts) -> None:
    device = Client(fronts["gateway"].ports["mqtt"], version=5)
    before, after = client.publish_head(5, "a", 0, 2)
    device.send(before + b"\0\1" + after)
    assert device.next() == (client.DISCONNECT, 0, bytes((packets.QOS_NOT_SUPPORTED, 0)))
    customer = Client(fronts["hub"].ports["mqtt"], version=5)
    before, after = client.publish_head(5, "a", 0, 1)
    customer.send(before + b"\0\1" + after)
    assert customer.next() == (client.PUBACK, 0, bytes((0, 1, packets.NOT_AUTHORISED)))


def test_unknown_versions_and_first_packets_are_refused(fronts) -> None:
    for first, said in ((b"\x10\x0c\x00\x04MQTT\x06\x02\0\0\0\0", b"\0\1"), (client.PINGREQ, None)):
        with socket.create_connection(("127.0.0.1", fronts["gateway"].ports["mqtt"]), 5) as raw:
            raw.sendall(first)
            answer = raw.recv(100)
        assert answer == (b"\x20\2" + said if said else b"")


@pytest.mark.parametrize(
    ("where", "request_", "status"),
    [
        ("gateway", b"POST /topics/a?qos=1 HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi", 204),
        ("gateway", b"POST /topics/a HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 202),
        ("gateway", b"POST /topics/a%23 HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 404),
        ("gateway", b"GET /topics/a HTTP/1.1\r\n\r\n", 405),
        ("gateway", b"POST /topics/a?qos=2 HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 400),
        ("gateway", b"POST /topics/a HTTP/1.1\r\nContent-Length: 9999999999\r\n\r\n", 413),
        ("gateway", b"POST /topics/a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
        ("gateway", b"nonsense\r\n\r\n", 400),
        ("hub", b"POST /topics/a HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 405),
        ("hub", b"GET /other HTTP/1.1\r\n\r\n", 404),
        ("hub", b"GET /topics/a?qos=1 HTTP/1.1\r\n\r\n", 200),
    ],
)  # fmt: skip
def test_http_is_answered_with_a_status(fronts, where: str, request_: bytes, status: int) -> None:
    with socket.create_connection(("127.0.0.1", fronts[where].ports["rest"]), 5) as raw:
        raw.sendall(request_)
        assert raw.recv(1000).startswith(b"HTTP/1.1 %d " % status)


def test_answers_to_requests_that_follow_at_once_keep_their_order(fronts) -> None:
    request = b"POST /topics/%b HTTP/1.1\r\nContent-Length: 0\r\n\r\n"
    with socket.create_connection(("127.0.0.1", fronts["gateway"].ports["rest"]), 5) as raw:
        raw.sendall(request % b"a?qos=1" + request % b"a%23" + request % b"b?qos=0")
        answer = b""
        while answer.count(b"\r\n\r\n") < 3:
            part = raw.recv(1000)
            assert part, answer
            answer += part
    assert [line.split()[1] for line in answer.split(b"\r\n") if line.startswith(b"HTTP")] == [b"204", b"404", b"202"]


def test_the_will_of_a_device_that_vanishes_is_published(fronts) -> None:
    customer = Client(fronts["hub"].ports["mqtt"])
    customer.send(client.subscribe(4, 1, ["last/words"], 0))
    assert customer.next()[0] == client.SUBACK
    body = client.text("MQTT") + bytes((4, 0x02 | 0x04)) + b"\0\0"
    body += client.text("gone") + client.text("last/words") + b"\0\3bye"
    with socket.create_connection(("127.0.0.1", fronts["gateway"].ports["mqtt"]), 5) as raw:
        raw.sendall(b"\x10" + client.length(len(body)) + body)
        assert raw.recv(10) == b"\x20\2\0\0"
    kind, flags, body = customer.next()
    assert (kind, packets.read_publish(4, flags, body)) == (client.PUBLISH, (b"last/words", 0, 0, b"bye"))


def test_warm_up_is_marked_as_such(bench: Bench, mosquitto: int) -> None:
    gateway, hub = bench.gateway(mosquitto), bench.hub(mosquitto)
    publisher, subscriber = bench.publisher(), bench.subscriber()
    play(gateway, hub, publisher, subscriber, qos=1, messages=10, warmup_messages=5)
    for front in (gateway, hub):
        flags = [stamp[1] for stamp in front.process.stamps("r") if stamp[0] in (Point.GATEWAY_SENT, Point.HUB_SENT)]
        assert sorted(flags) == [0] * 10 + [Flag.WARMUP] * 5


@pytest.fixture(autouse=True)
def closed_clients() -> Iterator[None]:
    yield
    while Client.opened:
        Client.opened.pop().close()


class Client:
    """A bare MQTT client."""

    opened: ClassVar[list[socket.socket]] = []

    def __init__(self, port: int, *, version: client.Version = 4, receive_buffer: int = 0) -> None:
        self._socket = socket.socket()
        self.opened.append(self._socket)
        if receive_buffer:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._socket.settimeout(10)
        self._socket.connect(("127.0.0.1", port))
        self._reader = PacketReader()
        self._found: list[tuple[int, int, bytes]] = []
        self.send(client.connect(version, f"c-{id(self):x}", keep_alive_s=0, clean=True))
        assert client.read_connack(version, self.next()[2]).code == 0

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def next(self) -> tuple[int, int, bytes]:
        while not self._found:
            data = self._socket.recv(1 << 20)
            assert data, "closed"
            self._found += self._reader.take(data)
        return self._found.pop(0)

    def nothing_within(self, seconds: float) -> bool:
        self._socket.settimeout(seconds)
        try:
            return not self._found and self._socket.recv(1) is None
        except TimeoutError:
            return True
        finally:
            self._socket.settimeout(10)

    def is_closed(self) -> bool:
        try:
            return self._socket.recv(100) == b""
        except ConnectionResetError:
            return True


class Recorder:
    """A broker that takes everything, and answers unless it is told not to."""

    def __init__(self, port: int, *, answers: bool = True) -> None:
        self.payloads: list[bytes] = []
        self._answers = answers
        self._listener = socket.create_server(("127.0.0.1", port))
        self._listener.settimeout(10)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._connection: socket.socket | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._connection is not None:
            self._connection.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)

    def await_payloads(self, number: int) -> None:
        until(lambda: len(self.payloads) >= number, instead=lambda: self.payloads)

    def _serve(self) -> None:
        self._connection, _ = self._listener.accept()
        reader = PacketReader()
        try:
            while data := self._connection.recv(65536):
                for kind, flags, body in reader.take(data):
                    if kind == packets.CONNECT:
                        self._connection.sendall(b"\x20\2\0\0")
                    elif kind == client.PUBLISH:
                        _, qos, packet_id, payload = packets.read_publish(4, flags, body)
                        self.payloads.append(payload)
                        if qos and self._answers:
                            self._connection.sendall(packets.puback(4, packet_id))
        except OSError:
            return
        finally:
            self._connection.close()


@pytest.fixture(scope="module")
def fronts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Front]]:
    """One broker, gateway and hub for everything that only asks."""
    folder = tmp_path_factory.mktemp("fronts")
    with Mosquitto(folder, "max_queued_messages 0") as broker:
        shared = Bench(folder)
        yield {"gateway": shared.gateway(broker.port), "hub": shared.hub(broker.port)}
        shared.close()
