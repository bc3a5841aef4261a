"""Event-driven simulation of any net, thousands of replications in step, with confidence intervals.

Every step fires the next transition of each replication of a batch: whole arrays instead of one event at a time. A
batch has its own Philox stream, so results depend on the seed alone and not on how many processes share the work.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import ModelError
from toolkit.model.distributions import FloatArray, IntArray
from toolkit.model.expressions import Expression
from toolkit.model.net import Net, Timed, Transition
from toolkit.model.semantics import Rules

BATCH = 2048
"""Replications in step; about what fits a processor's cache for nets of ten places."""
_MOST_CELLS = 16_000_000
"""Places x tokens x replications of a batch: nets of very many tokens are stepped in smaller ones."""
_LOOP = 100_000
Z95 = 1.959963984540054


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """An estimate with its 95 % confidence interval."""

    value: float
    low: float
    high: float

    @property
    def relative(self) -> float:
        """Half the interval's width over the estimate."""
        return (self.high - self.low) / 2 / abs(self.value) if self.value else math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the replications showed. Times that were never reached are infinite."""

    completed: FloatArray
    """Shape (replications,): when the target was reached."""
    occupied: FloatArray
    """Shape (batches, places, times): share of the batch's replications in which a place held a token."""
    tokens: FloatArray
    """Shape (batches, places, times): mean tokens."""
    rewards: FloatArray
    """Shape (batches, rewards, times): mean of each expression that was asked for."""
    averages: FloatArray
    """Shape (replications, places): tokens averaged over the time from the warm-up to the horizon."""
    latency: FloatArray | None
    """Shape (replications, messages x copies): each message's latency, in order of setting out and, of its copies, of
    arrival; None if not followed."""
    delivered: FloatArray | None
    """Shape (replications, messages x copies): when the first, second, ... message (or copy) arrived."""
    firings: int
    seconds: float

    @property
    def replications(self) -> int:
        """How many there were."""
        return len(self.completed)


def why_not_followed(net: Net) -> str | None:
    """Why tokens cannot be told apart in this net, or None if they can.

    A message goes from a transition's first input place to its first output place. What else a transition puts
    somewhere is a copy where the net has those and the place lies on the way, else no message (a thread that is held).
    """
    if net.latency is None:
        return "the net has no `latency:`"
    way = message_places(net)
    for transition in net.transitions:
        taken = sum(count for place, count in transition.inputs.items() if place in way)
        given = [place for place in transition.outputs if place in way]
        if taken > 1 or (not taken and given) or any(transition.outputs[place] > 1 for place in given):
            return f"transition {transition.name} does not move exactly one token"
        if taken and next(iter(transition.inputs)) not in way:
            return f"transition {transition.name} takes something else before the message"
    for place in way:
        following = [t for t in net.transitions if place in t.inputs]
        timed = sum(isinstance(t.timing, Timed) for t in following)
        if timed > 1 or (timed and timed != len(following)):
            return f"place {place} feeds a timed transition and others"
    immediate = [name for name in net.latency.start if not isinstance(net.transition(name).timing, Timed)]
    return f"latency starts at {immediate[0]}, which is immediate" if immediate else None


def message_places(net: Net) -> set[str]:
    """The places that messages go through: from those marked at the start, by first input and first output places."""
    assert net.latency is not None
    start = {next(iter(net.transition(name).inputs), "") for name in net.latency.start}
    onward: dict[str, set[str]] = {}
    back: dict[str, set[str]] = {}
    moving = [t for t in net.transitions if t.inputs and t.outputs]
    for transition in moving:
        onward.setdefault(next(iter(transition.inputs)), set()).add(next(iter(transition.outputs)))
        back.setdefault(next(iter(transition.outputs)), set()).add(next(iter(transition.inputs)))
    if net.latency.copies is not None:
        leading = _closure(back, {net.latency.end})
        for transition in moving:
            onward[next(iter(transition.inputs))] |= leading & set(transition.outputs)
    reached = _closure(onward, {place for place, tokens in net.places.items() if tokens})
    before = {place for place in reached if _closure(onward, {place}) & start}
    return before | _closure(onward, start)


def _closure(onward: dict[str, set[str]], roots: set[str]) -> set[str]:
    reached, open_ = set(roots), list(roots)
    while open_:
        fresh = onward.get(open_.pop(), set()) - reached
        reached |= fresh
        open_ += fresh
    return reached


class _Clocks:
    """The running clocks of one timed transition in every replication."""

    def __init__(self, transition: Transition, count: int) -> None:
        assert isinstance(transition.timing, Timed)
        self.transition = transition
        self.delay = transition.timing.delay
        self.servers = transition.timing.servers
        self.ends = np.full((1, count), math.inf)
        """Shape (slots, replications): when each clock runs out."""
        self.token = np.zeros((1, count), dtype=np.int32)
        self.running = np.zeros(count, dtype=np.int64)
        self.next = np.full(count, math.inf)

    @property
    def is_rate(self) -> bool:
        """Whether the delay is an exponential whose rate is read from the marking."""
        return isinstance(self.delay, Expression)

    def widen(self) -> None:
        self.ends = np.concatenate([self.ends, np.full_like(self.ends, math.inf)])
        self.token = np.concatenate([self.token, np.zeros_like(self.token)])

    def refresh(self, index: IntArray) -> None:
        self.next[index] = self.ends[0, index] if len(self.ends) == 1 else self.ends[:, index].min(axis=0)

    def keep(self, index: IntArray) -> None:
        self.ends, self.token = self.ends[:, index], self.token[:, index]
        self.running, self.next = self.running[index], self.next[index]


class _Batch:
    """One batch of replications from start to end."""

    def __init__(
        self, net: Net, rules: Rules, target: Expression | None, *, seed: int, number: int, count: int, follow: bool
    ) -> None:
        self.net, self.rules, self.target = net, rules, target
        self.rng = np.random.Generator(np.random.Philox(key=[seed, number]))
        self.count = count
        self.marking = np.repeat(rules.initial[:, None], count, axis=1)
        self.now = np.zeros(count)
        self.alive = np.arange(count)
        """Which replication each column is; finished ones are taken out of the arrays."""
        self.clocks = [_Clocks(t, count) for t in net.timed]
        self.completed = np.full(count, math.inf)
        self.firings = 0
        self.follow = follow and why_not_followed(net) is None
        self.latency: FloatArray | None = None
        self.delivered: FloatArray | None = None
        if self.follow:
            self._number_tokens()

    # Tokens with a name of their own: each place a ring of waiting tokens, each running clock holds one.

    def _number_tokens(self) -> None:
        assert self.net.latency is not None
        self.way = message_places(self.net)
        on_way = np.array([place in self.way for place in self.rules.places])
        self.copies = self.net.latency.arrivals
        self.total = int(self.rules.initial[on_way].sum())
        self.room = self.total * self.copies
        places = len(self.rules.places)
        self.ring = np.zeros((places, self.room, self.count), dtype=np.int32)
        self.head = np.zeros((places, self.count), dtype=np.int32)
        self.waiting = np.zeros((places, self.count), dtype=np.int32)
        token = 0
        for place, tokens in enumerate(np.where(on_way, self.rules.initial, 0)):
            for i in range(tokens):
                self.ring[place, i] = token
                token += 1
            self.waiting[place] = tokens
        self.since = np.full((self.total, self.count), math.nan)
        self.set_out = np.full((self.total, self.count), -1, dtype=np.int32)
        """The order in which tokens set out; -1 before."""
        self.home = np.zeros((self.total, self.count), dtype=np.int32)
        """How many copies of each token have arrived."""
        self.gone = np.zeros(self.count, dtype=np.int32)
        self.arrived = np.zeros(self.count, dtype=np.int32)
        self.latency = np.full((self.count, self.room), math.inf)
        self.delivered = np.full((self.count, self.room), math.inf)
        self.end = self.rules.row[self.net.latency.end]
        self.starts = self.net.latency.start
        self.moves = {t.name: self._rows(t) for t in self.net.transitions}

    def _rows(self, transition: Transition) -> tuple[int | None, tuple[int, ...]]:
        """The row of the place that a message is taken from, if one is, and of those it and its copies are put into."""
        assert self.net.latency is not None
        place = next(iter(transition.inputs), "")
        if place not in self.way:
            return None, ()
        places = list(transition.outputs)[: 1 if self.net.latency.copies is None else None]
        return self.rules.row[place], tuple(self.rules.row[to] for to in places if to in self.way)

    def _message_in(self, transition: Transition) -> Any:
        return self.moves[transition.name][0]

    def _messages_out(self, transition: Transition) -> tuple[int, ...]:
        return self.moves[transition.name][1]

    def _push(self, place: int, index: IntArray, token: NDArray[np.int32]) -> None:
        slot = (self.head[place, index] + self.waiting[place, index]) % self.room
        self.ring[place, slot, index] = token
        self.waiting[place, index] += 1
        if place == self.end:
            # A token that comes back and arrives again is no other message.
            first = self.home[token, index] < self.copies
            self._arrive(index[first], token[first])

    def _arrive(self, index: IntArray, token: NDArray[np.int32]) -> None:
        assert self.latency is not None
        assert self.delivered is not None
        replication, order = self.alive[index], self.set_out[token, index]
        column = order * self.copies + self.home[token, index]
        self.home[token, index] += 1
        self.delivered[replication, self.arrived[index]] = self.now[index]
        self.arrived[index] += 1
        known = order >= 0
        taken = self.now[index] - self.since[token, index]
        self.latency[replication[known], column[known]] = taken[known]

    def _pop(self, place: int, index: IntArray) -> NDArray[np.int32]:
        token: NDArray[np.int32] = self.ring[place, self.head[place, index], index]
        self.head[place, index] = (self.head[place, index] + 1) % self.room
        self.waiting[place, index] -= 1
        return token

    def _push_back(self, place: int, index: IntArray, token: NDArray[np.int32]) -> None:
        self.head[place, index] = (self.head[place, index] - 1) % self.room
        self.ring[place, self.head[place, index], index] = token
        self.waiting[place, index] += 1

    # One step: time moves, the transition fires, immediate ones follow, clocks start and stop.

    def fire_timed(self, which: IntArray) -> None:
        for i, clocks in enumerate(self.clocks):
            index = np.flatnonzero(which == i)
            if not index.size:
                continue
            slot = np.zeros(index.size, dtype=np.int64)
            if len(clocks.ends) > 1:
                slot = clocks.ends[:, index].argmin(axis=0)
            clocks.ends[slot, index] = math.inf
            clocks.running[index] -= 1
            clocks.refresh(index)
            transition = clocks.transition
            for place, count in transition.inputs.items():
                self.marking[self.rules.row[place], index] -= count
            for place, count in transition.outputs.items():
                self.marking[self.rules.row[place], index] += count
            if self.follow:
                for ends_at in self._messages_out(transition):
                    self._push(ends_at, index, clocks.token[slot, index])
            self.firings += index.size

    def fire_immediate(self) -> None:
        rounds = 0
        while self.rules.immediate:
            fired = False
            open_: NDArray[np.bool_] | None = None
            for level in self.rules.immediate:
                enabled = [self.rules.degree(t, self.marking) > 0 for t in level]
                if open_ is not None:
                    enabled = [on & open_ for on in enabled]
                some = np.logical_or.reduce(enabled) if len(enabled) > 1 else enabled[0]
                if not some.any():
                    continue
                fired = True
                for transition, on in zip(level, self._choose(level, enabled, some), strict=True):
                    if on.any():
                        self._move(transition, on)
                open_ = ~some if open_ is None else open_ & ~some
            if not fired:
                return
            rounds += 1
            if rounds > _LOOP:
                names = ", ".join(t.name for t in self.net.immediate)
                raise ModelError(
                    f"net {self.net.name}: immediate transitions fire for ever without time passing; look at {names}"
                )

    def _choose(
        self, level: Sequence[Transition], enabled: list[NDArray[np.bool_]], some: NDArray[np.bool_]
    ) -> list[NDArray[np.bool_]]:
        """At most one of the enabled transitions of a level for each replication, by weight."""
        if len(level) == 1 or not (np.sum(enabled, axis=0) > 1).any():
            return enabled
        weights = np.zeros((len(level), some.size))
        for row, transition, on in zip(weights, level, enabled, strict=True):
            row[on] = self.rules.weight(transition, self.marking[:, on])
        bounds = np.cumsum(weights, axis=0)
        drawn = self.rng.random(some.size) * bounds[-1]
        chosen = (drawn >= bounds).sum(axis=0)
        return [some & (chosen == i) for i in range(len(level))]

    def _move(self, transition: Transition, on: NDArray[np.bool_]) -> None:
        for place, count in transition.inputs.items():
            self.marking[self.rules.row[place]] -= on if count == 1 else on * count
        for place, count in transition.outputs.items():
            self.marking[self.rules.row[place]] += on if count == 1 else on * count
        if self.follow and self._message_in(transition) is not None:
            index = np.flatnonzero(on)
            token = self._pop(self._message_in(transition), index)
            for ends_at in self._messages_out(transition):
                self._push(ends_at, index, token)

    def set_clocks(self) -> None:
        for clocks in self.clocks:
            active = self.rules.active(clocks.transition, self.marking)
            if clocks.is_rate:
                self._redraw(clocks, active)
                continue
            missing = active - clocks.running
            if missing.min() < 0:
                self._stop(clocks, missing)
            while True:
                index = np.flatnonzero(missing > 0)
                if not index.size:
                    break
                self._start(clocks, index)
                missing[index] -= 1

    def _redraw(self, clocks: _Clocks, active: IntArray) -> None:
        """A marking-dependent exponential has no memory: draw it anew at each step."""
        assert isinstance(clocks.delay, Expression)
        index = np.flatnonzero(active)
        clocks.ends[0] = math.inf
        if index.size:
            rate = self.rules.value(clocks.delay, self.marking[:, index]) * active[index]
            if (rate < 0).any():
                raise ModelError(
                    f"net {self.net.name}, transition {clocks.transition.name}: the rate {clocks.delay} is below 0"
                )
            with np.errstate(divide="ignore"):
                clocks.ends[0, index] = self.now[index] + self.rng.standard_exponential(index.size) / rate
        clocks.next = clocks.ends[0].copy()
        if self.follow:
            # The token stays at the head of its place; it is taken when the clock fires.
            raise ModelError(f"net {self.net.name}: a marking-dependent rate cannot follow messages")

    def _start(self, clocks: _Clocks, index: IntArray) -> None:
        assert not isinstance(clocks.delay, Expression)
        ends = self.now[index] + clocks.delay.sample(self.rng, index.size)
        if int(clocks.running[index].max()) >= len(clocks.ends):
            clocks.widen()
        if len(clocks.ends) == 1:
            clocks.ends[0, index] = ends
            clocks.next[index] = ends
            slot = np.zeros(index.size, dtype=np.int64)
        else:
            slot = np.isinf(clocks.ends[:, index]).argmax(axis=0)
            clocks.ends[slot, index] = ends
            clocks.next[index] = np.minimum(clocks.next[index], ends)
        clocks.running[index] += 1
        if self.follow and self._message_in(clocks.transition) is not None:
            token = self._pop(self._message_in(clocks.transition), index)
            clocks.token[slot, index] = token
            if clocks.transition.name in self.starts:
                # A clock that starts again, after it was stopped or for another try, is not where the message set out.
                fresh = self.set_out[token, index] < 0
                token, index = token[fresh], index[fresh]
                self.since[token, index] = self.now[index]
                self.set_out[token, index] = self.gone[index]
                self.gone[index] += 1

    def _stop(self, clocks: _Clocks, missing: IntArray) -> None:
        """Clocks that lost their enabling stop, any of them with equal probability."""
        while True:
            index = np.flatnonzero(missing < 0)
            if not index.size:
                return
            running = np.isfinite(clocks.ends[:, index])
            slot = np.where(running, self.rng.random(running.shape), -1.0).argmax(axis=0)
            clocks.ends[slot, index] = math.inf
            clocks.running[index] -= 1
            clocks.refresh(index)
            if self.follow and (place := self._message_in(clocks.transition)) is not None:
                self._push_back(place, index, clocks.token[slot, index])
            missing[index] += 1

    def keep(self, index: IntArray) -> None:
        """Take finished replications out of the arrays."""
        self.marking, self.now, self.alive = self.marking[:, index], self.now[index], self.alive[index]
        for clocks in self.clocks:
            clocks.keep(index)
        if self.follow:
            self.ring, self.head, self.waiting = self.ring[:, :, index], self.head[:, index], self.waiting[:, index]
            self.since, self.set_out = self.since[:, index], self.set_out[:, index]
            self.home = self.home[:, index]
            self.gone, self.arrived = self.gone[index], self.arrived[index]

    def run(  # noqa: C901 - one step after the other
        self, at: FloatArray, rewards: Sequence[Expression], *, horizon: float, warm_up: float, most_firings: int
    ) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """Until the target (or nothing is left to happen) or the horizon.

        Sums over replications at each time of: places marked, tokens, rewards; and tokens averaged over time.
        """
        places = len(self.rules.places)
        occupied = np.zeros((places, len(at)))
        tokens = np.zeros((places, len(at)))
        earned = np.zeros((len(rewards), len(at)))
        area = np.zeros((places, self.count))
        is_area = warm_up < horizon < math.inf
        last = float(at[-1]) if len(at) else -1.0
        self.fire_immediate()
        self.set_clocks()
        steps = 0
        while self.alive.size:
            if self.target is not None:
                reached = self.rules.holds(self.target, self.marking) & np.isinf(self.completed[self.alive])
                self.completed[self.alive[reached]] = self.now[reached]
            soonest = np.stack([c.next for c in self.clocks])
            which = soonest.argmin(axis=0)
            following = soonest[which, np.arange(which.size)]
            if float(self.now.min()) <= last:
                for k, instant in enumerate(at):
                    here = (self.now <= instant) & (following > instant)
                    if here.any():
                        occupied[:, k] += ((self.marking > 0) & here).sum(axis=1)
                        tokens[:, k] += (self.marking * here).sum(axis=1)
                        for row, reward in enumerate(rewards):
                            earned[row, k] += float(self.rules.value(reward, self.marking)[here].sum())
            if is_area:
                span = np.minimum(following, horizon) - np.clip(self.now, warm_up, horizon)
                area[:, self.alive] += self.marking * np.maximum(span, 0.0)
            done = following > horizon
            if self.target is not None:
                is_complete = np.isfinite(self.completed[self.alive])
                done = (is_complete & (following > last)) | (done & (following > last)) | np.isinf(following)
            ended = int(done.sum())
            if ended and (ended == done.size or ended * 8 > done.size):
                index = np.flatnonzero(~done)
                self.keep(index)
                which, following = which[index], following[index]
                if not index.size:
                    break
            elif ended:
                which = np.where(done, -1, which)
                following = np.where(done, self.now, following)
            self.now = following
            self.fire_timed(which)
            self.fire_immediate()
            self.set_clocks()
            steps += 1
            if steps > most_firings:
                raise ModelError(
                    f"net {self.net.name}: a replication did not end within {most_firings:,} firings; "
                    "give a horizon or a first_passage measure that is reached"
                )
        return occupied, tokens, earned, area / (horizon - warm_up) if is_area else area


def _run_batch(arguments: tuple[Any, ...]) -> dict[str, Any]:
    net, target, at, rewards, seed, number, count, horizon, warm_up, follow, most_firings = arguments
    batch = _Batch(net, Rules(net), target, seed=seed, number=number, count=count, follow=follow)
    occupied, tokens, earned, area = batch.run(at, rewards, horizon=horizon, warm_up=warm_up, most_firings=most_firings)
    return {
        "completed": batch.completed,
        "occupied": occupied / count,
        "tokens": tokens / count,
        "rewards": earned / count,
        "averages": area.T,
        "latency": None if batch.latency is None else batch.latency.astype(np.float32),
        "delivered": None if batch.delivered is None else batch.delivered.astype(np.float32),
        "firings": batch.firings,
    }


def simulate(  # noqa: C901 - one step after the other
    net: Net,
    *,
    at: Sequence[float] = (),
    rewards: Sequence[Expression] = (),
    seed: int = 1,
    precision: float = 0.01,
    quantiles: Sequence[float] = (),
    least: int = 4 * BATCH,
    most: int = 400_000,
    most_seconds: float = 20.0,
    workers: int = 1,
    horizon: float = math.inf,
    warm_up: float = 0.0,
    follow: bool = True,
    most_firings: int = 5_000_000,
) -> Outcome:
    """Replications until mean and quantiles of the end-to-end time are within `precision` (relative, 95 %).

    A net without a first-passage measure needs a `horizon`. `least` and `most` bound the replications, `most_seconds`
    the time; whatever was reached is in the intervals. Raises ModelError if a replication cannot end.
    """
    measure = net.completion()
    target = measure.expression if measure is not None else None
    if target is None and not horizon < math.inf:
        raise ModelError(f"net {net.name}: without a first_passage measure the simulator needs a horizon")
    started = time.monotonic()
    copies = net.latency.arrivals if net.latency is not None else 1
    cells = len(net.places) * max(sum(net.places.values()), 1) * copies
    per_batch = max(min(BATCH, least, _MOST_CELLS // cells), 2)
    instants = np.sort(np.asarray(at, dtype=np.float64))
    follow = follow and why_not_followed(net) is None
    if follow and any(isinstance(t.timing, Timed) and isinstance(t.timing.delay, Expression) for t in net.timed):
        follow = False

    def job(number: int) -> tuple[Any, ...]:
        return (net, target, instants, tuple(rewards), seed, number, per_batch, horizon, warm_up, follow, most_firings)

    results: list[dict[str, Any]] = []

    def is_enough() -> bool:
        done = len(results) * per_batch
        if done >= most or (time.monotonic() - started > most_seconds and len(results) > 1):
            return True
        if done < least:
            return False
        if target is None:
            return True
        completed = np.concatenate([r["completed"] for r in results])
        finite = completed[np.isfinite(completed)]
        if finite.size < 2:
            return True
        checks = [mean_interval(finite)] + [quantile_interval(finite, q) for q in quantiles]
        return all(interval.relative <= precision for interval in checks)

    if workers > 1:
        from concurrent.futures import ProcessPoolExecutor
        from multiprocessing import get_context

        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            number = 0
            while not is_enough():
                results += pool.map(_run_batch, [job(number + i) for i in range(workers)])
                number += workers
    else:
        while not is_enough():
            results.append(_run_batch(job(len(results))))

    def joined(name: str) -> Any:
        return None if results[0][name] is None else np.concatenate([r[name] for r in results])

    return Outcome(
        completed=joined("completed"),
        occupied=np.stack([r["occupied"] for r in results]),
        tokens=np.stack([r["tokens"] for r in results]),
        rewards=np.stack([r["rewards"] for r in results]),
        averages=joined("averages"),
        latency=joined("latency"),
        delivered=joined("delivered"),
        firings=sum(r["firings"] for r in results),
        seconds=time.monotonic() - started,
    )


def mean_interval(values: FloatArray) -> Interval:
    """Mean of independent values with a 95 % interval (normal: there are thousands)."""
    mean = float(values.mean(dtype=np.float64))
    half = Z95 * float(values.std(ddof=1, dtype=np.float64)) / math.sqrt(len(values))
    return Interval(value=mean, low=mean - half, high=mean + half)


def sd_interval(values: FloatArray) -> Interval:
    """Standard deviation with a 95 % interval, from the spread of the squared deviations."""
    squares = (values - values.mean(dtype=np.float64)) ** 2
    inner = mean_interval(squares)
    return Interval(
        value=math.sqrt(inner.value), low=math.sqrt(max(inner.low, 0.0)), high=math.sqrt(max(inner.high, 0.0))
    )


def quantile_interval(values: FloatArray, p: float) -> Interval:
    """Quantile of independent values with the order statistics around it as a 95 % interval."""
    size = len(values)
    half = Z95 * math.sqrt(size * p * (1 - p))
    ranks = [int(min(max(r, 0), size - 1)) for r in (size * p - half - 1, size * p, size * p + half)]
    low, value, high = np.partition(values, sorted(set(ranks)))[ranks]
    return Interval(value=float(value), low=float(low), high=float(high))
