"""Bad input and faults, in every mode: the documented answer, bounded memory, and nobody else is harmed."""

import asyncio
import contextlib
import json
import signal
import socket
import sqlite3
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from tests.unit.node.processes import Bench, NodeProcess
from tests.waiting import until
from toolkit.node.event_handler.recorder import Recorder
from toolkit.node.event_handler.server import EventHandler
from toolkit.node.event_handler.settings import HandlerSettings

from .clients import SOURCE, Consumer, Stream, ask, count, publish
from .test_modes import subscribe

MODES = ("direct", "enhanced", "original")
_MIB = 1 << 20


@pytest.fixture(params=MODES, scope="module")
def handler(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """One of each mode; its log shows no surprise at the end."""
    bench = Bench(tmp_path_factory.mktemp("faults"))
    settings = {"mode": request.param, "thread_pool_size": 4}
    yield bench.event_handler(TOOLKIT_SETTINGS=json.dumps(settings), TOOLKIT_EVENT_HANDLER_REQUEST_WITHIN_S="2")
    assert "Traceback" not in bench.log("broker")
    bench.close()


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "kind"),
    [
        ("POST", "publish", b"", 400, "BAD_PAYLOAD"),
        ("POST", "publish", b"{", 400, "JSON_PROCESSING"),
        ("POST", "publish", b"[" * 100_000, 400, "JSON_PROCESSING"),
        ("POST", "publish", b"\xff\xfe\x00", 400, "JSON_PROCESSING"),
        ("POST", "publish", {"source": SOURCE, "event": 3}, 400, "JSON_PROCESSING"),
        ("POST", "publish", {"source": SOURCE, "event": {"type": ["a"]}}, 400, "JSON_PROCESSING"),
        ("POST", "publish", {"source": SOURCE, "event": {"type": ""}}, 400, "BAD_PAYLOAD"),
        ("POST", "publish", {"source": SOURCE, "event": {"type": "a", "timestamp": "2001-01-01T00:00:00Z"}}, 400,
         "BAD_PAYLOAD"),
        ("POST", "publish", {"source": SOURCE, "event": {"type": "a\0b"}}, 400, "JSON_PROCESSING"),
        ("POST", "publish", {"source": SOURCE, "event": {"type": "a", "payload": "\ud800"}}, 400, "JSON_PROCESSING"),
        ("POST", "publish", {"source": SOURCE, "event": {"type": "a", "timestamp": "0001-01-01T00:00:00+09:00"}}, 400,
         "JSON_PROCESSING"),
        ("GET", "publish", None, 405, "BAD_METHOD"),
        ("PATCH", "subscription", None, 405, "BAD_METHOD"),
        ("PUT", "subscription", {"eventType": 7, "consumer": []}, 400, "JSON_PROCESSING"),
        ("POST", "nowhere", b"{}", 400, "BAD_URI"),
    ],
)  # fmt: skip
def test_the_documented_error(handler: NodeProcess, method: str, path: str, body: Any, status: int, kind: str) -> None:
    answered, text, _ = ask(handler, method, f"/eventhandler/{path}", body)
    document = json.loads(text)
    assert (answered, document["exceptionType"], document["errorCode"]) == (status, kind, status)
    assert publish(handler, "next") == 200


def test_64_mib_bodies_cost_no_memory(handler: NodeProcess) -> None:
    before = handler.rss_bytes()
    heads: tuple[tuple[bytes, Callable[[bytes], bytes]], ...] = (
        (b"Content-Length: 67108864\r\n", bytes),
        (b"Transfer-Encoding: chunked\r\n", lambda piece: b"%x\r\n%b\r\n" % (len(piece), piece)),
    )
    for head, framed in heads:
        with socket.create_connection(("127.0.0.1", handler.port), 10) as client:
            client.sendall(b"POST /eventhandler/publish HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n")
            sent = 0
            with contextlib.suppress(ConnectionError):
                while sent < 64 * _MIB:
                    client.sendall(framed(b"x" * _MIB))
                    sent += _MIB
            assert sent < 64 * _MIB, "the connection ends once the limit is passed"
        assert handler.rss_bytes() - before < 16 * _MIB
    assert publish(handler, "still there") == 200


def test_clients_that_dribble_hold_nobody_up(handler: NodeProcess) -> None:
    slow = [socket.create_connection(("127.0.0.1", handler.port), 10) for _ in range(20)]
    for number, client in enumerate(slow):
        begun = b"POST /eventhandler/publish HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n"
        client.sendall(begun if number % 2 else begun + b"\r\n{")
    for _ in range(4):
        began_s = time.monotonic()
        assert publish(handler, "in between") == 200
        assert time.monotonic() - began_s < 1.5
        for client in slow:
            with contextlib.suppress(ConnectionError):
                client.sendall(b"x")
        time.sleep(0.2)
    for client in slow:
        assert client.recv(1000).startswith(b"HTTP/1.1 408 ")
        client.close()


def reset(connection: socket.socket) -> None:
    """Vanish without a goodbye."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@pytest.mark.parametrize("mode", ["direct", "enhanced"])
def test_a_subscriber_that_vanishes_in_the_middle_of_an_event(bench: Bench, mode: str) -> None:
    handler = bench.event_handler(TOOLKIT_SETTINGS=json.dumps({"mode": mode, "queue_limit": 4}))
    loyal = Stream(handler)
    payload = "x" * 300_000
    for number in range(6):
        leaving = socket.create_connection(("127.0.0.1", handler.port), 5)
        leaving.sendall(b"GET /eventhandler/subscription HTTP/1.1\r\nHost: x\r\neventtype: pressure\r\n\r\n")
        assert leaving.recv(4096).startswith(b"HTTP/1.1 200 ")
        assert publish(handler, f"{number}{payload}") == 200
        leaving.recv(1000)  # some of it
        reset(leaving)
        assert loyal.event()["data"] == f"{number}{payload}"
        assert publish(handler, "after") == 200
        assert loyal.event()["data"] == "after"
    until(lambda: count(handler, "toolkit_broker_subscribers") == 1)
    assert "Traceback" not in bench.log("broker")
    loyal.close()


def test_a_consumer_that_vanishes_is_not_waited_for(bench: Bench, consumer: Consumer) -> None:
    handler = bench.event_handler(TOOLKIT_SETTINGS=json.dumps({"mode": "original"}))
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    document = {"eventType": "pressure", "consumer": {"systemName": "gone", "address": "127.0.0.1", "port": port}}
    assert ask(handler, "POST", "/eventhandler/subscription", document)[0] == 201
    assert subscribe(handler, consumer, "loyal") == 201
    assert [publish(handler, str(number)) for number in range(20)] == [200] * 20
    assert {event["payload"] for _, event in consumer.wait_for(20)} == {str(number) for number in range(20)}
    assert count(handler, "toolkit_broker_messages_dropped_total") == 20


def stored(bench: Bench, path: Path, **settings: Any) -> NodeProcess:
    return bench.event_handler(
        TOOLKIT_SETTINGS=json.dumps({"mode": "original", "database": "sqlite", **settings}),
        TOOLKIT_EVENT_HANDLER_DATABASE_PATH=str(path),
    )


def test_a_database_that_goes_away_and_comes_back_loses_nothing(bench: Bench, consumer: Consumer) -> None:
    path = bench.folder / "filters.sqlite"
    handler = stored(bench, path, sql_log=True)
    assert subscribe(handler, consumer, "one") == 201
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        status, text, _ = ask(
            handler, "POST", "/eventhandler/subscription", {"eventType": "pressure", "consumer": consumer.system("two")}
        )
        assert (status, json.loads(text)["exceptionType"]) == (503, "UNAVAILABLE")
        assert [publish(handler, str(number)) for number in range(5)] == [200] * 5
        time.sleep(0.5)
        assert consumer.got == [], "each waits until the log has a row of it"
        other.execute("ROLLBACK")
    assert {event["payload"] for _, event in consumer.wait_for(5)} == {str(number) for number in range(5)}
    assert subscribe(handler, consumer, "two") == 201
    assert "Traceback" not in bench.log("broker")


def test_what_was_stored_survives_a_kill(bench: Bench, consumer: Consumer) -> None:
    path = bench.folder / "filters.sqlite"
    handler = stored(bench, path)
    assert subscribe(handler, consumer, "one") == 201
    handler.process.send_signal(signal.SIGKILL)
    handler.process.wait(10)
    bench.processes.clear()
    again = stored(bench, path)
    assert publish(again, "1") == 200
    assert [event["payload"] for _, event in consumer.wait_for(1)] == ["1"]


def test_a_filter_in_a_header_may_be_anything(bench: Bench) -> None:
    handler = bench.event_handler()
    for text in (
        "[" * 9000,
        "[]",
        "7",
        '{"sources": 7}',
        "{",
        "\ud800".encode("utf-8", "surrogatepass").decode("latin-1"),
    ):
        headers = {"eventtype": "pressure", "eventfilter": text}
        status, body, _ = ask(handler, "GET", "/eventhandler/subscription", headers=headers)
        document = json.loads(body)
        assert (status, document["exceptionType"] in ("BAD_PAYLOAD", "JSON_PROCESSING")) == (400, True), text[:20]
        assert "HTTP/1.1" not in document["errorMessage"]
    assert "Traceback" not in bench.log("broker")


class Written:
    """A connection that keeps what is written to it."""

    def __init__(self) -> None:
        self.text = b""

    def get_extra_info(self, _: str) -> None: ...

    def write(self, data: bytes) -> None:
        self.text += data


def test_an_accident_is_told_as_the_framework_tells_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    handler = EventHandler(HandlerSettings(), Recorder())
    connection, transport = handler.make_connection(), Written()
    connection.connection_made(cast("asyncio.Transport", transport))

    def fall(*_: object) -> None:
        raise RuntimeError("out of luck")

    monkeypatch.setattr(handler, "publish", fall)
    monkeypatch.setattr(handler.callbacks, "listed", fall)
    event = json.dumps({"source": SOURCE, "event": {"type": "a", "payload": "1"}}).encode()
    requests = [(b"POST /eventhandler/publish", event), (b"GET /eventhandler/mgmt/subscriptions", b"")]
    for line, body in requests:
        connection.data_received(b"%b HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%b" % (line, len(body), body))
        head, _, answer = transport.text.partition(b"\r\n\r\n")
        transport.text = b""
        assert head.startswith(b"HTTP/1.1 500 ")
        document = json.loads(answer)
        assert (document["exceptionType"], document["errorMessage"]) == ("GENERIC", "class RuntimeError: out of luck")
        assert document["origin"] == f"http://h{line.split()[1].decode()}"
    connection.data_received(b"GET /eventhandler HTTP/1.1\r\nHost: h\r\n\r\n")  # goes on being served
    assert transport.text.startswith(b"HTTP/1.1 200 ")
    assert capsys.readouterr().err.count("RuntimeError: out of luck") == 2
