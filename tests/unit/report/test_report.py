"""Reports, tables and comparisons of made-up runs whose figures are known."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.errors import UsageError
from toolkit.measure.store import RunFolder
from toolkit.measure.tables import TableWriter
from toolkit.report.compare import cliffs_delta, compare, comparison_rows, resample
from toolkit.report.figures import distribution, heat_map, percentiles_over_time, rate_series
from toolkit.report.html import render_report, write_figures, write_tables
from toolkit.report.table import run_document
from toolkit.report.text import latex

MS = 1_000_000
START_NS = 1_800_000_000_000_000_000


def make_run(folder: Path, *, slower_ms: float = 0.0, seed: int = 1, n: int = 3000, **changes) -> RunFolder:
    from tests.unit.report.test_table import KPIS, hop

    run = RunFolder(folder)
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    t0 = START_NS + np.arange(n) * MS
    t2 = t0 + rng.integers(MS // 5, MS // 2, n)
    t3 = t2 + round(slower_ms * MS) + rng.integers(MS, 3 * MS, n)
    t4 = t3 + rng.integers(MS // 5, MS // 2, n)
    tables = TableWriter(folder=folder, scratch=folder, subscribers=["sub/subscriber-0"])
    base = {"stream": np.ones(n, np.uint32), "seq": np.arange(n), "t0_ns": t0, "t1_ns": t0, "t2_ns": t2}
    tables.write("messages", 0, base | {"t5_ns": t2, "refused": np.zeros(n, bool)})
    late = np.zeros(n, bool)
    subscriber = {"subscriber": np.zeros(n, np.int32)}
    tables.write("samples", 0, base | subscriber | {"t3_ns": t3, "t4_ns": t4, "late": late})
    tables.close()
    kpis = KPIS | {
        "run": folder.name, "first_ns": START_NS, "last_ns": int(t4.max(initial=START_NS)),
        "clocks": {}, "processes": [],
        "hops": {name: hop(n) for name in ("publish", "broker", "deliver", "end_to_end")},
        "throughput": KPIS["throughput"] | {"sent": {"bins": [10, 1000, 1000, 990]}},
        "ledger": KPIS["ledger"] | {
            "total": KPIS["ledger"]["total"] | {
                "lost": 10, "loss_ratio": 0.005, "loss_ratio_95": [0.003, 0.009], "lost_before_broker": 0,
                "lost_in_broker": 10, "lost_after_broker": 0,
            },
        },
    }  # fmt: skip
    run.write("kpis.json", kpis | changes)
    workload = {"name": "hello", "messages": n, "payload_bytes": 71, "qos": 0}
    testbed = {"name": "lab", "twin": False, "text": "name: lab # </script><b>"}
    run.write(
        "manifest.json",
        {"workload": workload, "testbed": testbed, "nodes": {}, "settings": {}, "versions": {"toolkit": "1"}},
    )
    return run


def test_the_page_stands_alone_and_says_what_the_kpis_say(tmp_path: Path):
    page = render_report([make_run(tmp_path / "one")])
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", page.split("<script type")[0])
    assert "2000 expected = 1990 delivered + 10 dropped" in page
    assert "name: lab # &lt;/script&gt;&lt;b&gt;" in page
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])
    assert len(data["runs"][0]["cdf"]["end_to_end"]) > 100
    rates = data["runs"][0]["rates"]
    assert rates["seconds"][:3] == [0.05, 0.15, 0.25], "a run of 3 s has slices of a tenth"
    assert len(rates["sent"]) == len(rates["delivered"]) == 30
    assert set(rates["sent"]) == {1000.0}
    assert set(rates) == {"seconds", "offered", "sent", "accepted", "broker_in", "delivered"}
    assert len(page) < 1_500_000


def test_rates_of_a_long_run_are_those_of_its_whole_seconds_counted_from_its_first_message():
    bins = {"sent": {"bins": [400, *([1000] * 20), 600]}, "delivered": {"count": 0}}
    assert rate_series(bins, START_NS + 600_000_000) == {
        "sent": [1000.0] * 20, "seconds": [round(0.9 + second, 6) for second in range(20)]
    }  # fmt: skip
    halved = rate_series(bins, START_NS, points=10)
    assert halved == {"sent": [1000.0] * 10, "seconds": [2.0 + 2 * pair for pair in range(10)]}


def test_many_runs_and_a_comparison_share_a_page(tmp_path: Path):
    runs = [make_run(tmp_path / name, slower_ms=slower) for name, slower in (("a", 0.0), ("b", 1.0))]
    page = render_report(runs, comparisons=[compare(runs[:1], runs[1:])])
    assert page.count('data-kind="cdf"') == 2
    assert "b against a" in page


def test_tables_for_papers(tmp_path: Path):
    run = make_run(tmp_path / "one", parameters={"payload_bytes": 64})
    files = write_tables([run], tmp_path / "tables")
    assert [file.name for file in files] == ["hops.md", "hops.csv", "hops.tex"]
    assert "| end to end | 3000 | 0 |" in files[0].read_text()
    rows = list(csv.DictReader(io.StringIO(files[1].read_text())))
    assert [row["hop"] for row in rows] == ["publish", "broker", "deliver", "end_to_end"]
    assert rows[0]["payload_bytes"] == "64"
    assert r"hello on lab, payload\_bytes=64" in latex([run_document(run)])
    assert r"$\pm$" in files[2].read_text()


@pytest.mark.parametrize(("form", "start"), [("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_figures_for_papers(tmp_path: Path, form: str, start: bytes):
    run = make_run(tmp_path / "one", n=500)
    run.write("resources.json", {"seconds": [0.0, 1.0], "nodes": {"eh": {"cpu_cores": [0.5, None]}}})
    files = write_figures([run], tmp_path / "figures", form=form)
    assert [file.stem for file in files] == ["distribution", "percentiles", "heat-map", "rates", "cpu"]
    assert all(file.read_bytes().startswith(start) for file in files)
    before = [file.read_bytes() for file in files]
    assert [file.read_bytes() for file in write_figures([run], tmp_path / "figures", form=form)] == before


def test_a_slower_broker_is_found_slower(tmp_path: Path):
    comparison = compare([make_run(tmp_path / "a")], [make_run(tmp_path / "b", slower_ms=0.5, seed=2)])
    by = {(d.hop, d.statistic): d for d in comparison.differences}
    assert by["broker", "mean"].clear
    assert by["broker", "mean"].low_ms < 0.5 < by["broker", "mean"].high_ms
    assert not by["deliver", "p50"].clear
    assert comparison.cliffs_delta["broker"] > 0.3
    assert abs(comparison.cliffs_delta["deliver"]) < 0.1
    assert any("one run on each side" in caution for caution in comparison.cautions)
    assert len(comparison_rows(comparison)) == 16
    assert comparison == compare([RunFolder(tmp_path / "a")], [RunFolder(tmp_path / "b")])


def test_runs_that_should_not_be_compared_say_so(tmp_path: Path):
    a = [make_run(tmp_path / "a1"), make_run(tmp_path / "a2", seed=3)]
    b = [make_run(tmp_path / "b", twin=True, faults=["the clock of pub stepped"], pacing="open")]
    cautions = compare(a, b, draws=50).cautions
    assert "b: the clock of pub stepped" in cautions
    assert sum("different" in caution for caution in cautions) == 2


def test_nothing_to_compare_is_an_error(tmp_path: Path):
    with pytest.raises(UsageError, match="nothing to compare"):
        compare([make_run(tmp_path / "a")], [make_run(tmp_path / "b", n=0)])


@given(st.lists(st.integers(-50, 50), min_size=1, max_size=30), st.lists(st.integers(-50, 50), min_size=1, max_size=30))
def test_cliffs_delta_is_what_counting_pairs_gives(a: list[int], b: list[int]):
    pairs = sum((y > x) - (y < x) for x in a for y in b) / (len(a) * len(b))
    assert cliffs_delta(np.array(a, float), np.array(b, float)) == pytest.approx(pairs)


@given(st.integers(1, 200))
def test_a_resample_has_as_many_values_as_the_run(n: int):
    assert len(resample([np.arange(n, dtype=float)], np.random.default_rng(1))) == n


@given(st.lists(st.integers(-(10**9), 10**10), min_size=1, max_size=200))
def test_a_distribution_rises_from_the_smallest_to_the_largest(delays: list[int]):
    points = distribution(np.sort(np.array(delays, dtype=np.int64)))
    assert points == sorted(points)
    assert points[0][0] == round(min(delays) / 1e6, 6)
    assert points[-1] == [round(max(delays) / 1e6, 6), 1.0]


@given(st.lists(st.tuples(st.integers(0, 10**10), st.integers(-(10**6), 10**10)), min_size=1, max_size=100))
def test_heat_map_and_percentiles_lose_no_message(messages: list[tuple[int, int]]):
    sent, delays = (np.array(column, dtype=np.int64) for column in zip(*messages, strict=True))
    heat = heat_map(sent, delays, 0, 10**10)
    assert sum(count for _, _, count in heat["cells"]) == len(messages)
    assert all(row < len(heat["ms"]) and slice_ < len(heat["seconds"]) for slice_, row, _ in heat["cells"])
    lines = percentiles_over_time(sent, delays, 0, 10**10)
    assert max(value for value in lines["max"] if value is not None) == round(max(delays.tolist()) / 1e6, 6)


def test_a_percentile_over_time_that_would_be_the_longest_delay_is_not_shown():
    """20 messages a slice: one in ten is above p90, none above p99. One a second: slices of five."""
    n = 3200
    sent, delays = np.arange(n, dtype=np.int64) * MS, np.arange(n, dtype=np.int64) % 20 * MS
    lines = percentiles_over_time(sent, delays, 0, n * MS)
    assert set(lines) == {"seconds", "p50", "p90", "max"}
    assert (lines["p90"][3], lines["max"][3]) == (17.0, 19.0)
    rare = percentiles_over_time(sent[:100] * 1000, delays[:100], 0, 100_000 * MS)
    assert set(rare) == {"seconds", "p50", "max"}
    assert len(rare["seconds"]) == 20
    assert None not in rare["max"]
