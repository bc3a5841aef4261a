"""An AMQP broker by script: confirms for many, refusals, closings, blocking; real brokers are in tests/integration."""

import socket
import struct
import threading
import time
from collections.abc import Callable

import pytest

from toolkit.contract.orders import RunOrder
from toolkit.contract.samples import HEADER_BYTES, Flag
from toolkit.errors import WorkloadError
from toolkit.node.drivers import amqp
from toolkit.node.drivers import amqp_frames as frames
from toolkit.node.drivers.base import Key

Script = Callable[[socket.socket, frames.FrameReader], None]


def close(number: int, code: int, text: str) -> bytes:
    channel = 0 if number == frames.CLOSE else 1
    return frames.method(number, struct.pack(">H", code) + frames.short(text) + bytes(4), channel=channel)


def broker(script: Script) -> str:
    """Shakes hands with one client, answers what it asks, then follows the script; host:port."""
    listener = socket.create_server(("127.0.0.1", 0))
    answers = {
        frames.OPEN: frames.method(frames.OPEN_OK, b"\0", channel=0),
        frames.CHANNEL_OPEN: frames.method(frames.CHANNEL_OPEN_OK, bytes(4)),
        frames.CONFIRM: frames.method(frames.CONFIRM_OK),
        frames.DECLARE: frames.method(frames.DECLARE_OK, frames.short("q") + struct.pack(">II", 3, 0)),
        frames.BIND: frames.method(frames.BIND_OK),
        frames.QOS: frames.method(frames.QOS_OK),
    }

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, listener:
            reader = frames.FrameReader()
            assert connection.recv(8) == frames.PROTOCOL
            connection.sendall(frames.method(frames.START, b"\0\x09" + frames.table({}) + bytes(8), channel=0))
            reader.take(connection.recv(65_536))
            connection.sendall(frames.method(frames.TUNE, struct.pack(">HIH", 0, 131_072, 60), channel=0))
            while True:
                for found in reader.take(connection.recv(65_536)):
                    if found.method in answers:
                        connection.sendall(answers[found.method])
                    if found.method in (frames.CONFIRM, frames.CONSUME):
                        return script(connection, reader)

    threading.Thread(target=serve, daemon=True).start()
    return f"127.0.0.1:{listener.getsockname()[1]}"


def order(address: str, role: str = "publisher") -> RunOrder:
    return RunOrder(run="r", testbed="t", role=role, protocol="amqp", broker=address, topics=["a"], streams=[1], qos=1)  # type: ignore[arg-type]


def publisher(script: Script) -> amqp.AmqpPublisher:
    return amqp.AmqpPublisher(order(broker(script)), fill=b"fill", timeout_s=5)


def answers(connection: amqp.AmqpPublisher, count: int) -> tuple[list[Key], list[Key]]:
    accepted: list[Key] = []
    rejected: list[Key] = []
    until = time.monotonic() + 5
    while len(accepted) + len(rejected) < count:
        assert time.monotonic() < until
        _, more, less = connection.answers()
        accepted += more
        rejected += less
    return accepted, rejected


def test_a_confirm_may_stand_for_many_and_a_nack_rejects() -> None:
    def script(connection: socket.socket, reader: frames.FrameReader) -> None:
        published = 0
        while published < 6:
            published += sum(f.method == frames.PUBLISH for f in reader.take(connection.recv(65_536)))
        for method, tag, multiple in ((frames.ACK, 5, 0), (frames.NACK, 2, 1), (frames.ACK, 4, 1), (frames.ACK, 6, 1)):
            connection.sendall(frames.method(method, struct.pack(">QB", tag, multiple)))
        connection.recv(1)

    connection = publisher(script)
    for seq in range(5):
        connection.publish(0, bytes(HEADER_BYTES), (1, seq, 0))
    connection.forward("another", b"of its own size", (1, 5, 0), 1)
    accepted, rejected = answers(connection, 6)
    assert sorted(seq for _, seq, _ in rejected) == [0, 1]
    assert sorted(seq for _, seq, _ in accepted) == [2, 3, 4, 5]
    assert "nack" in connection.facts["last_rejection"]
    connection.close()


def test_a_broker_that_blocks_is_noted_and_one_that_closes_is_lost() -> None:
    def script(connection: socket.socket, _: frames.FrameReader) -> None:
        connection.sendall(frames.method(frames.BLOCKED, frames.short("low on memory"), channel=0))
        connection.sendall(close(frames.CLOSE, 320, "CONNECTION_FORCED"))
        connection.recv(1)

    connection = publisher(script)
    with pytest.raises(ConnectionResetError, match="320 CONNECTION_FORCED"):
        answers(connection, 1)
    assert (connection.facts["blocked"], connection.facts["last_blocked"]) == (1, "low on memory")
    connection.close()


def test_a_message_is_taken_whole_however_it_came_and_acknowledged_once_complete() -> None:
    acknowledged: list[int] = []

    def script(connection: socket.socket, reader: frames.FrameReader) -> None:
        def deliver(tag: int, body: bytes, *, redelivered: bool = False) -> bytes:
            head = frames.short("t") + struct.pack(">QB", tag, redelivered) + frames.short("e") + frames.short("a")
            header = frames.frame(frames.HEADER, 1, struct.pack(">HHQH", 60, 0, len(body), 0))
            bodies = b"".join(frames.frame(frames.BODY, 1, body[at : at + 4]) for at in range(0, len(body), 4))
            return frames.method(frames.DELIVER, head) + header + bodies

        stream = frames.method(frames.CONSUME_OK, frames.short("t"))
        stream += deliver(1, b"early") + deliver(2, b"") + deliver(3, b"redelivered", redelivered=True)
        for at in range(0, len(stream), 11):
            connection.sendall(stream[at : at + 11])
            time.sleep(0.002)
        while len(acknowledged) < 1 or acknowledged[-1] < 3:
            acknowledged.extend(
                int.from_bytes(f.body[:8], "big")
                for f in reader.take(connection.recv(65_536))
                if f.method == frames.ACK and f.body[8] == 1
            )
        connection.recv(65_536)

    [connection] = amqp.DRIVER.open_subscribers(
        order(broker(script), "subscriber"), identity="x", before=[], timeout_s=5
    )
    assert connection.facts["waiting_before"] == 3
    messages = []
    until = time.monotonic() + 5
    while len(messages) < 3 or acknowledged[-1:] != [3]:
        assert time.monotonic() < until, (messages, acknowledged)
        connection.read()
        messages += connection.messages()
    assert messages == [(b"early", 0), (b"", 0), (b"redelivered", int(Flag.REDELIVERED))]
    assert acknowledged == sorted(acknowledged)
    connection.close()


def test_who_may_not_enter_is_refused_for_good() -> None:
    def script(connection: socket.socket, _: frames.FrameReader) -> None:
        raise AssertionError("the client was to give up")

    listener = socket.create_server(("127.0.0.1", 0))

    def refuse() -> None:
        connection, _ = listener.accept()
        connection.recv(8)
        connection.sendall(frames.method(frames.START, b"\0\x09" + frames.table({}) + bytes(8), channel=0))
        connection.recv(65_536)
        connection.close()

    threading.Thread(target=refuse, daemon=True).start()
    with pytest.raises(WorkloadError, match="refuses user 'toolkit'"):
        amqp.AmqpPublisher(order(f"127.0.0.1:{listener.getsockname()[1]}"), fill=b"", timeout_s=5)
    listener.close()


def test_what_amqp_does_not_have_is_refused() -> None:
    import dataclasses

    good = order("h:1")
    with pytest.raises(ValueError, match="no QoS 2"):
        amqp.DRIVER.check(dataclasses.replace(good, qos=2))
    with pytest.raises(ValueError, match="cannot be published to"):
        amqp.DRIVER.check(dataclasses.replace(good, topics=["a.#"]))
