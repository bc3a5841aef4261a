"""Nets that a run makes by itself: a broker's from its settings and fitted hops, a sequence from recorded steps.

Hops of one message depend on each other, so each kind of message (`classes.py`) has a way of its own through the net,
with its own fits; an immediate transition chooses the kind by its share.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.model.classes import message_classes
from toolkit.model.distributions import Deterministic, Distribution, FloatArray, Shifted, empirical
from toolkit.model.fit import FitReport, fit
from toolkit.model.samples import HOPS, RunSamples

FAMILIES = (
    "exponential", "erlang", "gamma", "lognormal", "weibull", "loglogistic",
    "shifted_exponential", "shifted_gamma", "shifted_lognormal", "hypererlang",
)  # fmt: skip
MESSAGES = 100
"""In a net for an open loop: enough for queues to settle."""
_NEVER_NEGATIVE = 1e-6
_POOR = 0.03
_ENOUGH = 10
_WRONG_MEAN = 0.02
_STEP_CLASSES = 3
_FEW = 20


def delay_of(name: str, values: FloatArray) -> tuple[Distribution, FitReport]:
    """The best fit; the measured quantiles themselves where it is far off (Kolmogorov-Smirnov above 0.03, or its mean
    or 99th percentile)."""  # noqa: D205, D209 - one sentence
    report = fit(np.where((values < 0) & (values > -_NEVER_NEGATIVE), 0.0, values), name=name, families=FAMILIES)
    return (empirical(report.values) if report.n >= _ENOUGH and _is_poor(report) else report.best.distribution), report


def _is_poor(report: FitReport) -> bool:
    best = report.best
    if isinstance(best.distribution, Deterministic):
        return False
    if best.ks > max(_POOR, 1.5 / np.sqrt(report.n)):
        return True
    high = float(np.quantile(report.values, 0.99))
    fitted_high = float(best.distribution.quantile(np.array([0.99]))[0])
    return abs(best.distribution.mean - report.mean) > _WRONG_MEAN * report.mean or abs(fitted_high - high) > 0.1 * high


def net_from_run(samples: RunSamples, *, subscribers: int = 0, at_a_rate: bool = False) -> dict[str, Any]:
    """A net document (see docs/models.md) for the latency of one message or request, with what-if parameters.

    `subscribers`: the most that the net will be asked for, where that is more than the run had. `at_a_rate`: messages
    come at a rate also where those of the run waited for each other.
    """
    if samples.messages:
        return broker_document(samples, max(subscribers, samples.subscribers), at_a_rate=at_a_rate)
    delays = samples.steps or (samples.hops if len(samples.hops) == len(HOPS) else {"end_to_end": samples.end_to_end})
    return sequence_document(samples, delays)


def run_settings(samples: RunSamples) -> dict[str, float]:
    """The what-if parameters that a run had: pool, cores, subscribers of a message, rate or window."""
    cores = int(samples.setting("cores", "cpus") or 4)
    threads = samples.setting("thread_pool_size", "threads")
    settings: dict[str, float] = {
        "K": 64 if threads is None else int(threads) or 2 * cores,
        # The run itself shows how many can be in progress at once: fewer cores would contradict it.
        "C": max(cores, samples.in_broker, 1),
        "S": samples.subscribers,
    }
    window = samples.window
    return settings | ({"rate": samples.rate_per_s} if window is None else {"W": window})


def sequence_document(samples: RunSamples, delays: dict[str, FloatArray]) -> dict[str, Any]:
    """One token through every step in order, each kind of request on its own way."""
    kinds = message_classes(np.stack(list(delays.values()), axis=1), most=_STEP_CLASSES)
    places: dict[str, Any] = {"Start": "N"}
    transitions: dict[str, Any] = {}
    for kind, (suffix, share) in enumerate(_suffixes(kinds)):
        before = "Start"
        if suffix:
            before = f"Start{suffix}"
            places[before] = 0
            transitions[f"kind{suffix}"] = _chosen("Start", before, share)
        for i, (name, values) in enumerate(delays.items()):
            after = f"After_{name}{suffix}" if i < len(delays) - 1 else "Done"
            places.setdefault(after, 0)
            delay, _ = delay_of(name, values[kinds == kind])
            transitions[f"{name}{suffix}"] = _timed(before, after, delay)
            before = after
    return {
        "net": "steps_of_run",
        "unit": "ms",
        "about": f"steps of run {samples.name}, fitted",
        "params": {"N": 1},
        "tokens": "N",
        "places": places,
        "transitions": transitions,
        "measures": {"completed": {"first_passage": "Done == N"}},
        "latency": {"from": next(iter(transitions)), "to": "Done"},
    }


def broker_document(samples: RunSamples, subscribers: int, *, at_a_rate: bool = False) -> dict[str, Any]:
    """Messages through transit, a pool of threads, cores, and the way out to subscribers one after the other.

    A token is one delivery: its place in the order of sending is even over the `S` subscribers, and each place has its
    own fit of the time from the message's first sending to the arrival. `execute` is the time to the first sending as
    measured, with what queueing the run's own load caused; the net adds the queueing that a smaller pool, fewer cores
    or a higher rate bring. An open loop sends at `rate`; a closed one sends the next message when fewer than `W` are
    being served. With one message at a time nothing queues, and the net is a sequence.
    """
    kinds = message_classes(np.stack([*samples.messages.values(), samples.arrivals[:, 0]], axis=1))
    settings = run_settings(samples)
    if at_a_rate and "W" in settings:
        del settings["W"]
        settings["rate"] = samples.rate_per_s
    is_single = settings.get("W") == 1
    kind_names = _suffixes(kinds)
    places: dict[str, Any] = {"To_Send": "N", "Sent": 0}
    transitions: dict[str, Any] = {"arrive": _arrival(settings, [suffix for suffix, _ in kind_names])}
    busy = " + ".join([f"Executing{suffix}" for suffix, _ in kind_names])
    for kind, (suffix, share) in enumerate(kind_names):
        names = ("Publisher", "Request_Queue", "Active_Threads", "Executing", "Ready_to_Send")
        publisher, queue, active, executing, ready = at = [f"{name}{suffix}" for name in names]
        places |= dict.fromkeys(at, 0)
        delays = {hop: delay_of(hop, values[kinds == kind])[0] for hop, values in samples.messages.items()}
        transitions |= {
            f"kind{suffix or '_1'}": _chosen("Sent", publisher, share),
            f"publish{suffix}": _timed(publisher, queue, delays["publish"]),
            f"assign{suffix}": _chosen(queue, active, 1) | _guard(f"{_held(kind_names)} < K", is_left_out=is_single),
            f"start{suffix}": _chosen(active, executing, 1) | _guard(f"{busy} < C", is_left_out=is_single),
            f"execute{suffix}": _timed(executing, ready if is_single else [ready, "Sending"], delays["broker"]),
        }
        for place, delay in enumerate(_ways_out(samples, kinds == kind, subscribers), 1):
            on_the_way = f"On_the_Way_{place}{suffix}"
            places[on_the_way] = 0
            chosen = _chosen(ready, on_the_way, 1)
            transitions[f"place_{place}{suffix}"] = chosen | _guard(f"S >= {place}", is_left_out=place == 1)
            transitions[f"deliver_{place}{suffix}"] = _timed(on_the_way, "Subscriber", delay)
    places["Subscriber"] = 0
    if not is_single:
        places["Sending"] = 0
        # A thread is held until its message was sent to the last subscriber.
        transitions["release"] = {
            "in": "Sending", "delay": "deterministic(max((S - 1) * gap, 0.000001))", "server": "infinite",
        }  # fmt: skip
    return {
        "net": "broker_of_run",
        "unit": "ms",
        "about": f"one broker, fitted on run {samples.name}",
        "params": {"N": 1 if is_single else MESSAGES, **settings, "gap": float(f"{samples.gap_ms:.6g}")},
        "aliases": {
            "tokens": "N", "messages": "N", "threads": "K", "thread_pool_size": "K", "cores": "C", "cpus": "C",
            "subscribers": "S",
        } | ({"window": "W", "connections": "W"} if "W" in settings else {}),
        "tokens": "N",
        "places": places,
        "transitions": transitions,
        "measures": {"delivered": {"first_passage": "Subscriber == N"}},
        "latency": {"from": [f"publish{suffix}" for suffix, _ in kind_names], "to": "Subscriber"},
    }  # fmt: skip


def _held(kind_names: list[tuple[str, float]]) -> str:
    """The threads in use."""
    names = [f"{place}{suffix}" for suffix, _ in kind_names for place in ("Active_Threads", "Executing")]
    return " + ".join([*names, "Sending"])


def _arrival(settings: dict[str, float], suffixes: list[str]) -> dict[str, Any]:
    """How messages come: at a rate, or when fewer than `W` are under way to the end of their sending."""
    if "W" not in settings:
        return {"in": "To_Send", "out": "Sent", "delay": "deterministic(1000 / rate)"}
    stages = ("Publisher", "Request_Queue", "Active_Threads", "Executing")
    names = ["Sent", *(f"{place}{suffix}" for suffix in suffixes for place in stages), "Sending"]
    return _chosen("To_Send", "Sent", 1) | _guard(f"{' + '.join(names)} < W", is_left_out=settings["W"] == 1)


def _guard(text: str, *, is_left_out: bool) -> dict[str, str]:
    return {} if is_left_out else {"guard": text}


def _ways_out(samples: RunSamples, chosen: NDArray[np.bool_], subscribers: int) -> list[Distribution]:
    """From the first sending to the arrival, for each place in the order of sending.

    Places that the run did not have are as the last one, later by what each place before took more than the one
    before it.
    """
    ways = []
    for column in samples.arrivals.T:
        values = column[chosen & ~np.isnan(column)]
        if len(values) < _FEW:
            values = column[~np.isnan(column)]
        ways.append(delay_of("deliver", values)[0])
    known = np.nanmean(samples.arrivals, axis=0)
    slope = max(float(known[-1] - known[0]) / (len(known) - 1), 0.0) if len(known) > 1 else 0.0
    beyond = range(1, subscribers - len(ways) + 1)
    return ways + [Shifted(offset=float(f"{slope * place:.6g}"), base=ways[-1]) for place in beyond]


def _suffixes(kinds: NDArray[np.int64]) -> list[tuple[str, float]]:
    """What is added to the names of each kind's places, and the kind's share of the messages."""
    shares = np.bincount(kinds) / len(kinds)
    if len(shares) == 1:
        return [("", 1.0)]
    return [(f"_{kind + 1}", float(share)) for kind, share in enumerate(shares)]


def _chosen(before: str, after: str, share: float) -> dict[str, Any]:
    return {"in": before, "out": after, "immediate": {"weight": float(f"{share:.6g}")}}


def _timed(before: str, after: str | list[str], delay: Distribution) -> dict[str, Any]:
    return {"in": before, "out": after, "delay": str(delay), "server": "infinite"}
