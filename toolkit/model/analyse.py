"""Solve a net: choose the method (or take the one named), and say how good the answer is."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter
from typing import Any

import numpy as np

from toolkit.errors import ModelError
from toolkit.model.distributions import Distribution, Exponential, FloatArray, Gamma, HyperErlang, PhaseType
from toolkit.model.intervals import Interval, mean_interval, quantile_interval, sd_interval
from toolkit.model.net import Measure, Net, Timed
from toolkit.model.phases import expand
from toolkit.model.semantics import MOST_STATES, Rules, StateSpace, TooManyStatesError, one_clock, state_space
from toolkit.model.semimarkov import SemiMarkov
from toolkit.model.simulate import Outcome, simulate, why_not_followed
from toolkit.model.solution import Message, Solution, Spread
from toolkit.model.transient import MOST_WORK, PassageTime, TooLongError, Watched, steady_state, watch

QUANTILES = (0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 0.9995)
METHODS = ("auto", "semi-markov", "phases", "simulation")
ORDERS = ((10, 9), (5, 1))
"""Phases for a bounded delay that has none of its own, and the coarser number that the error is judged by."""
_LEAST_MASS, _LEAST_MASS_OF_STAND_INS = 1e-12, 1e-10
"""States that are visited with less than this probability are left out of nets whose tokens never come back.

Where delays have stand-ins, which are right to some 1e-5, the second one moves p99.95 by less than 1e-6.
"""
_AUTO_STATES = 60_000
"""States up to which the chain is solved unasked; above, the simulator answers sooner."""
_MARGIN = 1.5
"""The error of stand-ins is extrapolated to first order, which was seen to be up to a twentieth too low."""
_AUTO_WORK = 1e9
_EULER_ERROR = 1e-7
_CERTAIN = 1e-11
_MOST_TOKENS = 40
"""With more, fewer phases for each delay would not make the chain small enough either."""
_SPAWN_SECONDS = 3.0
_MOST_MESSAGES = 1000
"""Of more, every second, third, ... has its distributions worked out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How hard to try: the simulator's seed, precision and time, the chain's size and phases."""

    seed: int = 1
    precision: float = 0.005
    most_seconds: float = 10.0
    workers: int = field(default_factory=lambda: min(os.cpu_count() or 1, 8))
    most_states: int = _AUTO_STATES
    most_work: float = _AUTO_WORK
    order: int | None = None
    horizon: float = math.inf


def solve(
    net: Net,
    *,
    method: str = "auto",
    at: Sequence[float] | None = None,
    quantiles: Sequence[float] | None = None,
    effort: Effort | None = None,
) -> Solution:
    """Times, place probabilities and messages of a net.

    Methods: `semi-markov` (one clock at a time, any distributions), `phases` (exact for phase-type delays; bounded
    ones by matched mixtures of Erlangs), `simulation`; `auto` takes the first of these that applies and is accurate.
    A method asked for by name that does not apply raises ModelError.
    """
    if method not in METHODS:
        raise ModelError(f"unknown method {method!r}; known are {', '.join(METHODS)}")
    if at is not None and any(not 0 <= t < math.inf for t in at):
        raise ModelError(f"--at {', '.join(f'{t:g}' for t in at)}: times are finite and 0 or more")
    measure = net.completion()
    rules = Rules(net)
    if measure is not None and rules.holds(measure.expression, rules.initial[:, None])[0]:
        raise ModelError(
            f"net {net.name}: {measure.expression} holds from the start, so there is no time to tell; try --tokens 1"
        )
    wanted = tuple(quantiles or (measure.quantiles if measure else ()) or QUANTILES)
    if any(not 0 < q < 1 for q in wanted):
        raise ModelError("quantiles lie between 0 and 1")
    effort = effort or Effort()
    started = time.monotonic()
    if method == "auto":
        solution = _automatic(net, at, wanted, effort)
    elif method == "semi-markov":
        found = _semi_markov(net, at, wanted, "asked for")
        if found is None:
            raise ModelError(
                f"net {net.name}: clocks run at the same time; semi-markov needs one at a time; try phases"
            )
        solution = found
    elif method == "phases":
        allowed = max(effort.most_states, MOST_STATES)
        effort = replace(effort, most_states=allowed, most_work=MOST_WORK)
        solution = _phases(net, at, wanted, effort, "asked for")
    else:
        solution = _simulation(net, at, wanted, effort, "asked for")
    return replace(solution, seconds=time.monotonic() - started)


def _automatic(net: Net, at: Sequence[float] | None, quantiles: tuple[float, ...], effort: Effort) -> Solution:
    # A net without an end is asked for its long run, which only the chain gives.
    found = _semi_markov(net, at, quantiles, "one clock runs at a time") if net.completion() else None
    if found is not None and found.error_bound <= _EULER_ERROR:
        return found
    try:
        return _phases(net, at, quantiles, effort, "several clocks run at the same time")
    except TooManyStatesError:
        reason = f"several clocks run at the same time, in more than {effort.most_states:,} states"
    except TooLongError as error:
        reason = f"uniformisation too long: {error}"
    except ModelError as error:
        if "use the simulator" not in str(error):
            raise
        reason = str(error)
    return _simulation(net, at, quantiles, effort, reason)


def default_times(mean: float, sd: float) -> tuple[float, ...]:
    """Nine instants from the start to well past completion."""
    return tuple(float(f"{t:.6g}") for t in np.linspace(0, mean + 4 * sd, 9))


def _semi_markov(net: Net, at: Sequence[float] | None, quantiles: tuple[float, ...], reason: str) -> Solution | None:
    process = one_clock(net)
    measure = net.completion()
    if process is None:
        return None
    target = np.zeros(len(process.delays), dtype=bool)
    if measure is not None:
        target = process.rules.holds(measure.expression, process.markings)
    solver = SemiMarkov(process, target)
    if not solver.is_solvable or (measure is None and at is None):
        return None
    spread: Spread | None = None
    if target.any() and solver.probability > 0:
        mean, sd = solver.moments()
        if sd < 1e-9 * mean:
            return None
        found = solver.quantiles(np.array(quantiles))
        spread = Spread(
            mean=mean,
            sd=sd,
            quantiles={p: None if math.isnan(q) else float(q) for p, q in zip(quantiles, found, strict=True)},
        )
        at = at if at is not None else default_times(mean, sd)
    times = np.array(at if at is not None else (0.0,), dtype=np.float64)
    # After completion the net may go on: places are followed without stopping at the target.
    onward = SemiMarkov(process, np.zeros_like(target)) if any(target[a] for a, _, _ in process.edges) else solver
    if not onward.is_solvable:
        return None
    shares = onward.state_probabilities(times)
    messages: tuple[Message, ...] = ()
    if spread is not None and sum(net.places.values()) == 1 and why_not_followed(net) is None:
        messages = (Message(number=1, delivered_at=spread, latency=spread),)
    return Solution(
        net=net,
        method="semi-markov",
        reason=reason,
        error_bound=max(solver.error, onward.error),
        states=len(process.delays),
        seconds=0.0,
        at=tuple(float(t) for t in times),
        time=spread,
        probability=(1.0 if solver.probability > 1 - 1e-12 else solver.probability) if measure else None,
        messages=messages,
        latency=messages[0].latency if messages else None,
        **_by_place(net, process.markings, shares.T, process.rules),
    )


def _by_place(net: Net, markings: Any, shares: FloatArray, rules: Any) -> dict[str, Any]:
    """Place probabilities, expected tokens and further measures from state probabilities (times x states)."""
    occupied = shares @ (markings > 0).T.astype(np.float64)
    tokens = shares @ markings.T.astype(np.float64)
    rewards = {name: shares @ _reward(m, markings, rules) for name, m in _over_time(net).items()}
    return {
        "occupied": {p: tuple(float(v) for v in occupied[:, i]) for i, p in enumerate(rules.places)},
        "tokens": {p: tuple(float(v) for v in tokens[:, i]) for i, p in enumerate(rules.places)},
        "rewards": {name: tuple(float(v) for v in values) for name, values in rewards.items()},
    }


def _over_time(net: Net) -> dict[str, Measure]:
    return {name: m for name, m in net.measures.items() if m.kind != "first_passage"}


def _reward(measure: Measure, markings: Any, rules: Any) -> FloatArray:
    if measure.kind == "probability":
        return np.asarray(rules.holds(measure.expression, markings), dtype=np.float64)
    return np.asarray(rules.value(measure.expression, markings), dtype=np.float64)


def _deliveries(net: Net) -> tuple[int, int]:
    """(row of the place messages end in, how many) if the n-th delivery is well defined, else (-1, 0)."""
    if net.latency is None or any(net.latency.end in t.inputs for t in net.transitions):
        return -1, 0
    if any(sum(t.inputs.values()) != sum(t.outputs.values()) for t in net.transitions):
        return -1, 0
    return list(net.places).index(net.latency.end), sum(net.places.values())


def _phases(
    net: Net, at: Sequence[float] | None, quantiles: tuple[float, ...], effort: Effort, reason: str
) -> Solution:
    orders = (
        ORDERS if effort.order is None else ((effort.order, max(effort.order * 3 // 4, 9) if effort.order > 9 else 1),)
    )
    least = (_LEAST_MASS_OF_STAND_INS if _has_bounded(net) else _LEAST_MASS) if _is_one_way(net) else 0.0
    for order, rough_order in orders:  # noqa: B007 - the last pair tried is used below
        try:
            space = state_space(net, order=order, most_states=effort.most_states, least_mass=least)
        except TooManyStatesError:
            if order == orders[-1][0] or not _has_bounded(net) or sum(net.places.values()) > _MOST_TOKENS:
                raise
            continue
        break
    solution = _chain(net, space, at, quantiles, reason, effort.most_work)
    if space.is_exact:
        return solution
    rough = state_space(net, order=rough_order, most_states=effort.most_states, least_mass=least)
    other = _chain(net, rough, solution.at, quantiles, reason, effort.most_work, each_message=False)
    return replace(
        solution,
        error_bound=solution.error_bound + _MARGIN * _unmatched(net, order, rough_order) * _difference(solution, other),
        reason=f"{reason}; {order} phases for each bounded delay, error judged by {rough_order}",
    )


def _has_bounded(net: Net) -> bool:
    exact = Exponential | Gamma | HyperErlang | PhaseType
    delays = [t.timing.delay for t in net.timed if isinstance(t.timing, Timed)]
    return any(isinstance(d, Distribution) and not isinstance(d, exact) for d in delays)


def _is_one_way(net: Net) -> bool:
    """Whether tokens never come back: the places can be put in an order that every transition follows."""
    later: dict[str, set[str]] = {place: set() for place in net.places}
    for transition in net.transitions:
        if not transition.inputs:
            return False
        for place in transition.inputs:
            later[place] |= set(transition.outputs)
    try:
        tuple(TopologicalSorter(later).static_order())
    except CycleError:
        return False
    return True


def _difference(a: Solution, b: Solution) -> float:
    """Largest relative difference of times, absolute of probabilities."""
    worst = 0.0
    if a.time is not None and b.time is not None:
        pairs = [(a.time.mean, b.time.mean), (a.time.sd, b.time.sd)]
        pairs += [(x, b.time.quantiles[p] or x) for p, x in a.time.quantiles.items() if x is not None]
        worst = max(abs(x - y) / max(abs(x), 1e-300) for x, y in pairs)
    for place, values in a.occupied.items():
        worst = max([worst, *(abs(x - y) for x, y in zip(values, b.occupied[place], strict=True))])
    return worst


def _unmatched(net: Net, order: int, rough_order: int) -> float:
    """Error of the finer stand-ins over their difference to the coarser ones.

    To first order both errors go with the first moment that a stand-in does not keep.
    """
    worst = 1.0
    for transition in net.timed:
        assert isinstance(transition.timing, Timed)
        delay = transition.timing.delay
        if not isinstance(delay, Distribution) or (fine := expand(delay, order)).is_exact:
            continue
        rough = expand(delay, rough_order)
        for power in range(1, 9):
            exact, one, other = delay.moment(power), fine.moment(power), rough.moment(power)
            if abs(one - exact) > 1e-6 * exact:
                worst = max(worst, abs(one - exact) / max(abs(one - other), 1e-9 * exact))
            if abs(other - exact) > 1e-6 * exact:
                break
    return worst


def _chain(
    net: Net,
    space: StateSpace,
    at: Sequence[float] | None,
    quantiles: tuple[float, ...],
    reason: str,
    most_work: float = MOST_WORK,
    *,
    each_message: bool = True,
) -> Solution:
    measure = net.completion()
    markings = space.markings
    extra = _over_time(net)
    target = np.zeros(markings.shape[1], dtype=bool)
    if measure is not None:
        target = space.rules.holds(measure.expression, markings)
    goes_on = bool(target[space.marking_of[space.rates.source]].any())
    row, total = _deliveries(net) if each_message else (-1, 0)
    steps = [target.astype(np.float64)[:, None]]
    if total > 1:
        steps.append((markings[row][:, None] >= np.arange(1, total + 1)).astype(np.float64))
    columns = [(markings > 0).T.astype(np.float64), markings.T.astype(np.float64)]
    columns += [_reward(m, markings, space.rules)[:, None] for m in extra.values()]
    rewards = np.concatenate([*steps, *columns], axis=1)
    first = watch(
        space,
        rewards,
        frozen=target if goes_on else None,
        horizon=0.0 if goes_on else max(at or (0.0,)),
        until=0 if target.any() else None,
        most_work=most_work,
    )
    end = _end(first, total if total > 1 else 0, quantiles)
    if at is None:
        at = default_times(end.time.mean, end.time.sd) if end.time else (0.0,)
    times = np.array(at, dtype=np.float64)
    over_time = watch(space, rewards, horizon=float(times.max()), most_work=most_work) if goes_on else first
    values = over_time.at(times)[:, sum(step.shape[1] for step in steps) :]
    places = list(net.places)
    count = len(places)
    return Solution(
        net=net,
        method="phases",
        reason=reason,
        error_bound=1e-9 + first.lost + over_time.lost + end.error,
        states=space.size,
        seconds=0.0,
        at=tuple(float(t) for t in times),
        occupied={p: tuple(float(v) for v in values[:, i]) for i, p in enumerate(places)},
        tokens={p: tuple(float(v) for v in values[:, count + i]) for i, p in enumerate(places)},
        rewards={n: tuple(float(v) for v in values[:, 2 * count + i]) for i, n in enumerate(extra)},
        time=end.time,
        probability=None if measure is None else end.probability,
        messages=end.messages,
        steady=_steady(net, space) if measure is None else None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _End:
    """How, and whether, a chain reached what the net is to reach."""

    time: Spread | None = None
    probability: float = 0.0
    messages: tuple[Message, ...] = ()
    error: float = 0.0
    """By how much what was lost on the way moves a quantile at most, relative."""


def _end(watched: Watched, messages: int, quantiles: tuple[float, ...]) -> _End:
    """Of a chain whose first column is the end, and whose next ones are the deliveries of so many messages."""
    if not watched.values[-1, 0] > 0:
        return _End()
    passage, *arrivals = (
        PassageTime(rate=watched.rate, reached=watched.values[:, column]) for column in range(1 + messages)
    )
    time = _spread(passage, quantiles)
    error = 0.0
    if watched.lost:
        reached = np.array([q for q in time.quantiles.values() if q])
        # What was lost moves a quantile by as much as it takes the rest to make up for it.
        error = float((watched.lost / np.maximum(passage.density(reached) * reached, 1e-300)).max(initial=0.0))
    return _End(
        time=time,
        # What was lost on the way is not known not to arrive.
        probability=1.0 if passage.probability + watched.lost > 1 - _CERTAIN else passage.probability,
        messages=tuple(
            Message(number=number, delivered_at=_spread(arrival, quantiles))
            for number, arrival in enumerate(arrivals, 1)
            if arrival.reached[-1] > 0
        ),
        error=error,
    )


def _steady(net: Net, space: StateSpace) -> dict[str, dict[str, float]]:
    """What holds in the long run."""
    by_state = steady_state(space)
    shares = space.by_marking(by_state)
    markings = space.markings
    return {
        "places": {place: float(shares @ (markings[i] > 0)) for i, place in enumerate(net.places)},
        "tokens": {place: float(shares @ markings[i]) for i, place in enumerate(net.places)},
        "throughput": {name: float(by_state @ rate) for name, rate in space.firing.items()},
        "measures": {name: float(shares @ _reward(m, markings, space.rules)) for name, m in _over_time(net).items()},
    }


def _spread(passage: PassageTime, quantiles: Sequence[float]) -> Spread:
    return Spread(mean=passage.mean, sd=passage.sd, quantiles={p: passage.quantile(p) for p in quantiles})


def sampled(values: FloatArray, quantiles: Sequence[float]) -> Spread:
    """Mean, standard deviation and quantiles of independent values with their intervals."""
    intervals = {"mean": mean_interval(values), "sd": sd_interval(values)}
    intervals |= {f"{p:g}": quantile_interval(values, p) for p in quantiles}
    return Spread(
        mean=intervals["mean"].value,
        sd=intervals["sd"].value,
        quantiles={p: intervals[f"{p:g}"].value for p in quantiles},
        intervals=intervals,
    )


def _simulation(
    net: Net, at: Sequence[float] | None, quantiles: tuple[float, ...], effort: Effort, reason: str
) -> Solution:
    if net.completion() is None and not effort.horizon < math.inf:
        raise ModelError(f"net {net.name}: has no first_passage measure; the simulator needs --horizon")
    pilot = simulate(net, seed=effort.seed + 1_000_003, least=256, most=256, follow=False, horizon=effort.horizon)
    finite = pilot.completed[np.isfinite(pilot.completed)]
    if at is None:
        at = default_times(float(finite.mean()), float(finite.std())) if finite.size else (0.0,)
    # Processes cost seconds to start: share the work only if there is work for them.
    is_long = pilot.seconds * effort.most_seconds > 0 and pilot.firings * 100 > 1e6 * _SPAWN_SECONDS
    extra = _over_time(net)
    outcome = simulate(
        net,
        at=at,
        rewards=[m.expression for m in extra.values()],
        seed=effort.seed,
        precision=effort.precision,
        quantiles=[q for q in quantiles if q <= 0.99],
        least=max(8192, int(20 / (1 - max(quantiles)))) if net.completion() else 8192,
        most_seconds=effort.most_seconds,
        workers=effort.workers if is_long else 1,
        horizon=effort.horizon,
        warm_up=0.0 if net.completion() else effort.horizon / 2,
    )
    return _from_outcome(net, outcome, tuple(sorted(at)), quantiles, reason)


def _from_outcome(
    net: Net, outcome: Outcome, at: tuple[float, ...], quantiles: tuple[float, ...], reason: str
) -> Solution:
    finished = np.isfinite(outcome.completed)
    completed = outcome.completed[finished]
    spread = sampled(completed, quantiles) if completed.size > 1 else None
    bound = (
        max((i.relative for n, i in spread.intervals.items() if n != "sd"), default=math.inf) if spread else math.inf
    )
    steady = None
    if net.completion() is None:
        means = [mean_interval(outcome.averages[:, i]) for i in range(len(net.places))]
        steady = {"tokens": {p: m.value for p, m in zip(net.places, means, strict=True)}}
        bound = max((m.relative for m in means if m.value > 0), default=math.inf)
    messages: tuple[Message, ...] = ()
    pooled: Spread | None = None
    if outcome.latency is not None and outcome.delivered is not None and finished.any():
        latency, delivered = outcome.latency[finished], outcome.delivered[finished]
        used = np.flatnonzero(np.isfinite(latency).all(axis=0))
        shown = used[:: max(len(used) // _MOST_MESSAGES, 1)]
        messages = tuple(
            Message(
                number=int(n) + 1,
                delivered_at=sampled(delivered[:, n], quantiles),
                latency=sampled(latency[:, n], quantiles),
            )
            for n in shown
        )
        if used.size:
            pooled = _pooled(latency[:, used], quantiles)
    occupied, tokens, rewards = (part.mean(axis=0) for part in (outcome.occupied, outcome.tokens, outcome.rewards))
    return Solution(
        net=net,
        method="simulation",
        reason=reason,
        error_bound=bound,
        states=None,
        seconds=outcome.seconds,
        at=at,
        occupied={p: tuple(float(v) for v in occupied[i]) for i, p in enumerate(net.places)},
        tokens={p: tuple(float(v) for v in tokens[i]) for i, p in enumerate(net.places)},
        rewards={n: tuple(float(v) for v in rewards[i]) for i, n in enumerate(_over_time(net))},
        time=spread,
        probability=float(finished.mean()) if net.completion() else None,
        messages=messages,
        latency=pooled,
        steady=steady,
        simulated={
            "replications": outcome.replications,
            "firings": outcome.firings,
            "firings_per_second": round(outcome.firings / max(outcome.seconds, 1e-9)),
        },
    )


def _pooled(latency: FloatArray, quantiles: Sequence[float]) -> Spread:
    """Of a message taken at random; intervals from groups of replications: messages of one are not independent."""
    groups = np.array_split(latency, 20)
    flat = latency.ravel()
    found = np.quantile(flat, quantiles)
    intervals = {"mean": mean_interval(latency.mean(axis=1, dtype=np.float64))}
    parts = np.array([np.quantile(g.ravel(), quantiles) for g in groups])
    half = 2.093 * parts.std(axis=0, ddof=1) / math.sqrt(len(groups))
    for p, value, h in zip(quantiles, found, half, strict=True):
        intervals[f"{p:g}"] = Interval(value=float(value), low=float(value - h), high=float(value + h))
    return Spread(
        mean=float(flat.mean(dtype=np.float64)),
        sd=float(flat.std(dtype=np.float64)),
        quantiles={p: float(v) for p, v in zip(quantiles, found, strict=True)},
        intervals=intervals,
    )
