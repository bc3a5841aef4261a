"""The Event Handler on the wire: raw sockets, as its oldest clients would speak to it."""

import contextlib
import http.client
import http.server
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.unit.node.processes import ROOT, Bench, NodeProcess
from tests.waiting import until
from toolkit.node.event_handler.documents import Filter, System
from toolkit.node.event_handler.systems import Systems

from .clients import SOURCE, Consumer, Stream, ask, count, publish, publish_and_hear, stuck_subscriber


@pytest.fixture(params=["uvloop", "asyncio"], scope="module")
def handler(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """One for all tests that leave nothing behind."""
    bench = Bench(tmp_path_factory.mktemp("handler"))
    environment = {"TOOLKIT_SETTINGS": json.dumps({"mode": "direct", "publishing_tolerance": 3600, "drain": 2})}
    if request.param == "asyncio":
        blocked = bench.folder / "uvloop.py"
        blocked.write_text("raise ImportError('not here')\n")
        environment["PYTHONPATH"] = f"{bench.folder}:{ROOT}"
    yield bench.event_handler(**environment)
    assert "Traceback" not in bench.log("broker")
    bench.close()


def test_an_event_is_broadcast_as_the_enhanced_form_writes_it(handler: NodeProcess) -> None:
    with socket.create_connection(("127.0.0.1", handler.port), 5) as subscriber:
        subscriber.sendall(
            b"GET /eventhandler/subscription HTTP/1.1\r\nHost: x\r\n"
            b"Accept: text/event-stream\r\neventtype: pressure\r\n\r\n"
        )
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += subscriber.recv(1)
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"Content-Type: text/event-stream\r\n" in head
        assert b"Transfer-Encoding: chunked\r\n" in head
        assert b"Access-Control-Allow-Origin: *\r\n" in head
        status, body, _ = ask(
            handler, "POST", "/eventhandler/publish", {"source": SOURCE, "event": {"type": "pressure", "payload": "41"}}
        )
        assert (status, body) == (200, b"")
        assert subscriber.recv(1000) == b"1a\r\nevent: pressure\ndata: 41\n\n\r\n"


def test_the_same_publisher_again_and_again_says_what_it_says(handler: NodeProcess) -> None:
    stream = Stream(handler)
    payloads = ["1", "2", "3", '"', "\\", "é", "a\nb", "", "12345", "4", "5", "\x01"]
    connection = http.client.HTTPConnection("127.0.0.1", handler.port, timeout=5)
    for payload in payloads:
        body = json.dumps({"source": SOURCE, "event": {"type": "pressure", "payload": payload}}, ensure_ascii=False)
        connection.request("POST", "/eventhandler/publish", body.encode(), {"Content-Type": "application/json"})
        response = connection.getresponse()
        assert response.status == 200
        response.read()
        assert stream.event() == {"event": "pressure", "data": payload}
    connection.close()
    stream.close()


def test_types_numbers_and_cases_are_read_as_jackson_reads_them(handler: NodeProcess) -> None:
    stream = Stream(handler)
    document = {"SOURCE": {**SOURCE, "unknown": [1]}, "event": {"Type": "pressure", "PAYLOAD": 41.5}, "more": {}}
    assert ask(handler, "POST", "/eventhandler/publish", document)[0] == 200
    assert stream.event()["data"] == "41.5"
    stream.close()


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "kind"),
    [
        ("POST", "/eventhandler/publish", b"", 400, "BAD_PAYLOAD"),
        ("POST", "/eventhandler/publish", b"{", 400, "JSON_PROCESSING"),
        ("POST", "/eventhandler/publish", b"[1]", 400, "JSON_PROCESSING"),
        ("POST", "/eventhandler/publish", b"[" * 100_000, 400, "JSON_PROCESSING"),
        ("POST", "/eventhandler/publish", b"\xff\xfe", 400, "JSON_PROCESSING"),
        ("POST", "/eventhandler/publish", {"event": {"type": "a"}}, 400, "BAD_PAYLOAD"),
        ("POST", "/eventhandler/publish", {"source": SOURCE}, 400, "BAD_PAYLOAD"),
        ("POST", "/eventhandler/publish", {"source": SOURCE, "event": {"type": " "}}, 400, "BAD_PAYLOAD"),
        ("POST", "/eventhandler/publish", {"source": SOURCE, "event": {"type": "x" * 256}}, 400, "BAD_PAYLOAD"),
        ("POST", "/eventhandler/publish", {"source": SOURCE, "event": {"type": ["a"]}}, 400, "JSON_PROCESSING"),
        ("POST", "/eventhandler/publish", {"source": SOURCE, "event": 3}, 400, "JSON_PROCESSING"),
        ("POST", "/eventhandler/publish", {"source": SOURCE | {"port": 0}, "event": {"type": "a"}}, 400, "BAD_PAYLOAD"),
        ("POST", "/eventhandler/publish", {"source": SOURCE | {"port": 1e9}, "event": {}}, 400, "JSON_PROCESSING"),
        ("POST", "/eventhandler/publish", {"source": SOURCE | {"systemName": "a b"}, "event": {}}, 400, "BAD_PAYLOAD"),
        (
            "POST",
            "/eventhandler/publish",
            {"source": SOURCE, "event": {"type": "a", "timestamp": "2001-01-01T00:00:00Z"}},
            400,
            "BAD_PAYLOAD",
        ),
        ("POST", "/eventhandler/publish", {"source": SOURCE, "event": {"timestamp": "now"}}, 400, "JSON_PROCESSING"),
        ("GET", "/eventhandler/publish", None, 405, "BAD_METHOD"),
        ("DELETE", "/eventhandler/subscription", None, 405, "BAD_METHOD"),
        ("GET", "/eventhandler/nowhere", None, 400, "BAD_URI"),
        ("GET", "/", None, 400, "BAD_URI"),
        ("GET", "/eventhandler/subscription", None, 500, "GENERIC"),
        ("GET", "/eventhandler", b"body", 400, "BAD_PAYLOAD"),
        ("POST", "/eventhandler/subscription", {"eventType": "a"}, 400, "BAD_PAYLOAD"),
    ],
)  # fmt: skip
def test_bad_input_gets_the_documented_error(
    handler: NodeProcess, method: str, path: str, body: Any, status: int, kind: str
) -> None:
    answered, text, _ = ask(handler, method, path, body)
    document = json.loads(text)
    assert (answered, document["exceptionType"], document["errorCode"]) == (status, kind, status)
    assert document["origin"].startswith(f"http://127.0.0.1:{handler.port}/")
    assert set(document) == {"errorMessage", "errorCode", "exceptionType", "origin", "documentation"}
    assert b'"errorCode" : ' in text
    assert ask(handler, "GET", "/eventhandler")[0] == 200


def test_limits_of_size_and_type(handler: NodeProcess) -> None:
    status, text, _ = ask(handler, "POST", "/eventhandler/publish", b"x=1", {"Content-Type": "text/plain"})
    assert (status, json.loads(text)["errorCode"]) == (415, 405)
    with socket.create_connection(("127.0.0.1", handler.port), 5) as client:
        client.sendall(b"POST /eventhandler/publish HTTP/1.1\r\nContent-Length: 67108864\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 413 ")
        assert b"".join(iter(lambda: client.recv(4096), b"")) is not None
    with socket.create_connection(("127.0.0.1", handler.port), 5) as client, contextlib.suppress(OSError):
        for _ in range(40):
            client.sendall(b"X: " + b"y" * 1000 + b"\r\n" if _ else b"GET / HTTP/1.1\r\n")
        answer = client.recv(1000)
        assert answer.startswith(b"HTTP/1.1 431 ")
    with socket.create_connection(("127.0.0.1", handler.port), 5) as client:
        client.sendall(b"\x00\x01nonsense\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 400 ")
    assert publish(handler, "still there") == 200


def test_callbacks_follow_their_filters_and_the_publisher_hears_of_it(handler: NodeProcess, consumer: Consumer) -> None:
    def subscribe(name: str, **more: Any) -> tuple[int, bytes]:
        document = {"id": 0, "eventType": "pressure", "consumer": consumer.system(name), "notifyUri": name, **more}
        status, body, _ = ask(handler, "POST", "/eventhandler/subscription", document)
        return status, body

    status, body = subscribe("everything")
    assert status == 201
    stored = json.loads(body)
    assert stored["eventType"] == "pressure"
    assert stored["consumer"] == {"id": 1, **consumer.system("everything")}
    assert subscribe("everything") == (204, b"")
    assert subscribe("mine", sources=[{"systemName": "PressPub", "address": "10.20.0.71", "port": 8462}])[0] == 201
    assert subscribe("others", sources=[{"systemName": "Other", "address": "10.20.0.71", "port": 8462}])[0] == 201
    assert subscribe("exact", matchMetadata=True, filterMetadata={"unit": "bar"})[0] == 201
    assert subscribe("later", startDate="2999-01-01T00:00:00Z")[0] == 201
    assert subscribe("past", endDate="2001-01-01T00:00:00Z")[0] == 400
    assert subscribe("broken")[0] == 201

    got, told = publish_and_hear(handler, consumer)
    assert dict(got)["/publisher/feedback"] == told
    assert dict(got)["/everything"].keys() == {"type", "payload", "timestamp", "eventMetadata"}

    consumer.got.clear()
    assert publish(handler, "42", event={"eventMetadata": {"unit": "bar", "more": "1"}}) == 200
    assert sorted(path for path, _ in consumer.wait_for(3)) == ["/broken", "/everything", "/mine"]

    assert ask(handler, "DELETE", "/eventhandler/subscription/type/pressure/consumer/everything")[0] == 200
    assert ask(handler, "DELETE", "/eventhandler/subscription/type/pressure/consumer/nobody")[0] == 204
    gone = {"eventType": "pressure", "consumer": consumer.system("broken")}
    assert ask(handler, "PUT", "/eventhandler/subscription", gone)[0] == 200
    consumer.got.clear()
    assert publish(handler, "43") == 200
    consumer.wait_for(1)
    time.sleep(0.2)  # for those who are not to be called
    assert [path for path, _ in consumer.got] == ["/mine"]
    for name in ("mine", "others", "exact", "later"):
        assert ask(handler, "DELETE", f"/eventhandler/subscription/type/pressure/consumer/{name}")[0] == 200


def test_systems_are_known_by_name_until_there_are_too_many() -> None:
    def wanted(consumer: str, port: int, *sources: str) -> Filter:
        systems = frozenset(System(name=name, address="10.20.0.1", port=1) for name in sources)
        return Filter(event_type="a", consumer=System(name=consumer, address="10.20.0.1", port=port), sources=systems)

    systems = Systems(most=3)
    first = systems.numbered(wanted("one", 1, "source"))
    assert (first.consumer.id, [source.id for source in first.sources]) == (1, [2])
    assert systems.numbered(wanted("one", 1)).consumer.id == 1
    assert systems.numbered(wanted("one", 2)).consumer.id == 3
    assert systems.has("one")
    assert systems.has("source")
    systems.numbered(wanted("two", 1))  # the first of the two called one is forgotten
    assert systems.has("one")
    systems.numbered(wanted("three", 1))
    systems.numbered(wanted("four", 1))
    assert not systems.has("source")
    assert not systems.has("one")
    assert systems.has("two")


def test_a_filter_may_come_with_an_sse_subscription(handler: NodeProcess) -> None:
    wanted = json.dumps({"matchMetadata": True, "filterMetadata": {"unit": "bar"}})
    selective, plain = Stream(handler, eventfilter=wanted), Stream(handler)
    publish(handler, "1")
    publish(handler, "2", event={"eventMetadata": {"unit": "bar"}})
    assert [plain.event()["data"], plain.event()["data"]] == ["1", "2"]
    assert selective.event()["data"] == "2"
    selective.close()
    plain.close()


def test_resume_with_last_event_id(bench: Bench) -> None:
    handler = bench.event_handler(TOOLKIT_SETTINGS=json.dumps({"replay": 3}))
    stream = Stream(handler)
    for number in range(6):
        publish(handler, str(number))
    events = [stream.event() for _ in range(6)]
    stream.close()
    back = Stream(handler, **{"Last-Event-ID": events[3]["id"]})
    assert [back.event()["data"], back.event()["data"]] == ["4", "5"]
    back.close()
    too_late = Stream(handler, **{"Last-Event-ID": events[0]["id"]})
    assert [too_late.event()["data"] for _ in range(3)] == ["3", "4", "5"]
    too_late.close()


def read_all(stream: socket.socket) -> bytes:
    return b"".join(iter(lambda: stream.recv(4096), b""))


@pytest.mark.parametrize("overflow", ["drop-oldest", "disconnect"])
def test_a_stuck_subscriber_harms_nobody_else(bench: Bench, overflow: str) -> None:
    handler = bench.event_handler(TOOLKIT_SETTINGS=json.dumps({"overflow": overflow, "queue_limit": 10}))
    stuck, healthy = stuck_subscriber(handler), Stream(handler)
    payload = "x" * 200_000
    for _ in range(60):
        assert publish(handler, payload) == 200
        assert healthy.event()["data"] == payload
    assert count(handler, "toolkit_broker_messages_dropped_total") > 0
    overflows = count(handler, f'toolkit_broker_queue_overflows_total{{policy="{overflow}"}}')
    assert overflows == (1 if overflow == "disconnect" else count(handler, "toolkit_broker_messages_dropped_total"))
    assert count(handler, "toolkit_broker_subscribers") == (2 if overflow == "drop-oldest" else 1)
    assert count(handler, "toolkit_broker_queued_messages") <= 10
    stuck.close()
    healthy.close()


def test_events_wait_in_the_queue_rather_than_in_the_kernel(bench: Bench) -> None:
    handler = bench.event_handler(TOOLKIT_SETTINGS=json.dumps({"overflow": "drop-oldest", "queue_limit": 10}))
    stuck = stuck_subscriber(handler)
    for number in range(1000):
        assert publish(handler, str(number)) == 200
    # Beyond the queue some kilobytes: 4 KiB that the kernel may keep unsent, and the subscriber's own small window.
    assert count(handler, "toolkit_broker_messages_dropped_total") > 500
    stuck.close()


def test_block_makes_the_publisher_wait_and_loses_nothing(bench: Bench) -> None:
    handler = bench.event_handler(TOOLKIT_SETTINGS=json.dumps({"overflow": "block", "queue_limit": 5}))
    stuck = stuck_subscriber(handler)
    payload = "x" * 200_000
    published = []

    def push() -> None:
        published.extend(publish(handler, f"{number:03}{payload}") for number in range(60))

    pushing = threading.Thread(target=push)
    pushing.start()
    until(lambda: count(handler, 'toolkit_broker_queue_overflows_total{policy="block"}'))
    assert len(published) < 60
    received = b""
    while received.count(b"\ndata: ") < 60:
        received += stuck.recv(1 << 20)
    pushing.join(20)
    assert published == [200] * 60
    assert [f"data: {number:03}x".encode() in received for number in range(60)] == [True] * 60
    assert count(handler, "toolkit_broker_messages_dropped_total") == 0
    stuck.close()


def test_slow_and_silent_clients_are_cut_off(bench: Bench) -> None:
    handler = bench.event_handler(TOOLKIT_EVENT_HANDLER_REQUEST_WITHIN_S="1", TOOLKIT_EVENT_HANDLER_IDLE_S="2")
    with socket.create_connection(("127.0.0.1", handler.port), 10) as slow:
        slow.sendall(b"POST /eventhandler/publish HTTP/1.1\r\nContent-Le")
        assert slow.recv(1000).startswith(b"HTTP/1.1 408 ")
    with socket.create_connection(("127.0.0.1", handler.port), 10) as silent:
        assert silent.recv(1000) == b""
    stream = Stream(handler)
    time.sleep(3.5)
    publish(handler, "a quiet subscription stays")
    assert stream.event()["data"] == "a quiet subscription stays"
    stream.close()


def test_a_thousand_idle_subscriptions_are_cheap_and_the_end_is_graceful(bench: Bench) -> None:
    handler = bench.event_handler()
    streams = []
    for _ in range(1000):
        stream = socket.create_connection(("127.0.0.1", handler.port), 5)
        stream.sendall(b"GET /eventhandler/subscription HTTP/1.1\r\nHost: x\r\neventtype: pressure\r\n\r\n")
        streams.append(stream)
    until(lambda: count(handler, "toolkit_broker_subscribers") == 1000)
    assert handler.rss_bytes() < 60_000_000
    handler.process.terminate()
    assert handler.process.wait(10) == 0
    for stream in streams:
        stream.settimeout(5)
        assert read_all(stream).endswith(b"\r\n\r\n0\r\n\r\n")
        stream.close()


def test_first_subscriptions_of_a_new_type_at_once_are_all_kept(bench: Bench) -> None:
    handler = bench.event_handler()
    for attempt in range(20):
        with ThreadPoolExecutor(8) as pool:
            streams = list(pool.map(lambda name: Stream(handler, name), [f"new-{attempt}"] * 8))
        publish(handler, "1", event_type=f"new-{attempt}")
        assert [stream.event()["data"] for stream in streams] == ["1"] * 8
        for stream in streams:
            stream.close()


def test_a_mode_that_is_not_there_is_named(bench: Bench) -> None:
    with pytest.raises(AssertionError, match="'slow' is not one of direct, enhanced, original"):
        bench.event_handler(TOOLKIT_SETTINGS=json.dumps({"mode": "slow"}))
    bench.processes.clear()
