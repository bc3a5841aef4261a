import itertools
import time
from typing import Any

import pytest

from toolkit.contract.orders import Arrivals
from toolkit.node.pacing import Waiter, due_ns, merged_due_ns

SECOND = 1_000_000_000


def schedule(slots: int | None = None, duration_s: float | None = None, **arrivals: Any) -> list[int]:
    return list(due_ns(Arrivals(**arrivals), slots=slots, duration_s=duration_s, seed=7))


def test_rate_is_exact_to_the_last_slot() -> None:
    due = schedule(slots=30_001, kind="rate", rate_per_s=3000)
    assert due[0] == 0
    assert due[30_000] == 10 * SECOND
    assert len(schedule(duration_s=2, kind="rate", rate_per_s=3000)) == 6000


def test_poisson_has_its_rate_and_spread_and_is_seeded() -> None:
    due = schedule(slots=20_000, kind="poisson", rate_per_s=1000)
    gaps = [later - earlier for earlier, later in itertools.pairwise(due)]
    mean = sum(gaps) / len(gaps)
    variance = sum((gap - mean) ** 2 for gap in gaps) / len(gaps)
    assert mean == pytest.approx(1e6, rel=0.03)
    assert variance**0.5 == pytest.approx(mean, rel=0.05)
    assert due == schedule(slots=20_000, kind="poisson", rate_per_s=1000)


def test_burst_comes_together_at_the_mean_rate() -> None:
    due = schedule(slots=100, kind="burst", rate_per_s=100, burst=10)
    assert [len(list(group)) for _, group in itertools.groupby(due)] == [10] * 10
    assert due[-1] == round(0.9 * SECOND)


def test_ramp_goes_from_one_rate_to_the_other_within_the_duration() -> None:
    due = schedule(duration_s=10, kind="ramp", rate_per_s=100, to_rate_per_s=300)
    assert len(due) == pytest.approx(2000, abs=2)
    assert sum(at < 5 * SECOND for at in due) == pytest.approx(750, abs=2)
    assert due == sorted(due)
    down_to_nothing = schedule(slots=100, kind="ramp", rate_per_s=20, to_rate_per_s=0)
    assert len(down_to_nothing) == 100
    assert down_to_nothing[-1] < 10 * SECOND


def test_step_changes_the_rate_once() -> None:
    due = schedule(duration_s=4, kind="step", rate_per_s=10, to_rate_per_s=100, step_s=2)
    assert sum(at < 2 * SECOND for at in due) == 20
    assert sum(at >= 2 * SECOND for at in due) == 200


def test_trace_is_played_as_given() -> None:
    assert schedule(kind="trace", offsets_ns=[5, 1, 9]) == [1, 5, 9]


@pytest.mark.parametrize(
    ("arrivals", "complaint"),
    [
        ({"kind": "rate"}, "rate above 0"),
        ({"kind": "trace"}, "offsets"),
        ({"kind": "step", "rate_per_s": 1}, "second rate"),
        ({"kind": "ramp"}, "two rates"),
    ],
)
def test_impossible_schedules_are_named(arrivals: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        schedule(slots=3, **arrivals)


def test_a_schedule_without_an_end_is_refused() -> None:
    with pytest.raises(ValueError, match="end"):
        schedule(kind="rate", rate_per_s=1)


def test_connections_do_not_beat_together() -> None:
    arrivals = Arrivals(kind="rate", rate_per_s=10)
    merged = list(merged_due_ns(arrivals, connections=5, slots=10, duration_s=None, seed=1))
    assert [connection for _, connection in merged] == [0, 1, 2, 3, 4] * 10
    assert [at for at, _ in merged] == [round(slot * SECOND / 50) for slot in range(50)]


def test_waiter_returns_at_its_instant_and_never_before() -> None:
    waiter = Waiter()
    late = []
    for _ in range(50):
        until = time.monotonic_ns() + 2_000_000
        assert waiter.wait(until) == []
        late.append(time.monotonic_ns() - until)
    waiter.close()
    assert min(late) >= 0
    assert sorted(late)[25] < 1_000_000
