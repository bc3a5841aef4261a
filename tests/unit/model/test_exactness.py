"""Exact solvers against closed forms, against each other and against the simulator's intervals."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy.linalg import expm

from toolkit.errors import ModelError
from toolkit.model.analyse import Effort, solve
from toolkit.model.distributions import Erlang, Gamma, Uniform
from toolkit.model.net import NetBuilder
from toolkit.model.netfile import load_net
from toolkit.model.phases import expand
from toolkit.model.simulate import simulate

MODELS = Path(__file__).parents[3] / "examples" / "models"


ASKED = (0.5, 0.75, 0.9, 0.95, 0.99, 0.999)
WITHIN = 1e-4
"""The relative error that figures may have; they are far better where the solver says so."""


def shortfall(delay, x):
    """E max(x - X, 0): its second difference is the delay on a grid, with its mean kept."""
    if isinstance(delay, Uniform):
        return np.where(x < delay.high, np.maximum(x, 0) ** 2 / 2, x - delay.mean)
    longer = Erlang(shape=getattr(delay, "shape", 1) + 1, rate=delay.rate)
    return x * delay.cdf(x) - delay.mean * longer.cdf(x)


def convolution(delays, step: float, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Distribution functions of the first, the first two, ... delays in sequence, on a fine grid."""
    grid = np.arange(-1, count + 1) * step
    total, found = np.ones(count + 1), []
    for delay in delays:
        total = total * np.fft.rfft(np.diff(shortfall(delay, grid), 2) / step, 2 * count)
        found.append(np.cumsum(np.fft.irfft(total)[:count]))
    return (np.arange(count) + 0.5) * step, np.array(found)


@pytest.mark.parametrize(
    ("name", "step", "count"),
    [("intracloud", 0.02, 60_000), ("intercloud", 0.1, 80_000), ("event-handler", 5e-4, 80_000)],
)
def test_one_token_is_a_convolution_of_its_delays(name, step, count):
    net = load_net(MODELS / f"{name}.yml")
    delays = [t.timing.delay for t in net.timed]
    mean = sum(d.mean for d in delays)
    times = tuple(mean * part for part in (0.1, 0.3, 0.5, 0.8, 1.0, 1.3))
    solution = solve(net, at=times, quantiles=ASKED)
    assert solution.method == "semi-markov"
    assert solution.error_bound < 1e-8
    assert solution.time.mean == pytest.approx(mean, rel=1e-12)
    assert solution.time.sd == pytest.approx(math.sqrt(sum(d.variance for d in delays)), rel=1e-10)
    at, done = convolution(delays, step, count)
    for p in ASKED:
        assert solution.time.quantiles[p] == pytest.approx(float(np.interp(p, done[-1], at)), rel=WITHIN / 5), p
    gone = np.vstack([np.ones(len(times)), *(np.interp(times, at, stage) for stage in done), np.zeros(len(times))])
    held = [next(iter(t.inputs)) for t in net.timed] + [net.latency.end]
    for place, expected in zip(held, gone[:-1] - gone[1:], strict=True):
        assert solution.occupied[place] == pytest.approx(expected, rel=WITHIN, abs=1e-7), place
    assert sum(np.array(solution.occupied[place]) for place in held) == pytest.approx(np.ones(len(times)), abs=1e-9)


def test_a_sequence_of_erlangs_is_the_phase_type_that_a_matrix_exponential_gives():
    net = load_net(MODELS / "intracloud.yml")
    rates = np.concatenate([[t.timing.delay.rate] * int(getattr(t.timing.delay, "shape", 1)) for t in net.timed])
    generator = np.diag(-rates) + np.diag(rates[:-1], k=1)
    for p, value in solve(net, quantiles=ASKED).time.quantiles.items():
        phases = expm(generator * value)[0]
        # A distribution function that is off by d puts a quantile off by d over the density.
        assert (1 - phases.sum() - p) / (phases[-1] * rates[-1]) / value == pytest.approx(0, abs=WITHIN / 1000)


def test_a_chain_of_phases_answers_as_the_transforms_do():
    net = load_net(MODELS / "intracloud.yml")
    at = (50.0, 200.0, 400.0)
    solution = solve(net, at=at, quantiles=ASKED)
    chain = solve(net, method="phases", at=at, quantiles=ASKED)
    for p, value in solution.time.quantiles.items():
        assert chain.time.quantiles[p] == pytest.approx(value, rel=WITHIN / 100)
    for place, values in solution.occupied.items():
        assert chain.occupied[place] == pytest.approx(values, abs=1e-8)


def test_four_tokens_agree_with_sums_of_random_delays():
    """With four cores nobody waits for one: what is left is a queue for the way out, written down in a few lines."""
    times = np.array([6.0, 14.0, 25.0, 32.0])
    exact = solve(load_net(MODELS / "event-handler.yml", tokens=4), at=times.tolist(), quantiles=ASKED)
    assert exact.method == "phases"
    assert exact.error_bound < WITHIN
    rng, n = np.random.Generator(np.random.Philox(11)), 1_000_000
    published, free = np.zeros(n), np.zeros(n)
    waiting = np.zeros((len(times), n), dtype=np.int8)
    for number in range(4):
        published = published + rng.standard_gamma(13, n) / 2.088
        ready = published + rng.random(n)
        free = np.maximum(ready, free) + rng.standard_gamma(6, n) / 2.683
        waiting += (ready <= times[:, None]) & (free > times[:, None])
        late = exact.messages[number].delivered_at
        assert free.mean() == pytest.approx(late.mean, abs=4.5 * late.sd / math.sqrt(n))
    for p, value in exact.time.quantiles.items():
        beyond = (free > value).mean()
        assert beyond == pytest.approx(1 - p, abs=4.5 * math.sqrt(p * (1 - p) / n)), p
    busy = (waiting > 0).mean(axis=1)
    assert exact.occupied["Ready_to_Send"] == pytest.approx(busy, abs=4.5 * 0.5 / math.sqrt(n))


def test_stand_ins_are_as_good_as_their_error_bound_says():
    net = load_net(MODELS / "event-handler.yml", tokens=2)
    at = (5.0, 9.0, 14.0)
    finest = solve(net, method="phases", at=at, effort=Effort(order=30), quantiles=ASKED)
    for order, most in ((None, 1e-4), (5, 5e-4), (3, 5e-4)):
        rough = solve(net, method="phases", at=at, effort=Effort(order=order), quantiles=ASKED)
        errors = [abs(rough.time.quantiles[p] / finest.time.quantiles[p] - 1) for p in ASKED]
        errors += [
            abs(a - b)
            for place in net.places
            for a, b in zip(rough.occupied[place], finest.occupied[place], strict=True)
        ]
        assert 1e-8 < max(errors) < rough.error_bound < most


def test_states_that_are_hardly_ever_visited_change_nothing_that_is_shown(monkeypatch):
    net = load_net(MODELS / "event-handler.yml", tokens=3)
    found = solve(net, method="phases", quantiles=(0.5, 0.9995))
    monkeypatch.setattr("toolkit.model.analyse._LEAST_MASS_OF_STAND_INS", 0.0)
    whole = solve(net, method="phases", quantiles=(0.5, 0.9995))
    assert found.states < whole.states
    assert found.time.quantiles == pytest.approx(whole.time.quantiles, rel=1e-6)
    assert found.probability == 1


@pytest.mark.parametrize(
    ("name", "settings"),
    [("event-handler", {"N": 4}), ("event-handler", {"N": 5, "K": 2, "C": 1}), ("intracloud", {"N": 2})],
)
def test_exact_answers_lie_within_the_simulator_intervals(name, settings):
    net = load_net(MODELS / f"{name}.yml", settings)
    mean = solve(net, at=(0.0,)).time.mean
    at = (mean * 0.4, mean * 0.9)
    exact = solve(net, at=at, quantiles=ASKED)
    assert exact.method == "phases"
    effort = Effort(precision=0.004, workers=1, seed=3)
    simulated = solve(net, method="simulation", at=at, quantiles=ASKED, effort=effort)
    known_values = {"mean": exact.time.mean, "sd": exact.time.sd} | {f"{p:g}": exact.time.quantiles[p] for p in ASKED}
    for figure, interval in simulated.time.intervals.items():
        known = known_values[figure]
        slack = (interval.high - interval.low) * 0.6
        assert interval.low - slack <= known <= interval.high + slack, figure
    for place, values in exact.occupied.items():
        assert simulated.occupied[place] == pytest.approx(values, abs=0.02)
    assert [m.number for m in exact.messages] == [m.number for m in simulated.messages]
    for one, other in zip(exact.messages, simulated.messages, strict=True):
        assert other.delivered_at.mean == pytest.approx(one.delivered_at.mean, rel=0.01)


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
    a, b, c = (simulate(net, at=(5.0,), seed=seed, least=4096, most=4096) for seed in (5, 5, 6))
    assert (a.completed == b.completed).all()
    assert (a.occupied == b.occupied).all()
    assert not (a.completed == c.completed).any()


def test_a_thread_pool_of_one_makes_events_wait():
    def latency(threads):
        net = load_net(MODELS / "event-handler.yml", {"threads": threads, "N": 6})
        burst = {t.name: t for t in net.transitions}
        assert "assign" in burst
        effort = Effort(workers=1, precision=0.05, most_seconds=2)
        return solve(net, method="simulation", at=(0.0,), effort=effort).latency.mean

    assert latency(1) > latency(64) > 0
