"""What can go wrong in a run: lost connections, wrong orders, ends before the end, brokers that misbehave by script."""

import base64
import json
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests import ports
from tests.conftest import lacking
from tests.waiting import until
from toolkit.contract.orders import Arrivals, RunOrder, to_json
from toolkit.contract.samples import Point

from .processes import Bench, free_port, of_point, play

OPEN = Arrivals(kind="rate", rate_per_s=1000)


class ScriptedBroker:
    """An Event Handler whose every delivery follows a law: (number of the event) -> copies to send, and how late."""

    def __init__(self, law: Callable[[int], list[float]]) -> None:
        self._law = law
        self._subscribers: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._number = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        buffer = b""
        with connection:
            while data := connection.recv(65536):
                buffer += data
                while b"\r\n\r\n" in buffer:
                    head, _, rest = buffer.partition(b"\r\n\r\n")
                    if head.startswith(b"GET"):
                        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                        self._subscribers.append(connection)
                        buffer = rest
                        continue
                    size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                    if len(rest) < size:
                        break
                    self._publish(json.loads(rest[:size])["event"]["payload"])
                    buffer = rest[size:]
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    def _publish(self, payload: str) -> None:
        if base64.b64decode(payload)[5]:  # flags: a probe
            return
        event = f"data: {payload}\n\n".encode()
        chunk = b"%x\r\n%b\r\n" % (len(event), event)
        for late_s in self._law(self._number):
            for subscriber in self._subscribers:
                threading.Timer(late_s, subscriber.sendall, (chunk,)).start() if late_s else subscriber.sendall(chunk)
        self._number += 1

    def close(self) -> None:
        self._listener.close()


def test_the_laws_of_a_scripted_broker_come_back(bench: Bench) -> None:
    """Every 10th dropped, every 7th twice, every 50th 40 ms late."""

    def law(number: int) -> list[float]:
        if number % 10 == 3:
            return []
        if number % 50 == 8:
            return [0.04]
        return [0, 0] if number % 7 == 2 else [0]

    broker = ScriptedBroker(law)
    publisher, subscriber = bench.publisher(), bench.subscriber()
    play(None, [publisher], [subscriber], run="law", broker=f"127.0.0.1:{broker.port}", messages=1000, arrivals=OPEN)
    broker.close()
    copies = [len(law(number)) for number in range(1000)]
    late = [number for number in range(1000) if law(number) == [0.04]]
    counts = subscriber.info("law").counts
    assert counts["received"] == sum(copy > 0 for copy in copies)
    assert counts["duplicate"] == sum(copy - 1 for copy in copies if copy)
    assert counts["reordered"] == len(late)
    sent = {stamp[4]: stamp[5] for stamp in of_point(publisher.stamps("law"), Point.SENT)}
    received = {stamp[4]: stamp[5] for stamp in of_point(subscriber.stamps("law"), Point.RECEIVED)}
    assert {seq for seq in received if received[seq] - sent[seq] >= 40_000_000} >= set(late)


def test_lost_connections_are_dialled_again_and_the_books_close(bench: Bench) -> None:
    port = free_port()
    environment = {"TOOLKIT_EVENT_HANDLER_PORT": str(port)}
    first = bench.launch("event_handler", "broker", **environment)
    publisher, subscriber = bench.publisher(), bench.subscriber()

    def restart() -> None:
        publisher.wait_until_sent(1000)
        first.process.kill()
        first.process.wait()
        bench.processes.remove(first)
        bench.launch("event_handler", "broker", **environment)

    restarting = threading.Thread(target=restart)
    restarting.start()
    play(
        None,
        [publisher],
        [subscriber],
        run="again",
        broker=f"127.0.0.1:{port}",
        messages=6000,
        arrivals=OPEN,
        drain_s=1,
    )
    restarting.join()
    sent, received = publisher.info("again"), subscriber.info("again")
    assert sent.counts["reconnects"] >= 1
    assert received.counts["reconnects"] >= 1
    assert sent.counts["sent"] + sent.counts["refused"] == 6000
    assert sent.counts["refused"] > 0
    assert len(of_point(publisher.stamps("again"), Point.REFUSED)) == sent.counts["refused"]
    assert received.counts["received"] > 100  # how long a restart takes is the machine's
    assert set(received.facts["connections"].values()) == {0}
    assert len(received.flows) == received.counts["reconnects"] + 1


@pytest.mark.parametrize(
    ("module", "environment"),
    [
        ("publisher", {}),
        ("event_handler", {"TOOLKIT_EVENT_HANDLER_MODE": "direct"}),
        ("event_handler", {"TOOLKIT_EVENT_HANDLER_MODE": "enhanced"}),
        ("gateway", {"TOOLKIT_UPSTREAM": "127.0.0.1:1", "TOOLKIT_UPSTREAM_PROTOCOL": "mqtt"}),
    ],
)
def test_who_can_be_asked_can_be_ended(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, module: str, environment: dict[str, str]
) -> None:
    """However soon after it listens."""
    monkeypatch.setattr(ports, "time", SimpleNamespace(monotonic=time.monotonic, sleep=lambda _: None))
    for instance in range(3):
        started = bench.launch(module, "hasty", instance, TOOLKIT_EVENT_HANDLER_PORT=str(free_port()), **environment)
        started.process.terminate()
        assert started.process.wait(10) == 0, bench.log("hasty", instance)


def test_sigterm_saves_what_there_is(bench: Bench) -> None:
    broker = bench.event_handler()
    publisher = bench.publisher()
    order = RunOrder(
        run="cut", testbed="t", role="publisher", protocol="sse", broker=f"127.0.0.1:{broker.port}", topics=["a"],
        streams=[1], duration_s=60, arrivals=OPEN,
    )  # fmt: skip
    publisher.order(order)
    publisher.wait_for("ready")
    publisher.start(time.time_ns())
    publisher.wait_until_sent(300)
    publisher.process.send_signal(signal.SIGTERM)
    assert publisher.process.wait(10) == 0
    info = publisher.info("cut")
    assert 300 <= info.counts["sent"] < 60_000
    assert len(of_point(publisher.stamps("cut"), Point.SENT)) == info.counts["sent"]


def test_orders_that_cannot_be_are_refused_with_a_reason(bench: Bench) -> None:
    publisher = bench.publisher()
    order = RunOrder(
        run="x", testbed="t", role="publisher", protocol="mqtt", broker=f"127.0.0.1:{free_port()}", topics=["a"],
        streams=[1], messages=1,
    )  # fmt: skip
    good = json.loads(to_json(order))
    for change, reason in [
        ({"role": "subscriber"}, "this process is a publisher"),
        ({"streams": []}, "1 streams, not 0"),
        ({"payload_bytes": 39}, "cannot hold the 40-byte header"),
        ({"protocol": "carrier-pigeon"}, "no driver"),
        ({"topics": ["a/#"]}, "wildcard"),
        ({"qos": 3}, "not 3"),
        ({"messages": None}, "its end"),
        ({"run": "../x"}, "folder"),
        ({"colour": 1}, "colour"),
        ({"arrivals": {"kind": "rate"}}, "rate above 0"),
    ]:
        status, body = publisher.ask("PUT", "/run", json.dumps(good | change))
        assert status == 400, change
        assert reason in json.loads(body)["error"]
    assert publisher.ask("PUT", "/run", "{")[0] == 400
    assert publisher.ask("GET", "/nowhere")[0] == 404
    assert publisher.ask("DELETE", "/run")[0] == 405
    assert publisher.ask("POST", "/run/start", '{"at_ns": 1}')[0] == 409
    assert "toolkit_run_phase" in publisher.metrics()


def test_a_port_that_is_taken_is_named(bench: Bench) -> None:
    publisher = bench.publisher()
    with pytest.raises(AssertionError, match=f"cannot listen on 127.0.0.1:{publisher.settings.control_port}"):
        bench.launch("publisher", "publisher", 1, TOOLKIT_CONTROL_PORT=str(publisher.settings.control_port))
    bench.processes.pop()


def test_counting_only_leaves_no_stamps(bench: Bench) -> None:
    broker = bench.event_handler()
    publisher, subscriber = bench.publisher(), bench.subscriber()
    play(broker, [publisher], [subscriber], run="n", broker=f"127.0.0.1:{broker.port}", messages=50, record=False)
    assert publisher.stamps("n") == subscriber.stamps("n") == broker.stamps("n") == []
    assert publisher.info("n").counts["sent"] == subscriber.info("n").counts["received"] == 50


def test_everything_runs_on_debians_own_python(tmp_path: Path) -> None:
    if not Path("/usr/lib/python3/dist-packages/httptools").exists():
        lacking("python3-httptools")
    assert sys.executable != "/usr/bin/python3"
    bench = Bench(tmp_path, python="/usr/bin/python3")
    try:
        broker = bench.event_handler()
        publisher, subscriber = bench.publisher(), bench.subscriber()
        play(broker, [publisher], [subscriber], run="d", broker=f"127.0.0.1:{broker.port}", messages=200)
        assert subscriber.info("d").counts["received"] == 200
        assert broker.info("d").facts["httptools"] == "0.1.1"
    finally:
        bench.close()


def test_two_processes_of_one_name_end_their_fight_and_say_what_it_was(bench: Bench, mosquitto: int) -> None:
    """Each throws the other out, ten times a second; what a second toolkit on the same broker would do."""
    order = RunOrder(
        run="fight", testbed="t", role="subscriber", protocol="mqtt", broker=f"127.0.0.1:{mosquitto}", topics=["a"],
        qos=1,
    )  # fmt: skip
    (bench.folder / "other").mkdir()
    other = Bench(bench.folder / "other")
    try:
        one, two = bench.subscriber(), other.subscriber()
        one.order(order)
        one.wait_for("ready")
        two.order(order)
        told = until(lambda: [p.status().error for p in (one, two) if p.status().phase == "failed"])
    finally:
        other.close()
    assert "connections in a row were lost within 3 s of being taken" in str(told[0])
    assert "does somebody else enter by the name tk-sub-here-subscriber-0-0 too" in str(told[0])
