"""What if: the latency of a message under other settings, swept over a grid; the highest rate that is still good."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from toolkit.errors import ModelError
from toolkit.model.analyse import Effort, solve
from toolkit.model.distributions import Empirical, FloatArray, Loglogistic, Lognormal, Shifted, Weibull
from toolkit.model.intervals import mean_interval
from toolkit.model.net import Net, Timed
from toolkit.model.netfile import read_net
from toolkit.model.simulate import BATCH, message_places, simulate, why_not_followed
from toolkit.model.solution import Spread

_QUANTILES = (0.5, 0.9, 0.95, 0.99, 0.999)
_TRIALS = 24
_LATENCIES = 60_000
_LEAST_REPLICATIONS = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One combination of settings and the latency there."""

    settings: dict[str, float]
    latency: Spread
    method: str
    error_bound: float

    def document(self) -> dict[str, Any]:
        """For JSON."""
        about = {"settings": self.settings, "method": self.method, "error_bound": self.error_bound}
        return about | self.latency.document()


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """The highest rate at which p99 stays below a bound."""

    bound_ms: float
    rate: float
    p99: float
    trials: int

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {"bound_ms": self.bound_ms, "rate": self.rate, "p99": self.p99, "trials": self.trials}


def sweep(
    document: Any,
    grid: Mapping[str, Sequence[float]],
    *,
    tokens: int | None = None,
    seed: int = 1,
    most_seconds: float = 5.0,
    file: str = "net",
) -> list[Point]:
    """The latency at each combination; the same random numbers at each (differences are not noise)."""
    points = []
    for values in product(*grid.values()):
        settings = dict(zip(grid, values, strict=True))
        net = read_net(document, settings, tokens=tokens, file=file)
        if why_not_followed(net) is None and (sum(net.places.values()) > 1 or not _has_closed_transforms(net)):
            points.append(_simulated(net, settings, seed, most_seconds))
            continue
        effort = Effort(seed=seed, most_seconds=most_seconds, workers=1, precision=0.01)
        solution = solve(net, at=(0.0,), quantiles=_QUANTILES, effort=effort)
        latency = solution.latency or solution.time
        if latency is None:
            raise ModelError(
                f"net {net.name}: never completes with {settings or 'its own settings'}; nothing to predict"
            )
        points.append(
            Point(settings=settings, latency=latency, method=solution.method, error_bound=solution.error_bound)
        )
    return points


def latencies(net: Net, *, seed: int = 1, most_seconds: float = 60.0) -> FloatArray:
    """Simulated latencies of messages: shape (replications, messages); completion times where none is followed.

    Of many messages the second half counts.
    """
    messages, copies = messages_of(net)
    wanted = max(_LATENCIES // copies if messages == 1 else _LATENCIES // messages // copies // 2, _LEAST_REPLICATIONS)
    outcome = simulate(net, seed=seed, least=min(wanted, BATCH), most=wanted, precision=1e-9, most_seconds=most_seconds)
    if outcome.latency is None:
        return outcome.completed[np.isfinite(outcome.completed)][:, None]
    late = _settled(outcome.latency, copies)
    return np.asarray(late[np.isfinite(late).all(axis=1)], dtype=np.float64)


def messages_of(net: Net) -> tuple[int, int]:
    """How many messages a net sends, and how often each arrives."""
    if why_not_followed(net) is not None or net.latency is None:
        return max(sum(net.places.values()), 1), 1
    return max(sum(net.places[place] for place in message_places(net)), 1), net.latency.arrivals


def _settled(latency: FloatArray, copies: int) -> FloatArray:
    """The second half of the messages: by then queues have filled as far as they will."""
    messages = latency.shape[1] // copies
    return latency[:, messages // 2 * copies :]


def _simulated(net: Net, settings: dict[str, float], seed: int, most_seconds: float) -> Point:
    found = latencies(net, seed=seed, most_seconds=most_seconds)
    interval = mean_interval(found.mean(axis=1))
    flat = found.ravel()
    quantiles: dict[float, float | None] = {p: float(np.quantile(flat, p)) for p in _QUANTILES}
    latency = Spread(mean=float(flat.mean()), sd=float(flat.std()), quantiles=quantiles, intervals={"mean": interval})
    return Point(settings=settings, latency=latency, method="simulation", error_bound=interval.relative)


def _has_closed_transforms(net: Net) -> bool:
    """Whether the exact solver needs no quadrature for any delay, which takes it minutes for the many of a run."""
    delays = [t.timing.delay for t in net.timed if isinstance(t.timing, Timed)]
    bases = [delay.base if isinstance(delay, Shifted) else delay for delay in delays]
    return not any(isinstance(base, Lognormal | Weibull | Loglogistic | Empirical) for base in bases)


def capacity(
    document: Any, settings: Mapping[str, float], *, bound_ms: float, seed: int = 1, file: str = "net"
) -> Capacity:
    """Bisection over the parameter `rate` (messages per second), 64 replications of the net at each trial."""
    if "rate" not in (document.get("params") or {}):
        raise ModelError(f"{file}: the net has no parameter `rate`; capacity needs one")

    def p99(rate: float) -> float:
        net = read_net(document, {**settings, "rate": rate}, file=file)
        outcome = simulate(net, seed=seed, least=64, most=64)
        if outcome.latency is None:
            raise ModelError(f"net {net.name}: messages cannot be followed: {why_not_followed(net)}")
        return float(np.quantile(_settled(outcome.latency, messages_of(net)[1]), 0.99))

    trials = 1
    low, high = 0.1, 1.0
    good = p99(low)
    if good > bound_ms:
        raise ModelError(f"p99 is {good:.4g} ms even at {low} messages/s; a bound of {bound_ms:g} ms cannot be kept")
    while trials < _TRIALS:
        trials += 1
        value = p99(high)
        if value > bound_ms:
            break
        low, good, high = high, value, high * 4
    else:
        return Capacity(bound_ms=bound_ms, rate=low, p99=good, trials=trials)
    while high / low > 1.01 and trials < 2 * _TRIALS:
        middle = (low * high) ** 0.5
        trials += 1
        value = p99(middle)
        if value > bound_ms:
            high = middle
        else:
            low, good = middle, value
    return Capacity(bound_ms=bound_ms, rate=low, p99=good, trials=trials)
