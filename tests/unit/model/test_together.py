"""Many transitions at once, against each on its own."""

from __future__ import annotations

import numpy as np
import pytest

from toolkit.model.expressions import inequalities, parse_expression
from toolkit.model.net import NetBuilder
from toolkit.model.semantics import Rules
from toolkit.model.together import EXTRA_ROWS, Together, with_extra_rows

GUARDS = (
    "A + B < 3", "2 * A - B <= 1 and C > 0", "A == B", "A != 2", "A * B < 4", "not A > 1", "1 < A < 4",
    "A > 1 or C > 1", "-(A - 3) >= C * 0.5", "True", "A > 0 and 2 < 1",
)  # fmt: skip


@pytest.fixture
def markings():
    return np.random.Generator(np.random.Philox(1)).integers(0, 5, (3, 300))


def all_degrees(together, markings):
    live, degrees = together.degrees(with_extra_rows(markings))
    found = np.zeros((len(together.transitions), markings.shape[1]), dtype=np.int64)
    found[live] = degrees
    return found


def test_degrees_are_those_of_each_transition(markings):
    net = NetBuilder("many").place("A", 3).place("B").place("C")
    net = net.timed("plain", "A", "B", "exponential(1)").timed("source", None, "A", "exponential(1)")
    net = net.timed("several", {"A": 2, "C": 1}, "B", "exponential(1)", inhibit={"B": 2, "C": 4})
    for i, guard in enumerate(GUARDS):
        net = net.immediate(f"guarded_{i}", ["A", "C"] if i % 2 else "B", "C", guard=guard)
    rules = Rules(net.build())
    together = Together(rules, rules.net.transitions)
    found = all_degrees(together, markings)
    empty = markings * np.array([[1], [0], [1]])
    assert (all_degrees(together, empty)[3::2] == 0).all()
    for row, transition, change in zip(found, rules.net.transitions, together.changes.T, strict=True):
        assert row.tolist() == rules.degree(transition, markings).tolist(), transition.name
        fired = markings.copy()
        rules.fire(transition, fired)
        assert (markings + change[:-EXTRA_ROWS, None] == fired).all()


@pytest.mark.parametrize("guard", GUARDS)
def test_a_guard_that_is_a_sum_is_known_as_one(markings, guard):
    expression = parse_expression(guard)
    parts = inequalities(expression)
    if any(word in guard for word in ("!=", "A * B", "not", "or")):
        assert parts is None
        return
    values = dict(zip("ABC", markings, strict=True))
    holds = [sum(weight * values[place] for place, weight in part.items()) < bound for part, bound in parts]
    expected = np.broadcast_to(expression(values), 300)
    assert (np.logical_and.reduce([np.broadcast_to(h, 300) for h in holds] or [np.full(300, True)]) == expected).all()
