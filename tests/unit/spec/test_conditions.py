"""Conditions name KPIs that runs have: what is known when the file is read is what is computed after a run."""

from __future__ import annotations

import dataclasses

import pytest

from toolkit.measure import kpis
from toolkit.measure.ledger import Ledger
from toolkit.spec import conditions
from toolkit.spec.conditions import hops_of, wrong_condition
from toolkit.spec.workload import Workload

PLAIN = Workload(name="plain")
CHAIN = Workload(name="chain", gateway="gateway", hub="hub")
REQUESTS = Workload(name="requests", consumers="consumer")


@pytest.mark.parametrize("workload", [PLAIN, CHAIN, Workload(name="half", hub="hub")])
def test_hops_are_those_that_are_measured(workload):
    way = {"gateway": bool(workload.gateway), "hub": bool(workload.hub)}
    assert hops_of(workload) == tuple(kpis.hops_of(way))


def test_words_are_those_of_the_computed_figures():
    of_hops = [f.name for f in dataclasses.fields(kpis.HopSummary) if f.name != "few"]
    assert sorted(conditions.STATISTICS) == sorted(of_hops)
    of_books = kpis.ledger_document({}, Ledger())["total"]
    assert sorted(conditions.COUNTS) == sorted(name for name in of_books if name != "loss_ratio_95")
    assert tuple(kpis.DELAYS) == conditions.DELAYS
    whole = kpis.rates({n: n for n in range(1, 6)}, 10**9, 5 * 10**9)
    assert set(whole) | set(kpis.rates({0: 1}, 0, 0)) == {*conditions.RATES, "bins"}


@pytest.mark.parametrize(
    ("workload", "name", "condition"),
    [
        (PLAIN, "lost", "== 0"),
        (PLAIN, "broker.p99_ms", "< 10ms"),
        (PLAIN, "hops.broker.p99_ms", "< 0.5 s"),
        (PLAIN, "loss_ratio", "< 1%"),
        (PLAIN, "delivered_per_s", "> 100"),
        (PLAIN, "throughput.broker_out.mean_per_s", "> 100"),
        (PLAIN, "ledger.subscribers.sub/subscriber-0.0.lost", "== 0"),
        (PLAIN, "valid", "== 1"),
        (CHAIN, "downlink.p50_ms", "< 1ms"),
        (REQUESTS, "p99_ms", "< 1s"),
        (REQUESTS, "consumer -> orchestrator: orchestration.p99_ms", "< 1s"),
    ],
)
def test_conditions_on_what_a_run_has(workload, name, condition):
    assert wrong_condition(workload, name, condition) == ""


@pytest.mark.parametrize(
    ("workload", "name", "condition", "words"),
    [
        (PLAIN, "Lost", "== 0", "have no KPI 'Lost'; did you mean 'lost'?"),
        (PLAIN, "zzz", "> 1", "have no KPI 'zzz'; write for example lost, p99_ms or broker.p99_ms"),
        (PLAIN, "downlink.p50_ms", "< 1ms", "have no KPI 'downlink.p50_ms'"),
        (REQUESTS, "broker.p50_ms", "< 1ms", "have no KPI 'broker.p50_ms'"),
        (REQUESTS, "consumer -> orchestrator: orchestration.p98_ms", "< 1s", "have no KPI 'consumer -> "),
        (PLAIN, "lost", "< 1 %", "lost is not a share, so that % means nothing; write loss_ratio"),
        (PLAIN, "p99_ms", "< 1%", "p99_ms is not a share"),
        (PLAIN, "span_s", "< 10s", "span_s is not a time in ms; leave the unit 's' out"),
    ],
)
def test_conditions_on_what_no_run_has(workload, name, condition, words):
    assert words in wrong_condition(workload, name, condition)
