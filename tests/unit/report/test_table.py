"""The table says what the KPIs say, and what limits them."""

from __future__ import annotations

import copy
import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from toolkit.measure.kpis import summarise
from toolkit.measure.store import RunFolder
from toolkit.report.table import hop_rows, in_ms, print_hops, remarks, run_document


def hop(n: int, **more):
    import dataclasses

    return dataclasses.asdict(summarise(np.arange(1, n + 1) * 1_000_000, lost=0, bound_ns=1000)) | more


KPIS = {
    "run": "r", "testbed": "lab", "twin": False, "workload": "hello", "parameters": {}, "status": "complete",
    "pacing": "closed", "valid": True, "faults": [],
    "hops": {"publish": hop(2000), "broker": hop(2000), "deliver": hop(2000), "end_to_end": hop(2000)},
    "ledger": {"total": {"expected": 2000, "delivered": 1990, "late": 0, "dropped": 10, "refused": 0, "unconfirmed": 0,
                         "in_flight": 0, "duplicates": 0, "reordered": 0}, "subscribers": {}, "closes": True},
    "throughput": {"sent_per_s": 100.0, "delivered_per_s": 99.5},
}  # fmt: skip

REFERENCE = {"source": "thesis", "hop": "end_to_end", "where": {}, "figures": {"mean": 8.95, "max": [30, 32.0]}}


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "r")
    folder.write("manifest.json", {"testbed": {}, "reference": [REFERENCE]})
    folder.write("kpis.json", KPIS)
    return folder


def test_the_document_has_the_promised_fields(run: RunFolder):
    document = json.loads(json.dumps(run_document(run)))
    assert list(document["hops"]) == ["publish", "broker", "deliver", "end_to_end"]
    wanted = {"count", "lost", "mean_ms", "p50_ms", "p90_ms", "p99_ms", "max_ms", "clock_bound_ms"}
    assert all(wanted <= hop.keys() for hop in document["hops"].values())
    assert document["hops"]["end_to_end"]["p99_ms"] == 1980.0


def test_published_figures_stand_below_ours(run: RunFolder):
    rows = hop_rows(run_document(run))
    assert rows[3][:8] == ["end to end", "2000", "0", "1000.5", "1000.0", "1800.0", "1980.0", "2000.0"]
    assert rows[4] == ["  thesis", "", "", "8.95", "", "", "", "30 to 32", ""]


def test_what_the_table_cannot_say_is_said(run: RunFolder):
    document = copy.deepcopy(run_document(run))
    document["twin"] = True
    document["faults"] = ["the clock of pub stepped by 3.000 ms during the run"]
    document["hops"]["deliver"] = hop(100, negative=3, resolved=False)
    rows, lines = hop_rows(document), remarks(document)
    assert rows[2][0] == "deliver *"
    assert rows[2][6] == "-"  # p99 of 100
    assert "2000 expected = 1990 delivered + 10 dropped" in lines
    assert "3 delays of deliver are negative (kept in all figures)" in lines
    assert "not to be compared: the clock of pub stepped by 3.000 ms during the run" in lines
    assert any(line.startswith("* not resolved") for line in lines)
    assert any("virtual nodes" in line for line in lines)


def test_it_prints_without_colours_where_there_is_no_terminal(run: RunFolder):
    out = io.StringIO()
    print_hops(run, Console(file=out, width=40))
    text = out.getvalue()
    assert "hello on lab" in text
    assert "\x1b" not in text
    assert "±0.0010" in text
    assert "…" not in text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0.0, "0.000"), (0.01234, "0.0123"), (1.23456, "1.235"), (-20.0, "-20.000"), (666.3, "666.3")],
)
def test_milliseconds(value: float | None, text: str):
    assert in_ms(value) == text
