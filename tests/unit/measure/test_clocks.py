"""Offsets and bounds between readings, shared clocks, steps."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np

from toolkit.measure.clocks import SHARED, ClockReading, find_steps, node_clock, path_bound_ns, read_log

T0 = 1_800_000_000_000_000_000
S = 10**9


def readings(offsets: list[int], **changes) -> list[ClockReading]:
    given = {"root_delay_ns": 200_000, "root_dispersion_ns": 50_000} | changes
    return [
        ClockReading(at_ns=T0 + i * S, monotonic_ns=i * S, offset_ns=offset, **given)
        for i, offset in enumerate(offsets)
    ]


def test_the_offset_is_interpolated_and_kept_beyond_the_ends():
    clock = node_clock("pub", readings([1000, 3000, -1000]))
    at = np.array([T0 - S, T0, T0 + S // 2, T0 + S, T0 + 3 * S // 2, T0 + 9 * S])
    assert clock.offset_at_ns(at).tolist() == [1000, 1000, 2000, 3000, 1000, -1000]


def test_the_bound_is_dispersion_and_half_the_delay_of_both_ends_and_their_resolutions():
    one, other = node_clock("a", readings([0, 0])), node_clock("b", readings([0, 0], root_dispersion_ns=70_000))
    assert path_bound_ns(one, other, T0, T0 + S) == 150_000 + 170_000 + 2 * 1000
    assert path_bound_ns(one, one, T0, T0 + S) == 1000


def test_the_largest_bound_of_the_run_counts_and_later_ones_do_not():
    late = readings([0, 0, 0, 0, 0])
    worse = [*late[:4], ClockReading(at_ns=T0 + 9 * S, monotonic_ns=9 * S, offset_ns=0, root_delay_ns=10**9, root_dispersion_ns=0)]  # fmt: skip  # noqa: E501
    clock = node_clock("a", worse)
    assert clock.bound_ns(T0, T0 + 2 * S) == 150_000
    assert clock.bound_ns(T0, T0 + 4 * S) == 500_000_000


def test_clocks_of_one_kernel_differ_by_their_resolution_only():
    told = [{"resolution_ns": 45}]
    one, other = (node_clock(name, [], shared=True, processes=told) for name in ("a", "b"))
    assert (one.domain, path_bound_ns(one, other, T0, T0 + S)) == (SHARED, 45)


def test_a_clock_nobody_watched_has_no_bound():
    unknown = node_clock("a", [])
    assert path_bound_ns(unknown, node_clock("b", readings([0])), T0, T0 + S) is None
    assert not unknown.synchronised


def test_a_step_is_found_with_its_size_and_a_slew_is_not():
    log = readings([0, 0, 0, 0])
    stepped = [*log[:2], *(ClockReading(at_ns=r.at_ns + 3_000_000, monotonic_ns=r.monotonic_ns, offset_ns=0, root_delay_ns=0, root_dispersion_ns=0) for r in log[2:])]  # fmt: skip  # noqa: E501
    [step] = find_steps("pub", stepped)
    slowly_read = [dataclasses.replace(reading, read_window_ns=8_000_000) for reading in stepped]
    assert find_steps("pub", slowly_read) == []
    assert (step.node, step.size_ns, step.at_ns) == ("pub", 3_000_000, T0 + 2 * S + 3_000_000)
    slewed = [dataclasses.replace(r, at_ns=r.at_ns + i * 50_000) for i, r in enumerate(log)]
    assert find_steps("pub", slewed) == []


def test_a_log_cut_short_is_read_as_far_as_it_goes(tmp_path: Path):
    line = json.dumps({"at_ns": T0, "monotonic_ns": 5, "offset_ns": 1, "root_delay_ns": 2, "root_dispersion_ns": 3,
                       "synchronised": True, "shared": False, "stratum": 3})  # fmt: skip
    file = tmp_path / "clock.jsonl"
    file.write_text(f"{line}\n{line[:40]}")
    assert [reading.offset_ns for reading in read_log(file)] == [1]
    assert read_log(tmp_path / "none.jsonl") == []
