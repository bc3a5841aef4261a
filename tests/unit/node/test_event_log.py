"""The lines that the published measurements were read from, as a tool that knows them reads them."""

from __future__ import annotations

import contextlib
import io
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from toolkit.contract.samples import Flag, Header, Point, pack_header
from toolkit.node.event_log import EventLog

from .event_handler.clients import Stream, publish
from .processes import Bench, of_point, play

_OF_EVENT = re.compile(r"(?:(Event published to EH:|Received message|Going to send message) )?(\d+) at (\d{13})")


@contextlib.contextmanager
def printing(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Iterator[list[Path]]:
    """What processes print from now on, a file each in the order they are started."""
    files: list[Path] = []
    popen = subprocess.Popen

    def start(*args: object, **named: object) -> object:
        files.append(folder / f"stdout-{len(files)}")
        with files[-1].open("wb") as out:
            return popen(*args, stdout=out, **named)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "Popen", start)
    yield files
    monkeypatch.undo()


def events(path: Path) -> dict[str | None, dict[int, int]]:
    """Kind of line -> number of the event -> ms."""
    found: dict[str | None, dict[int, int]] = {}
    for line in path.read_text().splitlines():
        if match := _OF_EVENT.fullmatch(line):
            found.setdefault(match[1], {})[int(match[2])] = int(match[3])
    return found


@pytest.mark.parametrize(("mode", "protocol"), [("direct", "sse"), ("enhanced", "sse"), ("original", "http")])
def test_a_run_prints_where_every_event_was_when(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, mode: str, protocol: str
) -> None:
    with printing(monkeypatch, bench.folder) as files:
        broker = bench.event_handler(TOOLKIT_SETTINGS=json.dumps({"mode": mode, "log_events": True}))
        publisher, subscriber = bench.publisher(), bench.subscriber()
    play(broker, [publisher], [subscriber], run="l", protocol=protocol, broker=f"127.0.0.1:{broker.port}",
         messages=30, payload_bytes=71, options={"log_events": True})  # fmt: skip
    sent = {stamp[4] + 1: stamp[5] // 10**6 for stamp in of_point(publisher.stamps("l"), Point.SENT)}
    received = {stamp[4] + 1: stamp[5] // 10**6 for stamp in of_point(subscriber.stamps("l"), Point.RECEIVED)}
    bench.close()
    bench.processes.clear()

    numbers = list(range(1, 31))
    of_broker, of_publisher, of_subscriber = map(events, files)
    assert list(of_publisher) == ["Event published to EH:"]
    published = of_publisher["Event published to EH:"]
    assert list(published) == numbers
    assert all(0 <= sent[number] - published[number] < 1000 for number in numbers)
    assert of_subscriber == {None: received}
    assert set(of_broker) == {"Received message", "Going to send message"}
    for number in numbers:
        way = [published[number], of_broker["Received message"][number], of_broker["Going to send message"][number],
               received[number]]  # fmt: skip
        assert way == sorted(way)
    told = [re.sub(r"\d{13}", "MS", line) for line in files[2].read_text().splitlines() if '"' in line]
    assert told == [
        'Going to subscribe to "pressure" event type at MS',
        'Subscribed to "pressure" event type at MS',
        'Going to unsubscribe from "pressure" event type at MS',
        'Unsubscribed from "pressure" event type at MS',
    ]


def test_clients_of_others_are_printed_by_their_payloads(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    with printing(monkeypatch, bench.folder) as files:
        handler = bench.event_handler(TOOLKIT_SETTINGS=json.dumps({"log_events": True}))
    assert publish(handler, "1") == 200  # nobody to send it to
    stream = Stream(handler)
    for payload in ("2", "3", "zwei\nZeilen"):
        assert publish(handler, payload) == 200
        stream.event()
    stream.close()
    bench.close()
    bench.processes.clear()
    assert [re.sub(r"\d{13}$", "MS", line) for line in files[0].read_text().splitlines()] == [
        "Received message 1 at MS",
        *(f"{what} message {payload} at MS" for payload in ("2", "3", r"zwei\nZeilen")
          for what in ("Received", "Going to send")),
    ]  # fmt: skip


def test_probes_are_not_printed_and_a_lost_reader_stops_nothing() -> None:
    out = io.StringIO()
    log = EventLog(out)
    for flags in (0, Flag.PROBE):
        log.received(pack_header(Header(stream=1, seq=6, t0_ns=0, t1_ns=0, flags=flags)), 1_234_567_890)
    assert out.getvalue() == "7 at 1234\n"
    out.close()
    log.published(7)
    log.flush()


def test_nothing_is_printed_unless_wanted(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    with printing(monkeypatch, bench.folder) as files:
        handler = bench.event_handler()
    assert publish(handler, "1") == 200
    bench.close()
    bench.processes.clear()
    assert not files[0].read_bytes()
