"""Raspberry Pis that were held back during a run: what their firmware said of power and heat, second by second."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

from toolkit.measure.clocks import ClockReading, read_log
from toolkit.measure.collect import CLOCK_LOGS

CONDITIONS = {
    1 << 0: "under-voltage",
    1 << 1: "frequency capped",
    1 << 2: "throttled",
    1 << 3: "soft temperature limit",
}
"""Bits of the firmware's `get_throttled` that hold now."""
_NOW = 0xF
_EVER = 16
"""A bit this much higher: the condition has held at some time since the board booted."""
_AROUND_NS = 1_000_000_000
"""The firmware is asked once a second."""


def board_faults(raw: Path, nodes: Iterable[str], first_ns: int, last_ns: int) -> list[str]:
    """Nodes whose board was held back between two instants of the reference's clock, and when that was first seen."""
    faults = []
    for node in nodes:
        readings = [reading for log in CLOCK_LOGS for reading in read_log(raw / node / log)]
        seen = held_back(readings, first_ns - _AROUND_NS, last_ns + _AROUND_NS)
        if seen is not None:
            at_ns, bits = seen
            into_s = max(at_ns - first_ns, 0) / 1e9
            faults.append(
                f"the board of {node} was held back during the run ({', '.join(_words(bits))}), first seen "
                f"{into_s:.1f} s after the first message; it needs a better power supply, or cooling"
            )
    return faults


def held_back(readings: Sequence[ClockReading], first_ns: int, last_ns: int) -> tuple[int, int] | None:
    """(when it was seen first, every condition seen) within the span; None where the board ran as it should.

    A condition too short to be met by a look shows in the bits that stay until the next boot.
    """
    known = [(r.at_ns - r.offset_ns, r.throttled) for r in readings if r.throttled is not None]
    within = [
        (at_ns, bits & _NOW | (bits & ~before) >> _EVER & _NOW)
        for (_, before), (at_ns, bits) in itertools.pairwise([known[0], *known] if known else [])
        if first_ns <= at_ns <= last_ns
    ]
    met = [(at_ns, bits) for at_ns, bits in within if bits]
    every = 0
    for _, bits in met:
        every |= bits
    return (met[0][0], every) if met else None


def _words(bits: int) -> list[str]:
    return [words for bit, words in CONDITIONS.items() if bits & bit]
