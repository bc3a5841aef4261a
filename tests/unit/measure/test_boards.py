"""Boards that their firmware held back during a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from toolkit.measure.boards import board_faults

S = 10**9
FIRST, LAST = 100 * S, 110 * S


def faults(folder: Path, *bits: int | None) -> list[str]:
    """Of a node whose firmware said this second by second from 95 s on; its clock is 2 s fast."""
    (folder / "pi").mkdir()
    lines = [
        {"at_ns": (97 + second) * S, "monotonic_ns": second * S, "offset_ns": 2 * S, "root_delay_ns": 0,
         "root_dispersion_ns": 0} | ({} if said is None else {"throttled": said})
        for second, said in enumerate(bits)
    ]  # fmt: skip
    (folder / "pi" / "clock.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return board_faults(folder, ["pi", "pc"], FIRST, LAST)


def test_what_holds_during_the_run_is_told_with_its_instant(tmp_path: Path) -> None:
    [fault] = faults(tmp_path, *[0] * 8, 0x50005, 0x50005, *[0x50000] * 9)
    assert "the board of pi was held back during the run (under-voltage, throttled), first seen 3.0 s after" in fault


def test_what_came_and_went_between_two_looks_shows_in_the_bits_that_stay(tmp_path: Path) -> None:
    [fault] = faults(tmp_path, *[0x10000] * 9, *[0x90000] * 9)
    assert "(soft temperature limit), first seen 4.0 s after" in fault


@pytest.mark.parametrize(
    "bits",
    [
        pytest.param([0] * 20, id="well"),
        pytest.param([None] * 20, id="no Raspberry Pi"),
        pytest.param([0x5, 0x5, *[0x50000] * 18], id="before the run"),
        pytest.param([*[0] * 18, 0x50005, 0x50005], id="after the run"),
    ],
)
def test_nothing_else_is(tmp_path: Path, bits: list[int | None]) -> None:
    assert faults(tmp_path, *bits) == []
