"""What the Event Handler stamps, and what it leaves out, without a socket."""

from __future__ import annotations

import base64
import random
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from toolkit.contract.orders import RunOrder
from toolkit.contract.samples import STAMP, Flag, Header, Point, pack_header
from toolkit.contract.settings import ProcessSettings
from toolkit.node import stamps
from toolkit.node.event_handler import recorder as recorders
from toolkit.node.event_handler.recorder import Passage, Recorder, SharedRecorder
from toolkit.node.stamps import StampWriter

T2, T3 = int(Point.BROKER_RECEIVED), int(Point.BROKER_SENT)


@dataclass
class End:
    port: int
    mark: int = 0
    marked_in: int = 0
    asked: list[int] = field(default_factory=list)

    def remote(self) -> tuple[str, int]:
        self.asked.append(self.port)
        return "10.0.0.1", self.port


class Bench:
    """A recorder and the file that it stamps into."""

    def __init__(self, folder: Path, recorder: Recorder) -> None:
        self.recorder, self.folder, self.runs = recorder, folder, 0

    def begin(self) -> StampWriter:
        self.runs += 1
        settings = ProcessSettings(
            testbed="t",
            node="n",
            service="eh",
            instance=0,
            metrics_port=1,
            control_port=2,
            samples_dir=str(self.folder),
        )
        writer = StampWriter(settings, RunOrder(run=f"r{self.runs}", testbed="t", role="broker", protocol="sse"))
        self.recorder.begin(writer)
        return writer

    def finish(self, writer: StampWriter) -> list[tuple[int, ...]]:
        self.recorder.end()
        info = writer.close(counts={}, flows=self.recorder.flows.by_peer, facts={})
        found = list(STAMP.iter_unpack(writer.path.read_bytes()))
        assert info.stamps == len(found) == self.recorder.received + self.recorder.sent
        return found


@pytest.fixture(params=[Recorder, SharedRecorder])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    return Bench(tmp_path, request.param())


def payload(stream: int, seq: int, flags: int = 0, size: int = 71) -> str:
    header = pack_header(Header(stream=stream, seq=seq, t0_ns=seq, t1_ns=seq + 1, flags=flags))
    return base64.b64encode(header + b"f" * (size - len(header))).decode()


def test_every_event_is_stamped_as_it_came_and_as_it_went(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stamps, "_AT_ONCE", 7)
    monkeypatch.setattr(recorders, "_MOST_STREAMS", 3)
    dice, writer = random.Random(1), bench.begin()
    publishers, subscribers = [End(1), End(2)], [End(3), End(4), End(5)]
    expected = []
    numbers = {end.port: number for number, end in enumerate([publishers[0], *subscribers, publishers[1]])}
    for event in range(2000):
        stream, seq, flags = dice.randrange(2**32 - 3, 2**32), dice.randrange(2**63), dice.choice([0, Flag.WARMUP])
        if event % 5 == 0:
            stream = dice.randrange(2**32)  # more streams than are remembered
        publisher = publishers[event > 0 and dice.randrange(2)]
        text = payload(stream, seq, flags, size=dice.choice([40, 41, 71]))
        at_once = subscribers[: 3 if event == 0 else dice.randrange(4)]
        passage: Passage = (text if event % 2 else text.encode(), [])
        passage[1].extend((subscriber, 10**18 + event) for subscriber in at_once)
        bench.recorder.stamp(passage, publisher, 10**18 - event)
        expected.append((T2, flags, numbers.get(publisher.port), stream, seq, 10**18 - event, 0))
        expected += [(T3, flags, numbers[s.port], stream, seq, 10**18 + event, 0) for s in at_once]
        if event % 7 == 0:
            bench.recorder.stamp_later(passage, subscribers[0], 10**18 + 2 * event)
            expected.append((T3, flags, numbers[3], stream, seq, 10**18 + 2 * event, 0))
    # The second publisher was numbered when it was first heard of: after the first one and every subscriber.
    assert bench.finish(writer) == expected
    assert bench.recorder.foreign == 0
    assert all(len(end.asked) == 1 for end in (*publishers, *subscribers))


def test_probes_and_what_is_not_of_a_run_are_left_out(bench: Bench) -> None:
    writer = bench.begin()
    publisher, subscriber = End(1), End(2)
    good = payload(7, 1)
    foreign = [
        "",
        "pressure",
        "ä" * 60,
        "A" * 56,
        good[:17],
        good[:30],
        f"{good[:20]}!{good[21:]}",
        good[:40] + "A" * 40,
    ]
    for known in (False, True):
        for text in [*foreign, payload(7, 2, Flag.PROBE)]:
            if known and text.startswith(good[:28]):
                continue  # begins as others of its stream did: the number is taken from it
            passage: Passage = (text, [(subscriber, 5)])
            bench.recorder.stamp(passage, publisher, 4)
            bench.recorder.stamp_later(passage, subscriber, 6)
        assert bench.recorder.received == bench.recorder.sent == int(known)
        if not known:
            bench.recorder.stamp((good, [(subscriber, 8)]), publisher, 7)
    assert bench.recorder.foreign == 2 * len(foreign) - 2
    assert [stamp[:5] for stamp in bench.finish(writer)] == [(T2, 0, 0, 7, 1), (T3, 0, 1, 7, 1)]


def test_a_run_has_numbers_and_counts_of_its_own(bench: Bench) -> None:
    publisher, subscriber, other = End(1), End(2), End(3)
    assert not bench.recorder.on
    first = bench.begin()
    assert bench.recorder.on
    bench.recorder.stamp((payload(7, 1), [(other, 2), (subscriber, 3)]), publisher, 1)
    assert len(bench.finish(first)) == 3
    bench.recorder.stamp_later((payload(7, 1), []), subscriber, 4)  # one that waited beyond the end
    second = bench.begin()
    bench.recorder.stamp((payload(8, 1), [(subscriber, 3)]), publisher, 1)
    assert bench.finish(second) == [(T2, 0, 0, 8, 1, 1, 0), (T3, 0, 1, 8, 1, 3, 0)]
    assert bench.recorder.flows.by_peer == {"0": ["10.0.0.1", 1], "1": ["10.0.0.1", 2]}


def test_stamps_of_few_events_are_saved_while_the_run_goes_on(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stamps, "_PERIOD_S", 0.001)
    writer = bench.begin()
    bench.recorder.stamp((payload(7, 1), []), End(1), 1)
    until_s = time.monotonic() + 20
    while not writer.path.stat().st_size and time.monotonic() < until_s:
        time.sleep(0.001)
    assert list(STAMP.iter_unpack(writer.path.read_bytes())) == [(T2, 0, 0, 7, 1, 1, 0)]
    assert len(bench.finish(writer)) == 1
