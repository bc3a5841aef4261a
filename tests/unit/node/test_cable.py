"""The cable in user space: what it does to frames, and that it carries them."""

from __future__ import annotations

import random
import socket
import statistics
import time
from collections.abc import Iterator

import pytest

from toolkit.node.cable import LIMIT, Impairment, Way, carry, say_ready

MS = 1_000_000


def _way(seed: int = 1, **asked: float) -> Way:
    return Way(Impairment(**asked), random.Random(seed))  # type: ignore[arg-type]


def _frame(number: int) -> bytes:
    return number.to_bytes(4, "big")


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ("delay 1500us 200us loss 1.500000%", Impairment(delay_ns=1_500_000, jitter_ns=200_000, loss=0.015)),
        ("delay 10000us", Impairment(delay_ns=10 * MS)),
        ("loss 20.000000%", Impairment(loss=0.2)),
    ],
)
def test_it_reads_netem_s_words(words: str, asked: Impairment) -> None:
    assert Impairment.of(words.split()) == asked


@pytest.mark.parametrize("words", ["delay 10ms", "loss 20", "delay 1us 2us 3us", "corrupt 1%"])
def test_other_words_are_refused(words: str) -> None:
    with pytest.raises(ValueError, match="is not `delay"):
        Impairment.of(words.split())


def test_frames_are_due_after_the_delay_and_in_their_order() -> None:
    way = _way(delay_ns=10 * MS)
    for number in range(5):
        way.take(_frame(number), number)
    assert list(way.due(10 * MS - 1)) == []
    assert list(way.due(10 * MS + 2)) == [_frame(0), _frame(1), _frame(2)]
    assert list(way.due(11 * MS)) == [_frame(3), _frame(4)]


def test_delays_are_drawn_alike_between_the_bounds_and_frames_overtake() -> None:
    way = _way(delay_ns=10 * MS, jitter_ns=4 * MS)
    for number in range(LIMIT):
        way.take(_frame(number), 0)
    delays = [due for due, _, _ in way.waiting]
    assert 6 * MS <= min(delays) < 6.1 * MS
    assert 13.9 * MS < max(delays) <= 14 * MS
    assert statistics.fmean(delays) == pytest.approx(10 * MS, rel=0.01)
    assert statistics.pstdev(delays) == pytest.approx(8 * MS / 12**0.5, rel=0.02)  # of a uniform distribution
    given = list(way.due(14 * MS))
    assert given != sorted(given)
    assert sorted(given) == [_frame(number) for number in range(LIMIT)]


def test_the_same_seed_draws_the_same() -> None:
    ways = [_way(seed, delay_ns=10 * MS, jitter_ns=MS, loss=0.5) for seed in (7, 7, 8)]
    for way in ways:
        for number in range(50):
            way.take(_frame(number), number)
    assert ways[0].waiting == ways[1].waiting
    assert ways[0].waiting != ways[2].waiting


def test_more_jitter_than_delay_means_at_once() -> None:
    way = _way(delay_ns=1, jitter_ns=100 * MS)
    for number in range(100):
        way.take(_frame(number), 200 * MS)
    assert 30 < len(list(way.due(200 * MS))) < 70


def test_each_frame_is_lost_with_the_same_probability() -> None:
    way = _way(loss=0.2)
    for number in range(5000):
        way.take(_frame(number), 0)
    kept = len(list(way.due(0)))
    assert abs(kept - 4000) < 4 * (5000 * 0.2 * 0.8) ** 0.5


def test_what_does_not_fit_is_lost() -> None:
    way = _way(delay_ns=MS)
    for number in range(LIMIT + 3):
        way.take(_frame(number), 0)
    assert list(way.due(MS)) == [_frame(number) for number in range(LIMIT)]


class _EndError(Exception):
    """All frames of the test are through."""


class _Ending(Way):
    """Ends `carry` once it has given so many frames."""

    left = 20

    def due(self, now_ns: int) -> Iterator[bytes]:
        for frame in Way.due(self, now_ns):
            self.left -= 1
            yield frame
        if not self.left:
            raise _EndError


def test_frames_are_carried_both_ways_each_with_its_delay() -> None:
    near, inside = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    far, outside = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with near, inside, far, outside:
        for end in (inside, outside):
            end.setblocking(False)
        out, back = _way(delay_ns=5 * MS), _Ending(Impairment(delay_ns=30 * MS), random.Random(1))
        for number in range(20):
            near.send(_frame(number))
            far.send(_frame(100 + number))
        began = time.monotonic_ns()
        with pytest.raises(_EndError):
            carry({inside.fileno(): (out, outside.fileno()), outside.fileno(): (back, inside.fileno())})
        took = time.monotonic_ns() - began
        assert 30 * MS <= took < 300 * MS
        assert [far.recv(100) for _ in range(20)] == [_frame(number) for number in range(20)]
        assert [near.recv(100) for _ in range(20)] == [_frame(100 + number) for number in range(20)]


def test_a_frame_that_the_other_end_refuses_is_lost_and_the_rest_goes_on() -> None:
    near, inside = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with near, inside, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as down:
        inside.setblocking(False)
        for number in range(20):
            near.send(_frame(number))
        ways = {inside.fileno(): (_Ending(Impairment(), random.Random(1)), down.fileno())}
        with pytest.raises(_EndError):
            carry(ways)


def test_it_tells_systemd_that_it_is_there(tmp_path_factory: pytest.TempPathFactory) -> None:
    place = str(tmp_path_factory.mktemp("n") / "s")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(place)
        say_ready(place)
        assert systemd.recv(100) == b"READY=1"
    say_ready("")
