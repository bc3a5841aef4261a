"""The platform's KPIs in words and its two drop plots."""

from __future__ import annotations

from pathlib import Path

from toolkit.report.drops import drop_plots, kpi_lines, plot_drops, sum_of_books
from toolkit.report.plots import without_key
from toolkit.report.sweep import FLOW_HEADER, FLOWS, flow_rows


def books(**lost: int) -> dict[str, int]:
    return sum_of_books([{"expected": 100, **lost}])


def test_one_plot_for_each_qos_with_the_places_that_lost_something():
    plots = drop_plots(
        [("a", 0, books(lost_in_gateway=10)), ("b", 0, books(lost_in_hub=5)), ("a", 1, books()), ("x", None, {})]
    )
    assert plots == [
        {"qos": 0, "names": ["a", "b"], "places": {"in the gateway": [0.1, 0.0], "in the hub": [0.0, 0.05]}},
        {"qos": 1, "names": ["a"], "places": {}},
    ]


def test_the_plot_is_drawn(tmp_path: Path):
    [plot] = drop_plots([("slow customers", 1, books(lost_in_hub=30, late=2))])
    text = plot_drops(plot, tmp_path / "drops.svg").read_text()
    assert "QoS 1" in text
    assert "in the hub" in text


def test_kpis_are_said_only_where_there_is_a_platform():
    document = {
        "way": {"gateway": True, "hub": True},
        "throughput": {
            name: {"count": 10, "mean_per_s": rate}
            for name, rate in (("gateway_in", 5.0), ("gateway_out", 5.0), ("broker_in", 5.0), ("broker_out", 4.0),
                               ("hub_in", 4.0), ("hub_out", 8.0))
        },
        "hops": {"broker": {"count": 10, "p50_ms": 0.0612, "p99_ms": 0.4}},
        "ledger": {"total": {"expected": 20, "lost_in_broker": 2}},
        "processes": [{"role": "hub", "counts": {"dropped_queue_full": 3, "sent": 8}}],
    }  # fmt: skip
    assert kpi_lines(document) == [
        "messages/s: gateway in 5.0, out 5.0; broker in 5.0, out 4.0; hub in 4.0, out 8.0",
        "processing latency: p50 0.061, p99 0.400 ms",
        "drops: 2 in the broker",
        "counted where it happened: hub queue full 3",
    ]
    probe = {"role": "probe", "counts": {"packets_lost": 3}}
    blurred = kpi_lines(document | {"processes": [*document["processes"], probe]})
    assert blurred[0] == "messages/s: gateway in 5.0, out 5.0; hub in 4.0, out 8.0", "the broker's would be too few"
    assert kpi_lines({"way": {"gateway": False, "hub": False}}) == []


def test_places_of_one_parameter_have_its_values_and_the_axis_its_name():
    assert without_key(["pool=4", "pool=64"]) == (["4", "64"], "pool")
    for names in (["pool=4", "other=4"], ["a", "pool=4"], ["pool=4, qos=1", "pool=4, qos=0"], []):
        assert without_key(names) == (names, "")


def test_points_of_a_platform_have_their_rates_latency_and_drops_and_others_no_row():
    flows = dict.fromkeys(FLOWS, 100.04) | {"hub_out": None}
    broker = {"p50_ms": {"value": 0.05}, "p99_ms": {"value": 1.5}, "few": ["p99"]}
    chain = {"name": "slow", "flows": flows, "hops": {"broker": broker}, "books": books(lost_in_hub=30, late=2)}
    document = {"points": [chain, {"name": "plain", "flows": {}, "hops": {}, "books": {}}]}
    [row] = flow_rows(document)
    assert row == ["slow", *["100.0"] * 5, "-", "0.0500", "-", "30 in the hub, 2 too late"]
    assert len(row) == len(FLOW_HEADER)
