"""Stochastic Petri nets as values, and a small builder for them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any, Literal

from toolkit.errors import ModelError
from toolkit.model.distributions import Distribution
from toolkit.model.expressions import Expression, parse_delay, parse_expression

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
MOST_TOKENS = 1_000_000
MEASURES = ("first_passage", "probability", "reward")


@dataclass(frozen=True, slots=True, kw_only=True)
class Immediate:
    """Fires in no time: highest priority first, then by weight; a weight may read places."""

    priority: int = 1
    weight: Expression = field(default_factory=lambda: parse_expression(1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """Fires when its clock runs out; `delay` is a distribution, or an exponential's rate that reads places."""

    delay: Distribution | Expression
    servers: int | None = 1
    """How many clocks may run at once; None is one for each enabling."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """Moves tokens; arcs are multiplicities by place."""

    name: str
    inputs: Mapping[str, int]
    outputs: Mapping[str, int]
    inhibitors: Mapping[str, int] = field(default_factory=dict)
    """Disabled while a place holds at least this many tokens."""
    guard: Expression | None = None
    timing: Immediate | Timed

    def reads(self) -> set[str]:
        """Every place whose marking decides whether, how often or how fast this fires."""
        names = set(self.inputs) | set(self.inhibitors)
        if self.guard is not None:
            names |= self.guard.names
        rate = self.timing.weight if isinstance(self.timing, Immediate) else self.timing.delay
        return names | rate.names if isinstance(rate, Expression) else names


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """What to find out: a `first_passage` time, a `probability` or a `reward` (expected value) over time."""

    kind: Literal["first_passage", "probability", "reward"]
    expression: Expression
    quantiles: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Which part of a token's way is its latency: from the start of a timed transition to the entry into a place."""

    start: tuple[str, ...]
    """The transition, or all with which one of several ways begins."""
    end: str
    copies: int | None = None
    """How many times a message arrives, in a net in which a transition that has further outputs on the way to `end`
    puts a copy of the message into each."""

    @property
    def arrivals(self) -> int:
        """How many times a message arrives."""
        return 1 if self.copies is None else self.copies


@dataclass(frozen=True, slots=True, kw_only=True)
class Net:
    """A marked stochastic Petri net, every parameter resolved; times are in `unit`."""

    name: str
    places: Mapping[str, int]
    """Tokens at the start, by place."""
    transitions: tuple[Transition, ...]
    unit: str = "ms"
    params: Mapping[str, float] = field(default_factory=dict)
    """The values that the file's expressions were resolved with; for the record only."""
    measures: Mapping[str, Measure] = field(default_factory=dict)
    latency: Latency | None = None

    def __post_init__(self) -> None:
        check_names(self)

    @property
    def timed(self) -> tuple[Transition, ...]:
        """Transitions with a clock, in order."""
        return tuple(t for t in self.transitions if isinstance(t.timing, Timed))

    @property
    def immediate(self) -> tuple[Transition, ...]:
        """Transitions without a clock, in order."""
        return tuple(t for t in self.transitions if isinstance(t.timing, Immediate))

    def transition(self, name: str) -> Transition:
        """The transition of that name."""
        for transition in self.transitions:
            if transition.name == name:
                return transition
        raise ModelError(f"net {self.name}: no transition {name!r}{nearest(name, [t.name for t in self.transitions])}")

    def with_tokens(self, tokens: int) -> Net:
        """The same net started with `tokens` in the only place that is marked at the start."""
        marked = [place for place, count in self.places.items() if count]
        if len(marked) != 1:
            raise ModelError(
                f"net {self.name}: --tokens needs a parameter named by `tokens:` or exactly one marked place, "
                f"but marked are {', '.join(marked) or 'none'}; use --set"
            )
        return replace(self, places={**self.places, marked[0]: tokens})

    def with_messages(self, count: int) -> Net:
        """The same net with at most `count` tokens where there are most, and done when they all are."""
        place = max(self.places, key=lambda name: self.places[name])
        measure = self.completion()
        if measure is None or self.places[place] <= count:
            return self
        done = {name: m for name, m in self.measures.items() if m is not measure}
        end = self.latency.end if self.latency is not None else next(iter(measure.expression.names))
        arrivals = count * (self.latency.arrivals if self.latency is not None else 1)
        reached = Measure(kind="first_passage", expression=parse_expression(f"{end} == {arrivals}"))
        return replace(self, places={**self.places, place: count}, measures={"delivered": reached} | done)

    def completion(self) -> Measure | None:
        """The net's end-to-end time: its first `first_passage` measure, if it has one."""
        return next((m for m in self.measures.values() if m.kind == "first_passage"), None)


def nearest(name: str, known: Sequence[str]) -> str:
    """`; did you mean ...?` when a known name is close, else the known names."""
    close = get_close_matches(name, known, 1)
    return f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(known)}"


def check_names(net: Net) -> None:
    """Raise ModelError unless names, arcs and markings make sense by themselves."""
    where = f"net {net.name}"
    if not net.places or not net.transitions:
        raise ModelError(f"{where}: needs at least one place and one transition")
    for place, tokens in net.places.items():
        if not NAME.match(place):
            raise ModelError(f"{where}: place name {place!r} must be letters, digits and _")
        if not 0 <= tokens <= MOST_TOKENS:
            raise ModelError(f"{where}: place {place} starts with {tokens} tokens; 0 to {MOST_TOKENS} are possible")
    names = Counter([*net.places, *(t.name for t in net.transitions)])
    for transition in net.transitions:
        if names[transition.name] > 1:
            raise ModelError(f"{where}, transition {transition.name}: the name is used twice")
        _check_transition(net, transition, f"{where}, transition {transition.name}")
    for name, measure in net.measures.items():
        _check_measure(net, measure, f"{where}, measure {name}")
    if net.latency is not None:
        _check_latency(net, net.latency, f"{where}, latency")


def _check_transition(net: Net, transition: Transition, at: str) -> None:
    if not transition.inputs and not transition.outputs:
        raise ModelError(f"{at}: has no arcs")
    arcs = [(transition.inputs, "input"), (transition.outputs, "output"), (transition.inhibitors, "inhibitor")]
    for places, kind in arcs:
        for place, count in places.items():
            if place not in net.places:
                raise ModelError(f"{at}: {kind} place {place!r} does not exist{nearest(place, list(net.places))}")
            if count < 1:
                raise ModelError(f"{at}: the {kind} arc of {place} has multiplicity {count}; 1 or more is needed")
    for name in transition.reads() - set(net.places):
        raise ModelError(f"{at}: {name!r} is neither a place nor a parameter{nearest(name, list(net.places))}")
    if isinstance(transition.timing, Timed):
        servers = transition.timing.servers
        if servers is not None and servers < 1:
            raise ModelError(f"{at}: {servers} servers; 1 or more, or infinite, are possible")
        if not transition.inputs and servers is None:
            raise ModelError(f"{at}: without an input place it cannot have infinitely many servers")


def _check_measure(net: Net, measure: Measure, at: str) -> None:
    if measure.kind not in MEASURES:
        raise ModelError(f"{at}: {measure.kind!r} is none of {', '.join(MEASURES)}")
    for used in measure.expression.names - set(net.places):
        raise ModelError(f"{at}: {used!r} does not exist{nearest(used, list(net.places))}")


def _check_latency(net: Net, latency: Latency, at: str) -> None:
    for name in latency.start:
        net.transition(name)
    if latency.arrivals < 1:
        raise ModelError(f"{at}: {latency.copies} copies of a message; 1 or more are possible")
    if latency.end not in net.places:
        raise ModelError(f"{at}: no place {latency.end!r}{nearest(latency.end, list(net.places))}")


Arcs = str | Sequence[str] | Mapping[str, int] | None


def arcs(given: Arcs) -> dict[str, int]:
    """Multiplicities by place from a name, several names (repeats add up) or a mapping."""
    if given is None:
        return {}
    if isinstance(given, str):
        return {given: 1}
    if isinstance(given, Mapping):
        return dict(given)
    return {place: list(given).count(place) for place in given}


class NetBuilder:
    """Puts a net together step by step; `build` checks it.

    >>> net = NetBuilder("relay").place("In", 1).place("Out").timed("send", "In", "Out", "erlang(3, 2)").build()
    """

    def __init__(self, name: str, *, unit: str = "ms") -> None:
        self.name = name
        self.unit = unit
        self.places: dict[str, int] = {}
        self.transitions: list[Transition] = []
        self.measures: dict[str, Measure] = {}
        self.message: Latency | None = None

    def place(self, name: str, tokens: int = 0) -> NetBuilder:
        """Add a place that starts with `tokens`."""
        if name in self.places:
            raise ModelError(f"net {self.name}: place {name} is there twice")
        self.places[name] = tokens
        return self

    def timed(
        self,
        name: str,
        inputs: Arcs,
        outputs: Arcs,
        delay: Distribution | str,
        *,
        servers: int | None = 1,
        inhibit: Arcs = None,
        guard: str | None = None,
    ) -> NetBuilder:
        """Add a transition with a clock; `servers=None` runs one for each enabling."""
        timing = Timed(delay=parse_delay(delay, {}) if isinstance(delay, str) else delay, servers=servers)
        return self._add(name, inputs, outputs, timing, inhibit, guard)

    def immediate(
        self,
        name: str,
        inputs: Arcs,
        outputs: Arcs,
        *,
        priority: int = 1,
        weight: float | str = 1.0,
        inhibit: Arcs = None,
        guard: str | None = None,
    ) -> NetBuilder:
        """Add a transition that fires in no time."""
        timing = Immediate(priority=priority, weight=parse_expression(weight))
        return self._add(name, inputs, outputs, timing, inhibit, guard)

    def _add(
        self, name: str, inputs: Arcs, outputs: Arcs, timing: Immediate | Timed, inhibit: Arcs, guard: str | None
    ) -> NetBuilder:
        self.transitions.append(
            Transition(
                name=name,
                inputs=arcs(inputs),
                outputs=arcs(outputs),
                inhibitors=arcs(inhibit),
                guard=parse_expression(guard) if guard is not None else None,
                timing=timing,
            )
        )
        return self

    def measure(self, name: str, **kind: str) -> NetBuilder:
        """Add a measure, as `first_passage="Done == 3"`, `probability="Busy > 0"` or `reward="Queue"`."""
        what: Any
        ((what, text),) = kind.items()
        self.measures[name] = Measure(kind=what, expression=parse_expression(text))
        return self

    def latency(self, start: str | Sequence[str], end: str, *, copies: int | None = None) -> NetBuilder:
        """Say which part of a token's way is its latency; each way through the net may have a start of its own."""
        self.message = Latency(start=(start,) if isinstance(start, str) else tuple(start), end=end, copies=copies)
        return self

    def build(self) -> Net:
        """The net, checked."""
        return Net(
            name=self.name,
            unit=self.unit,
            places=dict(self.places),
            transitions=tuple(self.transitions),
            measures=dict(self.measures),
            latency=self.message,
        )
