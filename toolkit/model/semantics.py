"""What a net does: enabling and firing on arrays of markings, and the Markov chain of its tangible states.

Markings are arrays of shape (places, n): n states at once. A state of the chain has, below its marking, the number
of running clocks in each phase of each timed transition whose clock has several phases.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import ModelError
from toolkit.model.distributions import Distribution, Exponential, FloatArray, IntArray
from toolkit.model.expressions import Expression
from toolkit.model.net import Immediate, Net, Timed, Transition
from toolkit.model.phases import Phases, expand
from toolkit.model.rates import Rates, sparse

MOST_STATES = 400_000
_ROUNDS = 300
"""Immediate firings in a row before a loop of them is suspected and solved as one."""
_MOST_VANISHING = 20_000


class TooManyStatesError(ModelError):
    """The state space is larger than allowed; the simulator has no such limit."""


class Rules:
    """Enabling and firing of one net's transitions, compiled to array operations."""

    def __init__(self, net: Net) -> None:
        self.net = net
        self.places = list(net.places)
        self.row = {place: i for i, place in enumerate(self.places)}
        self.initial = np.array([net.places[p] for p in self.places], dtype=np.int64)
        by_priority: dict[int, list[Transition]] = {}
        for transition in net.immediate:
            assert isinstance(transition.timing, Immediate)
            by_priority.setdefault(transition.timing.priority, []).append(transition)
        self.immediate = [by_priority[p] for p in sorted(by_priority, reverse=True)]

    def columns(self, markings: IntArray) -> Mapping[str, IntArray]:
        """The tokens of each place, for expressions."""
        return {place: markings[i] for i, place in enumerate(self.places)}

    def value(self, expression: Expression, markings: IntArray) -> FloatArray:
        """An expression in each marking."""
        return np.broadcast_to(np.asarray(self._evaluated(expression, markings), dtype=np.float64), markings.shape[1:])

    def holds(self, expression: Expression, markings: IntArray) -> NDArray[np.bool_]:
        """Whether an expression is true in each marking."""
        return np.broadcast_to(np.asarray(self._evaluated(expression, markings), dtype=bool), markings.shape[1:])

    def _evaluated(self, expression: Expression, markings: IntArray) -> Any:
        try:
            # `Queue > 0 and 1 / Queue < 3` is worked out for all markings at once, those without a queue too.
            with np.errstate(divide="ignore", invalid="ignore"):
                return expression({name: markings[self.row[name]] for name in expression.names})
        except ArithmeticError as error:
            raise ModelError(f"net {self.net.name}: {expression} has no value: {error}") from error

    def degree(self, transition: Transition, markings: IntArray) -> IntArray:
        """How often a transition is enabled in each marking; 1 if it has no input places."""
        degree: Any = None
        for place, count in transition.inputs.items():
            tokens = markings[self.row[place]]
            times = tokens // count if count > 1 else tokens
            degree = times if degree is None else np.minimum(degree, times)
        if degree is None:
            degree = np.ones(markings.shape[1], dtype=np.int64)
        for place, count in transition.inhibitors.items():
            degree = np.where(markings[self.row[place]] < count, degree, 0)
        if transition.guard is not None and degree.any():
            degree = np.where(self.holds(transition.guard, markings), degree, 0)
        return np.asarray(degree)

    def active(self, transition: Transition, markings: IntArray) -> IntArray:
        """How many clocks of a timed transition run in each marking."""
        assert isinstance(transition.timing, Timed)
        degree = self.degree(transition, markings)
        servers = transition.timing.servers
        return degree if servers is None else np.minimum(degree, servers)

    def fire(self, transition: Transition, markings: IntArray) -> None:
        """Move the tokens of one firing, in place."""
        for place, count in transition.inputs.items():
            markings[self.row[place]] -= count
        for place, count in transition.outputs.items():
            markings[self.row[place]] += count

    def rate(self, transition: Transition, markings: IntArray) -> FloatArray:
        """The rate of one clock of a transition whose rate reads places, in each marking."""
        assert isinstance(transition.timing, Timed)
        assert isinstance(transition.timing.delay, Expression)
        rate = self.value(transition.timing.delay, markings)
        wrong = ~((rate >= 0) & np.isfinite(rate))
        if wrong.any():
            raise ModelError(
                f"net {self.net.name}, transition {transition.name}: the rate {transition.timing.delay} is "
                f"{rate[wrong][0]:g} while enabled; 0 or more is possible"
            )
        return rate

    def weight(self, transition: Transition, markings: IntArray) -> FloatArray:
        """The weight of an enabled immediate transition in each marking."""
        assert isinstance(transition.timing, Immediate)
        weight = self.value(transition.timing.weight, markings)
        if markings.size and weight.min() <= 0:
            raise ModelError(f"net {self.net.name}, transition {transition.name}: a weight is 0 or less while enabled")
        return weight


@dataclass(frozen=True, slots=True, kw_only=True)
class StateSpace:
    """The tangible states of a net as a continuous-time Markov chain."""

    net: Net
    rules: Rules
    markings: IntArray
    """The different markings, in the order met: shape (places, markings)."""
    marking_of: IntArray
    """Which of them each state has."""
    start: FloatArray
    """Probability of each state at time zero."""
    rates: Rates
    """Between different states."""
    firing: Mapping[str, FloatArray]
    """Rate of firing of each timed transition in each state."""
    is_exact: bool
    """Whether every delay has exact phases."""
    leak: FloatArray
    """Rate of leaving to states that were left out because they are hardly ever visited."""

    @property
    def size(self) -> int:
        """How many states there are."""
        return len(self.marking_of)

    def by_marking(self, shares: FloatArray) -> FloatArray:
        """Probabilities of states (or rates in them) summed over the states of each marking."""
        return np.asarray(
            np.bincount(self.marking_of, weights=shares, minlength=self.markings.shape[1]), dtype=np.float64
        )


class _Graph:
    """The states met so far and the rates between them, growing as states are expanded."""

    def __init__(self, width: int) -> None:
        self.count = 0
        self.states = np.zeros((width, 1024), dtype=np.int64)
        self.flow = np.zeros(1024)
        """Probability that has flowed into each state and has not been passed on yet."""
        self.row = np.full(1024, -1, dtype=np.int64)
        """In which order the state was expanded; -1 before."""
        self.begin = np.zeros(1024, dtype=np.int64)
        self.end = np.zeros(1024, dtype=np.int64)
        self.expanded = 0
        self.edges = 0
        self.target = np.zeros(4096, dtype=np.int64)
        self.rate = np.zeros(4096)
        self.share = np.zeros(4096)
        """The rate over all that leaves its state."""
        self.ids: dict[int, int] = {}
        """By key."""

    def number(self, keys: NDArray[np.uint64], states: IntArray) -> IntArray:
        """The number of each state; new ones get the next."""
        known = self.ids
        ids = np.array([known.setdefault(key, len(known)) for key in keys.tolist()], dtype=np.int64)
        size = len(known)
        while size > len(self.flow):
            self.states = np.concatenate([self.states, np.zeros_like(self.states)], axis=1)
            self.flow = np.concatenate([self.flow, np.zeros_like(self.flow)])
            self.row = np.concatenate([self.row, np.full_like(self.row, -1)])
            self.begin = np.concatenate([self.begin, np.zeros_like(self.begin)])
            self.end = np.concatenate([self.end, np.zeros_like(self.end)])
        fresh = ids >= self.count
        self.states[:, ids[fresh]] = states[:, fresh]
        self.count = size
        return ids

    def expand(self, ids: IntArray, target: IntArray, rate: FloatArray, origin: IntArray) -> None:
        """Note the rates out of `ids`; `origin` counts within them."""
        order = np.argsort(origin, kind="stable")
        origin, size = origin[order], self.edges + len(target)
        while size > len(self.target):
            self.target = np.concatenate([self.target, np.zeros_like(self.target)])
            self.rate = np.concatenate([self.rate, np.zeros_like(self.rate)])
            self.share = np.concatenate([self.share, np.zeros_like(self.share)])
        out = np.bincount(origin, weights=rate[order], minlength=len(ids))
        self.target[self.edges : size] = target[order]
        self.rate[self.edges : size] = rate[order]
        self.share[self.edges : size] = rate[order] / out[origin]
        self.begin[ids] = self.edges + np.searchsorted(origin, np.arange(len(ids)))
        self.end[ids] = self.edges + np.searchsorted(origin, np.arange(len(ids)), side="right")
        self.row[ids] = self.expanded + np.arange(len(ids))
        self.expanded += len(ids)
        self.edges = size

    def push(self, ids: IntArray) -> None:
        """Pass the flow of expanded states on to what follows them."""
        amount = self.flow[ids]
        self.flow[ids] = 0.0
        counts = self.end[ids] - self.begin[ids]
        total = int(counts.sum())
        if total:
            ends = np.cumsum(counts)
            edges = np.arange(total) - np.repeat(ends - counts, counts) + np.repeat(self.begin[ids], counts)
            flow = self.share[edges] * np.repeat(amount, counts)
            self.flow[: self.count] += np.bincount(self.target[edges], weights=flow, minlength=self.count)


def _odd_numbers(count: int) -> NDArray[np.uint64]:
    """Odd 64-bit numbers without a pattern (splitmix64); numpy.random takes long to be imported."""
    z = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray((z ^ (z >> np.uint64(31))) | np.uint64(1))


def _is_persistent(net: Net, transition: Transition) -> bool:
    """Whether nothing but its own firing can stop a clock of this transition."""
    if transition.guard is not None or transition.inhibitors:
        return False
    others = (t for t in net.transitions if t.name != transition.name)
    return not any(place in other.inputs for other in others for place in transition.inputs)


class _Explorer:
    """Explores with phases (`order` of them for a bounded delay), or, with order 0, bare markings only."""

    def __init__(self, net: Net, order: int, most_states: int, least_mass: float = 0.0) -> None:
        self.rules = Rules(net)
        self.least_mass = least_mass
        self.net = net
        self.most_states = most_states
        self.phases: dict[str, Phases] = {}
        self.moves: dict[str, tuple[IntArray, IntArray, FloatArray]] = {}
        self.leaving: dict[str, FloatArray] = {}
        """Rate of the clock's end from each phase."""
        self.offset: dict[str, int] = {}
        width = len(self.rules.places)
        for transition in net.timed:
            assert isinstance(transition.timing, Timed)
            if isinstance(transition.timing.delay, Expression) or not order:
                continue
            phases = expand(transition.timing.delay, order)
            self.phases[transition.name] = phases
            self.moves[transition.name], self.leaving[transition.name] = phases.moves, phases.exits
            if len(phases.start) > 1:
                self.offset[transition.name] = width
                width += len(phases.start)
        self.width = width
        self.mixer = _odd_numbers(width)
        self.clocked = [t for t in net.timed if t.name in self.offset]
        self.stoppable = [t for t in self.clocked if not _is_persistent(net, t)]

    def clocks(self, transition: Transition, states: IntArray) -> IntArray:
        at = self.offset[transition.name]
        return states[at : at + len(self.phases[transition.name].start)]

    def key(self, states: IntArray) -> NDArray[np.uint64]:
        return np.asarray(self.mixer @ states.astype(np.uint64), dtype=np.uint64)

    # Settling: from the marking right after a firing to tangible states.

    def settle(self, states: IntArray, weight: FloatArray, origin: IntArray) -> tuple[IntArray, FloatArray, IntArray]:
        """Fire immediate transitions until none is enabled, stop and start clocks; weights split over branches."""
        done: list[tuple[IntArray, FloatArray, IntArray]] = []
        rounds = 0
        while states.shape[1]:
            states, weight, origin = self.stop_clocks(states, weight, origin)
            fired, tangible = self.fire_immediate(states)
            if tangible.any():
                done.append((states[:, tangible], weight[tangible], origin[tangible]))
            if not fired:
                break
            states = np.concatenate([part[0] for part in fired], axis=1)
            weight = np.concatenate([weight[part[1]] * part[2] for part in fired])
            origin = np.concatenate([origin[part[1]] for part in fired])
            rounds += 1
            if len(fired) > 1:
                states, weight, origin = self.merge(states, weight, origin)
            if rounds > _ROUNDS:
                done.append(self.solve_loop(states, weight, origin))
                break
        parts = [self.start_clocks(*part) for part in done]
        return (
            np.concatenate([part[0] for part in parts], axis=1),
            np.concatenate([part[1] for part in parts]),
            np.concatenate([part[2] for part in parts]),
        )

    def fire_immediate(self, states: IntArray) -> tuple[list[tuple[IntArray, IntArray, FloatArray]], NDArray[np.bool_]]:
        """Each (states after, index of the state before, probability) of one immediate firing, and who is tangible."""
        open_ = np.ones(states.shape[1], dtype=bool)
        fired: list[tuple[IntArray, IntArray, FloatArray]] = []
        for level in self.rules.immediate:
            index = np.flatnonzero(open_)
            if not index.size:
                break
            here = states[:, index]
            enabled = [self.rules.degree(t, here) > 0 for t in level]
            any_enabled = np.logical_or.reduce(enabled)
            if not any_enabled.any():
                continue
            total = np.zeros(index.size)
            weights = []
            for transition, on in zip(level, enabled, strict=True):
                weight = np.zeros(index.size)
                weight[on] = self.rules.weight(transition, here[:, on])
                weights.append(weight)
                total += weight
            for transition, on, weight in zip(level, enabled, weights, strict=True):
                if on.any():
                    after = here[:, on].copy()
                    self.rules.fire(transition, after)
                    fired.append((after, index[on], weight[on] / total[on]))
            open_[index[any_enabled]] = False
        return fired, open_

    def merge(self, states: IntArray, weight: FloatArray, origin: IntArray) -> tuple[IntArray, FloatArray, IntArray]:
        """Equal states of one origin become one."""
        key = self.key(states) ^ (origin.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))
        _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
        return states[:, first], np.asarray(np.bincount(inverse, weights=weight), dtype=np.float64), origin[first]

    def solve_loop(
        self, states: IntArray, weight: FloatArray, origin: IntArray
    ) -> tuple[IntArray, FloatArray, IntArray]:
        """Where vanishing states that lead back to each other end: the exits of (I - P_vv)."""
        _, settled = self.fire_immediate(states)
        parts = [(states[:, settled], weight[settled], origin[settled])]
        states, weight, origin = states[:, ~settled], weight[~settled], origin[~settled]
        keys, first, inverse = np.unique(self.key(states), return_index=True, return_inverse=True)
        jumps, exits = self.walk_loop(states[:, first], keys)
        visits = self.loop_visits(jumps, exits, len(keys))
        for row, after, chance in exits:
            share = weight * visits[row, inverse] * chance
            used = np.flatnonzero(share > 0)
            parts.append((np.repeat(after[:, None], used.size, axis=1), share[used], origin[used]))
        return self.merge(
            np.concatenate([part[0] for part in parts], axis=1),
            np.concatenate([part[1] for part in parts]),
            np.concatenate([part[2] for part in parts]),
        )

    def walk_loop(
        self, states: IntArray, keys: NDArray[np.uint64]
    ) -> tuple[list[tuple[int, int, float]], list[tuple[int, IntArray, float]]]:
        """The jumps among vanishing states that different ones lead to, and the exits to tangible states.

        As (from, to, probability) and (from, state after, probability); states are numbered, the given ones first.
        """
        known = {int(key): i for i, key in enumerate(keys)}
        jumps: list[tuple[int, int, float]] = []
        exits: list[tuple[int, IntArray, float]] = []
        base = 0
        while states.shape[1]:
            fresh: list[IntArray] = []
            fired, _ = self.fire_immediate(states)
            for after, index, probability in fired:
                _, tangible = self.fire_immediate(after)
                for j, key in enumerate(self.key(after)):
                    row = base + int(index[j])
                    if tangible[j]:
                        exits.append((row, after[:, j], float(probability[j])))
                        continue
                    if int(key) not in known:
                        known[int(key)] = len(known)
                        fresh.append(after[:, j])
                    jumps.append((row, known[int(key)], float(probability[j])))
            base += states.shape[1]
            if len(known) > _MOST_VANISHING:
                raise self.trap()
            states = np.stack(fresh, axis=1) if fresh else states[:, :0]
        return jumps, exits

    def loop_visits(
        self, jumps: list[tuple[int, int, float]], exits: list[tuple[int, IntArray, float]], entries: int
    ) -> FloatArray:
        """Expected visits of each vanishing state (row) from each of the first `entries` of them."""
        from scipy.sparse import coo_matrix, identity
        from scipy.sparse.linalg import splu

        if not exits:
            raise self.trap()
        rows, columns, values = (np.array(part) for part in zip(*jumps, strict=True))
        exit_rows = np.array([row for row, _, _ in exits])
        size = int(max(rows.max(), columns.max(), exit_rows.max())) + 1
        p_vv = coo_matrix((values, (rows, columns)), shape=(size, size)).tocsc()
        reach = np.zeros(size)
        np.add.at(reach, exit_rows, [p for _, _, p in exits])
        try:
            solver = splu(identity(size, format="csc") - p_vv)
        except RuntimeError as error:
            raise self.trap() from error
        if np.abs(solver.solve(reach) - 1).max() > 1e-9:
            raise self.trap()
        return np.asarray(solver.solve(np.eye(size)[:, :entries], trans="T"))

    def trap(self) -> ModelError:
        names = ", ".join(t.name for t in self.net.immediate)
        return ModelError(
            f"net {self.net.name}: immediate transitions fire for ever without time passing; look at {names}"
        )

    def stop_clocks(
        self, states: IntArray, weight: FloatArray, origin: IntArray
    ) -> tuple[IntArray, FloatArray, IntArray]:
        """Drop clocks that lost their enabling, any of them with equal probability."""
        for transition in self.stoppable:
            while True:
                surplus = self.clocks(transition, states).sum(axis=0) > self.rules.active(transition, states)
                if not surplus.any():
                    break
                have = self.clocks(transition, states).sum(axis=0)
                parts = [(states[:, ~surplus], weight[~surplus], origin[~surplus])]
                at = self.offset[transition.name]
                for phase, counts in enumerate(self.clocks(transition, states)):
                    chosen = surplus & (counts > 0)
                    after = states[:, chosen].copy()
                    after[at + phase] -= 1
                    parts.append((after, weight[chosen] * counts[chosen] / have[chosen], origin[chosen]))
                states = np.concatenate([p[0] for p in parts], axis=1)
                weight = np.concatenate([p[1] for p in parts])
                origin = np.concatenate([p[2] for p in parts])
        return states, weight, origin

    def start_clocks(
        self, states: IntArray, weight: FloatArray, origin: IntArray
    ) -> tuple[IntArray, FloatArray, IntArray]:
        """Start the clocks that a tangible marking asks for, each in a phase drawn from its start vector."""
        for transition in self.clocked:
            at = self.offset[transition.name]
            start = self.phases[transition.name].start
            entries = np.flatnonzero(start > 0)
            while True:
                short = self.clocks(transition, states).sum(axis=0) < self.rules.active(transition, states)
                if not short.any():
                    break
                if len(entries) == 1:
                    states = states.copy()
                    states[at + entries[0], short] += 1
                    continue
                parts = [(states[:, ~short], weight[~short], origin[~short])]
                for phase in entries:
                    after = states[:, short].copy()
                    after[at + phase] += 1
                    parts.append((after, weight[short] * start[phase], origin[short]))
                states = np.concatenate([p[0] for p in parts], axis=1)
                weight = np.concatenate([p[1] for p in parts])
                origin = np.concatenate([p[2] for p in parts])
                states, weight, origin = self.merge(states, weight, origin)
        return states, weight, origin

    # Exploring: every state that can follow, breadth first.

    def explore(self) -> StateSpace:
        """Expand states until none is left, or none into which `least_mass` of probability flows."""
        first = np.zeros((self.width, 1), dtype=np.int64)
        first[: len(self.rules.places), 0] = self.rules.initial
        states, weight, origin = self.settle(first, np.ones(1), np.zeros(1, dtype=np.int64))
        states, weight, _ = self.merge(states, weight, origin)
        graph = _Graph(self.width)
        roots = graph.number(self.key(states), states)
        graph.flow[roots] = weight
        firing: dict[str, list[FloatArray]] = {t.name: [] for t in self.net.timed}
        while True:
            if self.least_mass > 0:
                live = np.flatnonzero(graph.flow[: graph.count] >= self.least_mass)
                fresh = live[graph.row[live] < 0]
            else:
                live = fresh = graph.expanded + np.arange(graph.count - graph.expanded)
            if not live.size:
                break
            if fresh.size:
                if graph.expanded + fresh.size > self.most_states:
                    raise self.too_many(graph.states[:, fresh])
                after, rate, origin = self.successors(graph.states[:, fresh], firing)
                graph.expand(fresh, graph.number(self.key(after), after), rate, origin)
            if self.least_mass > 0:
                graph.push(live)
        size = graph.expanded
        ids = np.argsort(graph.row[: graph.count])[graph.count - size :]
        counts = graph.end[ids] - graph.begin[ids]
        edges = np.arange(graph.edges) + np.repeat(graph.begin[ids] - (np.cumsum(counts) - counts), counts)
        source = np.repeat(np.arange(size), counts)
        target, rates = graph.row[graph.target[edges]], graph.rate[edges]
        leaves = target < 0
        leak = np.asarray(np.bincount(source[leaves], weights=rates[leaves], minlength=size), dtype=np.float64)
        keep = (source != target) & ~leaves
        found = sparse(size, source[keep], target[keep], rates[keep])
        start = np.zeros(size)
        start[graph.row[roots]] = weight
        # By distance from the start: probability then moves through the states like a wave.
        wave = np.argsort(found.distance(graph.row[roots]), kind="stable")
        markings = graph.states[: len(self.rules.places), ids[wave]]
        _, met, inverse = np.unique(self.mixer[: len(markings)] @ markings.astype(np.uint64), True, True)
        return StateSpace(
            net=self.net,
            rules=self.rules,
            markings=markings[:, np.sort(met)],
            marking_of=np.argsort(np.argsort(met))[inverse],
            start=start[wave],
            rates=found.reordered(wave),
            firing={name: np.concatenate(parts)[wave] for name, parts in firing.items()},
            is_exact=all(p.is_exact for p in self.phases.values()),
            leak=leak[wave],
        )

    def successors(
        self, states: IntArray, firing: dict[str, list[FloatArray]]
    ) -> tuple[IntArray, FloatArray, IntArray]:
        moved: list[tuple[IntArray, FloatArray, IntArray]] = []
        fired: list[tuple[IntArray, FloatArray, IntArray]] = []
        for transition in self.net.timed:
            phase, index, rate = self.exits(transition, states, moved)
            after = states[:, index]
            if phase is not None:
                after[phase, np.arange(index.size)] -= 1
            self.rules.fire(transition, after)
            fired.append((after, rate, index))
            total = np.bincount(index, weights=rate, minlength=states.shape[1])
            firing[transition.name].append(np.asarray(total, dtype=np.float64))
        if any(f[1].size for f in fired):
            parts = [np.concatenate([f[i] for f in fired], axis=-1) for i in range(3)]
            moved.append(self.settle(parts[0], parts[1], parts[2]))
        if not moved:
            return states[:, :0], np.zeros(0), np.zeros(0, dtype=np.int64)
        return (
            np.concatenate([m[0] for m in moved], axis=1),
            np.concatenate([m[1] for m in moved]),
            np.concatenate([m[2] for m in moved]),
        )

    def exits(
        self, transition: Transition, states: IntArray, moved: list[tuple[IntArray, FloatArray, IntArray]]
    ) -> tuple[IntArray | None, IntArray, FloatArray]:
        """(row of the phase that ends, state, rate) of each way to fire; moves between phases go to `moved`."""
        assert isinstance(transition.timing, Timed)
        if transition.name not in self.offset:
            active = self.rules.active(transition, states)
            index = np.flatnonzero(active)
            delay = transition.timing.delay
            if isinstance(delay, Expression):
                rate = self.rules.rate(transition, states[:, index])
            else:
                rate = np.full(index.size, self.leaving[transition.name][0])
            rate = rate * active[index]
            return None, index[rate > 0], rate[rate > 0]
        at = self.offset[transition.name]
        counts = self.clocks(transition, states)
        phase, index = np.nonzero(counts)
        running = counts[phase, index]
        origin, following, rates = self.moves[transition.name]
        # Every move out of each phase in which a clock runs: moves are sorted by the phase they leave.
        first = np.searchsorted(origin, phase)
        times = np.searchsorted(origin, phase, side="right") - first
        entry = np.repeat(np.arange(phase.size), times)
        move = np.arange(entry.size) - np.repeat(np.cumsum(times) - times - first, times)
        after = states[:, index[entry]]
        columns = np.arange(entry.size)
        after[at + phase[entry], columns] -= 1
        after[at + following[move], columns] += 1
        moved.append((after, running[entry] * rates[move], index[entry]))
        out = self.leaving[transition.name][phase]
        leaves = out > 0
        return at + phase[leaves], index[leaves], running[leaves] * out[leaves]

    def too_many(self, frontier: IntArray) -> TooManyStatesError:
        places = frontier[: len(self.rules.places)]
        grown = int(np.argmax(places.max(axis=1) - self.rules.initial))
        place = self.rules.places[grown]
        return TooManyStatesError(
            f"net {self.net.name}: more than {self.most_states:,} states; place {place} has reached "
            f"{int(places[grown].max())} tokens; try --method simulation"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class OneClock:
    """A net in whose every tangible marking one clock runs (or several exponential ones): a semi-Markov process."""

    rules: Rules
    markings: IntArray
    """Shape (places, states)."""
    start: FloatArray
    delays: tuple[Distribution | None, ...]
    """How long each state lasts; None where nothing can happen any more."""
    edges: tuple[tuple[int, int, float], ...]
    """(from, to, probability)."""


def one_clock(net: Net, *, most_states: int = 2000) -> OneClock | None:
    """The semi-Markov process of a net, or None if clocks run at the same time or there are too many markings."""
    explorer = _Explorer(net, 0, most_states)
    rules = explorer.rules
    states, weights, _ = explorer.settle(rules.initial[:, None].copy(), np.ones(1), np.zeros(1, dtype=np.int64))
    known: dict[bytes, int] = {}
    markings: list[IntArray] = []
    start: dict[int, float] = {}

    def number(marking: IntArray) -> int:
        key = marking.tobytes()
        if key not in known:
            known[key] = len(markings)
            markings.append(marking)
        return known[key]

    for j, weight in enumerate(weights):
        state = number(states[:, j].copy())
        start[state] = start.get(state, 0.0) + float(weight)
    delays: list[Distribution | None] = []
    edges: dict[tuple[int, int], float] = {}
    while len(delays) < len(markings):
        state = len(delays)
        here = markings[state][:, None]
        race = _race(net, rules, here)
        if race is None or len(markings) > most_states:
            return None
        delay, firing = race
        delays.append(delay)
        for transition, share in firing:
            after = here.copy()
            rules.fire(transition, after)
            ends, chances, _ = explorer.settle(after, np.ones(1), np.zeros(1, dtype=np.int64))
            for j, chance in enumerate(chances):
                edge = (state, number(ends[:, j].copy()))
                edges[edge] = edges.get(edge, 0.0) + share * float(chance)
    size = len(markings)
    return OneClock(
        rules=rules,
        markings=np.stack(markings, axis=1),
        start=np.array([start.get(i, 0.0) for i in range(size)]),
        delays=tuple(delays),
        edges=tuple((a, b, p) for (a, b), p in edges.items()),
    )


def _race(net: Net, rules: Rules, here: IntArray) -> tuple[Distribution | None, list[tuple[Transition, float]]] | None:
    """How long one marking lasts and which transition ends it with which chance; None if clocks with memory race."""
    running = [(t, int(rules.active(t, here)[0])) for t in net.timed]
    running = [(t, count) for t, count in running if count]
    if not running:
        return None, []
    if len(running) == 1 and running[0][1] == 1:
        timing = running[0][0].timing
        assert isinstance(timing, Timed)
        if not isinstance(timing.delay, Expression):
            return timing.delay, [(running[0][0], 1.0)]
    rates = []
    for transition, count in running:
        assert isinstance(transition.timing, Timed)
        delay = transition.timing.delay
        if isinstance(delay, Expression):
            rates.append(count * float(rules.rate(transition, here)[0]))
        elif isinstance(delay, Exponential):
            rates.append(count * delay.rate)
        else:
            return None
    total = sum(rates)
    if total <= 0:
        return None, []
    return Exponential(rate=total), [(t, r / total) for (t, _), r in zip(running, rates, strict=True) if r > 0]


def state_space(net: Net, *, order: int = 9, most_states: int = MOST_STATES, least_mass: float = 0.0) -> StateSpace:
    """The chain of a net's tangible states; `order` phases stand in for a bounded delay without phases of its own.

    States into which less probability than `least_mass` flows are left out; `leak` says where it went.
    """
    return _Explorer(net, order, most_states, least_mass).explore()
