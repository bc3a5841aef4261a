"""Event-driven simulation of any net, thousands of replications in step, with confidence intervals.

Every step fires the next transition of each replication of a batch: whole arrays instead of one event at a time. A
batch has its own Philox stream, so results depend on the seed alone and not on how many processes share the work.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import ModelError
from toolkit.model.distributions import Deterministic, Distribution, FloatArray, IntArray
from toolkit.model.expressions import Expression
from toolkit.model.intervals import mean_interval, quantile_interval
from toolkit.model.net import Immediate, Net, Timed, Transition
from toolkit.model.semantics import Rules
from toolkit.model.together import EXTRA_ROWS, PLENTY, Together, with_extra_rows

BATCH = 2048
"""Replications in step; about what fits a processor's cache for nets of ten places."""
_MOST_CELLS = 16_000_000
"""Places x tokens x replications of a batch: nets of very many tokens are stepped in smaller ones."""
_LOOP = 100_000


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


@dataclass(kw_only=True)
class _Slots:
    """The clocks of one transition of which several run at a time, each with the message it holds: (slots, n)."""

    ends: FloatArray
    token: NDArray[np.int32]

    def widen(self) -> None:
        self.ends = np.concatenate([self.ends, np.full_like(self.ends[:1], math.inf)])
        self.token = np.concatenate([self.token, np.zeros_like(self.token[:1])])


class _Moves:
    """From where and to where each of some transitions moves a message: rows of places, -1 for none."""

    def __init__(self, net: Net, rules: Rules, transitions: Sequence[Transition], way: set[str]) -> None:
        assert net.latency is not None
        self.taken = np.full(len(transitions), -1)
        given: list[list[int]] = []
        for i, transition in enumerate(transitions):
            place = next(iter(transition.inputs), "")
            places = list(transition.outputs)[: 1 if net.latency.copies is None else None]
            given.append([rules.row[to] for to in places if to in way] if place in way else [])
            if place in way:
                self.taken[i] = rules.row[place]
        self.is_all = bool((self.taken >= 0).all())
        """Whether every one of them moves a message."""
        width = max((len(rows) for rows in given), default=0)
        self.given = np.array([rows + [-1] * (width - len(rows)) for rows in given], dtype=np.int64).T


class _Batch:
    """One batch of replications from start to end."""

    def __init__(
        self, net: Net, rules: Rules, target: Expression | None, *, seed: int, number: int, count: int, follow: bool
    ) -> None:
        self.net, self.rules, self.target = net, rules, target
        self.rng = np.random.Generator(np.random.Philox(key=[seed, number]))
        self.count = count
        self.rows = np.repeat(with_extra_rows(rules.initial[:, None]), count, axis=1)
        self.now = np.zeros(count)
        self.alive = np.arange(count)
        """Which replication each column is; finished ones are taken out of the arrays."""
        self.completed = np.full(count, math.inf)
        self.firings = 0
        self._prepare_immediate()
        self._prepare_clocks(list(net.timed))
        self.follow = follow and why_not_followed(net) is None
        self.latency: FloatArray | None = None
        self.delivered: FloatArray | None = None
        if self.follow:
            self._number_tokens()

    @property
    def marking(self) -> IntArray:
        """Shape (places, replications)."""
        return self.rows[:-EXTRA_ROWS]

    def _prepare_immediate(self) -> None:
        """By priority, the highest first."""
        self.immediate = Together(self.rules, [t for level in self.rules.immediate for t in level])
        self.level = np.repeat(np.arange(len(self.rules.immediate)), [len(level) for level in self.rules.immediate])
        self.weight = np.zeros(len(self.level))
        self.weighed: set[int] = set()
        """Transitions whose weight depends on the marking, or is not above 0."""
        for i, transition in enumerate(self.immediate.transitions):
            assert isinstance(transition.timing, Immediate)
            expression = transition.timing.weight
            self.weight[i] = 0.0 if expression.names else float(expression({}))
            if self.weight[i] <= 0:
                self.weighed.add(i)

    def _prepare_clocks(self, timed: list[Transition]) -> None:
        """Arrays of shape (timed transitions, replications), and slots for those with several clocks."""
        self.timed = Together(self.rules, timed)
        timings = [t.timing for t in timed if isinstance(t.timing, Timed)]
        self.servers = np.array([PLENTY if t.servers is None else t.servers for t in timings])[:, None]
        self.delays = {i: t.delay for i, t in enumerate(timings) if isinstance(t.delay, Distribution)}
        self.rates = [i for i, t in enumerate(timings) if isinstance(t.delay, Expression)]
        """Those whose rate is read from the marking."""
        constant = {i: delay.value for i, delay in self.delays.items() if isinstance(delay, Deterministic)}
        self.constant = np.array([constant.get(i, math.nan) for i in range(len(timings))])
        self.random = {i: delay for i, delay in self.delays.items() if i not in constant}
        self.next = np.full((len(timings), self.count), math.inf)
        """When the first clock of each transition runs out."""
        self.running = np.zeros((len(timings), self.count), dtype=np.int64)
        self.token = np.zeros((len(timings), self.count), dtype=np.int32)
        """The message that the clock holds, where one runs."""
        self.slots: dict[int, _Slots] = {}

    # Tokens with a name of their own: each place a ring of waiting tokens, each running clock holds one.

    def _number_tokens(self) -> None:
        assert self.net.latency is not None
        way = message_places(self.net)
        on_way = np.array([place in way for place in self.rules.places])
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
        self.moves = {
            part: _Moves(self.net, self.rules, part.transitions, way) for part in (self.immediate, self.timed)
        }
        names = [t.name for t in self.timed.transitions]
        self.starts = [names.index(name) for name in self.net.latency.start]

    def _put(self, part: Together, which: IntArray, index: IntArray, token: NDArray[np.int32]) -> None:
        """Put messages into the places that transitions fire into."""
        for given in self.moves[part].given:
            place = given[which]
            on = np.flatnonzero(place >= 0)
            if on.size == place.size:
                self._push(place, index, token)
            elif on.size:
                self._push(place[on], index[on], token[on])

    def _push(self, place: IntArray, index: IntArray, token: NDArray[np.int32]) -> None:
        waiting = self.waiting[place, index]
        self.ring[place, (self.head[place, index] + waiting) % self.room, index] = token
        self.waiting[place, index] = waiting + 1
        # A token that comes back and arrives again is no other message.
        first = np.flatnonzero(place == self.end)
        first = first[self.home[token[first], index[first]] < self.copies]
        if first.size:
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

    def _take(self, part: Together, which: IntArray, index: IntArray) -> NDArray[np.int32]:
        """Take the messages that transitions move out of their places; -1 where one moves none."""
        place = self.moves[part].taken[which]
        on = slice(None) if self.moves[part].is_all else np.flatnonzero(place >= 0)
        token = np.full(len(which), -1, dtype=np.int32)
        place, index = place[on], index[on]
        head = self.head[place, index]
        token[on] = self.ring[place, head, index]
        self.head[place, index] = (head + 1) % self.room
        self.waiting[place, index] -= 1
        return token

    def _put_back(self, place: int, index: IntArray, token: NDArray[np.int32]) -> None:
        self.head[place, index] = (self.head[place, index] - 1) % self.room
        self.ring[place, self.head[place, index], index] = token
        self.waiting[place, index] += 1

    # One step: time moves, the transition fires, immediate ones follow, clocks start and stop.

    def fire_timed(self, which: IntArray) -> None:
        """Fire one transition in each replication, -1 for none."""
        index = np.flatnonzero(which >= 0)
        which = which[index]
        token = self.token[which, index]
        self.running[which, index] -= 1
        self.next[which, index] = math.inf
        for i, slots in self.slots.items():
            here = np.flatnonzero(which == i)
            if here.size:
                columns = index[here]
                slot = slots.ends[:, columns].argmin(axis=0)
                slots.ends[slot, columns] = math.inf
                token[here] = slots.token[slot, columns]
                self.next[i, columns] = slots.ends[:, columns].min(axis=0)
        self._change(index, self.timed, which)
        if self.follow:
            self._put(self.timed, which, index, token)
        self.firings += index.size

    def _change(self, index: IntArray, part: Together, which: IntArray) -> None:
        """Move the tokens of a firing in each of some replications."""
        changes = part.changes.take(which, axis=1)
        if index.size == self.alive.size:
            self.rows += changes
        else:
            self.rows[:, index] = self.rows.take(index, axis=1) + changes

    def fire_immediate(self) -> None:
        """Of each replication the enabled transition of the highest priority, until none is enabled."""
        if not self.immediate.transitions:
            return
        index = np.arange(self.alive.size)
        for _ in range(_LOOP):
            here = self.rows.take(index, axis=1) if index.size < self.alive.size else self.rows
            live, degree = self.immediate.degrees(here)
            enabled = degree > 0
            some = np.flatnonzero(enabled.any(axis=0))
            if not some.size:
                return
            # What fires in one replication enables nothing in another.
            index, enabled = index[some], enabled[:, some]
            chosen = self._choose(live, enabled, index)
            self._change(index, self.immediate, chosen)
            if self.follow:
                token = self._take(self.immediate, chosen, index)
                self._put(self.immediate, chosen, index, token)
        names = ", ".join(t.name for t in self.net.immediate)
        raise ModelError(
            f"net {self.net.name}: immediate transitions fire for ever without time passing; look at {names}"
        )

    def _choose(self, live: IntArray, enabled: NDArray[np.bool_], index: IntArray) -> IntArray:
        """Of the transitions `live`, one enabled one of the highest level in each replication, by weight."""
        chosen = np.asarray(enabled.argmax(axis=0))
        level = self.level[live]
        candidates = enabled & (level[:, None] == level[chosen])
        several = np.flatnonzero(candidates.sum(axis=0) > 1)
        if several.size:
            candidates = candidates[:, several]
            weights = np.where(candidates, self.weight[live][:, None], 0.0)
            for row, i in enumerate(live.tolist()):
                if i in self.weighed:
                    columns = index[several[candidates[row]]]
                    weight = self.rules.weight(self.immediate.transitions[i], self.marking[:, columns])
                    weights[row, candidates[row]] = weight
            bounds = np.cumsum(weights, axis=0)
            drawn = np.minimum(self.rng.random(several.size) * bounds[-1], np.nextafter(bounds[-1], 0.0))
            chosen[several] = (drawn >= bounds).sum(axis=0)
        return np.asarray(live[chosen])

    def set_clocks(self) -> None:
        live, degree = self.timed.degrees(self.rows)
        active = np.zeros_like(self.running)
        active[live] = np.minimum(degree, self.servers[live])
        missing = active - self.running
        for i in self.rates:
            self._redraw(i, active[i])
            missing[i] = 0
        if missing.min(initial=0) < 0:
            for i in np.flatnonzero(missing.min(axis=1) < 0).tolist():
                self._stop(i, missing[i])
        while True:
            which, index = np.nonzero(missing > 0)
            if not which.size:
                return
            self._start(which, index)
            missing[which, index] -= 1

    def _redraw(self, i: int, active: IntArray) -> None:
        """A marking-dependent exponential has no memory: draw it anew at each step."""
        index = np.flatnonzero(active)
        self.next[i] = math.inf
        if index.size:
            rate = self.rules.rate(self.timed.transitions[i], self.marking[:, index]) * active[index]
            with np.errstate(divide="ignore"):
                self.next[i, index] = self.now[index] + self.rng.standard_exponential(index.size) / rate

    def _start(self, which: IntArray, index: IntArray) -> None:
        """Start a clock of each transition in the replication beside it; transitions in ascending order."""
        begin = np.searchsorted(which, np.arange(len(self.next) + 1)).tolist()
        delay = self.constant[which]
        for i, distribution in self.random.items():
            if begin[i] < begin[i + 1]:
                delay[begin[i] : begin[i + 1]] = distribution.sample(self.rng, begin[i + 1] - begin[i])
        ends = self.now[index] + delay
        running = self.running[which, index]
        for i in np.flatnonzero(np.bincount(which[running > 0])).tolist():
            if i not in self.slots:
                self.slots[i] = _Slots(ends=self.next[i][None].copy(), token=self.token[i][None].copy())
        self.running[which, index] = running + 1
        self.next[which, index] = np.minimum(self.next[which, index], ends)
        token = np.full(len(which), -1, dtype=np.int32)
        if self.follow:
            token = self._take(self.timed, which, index)
            self.token[which, index] = token
            self._set_out(begin, index, token)
        for i, slots in self.slots.items():
            part = slice(begin[i], begin[i + 1])
            columns = index[part]
            if columns.size:
                if int(running[part].max()) >= len(slots.ends):
                    slots.widen()
                slot = np.isinf(slots.ends[:, columns]).argmax(axis=0)
                slots.ends[slot, columns] = ends[part]
                slots.token[slot, columns] = token[part]

    def _set_out(self, begin: list[int], index: IntArray, token: NDArray[np.int32]) -> None:
        """Note when messages set out, of the clocks that start."""
        for i in self.starts:
            columns, here = index[begin[i] : begin[i + 1]], token[begin[i] : begin[i + 1]]
            # A clock that starts again, after it was stopped or for another try, is not where the message set out.
            fresh = self.set_out[here, columns] < 0
            here, columns = here[fresh], columns[fresh]
            self.since[here, columns] = self.now[columns]
            self.set_out[here, columns] = self.gone[columns]
            self.gone[columns] += 1

    def _stop(self, i: int, missing: IntArray) -> None:
        """Clocks that lost their enabling stop, any of them with equal probability."""
        while True:
            index = np.flatnonzero(missing < 0)
            if not index.size:
                return
            token = self.token[i, index]
            self.next[i, index] = math.inf
            if i in self.slots:
                slots = self.slots[i]
                running = np.isfinite(slots.ends[:, index])
                slot = np.where(running, self.rng.random(running.shape), -1.0).argmax(axis=0)
                slots.ends[slot, index] = math.inf
                token = slots.token[slot, index]
                self.next[i, index] = slots.ends[:, index].min(axis=0)
            self.running[i, index] -= 1
            if self.follow and (place := int(self.moves[self.timed].taken[i])) >= 0:
                self._put_back(place, index, token)
            missing[index] += 1

    def keep(self, index: IntArray) -> None:
        """Take finished replications out of the arrays."""
        self.rows, self.now, self.alive = self.rows[:, index], self.now[index], self.alive[index]
        self.next, self.running, self.token = self.next[:, index], self.running[:, index], self.token[:, index]
        for slots in self.slots.values():
            slots.ends, slots.token = slots.ends[:, index], slots.token[:, index]
        if self.follow:
            self.ring, self.head, self.waiting = self.ring[:, :, index], self.head[:, index], self.waiting[:, index]
            self.since, self.set_out = self.since[:, index], self.set_out[:, index]
            self.home = self.home[:, index]
            self.gone, self.arrived = self.gone[index], self.arrived[index]

    def finish(
        self, which: IntArray, following: FloatArray, *, last: float, horizon: float
    ) -> tuple[IntArray, FloatArray]:
        """What fires next in each replication and when, without those that are done: -1, or taken out of the arrays."""
        done = following > horizon
        if self.target is not None:
            is_complete = np.isfinite(self.completed[self.alive])
            done = (is_complete & (following > last)) | (done & (following > last)) | np.isinf(following)
        ended = int(done.sum())
        if ended and (ended == done.size or ended * 8 > done.size):
            index = np.flatnonzero(~done)
            self.keep(index)
            return which[index], following[index]
        if ended:
            return np.where(done, -1, which), np.where(done, self.now, following)
        return which, following

    def run(self, record: _Record, *, horizon: float, most_firings: int) -> None:
        """Until the target (or nothing is left to happen) or the horizon."""
        self.fire_immediate()
        self.set_clocks()
        steps = 0
        while self.alive.size:
            if self.target is not None:
                reached = self.rules.holds(self.target, self.marking) & np.isinf(self.completed[self.alive])
                self.completed[self.alive[reached]] = self.now[reached]
            which = self.next.argmin(axis=0)
            following = self.next[which, np.arange(which.size)]
            record.note(self, following)
            which, following = self.finish(which, following, last=record.last, horizon=horizon)
            if not which.size:
                break
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


class _Record:
    """What a batch shows over time, as sums over its replications."""

    def __init__(self, job: _Job, places: int) -> None:
        self.at, self.rewards = job.at, job.rewards
        self.last = float(job.at[-1]) if len(job.at) else -1.0
        """The last of the instants; -1 if there are none."""
        self.occupied = np.zeros((places, len(job.at)))
        self.tokens = np.zeros((places, len(job.at)))
        self.earned = np.zeros((len(job.rewards), len(job.at)))
        self.warm_up, self.horizon = job.warm_up, job.horizon
        self.area = np.zeros((places, job.count))
        """Tokens times time from the warm-up to the horizon, of each replication."""
        self.is_area = job.warm_up < job.horizon < math.inf

    def note(self, batch: _Batch, following: FloatArray) -> None:
        """Each replication stays as it is from its `now` until `following`."""
        marking, now = batch.marking, batch.now
        if float(now.min()) <= self.last:
            for k, instant in enumerate(self.at):
                here = (now <= instant) & (following > instant)
                if here.any():
                    self.occupied[:, k] += ((marking > 0) & here).sum(axis=1)
                    self.tokens[:, k] += (marking * here).sum(axis=1)
                    for row, reward in enumerate(self.rewards):
                        self.earned[row, k] += float(batch.rules.value(reward, marking)[here].sum())
        if self.is_area:
            span = np.minimum(following, self.horizon) - np.clip(now, self.warm_up, self.horizon)
            self.area[:, batch.alive] += marking * np.maximum(span, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """What each batch does; batches differ in their number alone."""

    net: Net
    target: Expression | None
    at: FloatArray
    """Ascending."""
    rewards: tuple[Expression, ...]
    seed: int
    count: int
    horizon: float
    warm_up: float
    follow: bool
    most_firings: int


def _run_batch(job: _Job, number: int) -> dict[str, Any]:
    batch = _Batch(
        job.net, Rules(job.net), job.target, seed=job.seed, number=number, count=job.count, follow=job.follow
    )
    record = _Record(job, len(job.net.places))
    batch.run(record, horizon=job.horizon, most_firings=job.most_firings)
    area = record.area / (job.horizon - job.warm_up) if record.is_area else record.area
    return {
        "completed": batch.completed,
        "occupied": record.occupied / job.count,
        "tokens": record.tokens / job.count,
        "rewards": record.earned / job.count,
        "averages": area.T,
        "latency": None if batch.latency is None else batch.latency.astype(np.float32),
        "delivered": None if batch.delivered is None else batch.delivered.astype(np.float32),
        "firings": batch.firings,
    }


def simulate(
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
    if measure is None and not horizon < math.inf:
        raise ModelError(f"net {net.name}: without a first_passage measure the simulator needs a horizon")
    started = time.monotonic()
    job = _Job(
        net=net,
        target=measure.expression if measure is not None else None,
        at=np.sort(np.asarray(at, dtype=np.float64)),
        rewards=tuple(rewards),
        seed=seed,
        count=max(min(BATCH, least, _MOST_CELLS // _cells(net)), 2),
        horizon=horizon,
        warm_up=warm_up,
        follow=follow and _can_follow(net),
        most_firings=most_firings,
    )
    results: list[dict[str, Any]] = []

    def is_enough() -> bool:
        done = len(results) * job.count
        if done >= most or (time.monotonic() - started > most_seconds and len(results) > 1):
            return True
        return done >= least and (measure is None or _is_precise(results, precision, quantiles))

    with _mapper(workers) as run_all:
        while not is_enough():
            results += run_all(partial(_run_batch, job), range(len(results), len(results) + workers))

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


def _cells(net: Net) -> int:
    """Places x tokens of one replication, copies counted."""
    copies = net.latency.arrivals if net.latency is not None else 1
    return len(net.places) * max(sum(net.places.values()), 1) * copies


def _can_follow(net: Net) -> bool:
    """Whether messages keep their names: clocks that are drawn anew at each step hold none."""
    is_redrawn = any(isinstance(t.timing, Timed) and isinstance(t.timing.delay, Expression) for t in net.timed)
    return why_not_followed(net) is None and not is_redrawn


def _is_precise(results: Sequence[Mapping[str, Any]], precision: float, quantiles: Sequence[float]) -> bool:
    """Whether mean and quantiles are known well enough; more of what never completes would not help."""
    completed = np.concatenate([r["completed"] for r in results])
    finite = completed[np.isfinite(completed)]
    if finite.size < 2:
        return True
    checks = [mean_interval(finite)] + [quantile_interval(finite, q) for q in quantiles]
    return all(interval.relative <= precision for interval in checks)


@contextmanager
def _mapper(workers: int) -> Iterator[Callable[..., Iterable[Any]]]:
    """`map`, in processes of their own if there are several."""
    if workers <= 1:
        yield map
        return
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield pool.map
