"""Joining what the processes saw of a request."""

from __future__ import annotations

from typing import Any

import pytest

from toolkit.contract.steps import StepRecord, read_records, steps_of


def record(system: str, kind: Any, call: str, start: int, end: int, operation: str = "op") -> StepRecord:
    return StepRecord(
        request="r", call=call, kind=kind, system=system, cloud="", operation=operation, start_ns=start, end_ns=end
    )


def test_messages_queries_and_the_time_between() -> None:
    records = [
        record("b", "query", "r", 4, 6),
        record("a", "call", "r", 0, 10),
        record("b", "serve", "r", 2, 9),
    ]
    assert [(step.step, step.start_ns, step.end_ns) for step in steps_of(records)] == [
        ("a -> b: op", 0, 2),
        ("b inside: op", 2, 4),
        ("b query: op", 4, 6),
        ("b inside: op", 6, 9),
        ("b -> a: op", 9, 10),
    ]


def test_calls_at_the_same_time_leave_no_negative_gap() -> None:
    records = [
        record("a", "serve", "r", 0, 100),
        record("a", "call", "r/1", 10, 50),
        record("a", "call", "r/2", 10, 30),
    ]
    inside = [(step.start_ns, step.end_ns) for step in steps_of(records) if "inside" in step.step]
    assert inside == [(0, 10), (50, 100)]


def test_the_other_side_may_be_silent() -> None:
    assert [step.step for step in steps_of([record("a", "call", "r", 0, 5)])] == ["a -> ?: op"]


def test_lines_are_read_back() -> None:
    one = record("a", "call", "r", 0, 5)
    assert read_records([one.to_json() + "\n", "\n"]) == [one]
    with pytest.raises(TypeError):
        read_records(["{}"])
