"""HdrHistogram's own reader understands our log and finds the same values as in its own histograms."""

from __future__ import annotations

import numpy as np
import pytest
from hdrh import histogram, log
from hypothesis import given
from hypothesis import strategies as st

from toolkit.measure.hdr import HIGHEST_NS, count, encode, log_head, log_lines


@given(st.lists(st.integers(0, HIGHEST_NS), min_size=1, max_size=60))
def test_cells_and_encoding_are_the_librarys(values: list[int]):
    ours = histogram.HdrHistogram.decode(encode(count(np.array(values, dtype=np.int64))))
    theirs = histogram.HdrHistogram(1, HIGHEST_NS, 3)
    for value in values:
        theirs.record_value(value)
    assert ours.get_total_count() == len(values)
    for q in (0, 10, 50, 90, 99, 100):
        assert ours.get_value_at_percentile(q) == theirs.get_value_at_percentile(q)


def test_the_log_is_read_with_its_tags_and_negative_delays_are_there(tmp_path):
    file = tmp_path / "histograms.hlog"
    delays = np.array([-5_000, 1_000_000, 2_000_000, 3_000_000])
    lines = [*log_head(1_800_000_000.0), *log_lines("deliver", delays, lasted_s=2.0)]
    file.write_text("\n".join(lines) + "\n")
    reader = log.HistogramLogReader(str(file), histogram.HdrHistogram(1, HIGHEST_NS, 3))
    found = []
    while (each := reader.get_next_interval_histogram()) is not None:
        found.append((each.get_tag(), each.get_total_count(), each.get_value_at_percentile(50)))
    reader.close()
    assert [(tag, n) for tag, n, _ in found] == [("deliver", 3), ("deliver.negative", 1)]
    assert found[0][2] == pytest.approx(2_000_000, rel=1e-3)
    assert found[1][2] == pytest.approx(5_000, rel=1e-3)


def test_what_takes_longer_than_an_hour_counts_as_an_hour():
    assert count(np.array([HIGHEST_NS, HIGHEST_NS * 2])).max() == 2
