"""Experiments of a file: points, what each plays, files of their own, and testbeds made smaller."""

from __future__ import annotations

import pytest

from toolkit.contract.orders import Arrivals
from toolkit.errors import FileInvalidError
from toolkit.spec.load import Asked, load_testbed
from toolkit.spec.scale import scale_traffic, scaled

BED = """
nodes: {base: {}, sub: {kind: pi1, count: 7}}
services:
  broker: {on: base}
  publisher: {on: base}
  subscriber: {on: sub}
workloads:
  slow: {messages: 3000, arrivals: {kind: poisson, rate: 10/s}, options: {prefetch: 1}}
  timed: {extends: slow, duration: 10s, warmup: 3}
"""


@pytest.fixture
def bed(tmp_path):
    def _bed(text, **how):
        file = tmp_path / "testbed.yml"
        file.write_text(BED + text)
        return load_testbed(file, environ={}, **how)

    return _bed


def test_every_combination_of_vary_at_every_point(bed):
    experiment = bed(
        """
experiments:
  all:
    workload: slow
    vary: {qos: [0, 1], arrivals.rate: [20/s, 40/s]}
    points:
      - {label: none, services.broker.settings.mode: original}
      - {services.broker.settings.mode: enhanced, services.broker.settings.thread_pool_size: 4, options.system: x}
"""
    ).experiments["all"]
    assert len(experiment.cells) == 8
    assert [cell.name for cell in experiment.cells][::4] == [
        "none",
        "mode=enhanced, thread_pool_size=4, system=x, qos=0, rate=20/s",
    ]
    assert experiment.cells[0].overrides == {"services.broker.settings.mode": '"original"'}
    last = experiment.cells[-1].workload
    assert (last.qos, last.arrivals, last.options) == (
        1, Arrivals(kind="poisson", rate_per_s=40.0), {"prefetch": 1, "system": "x"},
    )  # fmt: skip
    assert experiment.parameters[-2:] == ("qos", "arrivals.rate")


def test_a_point_may_play_another_workload_and_end_otherwise(bed):
    testbed = bed(
        "experiments: {e: {workload: slow, vary: {workload: [slow, timed]}, points: [{messages: 5}, {duration: 2s}]}}"
    )
    played = [(c.workload.name, c.workload.messages, c.workload.duration_s) for c in testbed.experiments["e"].cells]
    assert played == [("slow", 5, None), ("timed", 5, None), ("slow", None, 2.0), ("timed", None, 2.0)]


def test_published_figures_find_their_points(bed):
    experiment = bed(
        """
experiments:
  e:
    workload: slow
    vary: {services.broker.settings.thread_pool_size: [4, 8], qos: [0, 1]}
    reference:
      - {source: a, where: {thread_pool_size: 4}, mean: 1}
      - {source: b, where: {thread_pool_size: 8, qos: 1}, hop: deliver, mean: 2}
      - {source: c, max: 3}
"""
    ).experiments["e"]
    assert ["".join(r.source for r in cell.reference) for cell in experiment.cells] == ["ac", "ac", "c", "bc"]


def test_experiments_in_a_file_of_their_own(tmp_path, bed):
    bed("")
    more = tmp_path / "more.yml"
    more.write_text(
        "testbed: testbed.yml\nworkloads: {w: {qos: 1}}\nexperiments: {e: {workload: w, vary: {qos: [0, 1]}}}"
    )
    testbed = Asked(file=tmp_path / "testbed.yml", also=more).load()
    assert [cell.workload.qos for cell in testbed.experiments["e"].cells] == [0, 1]
    assert list(testbed.workloads) == ["slow", "timed", "w"]


def test_what_is_wrong_in_that_file_is_said_with_its_place(tmp_path, bed):
    bed("")
    more = tmp_path / "more.yml"
    more.write_text("nodes: {}\nworkloads:\n  slow: {}\nexperiments:\n  e: {workload: slo}\n")
    with pytest.raises(FileInvalidError) as raised:
        Asked(file=tmp_path / "testbed.yml", also=more).load()
    assert [(p.line, p.column) for p in raised.value.problems] == [(1, 1), (3, 3)]
    more.write_text("experiments:\n  e: {workload: slo}\n  f: {workload: slow, vary: {qos: [7]}}\n")
    with pytest.raises(FileInvalidError) as raised:
        Asked(file=tmp_path / "testbed.yml", also=more).load()
    assert [(p.file, p.line) for p in raised.value.problems] == [(str(more), 2), (str(more), 3)]


def test_a_point_adds_no_node_by_a_slip(bed):
    with pytest.raises(FileInvalidError) as raised:
        bed("experiments: {e: {workload: slow, vary: {nodes.sup.count: [1, 2]}}}")
    assert {p.line for p in raised.value.problems} == {10}
    assert "undefined node 'sup'; did you mean 'sub'?" in raised.value.problems[0].message


def test_a_smaller_testbed_has_fewer_nodes_and_a_smaller_experiment_fewer_events(bed):
    testbed = bed("experiments: {e: {workload: slow, vary: {messages: [10, 1000]}}}", scale=0.2)
    assert [node.name for node in testbed.nodes] == ["base", "sub-1", "sub-2"]
    less = scale_traffic(testbed, 0.1)
    assert less.workloads["slow"].messages == 300
    assert (less.workloads["timed"].duration_s, less.workloads["timed"].warmup_messages) == (1.0, 1)
    assert [cell.workload.messages for cell in less.experiments["e"].cells] == [1, 100]
    assert less.workloads["slow"].arrivals == testbed.workloads["slow"].arrivals


def test_real_machines_are_left_out_from_the_end(tmp_path):
    file = tmp_path / "testbed.yml"
    file.write_text("provider: ssh\nnodes: {a: {addresses: 10.0.0.11-20}, b: {addresses: [10.0.1.1, 10.0.1.2]}}")
    testbed = load_testbed(file, environ={}, scale=0.3)
    assert [node.address for node in testbed.nodes] == ["10.0.0.11", "10.0.0.12", "10.0.0.13", "10.0.1.1"]


@pytest.mark.parametrize(("count", "scale", "result"), [(7, 0.5, 4), (10, 0.1, 1), (1, 0.01, 1), (3000, 0.001, 3)])
def test_scaled(count, scale, result):
    assert scaled(count, scale) == result


def test_varied_places_are_loaded_like_the_file(tmp_path, bed):
    bed("")
    asked = Asked(file=tmp_path / "testbed.yml", overrides={"nodes.sub.count": "3"}, varied={"nodes.sub.count": "2"})
    assert len(asked.load().nodes) == 3
