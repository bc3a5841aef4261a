"""Regular expressions of strangers."""

from __future__ import annotations

import asyncio
import time

import pytest

from toolkit.node.arrowhead import patterns
from toolkit.node.arrowhead.refusals import Refusal


def test_matches() -> None:
    found = asyncio.run(patterns.matches("^ga.ge", ["GaugeReading", "other"], partial=True))
    assert found == [True, False]
    assert asyncio.run(patterns.matches("gauge", ["GaugeReading"], partial=False)) == [False]


def test_one_that_never_ends_is_given_up() -> None:
    started = time.monotonic()
    with pytest.raises(Refusal, match="too slow"):
        asyncio.run(patterns.matches("(a+)+$", ["a" * 60 + "!"], partial=False, patience_s=0.5))
    assert time.monotonic() - started < 5


def test_what_is_no_pattern() -> None:
    with pytest.raises(Refusal, match="is not one"):
        asyncio.run(patterns.matches("(", ["x"], partial=True))
