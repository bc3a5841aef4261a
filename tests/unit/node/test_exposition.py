from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from toolkit.contract.metrics import BUCKETS_S, CLOCK_SHARED, HOP_DELAY, MESSAGES_DROPPED, Metric
from toolkit.node.exposition import Histogram, expose, metrics_page


def test_a_page_is_read_back_by_the_official_parser_with_every_value() -> None:
    delays = Histogram()
    for value in (5e-6, 15e-6, 0.0005, 0.0005, 60.0):
        delays.observe(value)
    page = metrics_page({HOP_DELAY: {("r1", "publish"): delays}, CLOCK_SHARED: 1.0})
    families = {family.name: family for family in text_string_to_metric_families(page)}
    hop = families["toolkit_hop_delay_seconds"]
    assert hop.type == "histogram"
    assert hop.documentation == HOP_DELAY.help
    buckets = {s.labels["le"]: s.value for s in hop.samples if s.name.endswith("_bucket")}
    assert len(buckets) == len(BUCKETS_S) + 1
    assert buckets["1e-05"] == 1
    assert buckets["2e-05"] == 2
    assert buckets["0.0005"] == 4, "a bound belongs to its bucket"
    assert buckets["10"] == 4
    assert buckets["+Inf"] == 5
    values = {s.name: s.value for s in hop.samples if not s.name.endswith("_bucket")}
    assert values["toolkit_hop_delay_seconds_count"] == 5
    assert values["toolkit_hop_delay_seconds_sum"] == pytest.approx(60.00102)
    assert hop.samples[0].labels["run"] == "r1"
    assert families["toolkit_clock_shared"].samples[0].value == 1


def test_labels_are_escaped() -> None:
    hostile = 'a"b\\c\nd'
    page = metrics_page({MESSAGES_DROPPED: {("r", "client", hostile): 3.0}})
    [family] = text_string_to_metric_families(page)
    assert family.samples[0].labels["reason"] == hostile


def test_readings_of_one_metric_share_a_header_wherever_they_stand() -> None:
    page = expose(
        [(MESSAGES_DROPPED, ("r", "a", "x"), 1.0), (CLOCK_SHARED, (), 0.0), (MESSAGES_DROPPED, ("r", "b", "x"), 2.0)]
    )
    assert page.count(b"# TYPE toolkit_messages_dropped_total counter") == 1
    assert b'stage="b",reason="x"} 2\n' in page


def test_labels_that_do_not_fit_the_contract_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        metrics_page({MESSAGES_DROPPED: {("only one",): 1.0}})


def test_help_of_any_text_stays_one_line() -> None:
    metric = Metric(name="toolkit_x", kind="gauge", help="one\ntwo \\ three")
    assert metrics_page({metric: 1.0}).splitlines()[0] == "# HELP toolkit_x one\\ntwo \\\\ three"
