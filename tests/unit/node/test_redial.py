"""Lost connections are opened again, but not for ever where the broker drops each at once."""

from __future__ import annotations

import time

import pytest

from toolkit.errors import WorkloadError
from toolkit.node import redial
from toolkit.node.redial import Redial


@pytest.fixture
def dialling(monkeypatch: pytest.MonkeyPatch) -> Redial[str]:
    monkeypatch.setattr(redial, "_FIRST_PAUSE_S", 0.001)
    return Redial()


def again(dialling: Redial[str], slot: int = 0) -> None:
    dialling.begin(slot, lambda: "open", lambda _: None)
    until = time.monotonic() + 10
    while not dialling.opened():
        assert time.monotonic() < until
        time.sleep(0.001)


def test_who_is_dropped_at_once_ten_times_in_a_row_gives_up_and_says_why(dialling: Redial[str]) -> None:
    for slot in (0, 1):  # each counts for itself
        dialling.lost(slot, "the broker was restarted")
        for _ in range(9):
            again(dialling, slot)
            dialling.lost(slot, "closed")
    again(dialling)
    with pytest.raises(WorkloadError, match=r"10 connections in a row .* the last: policy-violation; .* name tk-1 too"):
        dialling.lost(0, "policy-violation", name="tk-1")
    dialling.stop()


def test_a_connection_that_was_of_use_begins_the_count_anew(
    dialling: Redial[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redial, "_AT_ONCE_S", 0.05)
    for round_ in range(25):
        again(dialling)
        if round_ % 8 == 7:
            time.sleep(0.06)
        dialling.lost(0, "closed")
    dialling.stop()
