"""Exact solvers against closed forms, against each other and against the simulator's intervals."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from toolkit.errors import ModelError
from toolkit.model.analyse import Effort, solve
from toolkit.model.distributions import Erlang, Gamma, Uniform
from toolkit.model.net import NetBuilder
from toolkit.model.netfile import load_net
from toolkit.model.phases import expand

MODELS = Path(__file__).parents[3] / "examples" / "models"


@pytest.mark.parametrize("name", ["intracloud", "intercloud"])
def test_a_sequence_of_erlangs_has_the_moments_and_quantiles_of_its_sum(name):
    net = load_net(MODELS / f"{name}.yml")
    solution = solve(net)
    delays = [t.timing.delay for t in net.timed]
    mean = sum(d.mean for d in delays)
    sd = math.sqrt(sum(d.variance for d in delays))
    assert solution.method == "semi-markov"
    assert solution.error_bound < 1e-8
    assert solution.time.mean == pytest.approx(mean, rel=1e-12)
    assert solution.time.sd == pytest.approx(sd, rel=1e-10)
    chain = solve(net, method="phases", at=(mean / 2, mean), quantiles=(0.5, 0.9, 0.99, 0.999))
    again = solve(net, method="semi-markov", at=(mean / 2, mean), quantiles=(0.5, 0.9, 0.99, 0.999))
    for p, value in again.time.quantiles.items():
        assert chain.time.quantiles[p] == pytest.approx(value, rel=1e-6)
    for place, values in again.occupied.items():
        assert chain.occupied[place] == pytest.approx(values, abs=1e-8)


def convolution(step: float, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Distribution function of the Event Handler with one token: Erlang + uniform + Erlang on a fine grid."""
    grid = np.arange(count) * step
    edges = np.append(grid - step / 2, grid[-1] + step / 2)
    total = None
    for delay in (Erlang(shape=13, rate=2.088), Uniform(low=0, high=1), Erlang(shape=6, rate=2.683)):
        mass = np.diff(delay.cdf(edges))
        spectrum = np.fft.rfft(mass, 2 * count)
        total = spectrum if total is None else total * spectrum
    return grid + step / 2, np.cumsum(np.fft.irfft(total)[:count])


def test_the_event_handler_with_one_token_is_a_convolution():
    solution = solve(load_net(MODELS / "event-handler.yml"), at=(5.0, 9.0, 12.0))
    at, cdf = convolution(0.001, 40_000)
    assert solution.method == "semi-markov"
    assert solution.time.mean == pytest.approx(13 / 2.088 + 0.5 + 6 / 2.683, rel=1e-12)
    for p, value in solution.time.quantiles.items():
        assert value == pytest.approx(float(np.interp(p, cdf, at)), rel=1e-4 / 10)
    delivered = solution.occupied["Subscriber"]
    assert delivered == pytest.approx(np.interp([5.0, 9.0, 12.0], at, cdf), rel=1e-5)
    publishing = 1 - Erlang(shape=13, rate=2.088).cdf(np.array([5.0, 9.0, 12.0]))
    assert solution.occupied["Publisher"] == pytest.approx(publishing, rel=1e-6)


def test_four_tokens_agree_with_the_simulator_within_its_intervals():
    net = load_net(MODELS / "event-handler.yml", tokens=4)
    exact = solve(net, at=(10.0, 25.0))
    assert exact.method == "phases"
    assert exact.error_bound < 1e-4
    simulated = solve(net, method="simulation", at=(10.0, 25.0), effort=Effort(precision=0.004, workers=1, seed=3))
    for name, interval in simulated.time.intervals.items():
        known = {"mean": exact.time.mean, "sd": exact.time.sd}.get(name)
        known = exact.time.quantiles[float(name)] if known is None else known
        slack = (interval.high - interval.low) * 0.6
        assert interval.low - slack <= known <= interval.high + slack, name
    for place, values in exact.occupied.items():
        assert simulated.occupied[place] == pytest.approx(values, abs=0.01)
    assert [m.number for m in exact.messages] == [1, 2, 3, 4]
    for one, other in zip(exact.messages, simulated.messages, strict=True):
        assert other.delivered_at.mean == pytest.approx(one.delivered_at.mean, rel=0.005)


def test_server_semantics_decide_the_result_with_several_tokens():
    def finished(servers):
        net = NetBuilder("n").place("A", 3).place("B").timed("t", "A", "B", "exponential(1)", servers=servers)
        return solve(net.measure("all", first_passage="B == 3").build(), method="phases").time.mean

    assert finished(1) == pytest.approx(3, rel=1e-9)
    assert finished(None) == pytest.approx(1 + 1 / 2 + 1 / 3, rel=1e-9)
    assert finished(2) == pytest.approx(1 / 2 + 1 / 2 + 1, rel=1e-9)


def test_infinite_servers_with_phases_are_independent_clocks():
    net = NetBuilder("n").place("A", 4).place("B").timed("t", "A", "B", "erlang(3, 2)", servers=None)
    solution = solve(net.measure("all", first_passage="B == 4").build(), quantiles=(0.5, 0.99))
    single = Erlang(shape=3, rate=2)
    for p, value in solution.time.quantiles.items():
        assert single.cdf(np.array([value]))[0] ** 4 == pytest.approx(p, rel=1e-9)


def test_the_long_run_of_a_queue_is_the_textbook_one():
    net = (
        NetBuilder("mm1k").place("Free", 5).place("Queue")
        .timed("arrive", "Free", "Queue", "exponential(2)").timed("serve", "Queue", "Free", "exponential(3)")
        .build()
    )  # fmt: skip
    solution = solve(net, at=(0.0, 1.0))
    weights = np.array([(2 / 3) ** k for k in range(6)])
    weights /= weights.sum()
    assert solution.steady["tokens"]["Queue"] == pytest.approx(float(weights @ np.arange(6)), rel=1e-10)
    assert solution.steady["throughput"]["serve"] == pytest.approx(3 * (1 - weights[0]), rel=1e-10)


def test_a_rate_may_depend_on_the_marking():
    net = NetBuilder("death").place("A", 5).place("B").timed("die", "A", "B", "exponential(0.5 * A)")
    solution = solve(net.measure("gone", first_passage="A == 0").build())
    assert solution.time.mean == pytest.approx(2 * sum(1 / k for k in range(1, 6)), rel=1e-8)


def test_loops_of_immediate_transitions_are_solved_as_one():
    net = (
        NetBuilder("coin").place("A", 1).place("B").place("C").place("Done")
        .timed("begin", "A", "B", "exponential(1)")
        .immediate("again", "B", "C", weight=999).immediate("back", "C", "B").immediate("leave", "B", "Done", weight=1)
        .measure("done", first_passage="Done == 1").build()
    )  # fmt: skip
    assert solve(net).time.mean == pytest.approx(1, rel=1e-9)
    assert solve(net, method="phases").time.mean == pytest.approx(1, rel=1e-9)


def test_a_trap_of_immediate_transitions_is_an_error_and_no_hang():
    net = NetBuilder("trap").place("A", 1).place("B").place("C").timed("t", "A", "B", "exponential(1)")
    net.immediate("go", "B", "C").immediate("back", "C", "B").measure("never", first_passage="A == 2")
    with pytest.raises(ModelError, match=r"fire for ever.*go, back"):
        solve(net.build())


def test_branches_and_cycles_with_any_distribution():
    # Each round U(0, 2), then on with probability 1/4: a geometric number of rounds.
    net = (
        NetBuilder("retry").place("Try", 1).place("Tried").place("Done")
        .timed("work", "Try", "Tried", "uniform(0, 2)")
        .immediate("fail", "Tried", "Try", weight=3).immediate("pass_", "Tried", "Done", weight=1)
        .measure("done", first_passage="Done == 1").build()
    )  # fmt: skip
    solution = solve(net, method="semi-markov", quantiles=(0.9, 0.99))
    assert solution.time.mean == pytest.approx(4, rel=1e-12)
    assert solution.time.sd**2 == pytest.approx(4 * (1 / 3) + 12 * 1, rel=1e-10)
    # A renewal's distribution function: sum of 1/4 (3/4)^n F^(n+1), by convolution on a grid.
    step = 0.002
    mass = np.diff(Uniform(low=0, high=2).cdf(np.arange(40_001) * step))
    spectrum = np.fft.rfft(mass, 80_000)
    cdf = np.cumsum(np.fft.irfft(spectrum * 0.25 / (1 - 0.75 * spectrum)))[:40_000]
    for p, value in solution.time.quantiles.items():
        assert np.interp(p, cdf, (np.arange(40_000) + 1) * step) == pytest.approx(value, rel=2e-3)


def test_a_completion_that_may_never_come_has_its_probability():
    net = (
        NetBuilder("maybe").place("A", 1).place("Good").place("Bad")
        .timed("good", "A", "Good", "exponential(3)").timed("bad", "A", "Bad", "exponential(1)")
        .measure("done", first_passage="Good == 1").build()
    )  # fmt: skip
    for method in ("semi-markov", "phases"):
        solution = solve(net, method=method, quantiles=(0.5, 0.9))
        assert solution.probability == pytest.approx(0.75, rel=1e-9)
        assert solution.time.mean == pytest.approx(1 / 4, rel=1e-6)
        assert solution.time.quantiles[0.5] == pytest.approx(-math.log(1 - 0.5 / 0.75) / 4, rel=1e-6)
        assert solution.time.quantiles[0.9] is None


def test_stand_ins_keep_three_moments():
    for delay in (Uniform(low=0, high=1), Gamma(shape=13.235, rate=2.088)):
        phases = expand(delay, 12)
        assert [phases.moment(i) / delay.moment(i) for i in (1, 2, 3)] == pytest.approx([1, 1, 1], abs=1e-9)


def test_the_simulator_depends_on_the_seed_alone():
    net = load_net(MODELS / "event-handler.yml", tokens=3)
    a, b, c = (
        solve(net, method="simulation", at=(5.0,), effort=Effort(seed=s, workers=1, most_seconds=1, precision=0.05))
        for s in (5, 5, 6)
    )
    assert a.time.mean == b.time.mean != c.time.mean


def test_a_thread_pool_of_one_makes_events_wait():
    def latency(threads):
        net = load_net(MODELS / "event-handler.yml", {"threads": threads, "N": 6})
        burst = {t.name: t for t in net.transitions}
        assert "assign" in burst
        effort = Effort(workers=1, precision=0.05, most_seconds=2)
        return solve(net, method="simulation", at=(0.0,), effort=effort).latency.mean

    assert latency(1) > latency(64) > 0
