"""What a solver answers, by whichever method: times, places over time, messages; how good that is, as a document."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from toolkit.model.intervals import Interval
from toolkit.model.net import Net


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """One random time: mean, standard deviation and quantiles by probability (None where never reached)."""

    mean: float
    sd: float
    quantiles: dict[float, float | None]
    intervals: dict[str, Interval] = field(default_factory=dict)
    """95 % confidence intervals by `mean`, `sd` and probability, when simulated."""

    def document(self) -> dict[str, Any]:
        """For JSON."""
        made: dict[str, Any] = {
            "mean": self.mean,
            "sd": self.sd,
            "quantiles": {f"{p:g}": value for p, value in self.quantiles.items()},
        }
        if self.intervals:
            made["confidence"] = {name: [i.low, i.high] for name, i in self.intervals.items()}
        return made


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """The n-th message: when the n-th delivery happens, and how long the n-th to set out takes."""

    number: int
    delivered_at: Spread
    latency: Spread | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """What a net does, how that was found and how good it is. Times in the net's unit."""

    net: Net
    method: str
    reason: str
    """Why this method."""
    error_bound: float
    """Largest relative error of the times and absolute error of the probabilities; for a simulation the largest
    relative half-width of the 95 % intervals of mean and quantiles."""
    states: int | None
    seconds: float
    at: tuple[float, ...]
    occupied: dict[str, tuple[float, ...]]
    """Probability that each place holds a token, at each time of `at`."""
    tokens: dict[str, tuple[float, ...]]
    """Expected tokens, at each time of `at`."""
    time: Spread | None = None
    """End-to-end: the net's first-passage measure."""
    probability: float | None = None
    """Of ever completing; the times are given completion."""
    messages: tuple[Message, ...] = ()
    latency: Spread | None = None
    """Of a message chosen at random."""
    rewards: dict[str, tuple[float, ...]] = field(default_factory=dict)
    """Further measures, at each time of `at`."""
    steady: dict[str, dict[str, float]] | None = None
    simulated: dict[str, float] | None = None
    """Replications, firings and firings per second."""

    def document(self) -> dict[str, Any]:
        """For JSON: the end-to-end time on top, then places by time, then the rest."""
        measure = self.net.completion()
        made: dict[str, Any] = {
            "net": self.net.name,
            "unit": self.net.unit,
            "params": dict(self.net.params),
            "measure": f"first passage of {measure.expression}" if measure else None,
            "mean": None,
            "sd": None,
            "quantiles": {},
        }
        if self.time is not None:
            made |= self.time.document()
        made |= {
            "probability": self.probability,
            "at": list(self.at),
            "places": {place: list(values) for place, values in self.occupied.items()},
            "tokens": {place: list(values) for place, values in self.tokens.items()},
            "method": self.method,
            "reason": self.reason,
            "error_bound": self.error_bound,
            "states": self.states,
            "seconds": round(self.seconds, 4),
        }
        if self.rewards:
            made["measures"] = {name: list(values) for name, values in self.rewards.items()}
        if self.latency is not None:
            made["latency"] = self.latency.document()
        if self.messages:
            made["messages"] = [
                {"message": m.number, "delivered_at": m.delivered_at.document()}
                | ({"latency": m.latency.document()} if m.latency else {})
                for m in self.messages
            ]
        if self.steady is not None:
            made["steady"] = self.steady
        if self.simulated is not None:
            made["simulated"] = self.simulated
        return made
