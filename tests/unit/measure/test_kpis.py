"""Numbers from numbers."""

from __future__ import annotations

import numpy as np
import pytest

from toolkit.measure.kpis import broken_asserts, counter_problems, find_kpi, rates, summarise, wilson
from toolkit.measure.ledger import Joined, Ledger

S = 10**9
KPIS = {
    "hops": {"end_to_end": {"p99_ms": 12.5, "lost": 3}, "broker": {"p50_ms": 0.5}},
    "ledger": {"total": {"lost": 3, "loss_ratio": 0.015}},
    "throughput": {"sent_per_s": 100.0},
}


def test_a_summary_of_known_values():
    summary = summarise(np.arange(2000, 0, -1, dtype=np.int64) * 1_000_000, lost=7, bound_ns=400_000)
    assert (summary.count, summary.lost, summary.mean_ms, summary.min_ms, summary.max_ms) == (
        2000,
        7,
        1000.5,
        1.0,
        2000.0,
    )
    assert (summary.p50_ms, summary.p90_ms, summary.p99_ms) == (1000.0, 1800.0, 1980.0)
    assert summary.sd_ms == pytest.approx(np.std(np.arange(1, 2001)))
    assert summary.few == ("p999",)
    assert summary.resolved


def test_negative_delays_stay_and_are_counted():
    summary = summarise(np.array([-5, -1, 0, 4], dtype=np.int64) * 1000, bound_ns=2000)
    assert (summary.negative, summary.beyond_bound, summary.resolved) == (2, 1, False)
    assert summary.mean_ms == pytest.approx(-0.0005)


def test_moments_hold_for_a_clock_that_is_days_off():
    base = 3 * 86_400 * 10**9
    summary = summarise(np.array([base + 1000, base + 3000], dtype=np.int64))
    assert summary.sd_ms == pytest.approx(0.001, rel=1e-9)


def test_nothing_to_summarise():
    assert summarise(np.empty(0, dtype=np.int64), lost=None).p50_ms is None


def test_rates_leave_out_the_seconds_that_the_run_cut_short():
    found = rates({10: 3, 11: 100, 12: 110, 13: 90, 14: 1}, 10 * S, 14 * S)
    assert (found["count"], found["mean_per_s"], found["min_per_s"], found["max_per_s"]) == (304, 100, 90, 110)
    assert rates({}, 0, 0) == {"count": 0}
    short = rates({10: 30, 11: 10}, 10 * S + 900_000_000, 11 * S + 100_000_000)
    assert short == {"count": 40, "mean_per_s": pytest.approx(200), "bins": [30, 10]}, "no second of it is whole"


def test_wilson():
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(5, 100) == pytest.approx((0.02154, 0.11175), abs=1e-4)


def test_short_names_find_kpis():
    assert find_kpi(KPIS, "lost") == 3
    assert find_kpi(KPIS, "p99_ms") == 12.5
    assert find_kpi(KPIS, "broker.p50_ms") == 0.5
    assert find_kpi(KPIS, "sent_per_s") == 100.0
    with pytest.raises(KeyError):
        find_kpi(KPIS, "speed")


@pytest.mark.parametrize(
    ("asserts", "broken"),
    [
        ({"lost": "== 3", "p99_ms": "<= 12.5 ms", "broker.p50_ms": "< 600 us", "loss_ratio": "< 2 %"}, 0),
        ({"lost": "== 0"}, 1),
        ({"p99_ms": "< 0.0125 s"}, 1),
        ({"broker.p50_ms": "< 400000 ns"}, 1),
        ({"speed": "> 3"}, 1),
        ({"lost": "few"}, 1),
    ],
)
def test_asserts(asserts: dict[str, str], broken: int):
    assert len(broken_asserts(KPIS, asserts)) == broken


@pytest.mark.parametrize(("slip", "meant"), [("lst", "lost"), ("p99", "p99_ms"), ("brokr.p50_ms", "broker.p50_ms")])
def test_a_slip_in_a_condition_is_told_with_the_nearest_kpi(slip: str, meant: str) -> None:
    assert broken_asserts(KPIS, {slip: "== 0"}) == [
        f"{slip}: this run has no such KPI; did you mean {meant!r}?; wanted == 0"
    ]


def test_counters_that_contradict_the_stamps_are_told():
    joined = Joined(
        ledgers={"s": Ledger(expected=10, delivered=8, dropped=2, lost_in_broker=2)}, messages=10, broker_lost=2
    )
    fits = [("p", "publisher", {"sent": 12}), ("b", "broker", {"dropped_queue_full": 2})]
    assert counter_problems(joined, fits, warm_up=2) == []
    wrong = [("p", "publisher", {"sent": 9}), ("b", "broker", {"dropped_queue_full": 1})]
    assert len(counter_problems(joined, wrong, warm_up=2)) == 2


def native_problems(native: int, ours: int, *, reconnects: int = 0, **probe: int) -> list[str]:
    ledger = Ledger(expected=100, delivered=100 - ours, dropped=ours, lost_in_broker=ours)
    joined = Joined(ledgers={"s": ledger}, messages=100, broker_lost=ours)
    counts = [("p", "probe", {"native_dropped": native, **probe}), ("s", "subscriber", {"reconnects": reconnects})]
    return [words for words in counter_problems(joined, counts, warm_up=0) if "the broker counted" in words]


def test_a_brokers_own_counter_is_held_against_the_books() -> None:
    assert native_problems(7, 7) == []
    assert native_problems(7, 5) == ["the broker counted 7 messages dropped, the books show 5 lost in it"]
    [fewer] = native_problems(0, 5)
    assert fewer.startswith("the broker counted 0 messages dropped, the books show 5 lost in it; the others may still")


def test_it_is_not_where_it_counts_something_else() -> None:
    assert native_problems(-7, 5) == []
    assert native_problems(0, 5, reconnects=1) == []
