"""The Event Handler's modes enhanced and original: whole runs, and what each does and does not do on the wire."""

import contextlib
import json
import socket
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.unit.node.processes import Bench, NodeProcess, of_point, play
from tests.waiting import until
from toolkit.contract.orders import Arrivals, RunOrder
from toolkit.contract.samples import Point
from toolkit.node.drivers.sse import DRIVER as SSE
from toolkit.node.event_handler.documents import Filter, System
from toolkit.node.event_handler.enhanced import EnhancedHandler
from toolkit.node.event_handler.filters import FilterStore
from toolkit.node.event_handler.outlet import Outlet
from toolkit.node.event_handler.settings import HandlerSettings
from toolkit.node.sending import Sending

from .clients import (
    SOURCE,
    Consumer,
    Stream,
    ask,
    count,
    feedback_to,
    publish,
    publish_and_hear,
    stuck_subscriber,
)


def start(bench: Bench, mode: str, **settings: Any) -> NodeProcess:
    return bench.event_handler(TOOLKIT_SETTINGS=json.dumps({"mode": mode, **settings}))


@pytest.mark.parametrize("reuse", [True, False])
@pytest.mark.parametrize(("mode", "protocol"), [("direct", "sse"), ("enhanced", "sse"), ("original", "http")])
def test_a_run_loses_nothing_and_stamps_every_hop(bench: Bench, mode: str, protocol: str, reuse: bool) -> None:
    broker, publisher, subscriber = start(bench, mode), bench.publisher(), bench.subscriber()
    play(broker, [publisher], [subscriber], run="a", protocol=protocol, broker=f"127.0.0.1:{broker.port}",
         messages=100, payload_bytes=71, subscriber_connections=2, options={"reuse": reuse})  # fmt: skip

    sent, received = publisher.info("a"), subscriber.info("a")
    assert sent.counts["sent"] == sent.counts["acked"] == 100
    assert received.counts["received"] == 200
    assert received.counts["duplicate"] == received.counts["foreign"] == 0
    t1 = {stamp[4]: stamp[5] for stamp in of_point(publisher.stamps("a"), Point.SENT)}
    t5 = {stamp[4]: stamp[5] for stamp in of_point(publisher.stamps("a"), Point.ACKED)}
    t2 = {stamp[4]: stamp[5] for stamp in of_point(broker.stamps("a"), Point.BROKER_RECEIVED)}
    t3 = {(stamp[2], stamp[4]): stamp[5] for stamp in of_point(broker.stamps("a"), Point.BROKER_SENT)}
    t4 = {(stamp[2], stamp[4]): stamp[5] for stamp in of_point(subscriber.stamps("a"), Point.RECEIVED)}
    assert len(t3) == len(t4) == 200
    broker_peer = {tuple(flow): int(peer) for peer, flow in broker.info("a").flows.items()}
    for peer, flow in received.flows.items():
        for seq in range(100):
            instants = [t1[seq], t2[seq], t3[broker_peer[tuple(flow)], seq], t4[int(peer), seq]]
            assert instants == sorted(instants)
            assert t5[seq] > t2[seq]
    # One connection of the publisher, or one for each message (and one for the probe, which is not stamped).
    assert len(broker.info("a").flows) - 2 == (1 if reuse else 100)
    assert "Traceback" not in bench.log("broker")


def test_a_publisher_may_keep_several_connections(bench: Bench) -> None:
    broker, publisher, subscriber = start(bench, "direct"), bench.publisher(), bench.subscriber()
    play(broker, [publisher], [subscriber], run="p", protocol="sse", broker=f"127.0.0.1:{broker.port}",
         messages=400, payload_bytes=71, options={"pool_size": 4},
         arrivals=Arrivals(kind="rate", rate_per_s=20_000))  # fmt: skip
    assert publisher.info("p").counts["acked"] == subscriber.info("p").counts["received"] == 400
    assert publisher.info("p").facts["pool_size"] == 4
    assert len(broker.info("p").flows) - 1 > 1  # faster than answers come, so that one connection is not enough


@pytest.mark.parametrize(
    ("options", "wrong"), [({"pool_size": 0}, "1 to 1024"), ({"pool_size": 2, "reuse": False}, "leave one out")]
)
def test_a_pool_that_cannot_be_is_refused(options: dict[str, Any], wrong: str) -> None:
    order = RunOrder(run="p", testbed="t", role="publisher", protocol="sse", broker="127.0.0.1:1", options=options)
    with pytest.raises(ValueError, match=wrong):
        SSE.check(order)


def test_enhanced_keeps_the_order_of_every_publisher(bench: Bench) -> None:
    broker = start(bench, "enhanced", thread_pool_size=4)
    publisher, subscriber = bench.publisher(), bench.subscriber()
    play(broker, [publisher], [subscriber], run="c", broker=f"127.0.0.1:{broker.port}",
         messages=50, payload_bytes=71, connections=10, subscriber_connections=10)  # fmt: skip
    counts = subscriber.info("c").counts
    assert counts["received"] == 5000
    assert counts["reordered"] == counts["duplicate"] == counts["foreign"] == 0
    assert broker.info("c").counts["sent"] == 5000


def test_enhanced_speaks_as_direct_but_has_no_filters_and_no_replay(bench: Bench) -> None:
    handler = start(bench, "enhanced", thread_pool_size=2, replay=5)
    wanted = json.dumps({"matchMetadata": True, "filterMetadata": {"unit": "bar"}})
    selective = Stream(handler, eventfilter=wanted, **{"Last-Event-ID": "1"})
    for payload in ("41", "a\nb", "é", ""):
        assert publish(handler, payload) == 200
        assert selective.event() == {"event": "pressure", "data": payload}
    assert publish(handler, "1", "unheard") == 200
    status, text, _ = ask(handler, "POST", "/eventhandler/subscription", {"eventType": "a"})
    assert (status, json.loads(text)["exceptionType"]) == (405, "BAD_METHOD")
    gone = {"eventType": "pressure", "consumer": SOURCE}
    assert ask(handler, "PUT", "/eventhandler/subscription", gone)[0] == 204
    assert ask(handler, "GET", "/eventhandler/subscription")[0] == 500
    assert ask(handler, "POST", "/eventhandler/publish", b"{")[0] == 400
    selective.close()
    until(lambda: count(handler, "toolkit_broker_subscribers") == 0)
    assert publish(handler, "nobody is there") == 200


def test_enhanced_serves_as_many_requests_at_a_time_as_it_has_threads(bench: Bench) -> None:
    handler = start(bench, "enhanced", thread_pool_size=2)
    idle = [socket.create_connection(("127.0.0.1", handler.port), 5) for _ in range(20)]
    assert publish(handler, "kept connections hold no thread") == 200
    stuck = stuck_subscriber(handler)
    answered: list[int] = []

    def push() -> None:
        answered.append(publish(handler, "x" * 900_000))

    pushing = [threading.Thread(target=push) for _ in range(20)]
    for thread in pushing:
        thread.start()
    time.sleep(1)
    waiting = threading.Thread(target=lambda: answered.append(publish(handler, "other", "other")))
    waiting.start()
    time.sleep(0.5)
    assert len(answered) < 21, "both threads wait for the subscriber that does not read"
    stuck.close()
    for thread in [*pushing, waiting]:
        thread.join(20)
    assert answered == [200] * 21
    for connection in idle:
        connection.close()


class ClosedLoop(threading.Thread):
    """Publishes on one kept connection, each event once the last is answered, until the connection ends."""

    def __init__(self, handler: NodeProcess, payload: str) -> None:
        super().__init__(daemon=True)
        self.answered = 0
        self._socket = socket.create_connection(("127.0.0.1", handler.port), 10)
        event = {"source": SOURCE, "event": {"type": "pressure", "payload": payload}}
        body = json.dumps(event).encode()
        self._request = b"POST /eventhandler/publish HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
        self._request += body

    def run(self) -> None:
        with self._socket, contextlib.suppress(ConnectionError):
            while True:
                self._socket.sendall(self._request)
                if not self._socket.recv(4096).startswith(b"HTTP/1.1 200 "):
                    return
                self.answered += 1


def closed_loops(handler: NodeProcess, number: int, at_least: int) -> list[ClosedLoop]:
    loops = [ClosedLoop(handler, str(n)) for n in range(number)]
    for loop in loops:
        loop.start()
    until(lambda: min(loop.answered for loop in loops) >= at_least, instead=lambda: [loop.answered for loop in loops])
    return loops


@pytest.mark.parametrize("threads", [1, 2])
def test_publishers_in_closed_loops_share_the_threads_that_there_are(bench: Bench, threads: int) -> None:
    handler = start(bench, "enhanced", thread_pool_size=threads)
    loops = closed_loops(handler, 3, 100)
    stream = Stream(handler)  # one more that wants a thread
    assert stream.event()["event"] == "pressure"
    stream.close()
    handler.process.terminate()
    for loop in loops:
        loop.join(20)
        assert not loop.is_alive()


def test_a_stop_does_not_wait_for_publishers_that_go_on(bench: Bench) -> None:
    handler = start(bench, "enhanced", thread_pool_size=4, drain=20)
    loops = closed_loops(handler, 2, 50)
    handler.process.terminate()
    assert handler.process.wait(10) == 0
    for loop in loops:
        loop.join(5)
        assert not loop.is_alive()


def test_a_stop_ends_streams_properly(bench: Bench) -> None:
    handler = start(bench, "enhanced")
    stream = Stream(handler)
    publish(handler, "1")
    assert stream.event()["data"] == "1"
    handler.process.terminate()
    assert handler.process.wait(10) == 0
    assert stream.response.read() == b""
    stream.close()


def subscribe(handler: NodeProcess, consumer: Consumer, name: str, **more: Any) -> int:
    document = {"id": 0, "eventType": "pressure", "consumer": consumer.system(name), "notifyUri": name, **more}
    return ask(handler, "POST", "/eventhandler/subscription", document)[0]


@pytest.mark.parametrize("database", ["none", "sqlite"])
def test_original_filters_and_feeds_back(bench: Bench, consumer: Consumer, database: str) -> None:
    path = bench.folder / "filters.sqlite"
    environment = {
        "TOOLKIT_SETTINGS": json.dumps({"mode": "original", "database": database}),
        "TOOLKIT_EVENT_HANDLER_DATABASE_PATH": str(path),
    }
    handler = bench.event_handler(**environment)
    assert subscribe(handler, consumer, "everything") == 201
    assert subscribe(handler, consumer, "everything") == 204
    assert subscribe(handler, consumer, "mine", sources=[SOURCE]) == 201
    assert subscribe(handler, consumer, "exact", matchMetadata=True, filterMetadata={"unit": "bar"}) == 201
    assert subscribe(handler, consumer, "later", startDate="2999-01-01T00:00:00Z") == 201
    assert subscribe(handler, consumer, "past", endDate="2001-01-01T00:00:00Z") == 400
    assert subscribe(handler, consumer, "broken") == 201
    assert ask(handler, "GET", "/eventhandler/subscription", headers={"eventtype": "pressure"})[0] == 405

    got, told = publish_and_hear(handler, consumer)
    assert got[-1] == ("/publisher/feedback", told)
    consumer.got.clear()
    nobody = {"event": {"type": "unheard", "payload": "1"}, **feedback_to(consumer)}
    assert ask(handler, "POST", "/eventhandler/publish", nobody)[0] == 200
    assert consumer.wait_for(1) == [("/publisher/feedback", {})]

    assert ask(handler, "DELETE", "/eventhandler/subscription/type/pressure/consumer/everything")[0] == 200
    assert subscribe(handler, consumer, "é", eventType="Größe 1/2") == 201
    assert count(handler, "toolkit_broker_subscribers") == 5
    assert (
        ask(handler, "DELETE", f"/eventhandler/subscription/type/{quote('Größe 1/2', safe='')}/consumer/%C3%A9")[0]
        == 200
    )
    assert count(handler, "toolkit_broker_subscribers") == 4
    assert ask(handler, "DELETE", "/eventhandler/subscription/type/pressure/consumer/nobody")[0] == 204
    handler.process.terminate()
    assert handler.process.wait(10) == 0
    bench.processes.clear()
    again = bench.event_handler(**environment)
    assert count(again, "toolkit_broker_subscribers") == (4 if database == "sqlite" else 0)


@pytest.mark.parametrize("mode", ["direct", "original"])
def test_filters_that_are_over_are_removed_where_that_is_wanted(bench: Bench, consumer: Consumer, mode: str) -> None:
    tidy = start(bench, mode, remove_old_filters=True, check_interval=1)
    later = (datetime.now(UTC) + timedelta(seconds=1.5)).isoformat()
    assert subscribe(tidy, consumer, "soon", endDate=later) == 201
    assert subscribe(tidy, consumer, "far", endDate="2999-01-01T00:00:00Z") == 201
    assert subscribe(tidy, consumer, "open") == 201

    def kept() -> list[str]:
        stored = json.loads(ask(tidy, "GET", "/eventhandler/mgmt/subscriptions")[1])
        return [subscription["notifyUri"] for subscription in stored]

    until(lambda: "soon" not in kept(), instead=kept)
    assert datetime.now(UTC) > datetime.fromisoformat(later)
    assert kept() == ["far", "open"]
    assert count(tidy, "toolkit_broker_subscribers") == 2
    assert subscribe(tidy, consumer, "soon") == 201
    assert "Traceback" not in bench.log("broker")


def test_a_filter_removed_while_it_is_delivered_keeps_nobody_waiting(bench: Bench, consumer: Consumer) -> None:
    handler = start(bench, "direct")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        document = {"systemName": "Silent", "address": "127.0.0.1", "port": silent.getsockname()[1]}
        wanted = {"eventType": "pressure", "consumer": document, "notifyUri": "x"}
        assert ask(handler, "POST", "/eventhandler/subscription", wanted)[0] == 201
        event = {"source": consumer.system("PressPub"), "event": {"type": "pressure", "payload": "1"}}
        told = {"deliveryCompleteUri": "feedback"}
        assert ask(handler, "POST", "/eventhandler/publish", event | told)[0] == 200
        connection, _ = silent.accept()
        assert connection.recv(65_536)
        assert count(handler, "toolkit_broker_queued_messages") == 1
        assert ask(handler, "DELETE", "/eventhandler/subscription/type/pressure/consumer/Silent")[0] == 200
        [(path, results)] = consumer.wait_for(1)
        connection.close()
    assert (path, list(results.values())) == ("/feedback", [False])
    assert count(handler, "toolkit_broker_queued_messages") == 0
    assert "Traceback" not in bench.log("broker")


def test_original_remembers_filters_to_the_microsecond_and_letter(tmp_path: Path) -> None:
    settings = HandlerSettings(mode="original", database="sqlite", database_path=str(tmp_path / "filters.sqlite"))
    system = System(name="PressPub", address="10.20.0.71", port=8462)
    others = frozenset(System(name="P", address="10.20.0.72", port=port) for port in (1, 2))
    midnight = datetime(2026, 1, 1, 0, 0, 0, 123_456, tzinfo=UTC)
    known = [
        Filter(event_type="Größe 尺寸", consumer=system),
        Filter(event_type="Größe 尺寸", consumer=replace(system, name="a", authentication_info="MIIB"), sources=others,
               start=midnight, end=midnight.astimezone(timezone(timedelta(hours=5))) + timedelta(days=1),
               metadata={"": "", "k": "v" * 2047, "K": "=,"}, match_metadata=True, notify_uri="x/é"),
        Filter(event_type="größe 尺寸", consumer=system),
    ]  # fmt: skip
    store = FilterStore(settings)
    stored = [store.add(wanted) for wanted in known]
    assert stored == known
    assert [wanted.id for wanted in stored if wanted] == [1, 2, 3]
    assert store.add(known[0]) is None
    store.close()

    store = FilterStore(settings)
    assert len(store) == 3
    assert store.of_type("Größe 尺寸") == known[:2]
    assert store.of_type("größe 尺寸") == known[2:]
    assert store.of_type("nothing") == []
    assert store.listed() == known
    assert [wanted.id for wanted in store.listed()] == [1, 2, 3]
    assert store.remove("Größe 尺寸", "nobody") is False
    assert store.remove("Größe 尺寸", "PressPub") is True
    assert store.of_type("Größe 尺寸") == known[1:2]
    assert len(store) == 2
    store.close()

    store = FilterStore(replace(settings, database="none", sql_log=True))  # a file for the log alone keeps no filters
    assert len(store) == 0
    store.log("a line")
    store.close()
    assert rows(Path(settings.database_path), 1) == 1


def test_filters_added_at_once_are_kept_once(tmp_path: Path) -> None:
    in_file = HandlerSettings(mode="original", database="sqlite", database_path=str(tmp_path / "filters.sqlite"))
    for settings in (HandlerSettings(mode="original"), in_file):
        store = FilterStore(settings)
        wanted = Filter(event_type="a", consumer=System(name="one", address="10.20.0.71", port=1))
        with ThreadPoolExecutor(8) as pool:
            stored = list(pool.map(store.add, [wanted] * 24))
        assert [found.id for found in stored if found is not None] == [1]
        assert store.of_type("a") == [wanted]
        store.close()


def test_a_database_without_an_address_is_named() -> None:
    environ = {"TOOLKIT_SETTINGS": json.dumps({"mode": "original", "database": "stores", "database_timeout": 0.5})}
    with pytest.raises(ValueError, match="'stores'; set TOOLKIT_EVENT_HANDLER_DATABASE_URL"):
        HandlerSettings.from_environment(environ)
    url = "postgresql://user@host/name"
    found = HandlerSettings.from_environment({**environ, "TOOLKIT_EVENT_HANDLER_DATABASE_URL": url})
    assert (found.storage_url, found.database_timeout_s) == (url, 0.5)


def test_original_answers_before_it_delivers_and_its_queue_has_no_bound(bench: Bench) -> None:
    handler = start(bench, "original")
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts in the kernel, never answers
        document = {
            "eventType": "pressure",
            "consumer": {"systemName": "silent", "address": "127.0.0.1", "port": silent.getsockname()[1]},
        }
        assert ask(handler, "POST", "/eventhandler/subscription", document)[0] == 201
        assert [publish(handler, str(number)) for number in range(50)] == [200] * 50
        assert count(handler, "toolkit_broker_queued_messages") >= 40


def test_a_sql_log_has_the_originals_rows(bench: Bench, consumer: Consumer) -> None:
    path = bench.folder / "log.sqlite"
    handler = bench.event_handler(
        TOOLKIT_SETTINGS=json.dumps({"mode": "original", "sql_log": True, "feedback": True}),
        TOOLKIT_EVENT_HANDLER_DATABASE_PATH=str(path),
    )
    for name in ("one", "two"):
        assert subscribe(handler, consumer, name) == 201
    feedback = {"deliveryCompleteUri": "feedback", "source": consumer.system("PressPub")}
    event = {"event": {"type": "pressure", "payload": "1"}, **feedback}
    assert ask(handler, "POST", "/eventhandler/publish", event)[0] == 200
    assert len(consumer.wait_for(3)) == 3
    assert rows(path, 7) == 2 * 2 + 1 + 2


def rows(path: Path, at_least: int) -> int:
    def found() -> int:
        with contextlib.closing(sqlite3.connect(path)) as database:
            return int(database.execute("SELECT count(*) FROM logs").fetchone()[0])

    until(lambda: found() >= at_least, instead=found)
    return found()


def test_enhanced_gives_whoever_has_its_answer_every_event_from_then_on() -> None:
    exchange = EnhancedHandler(HandlerSettings(mode="enhanced")).exchange
    written: list[bytes] = []
    publishing = threading.Thread(target=lambda: exchange.broadcast("pressure", b"1", None))

    class Wire(Outlet):
        def __init__(self) -> None: ...

        def set_sending(self, sending: Sending) -> None: ...

        def write(self, data: bytes) -> None:
            if not written:  # an event comes in while the answer is being written
                publishing.start()
                publishing.join(0.1)
            written.append(data)

    exchange.subscribe("pressure", Wire(), head=b"head")
    publishing.join(5)
    event = b"event: pressure\ndata: 1\n\n"
    assert written == [b"head", b"%x\r\n%b\r\n" % (len(event), event)]
