import errno
import itertools
import json
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from toolkit.contract.orders import RunOrder
from toolkit.contract.samples import HEAD_BYTES, STAMP, Header, Point, StampsInfo, pack_header, received_as
from toolkit.contract.settings import ProcessSettings
from toolkit.node import stamps
from toolkit.node.live import LiveSender, read_datagram
from toolkit.node.stamps import ClockWatch, StampWriter


def settings(folder: Path) -> ProcessSettings:
    return ProcessSettings(
        testbed="t", node="pi-1", service="pub", instance=2, metrics_port=1, control_port=2, samples_dir=str(folder)
    )


def order(**options: Any) -> RunOrder:
    return RunOrder(run="r", testbed="t", role="publisher", protocol="mqtt", options=options)


def in_pieces(folder: Path, patch: pytest.MonkeyPatch, *, at_once: int) -> StampWriter:
    """One that saves again and again while stamps come, so many at once."""
    patch.setattr(stamps, "_AT_ONCE", at_once)
    patch.setattr(stamps, "_PERIOD_S", 0.001)
    return StampWriter(settings(folder), order())


def note_read(writer: StampWriter, peer: int, at_ns: int, headers: list[bytes]) -> None:
    heads = b"".join(header[:HEAD_BYTES] for header in headers)
    writer.reads += (heads, received_as(peer), at_ns, len(headers))


def close(writer: StampWriter, **counts: int) -> StampsInfo:
    return writer.close(counts=counts, flows={"0": ["10.0.0.1", 5]}, facts={"python": "3"})


def test_every_stamp_comes_back_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stamps, "_BYTES_AT_ONCE", 100 * STAMP.size)
    writer = in_pieces(tmp_path, monkeypatch, at_once=64)
    for seq in range(50_000):
        writer.add(1, 0, 3, 7, seq, 1000 + seq, -seq)
    info = close(writer, sent=50_000)
    found = list(STAMP.iter_unpack((tmp_path / "r" / "pub-2.stamps").read_bytes()))
    assert found == [(1, 0, 3, 7, seq, 1000 + seq, -seq) for seq in range(50_000)]
    assert info.stamps == 50_000
    assert info.error is None
    assert StampsInfo(**json.loads((tmp_path / "r" / "pub-2.json").read_text())) == info


def test_headers_of_what_was_sent_become_stamps_of_their_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = in_pieces(tmp_path, monkeypatch, at_once=3)
    first, second = writer.sent(1), writer.sent(0x1234)
    for seq in range(20_000):
        buffer = second if seq % 3 else first
        buffer += pack_header(Header(stream=7, seq=seq, t0_ns=-seq, t1_ns=1000 + seq, flags=seq & 1))
    writer.add(Point.REFUSED, 0, 1, 7, 20_000, 5)
    info = close(writer)
    found = sorted(STAMP.iter_unpack((tmp_path / "r" / "pub-2.stamps").read_bytes()), key=lambda stamp: stamp[4])
    assert found == [
        *((Point.SENT, seq & 1, 0x1234 if seq % 3 else 1, 7, seq, 1000 + seq, -seq) for seq in range(20_000)),
        (Point.REFUSED, 0, 1, 7, 20_000, 5, 0),
    ]
    assert info.stamps == 20_001
    assert info.error is None


@pytest.mark.parametrize("most", [1, 4])
def test_heads_of_what_was_received_become_stamps_of_their_reads(
    most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = in_pieces(tmp_path, monkeypatch, at_once=5)
    expected = []
    for read in range(10_000):
        peer, at_ns, count = read % 0x1234, 10**18 + read, read % most + 1
        stream, flags, first = 2**32 - 1 - read, read & 5, read << 40
        found = [Header(stream=stream, seq=first + n, t0_ns=1, t1_ns=2, flags=flags) for n in range(count)]
        expected += [(Point.RECEIVED, flags, peer, stream, header.seq, at_ns, 0) for header in found]
        note_read(writer, peer, at_ns, [pack_header(header) for header in found])
    assert close(writer).stamps == len(expected)
    assert list(STAMP.iter_unpack(writer.path.read_bytes())) == expected


@pytest.mark.parametrize("noted", ["words", "sent", "received"])
def test_stamps_of_a_stalled_disk_are_given_up_and_said_to_be(
    noted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, writes = os.write, [0]

    def stalls(fd: int, data: Any) -> int:
        """More comes in while the first write waits for the disk."""
        done = real(fd, data)
        writes[0] += 1
        if writes[0] == 1:
            note(1, 101)
        return done

    def note(first: int, end: int) -> None:
        for seq in range(first, end):
            header = pack_header(Header(stream=7, seq=seq, t0_ns=seq, t1_ns=seq))
            if noted == "words":
                writer.add(1, 0, 0, 7, seq, seq)
            elif noted == "sent":
                sent.extend(header)
            else:
                note_read(writer, 0, seq, [header])

    monkeypatch.setattr(stamps, "_AT_ONCE", 1)
    monkeypatch.setattr(stamps, "_BYTES_AT_ONCE", STAMP.size)
    monkeypatch.setattr(stamps, "_MOST_WAITING", 10)
    monkeypatch.setattr(stamps, "_MOST_WAITING_HEADERS", 10)
    monkeypatch.setattr(stamps, "_PERIOD_S", 60)
    writer = StampWriter(settings(tmp_path), order())
    sent = writer.sent(0)
    note(0, 1)
    monkeypatch.setattr(stamps.os, "write", stalls)
    info = close(writer)
    monkeypatch.undo()
    assert info.stamps == 1  # the first that was written; then it was seen how many wait
    assert info.error == f"the disk under {tmp_path / 'r'} is too slow; 1 stamps saved, 100 lost"


def test_a_full_disk_ends_in_a_named_error_with_whole_stamps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, left = os.write, [3 * STAMP.size + 5]

    def write(fd: int, data: Any) -> int:
        if threading.current_thread() is not threading.main_thread() or not left:
            return real(fd, data)
        if not left[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        done = real(fd, bytes(data)[: left[0]])
        left[0] -= done
        return done

    writer = StampWriter(settings(tmp_path), order())
    sent = writer.sent(0)
    for seq in range(5):
        writer.add(1, 0, 0, 7, seq, seq)
        sent += pack_header(Header(stream=7, seq=5 + seq, t0_ns=seq, t1_ns=seq))
        note_read(writer, 0, seq, [pack_header(Header(stream=7, seq=10 + seq, t0_ns=seq, t1_ns=seq))])
    monkeypatch.setattr(stamps.os, "write", write)
    info = close(writer)
    monkeypatch.undo()
    assert info.stamps == 3
    assert info.error is not None
    assert f"the disk under {tmp_path / 'r'} on node pi-1 is full" in info.error
    assert "3 stamps saved, 12 lost" in info.error
    assert (tmp_path / "r" / "pub-2.stamps").stat().st_size == 3 * STAMP.size
    assert json.loads((tmp_path / "r" / "pub-2.json").read_text())["error"] == info.error


def test_a_step_of_the_clock_is_seen_and_slewing_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    wall = [time.time_ns()]
    monotonic = [0]
    monkeypatch.setattr(stamps.time, "time_ns", lambda: wall[0])
    monkeypatch.setattr(stamps.time, "monotonic_ns", lambda: monotonic[0])
    watch = ClockWatch()
    for _ in range(10):  # slewed: both clocks move the same way
        wall[0] += 1_000_500
        monotonic[0] += 1_000_500
        watch.look()
    assert watch.steps == []
    wall[0] -= 5_000_000
    watch.look()
    assert [size for _, size in watch.steps] == [-5_000_000]


def test_a_reading_that_was_interrupted_is_no_step(monkeypatch: pytest.MonkeyPatch) -> None:
    real, held_up_ns = time.time_ns, [0]

    def slow_clock() -> int:
        until = time.monotonic_ns() + held_up_ns[0]
        while time.monotonic_ns() < until:
            pass
        return real()

    watch = ClockWatch()
    monkeypatch.setattr(stamps.time, "time_ns", slow_clock)
    held_up_ns[0] = 2_000_000  # between the two clocks, as when another process has the processor
    watch.look()
    held_up_ns[0] = 0
    watch.look()
    assert watch.steps == []


def test_sampled_stamps_reach_the_hop_exporter_with_their_flows(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as exporter:
        exporter.bind(("127.0.0.1", 0))
        exporter.settimeout(5)
        live = LiveSender(settings(tmp_path), "127.0.0.1", exporter.getsockname()[1])
        writer = StampWriter(settings(tmp_path), order(live_every=10), live=live)
        for seq in range(1000):
            writer.add(1, 0, seq % 2, 7, seq, seq)
        close(writer)
        got: list[tuple[int, ...]] = []
        while len(got) < 100:
            datagram = exporter.recv(65536)
            assert len(datagram) <= 1472
            head, some = read_datagram(datagram)
            assert head["run"] == "r"
            assert head["node"] == "pi-1"
            assert head["role"] == "publisher"
            assert head["flows"] == {"0": ["10.0.0.1", 5]}
            got += some
    assert [stamp[4] for stamp in got] == list(range(0, 1000, 10))


def test_too_many_sampled_stamps_become_fewer_of_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Exporter(LiveSender):
        def send(self, order: RunOrder, stamps: list[bytes], flows: dict[str, list[Any]]) -> None:
            sent.append([STAMP.unpack(stamp) for stamp in stamps])

    monkeypatch.setattr(stamps, "_PERIOD_S", 60)
    monkeypatch.setattr(stamps, "_MOST_SAMPLED", 100)
    monkeypatch.setattr(stamps, "_AT_ONCE", 64)
    sent: list[list[tuple[int, ...]]] = []
    for streams, messages, every in ((1, 10_000, 12 * 16), (1000, 1, 12), (1, 900, 12)):
        writer = StampWriter(
            settings(tmp_path), order(live_every=12), live=Exporter(settings(tmp_path), "127.0.0.1", 9)
        )
        for seq in range(messages):
            for stream in range(streams):
                writer.add(1, 0, 0, stream, seq, seq)
        close(writer)
        assert sorted(stamp[4] for stamp in sent.pop()) == sorted([*range(0, messages, every)] * streams)


def test_after_a_flood_as_many_are_sampled_again_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Exporter(LiveSender):
        def send(self, order: RunOrder, stamps: list[bytes], flows: dict[str, list[Any]]) -> None:
            if stamps:
                sent.append([STAMP.unpack(stamp)[4] for stamp in stamps])

    monkeypatch.setattr(stamps, "_PERIOD_S", 0.02)
    monkeypatch.setattr(stamps, "_MOST_SAMPLED", 100)
    sent: list[list[int]] = []
    writer = StampWriter(settings(tmp_path), order(live_every=4), live=Exporter(settings(tmp_path), "127.0.0.1", 9))
    numbers, deadline_s = itertools.count(step=4), time.monotonic() + 30
    while not (sent and all(seq % 8 == 0 for seq in sent[-1])) and time.monotonic() < deadline_s:
        for seq in itertools.islice(numbers, 100):
            writer.add(1, 0, 0, 7, seq, seq)
    in_flood = sent[-1]
    while all(seq % 8 == 0 for seq in sent[-1]) and time.monotonic() < deadline_s:
        writer.add(1, 0, 0, 7, next(numbers), 0)
        time.sleep(0.002)
    after_it = sent[-1]
    close(writer)
    assert all(seq % 8 == 0 for seq in in_flood)
    assert any(seq % 8 == 4 for seq in after_it)


def test_no_exporter_address_means_no_sender(tmp_path: Path) -> None:
    assert LiveSender.from_environment(settings(tmp_path), {}) is None
    assert LiveSender.from_environment(settings(tmp_path), {"TOOLKIT_HOP_EXPORTER": "nonsense"}) is None
