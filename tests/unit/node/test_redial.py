"""Lost connections are opened again, but not for ever where the broker drops each soon after."""

from __future__ import annotations

import select

import pytest

from toolkit.errors import WorkloadError
from toolkit.node import redial
from toolkit.node.redial import Redial


class Clock:
    """Stands in for the module `time`; only `monotonic` is asked."""

    now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(redial, "time", clock)
    monkeypatch.setattr(redial, "_FIRST_PAUSE_S", 0.001)
    return clock


def again(dialling: Redial[str], slot: int = 0) -> None:
    dialling.begin(slot, lambda: "open", lambda _: None)
    assert select.select([dialling.fd], [], [], 10)[0]
    assert dialling.opened()


def lost_after(dialling: Redial[str], clock: Clock, lives_s: float, *, slot: int = 0, why: str = "closed") -> None:
    """One connection from its opening to its loss."""
    again(dialling, slot)
    clock.now_s += lives_s
    dialling.lost(slot, why, name="tk-1")


@pytest.mark.parametrize(
    ("lives_s", "connections"),
    [(0.05, 61), (0.9, 5), (1.1, 5), (2.0, 5)],
    ids=["a rival as quick as we are", "one that waits a second", "and a busy machine", "a slow one"],
)
def test_who_is_dropped_again_and_again_gives_up_within_ten_seconds_and_says_why(
    clock: Clock, lives_s: float, connections: int
) -> None:
    dialling: Redial[str] = Redial()
    dialling.lost(0, "the broker was restarted")
    began_s = clock.now_s
    for _ in range(connections - 1):
        lost_after(dialling, clock, lives_s)
    lost_after(dialling, clock, lives_s, slot=1)  # each slot counts for itself
    with pytest.raises(WorkloadError, match=rf"{connections} connections in a row .*: policy-violation; .* tk-1 too"):
        lost_after(dialling, clock, lives_s, why="policy-violation")
    assert clock.now_s - began_s - lives_s <= 10.1
    dialling.stop()


def test_a_connection_that_was_of_use_begins_the_count_anew(clock: Clock) -> None:
    dialling: Redial[str] = Redial()
    for round_ in range(25):
        lost_after(dialling, clock, 3.5 if round_ % 4 == 3 else 1.5)
    dialling.stop()


def test_a_broker_that_stumbles_while_it_starts_is_tried_on(clock: Clock) -> None:
    dialling: Redial[str] = Redial()
    for _ in range(25):
        lost_after(dialling, clock, 0.1)
    lost_after(dialling, clock, 60)
    dialling.stop()
