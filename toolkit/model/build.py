"""Nets that a run makes by itself: the Event Handler's from its settings and fitted hops, a sequence from steps."""

from __future__ import annotations

from typing import Any

import numpy as np

from toolkit.errors import ModelError
from toolkit.model.distributions import Distribution, FloatArray, empirical
from toolkit.model.fit import FitReport, fit
from toolkit.model.samples import HOPS, RunSamples

FAMILIES = (
    "exponential", "erlang", "gamma", "lognormal", "weibull", "loglogistic",
    "shifted_exponential", "shifted_gamma", "shifted_lognormal", "hypererlang",
)  # fmt: skip
_NEVER_NEGATIVE = 1e-6
_POOR = 0.03
_ENOUGH = 100


def delay_of(name: str, values: FloatArray) -> tuple[Distribution, FitReport]:
    """The best fit; where even that is far off (Kolmogorov-Smirnov above 0.03), the measured quantiles themselves."""
    report = fit(np.where((values < 0) & (values > -_NEVER_NEGATIVE), 0.0, values), name=name, families=FAMILIES)
    best = report.best
    is_poor = best.ks > max(_POOR, 1.5 / np.sqrt(report.n))
    return (empirical(report.values) if is_poor and report.n >= _ENOUGH else best.distribution), report


def net_from_run(samples: RunSamples) -> dict[str, Any]:
    """A net document (see docs/models.md) for the latency of one message, with what-if parameters."""
    if samples.steps or len(samples.hops) < len(HOPS):
        delays = samples.steps or samples.hops or {"end_to_end": samples.end_to_end}
        return sequence_document(samples, {name: delay_of(name, values)[0] for name, values in delays.items()})
    delays = {**samples.hops, "broker": samples.first_sent_ms}
    return broker_document(samples, {name: delay_of(name, values)[0] for name, values in delays.items()})


def run_settings(samples: RunSamples) -> dict[str, float]:
    """The what-if parameters that a run had: pool, cores, subscribers of a message, rate."""
    copies = len(samples.end_to_end) / max(len(samples.first_sent_ms), 1)
    cores = int(samples.setting("cores", "cpus") or 4)
    return {
        "K": max(int(samples.setting("thread_pool_size", "threads") or 64), 1),
        # The run itself shows how many can be in progress at once: fewer cores would contradict it.
        "C": max(cores, samples.in_broker, 1),
        "S": max(round(copies), 1),
        "rate": _rate(samples),
    }


def sequence_document(samples: RunSamples, delays: dict[str, Distribution]) -> dict[str, Any]:
    """One token through every step in order; the time inside systems between steps is a transition too."""
    names = list(delays)
    places = {"Start": "N"} | {f"After_{name}": 0 for name in names}
    before = list(places)
    return {
        "net": "steps_of_run",
        "unit": "ms",
        "about": f"steps of run {samples.folder.name}, fitted",
        "params": {"N": 1},
        "tokens": "N",
        "places": places,
        "transitions": {
            name: {"in": before[i], "out": before[i + 1], "delay": str(delays[name]), "server": "infinite"}
            for i, name in enumerate(names)
        },
        "measures": {"completed": {"first_passage": f"{before[-1]} == N"}},
        "latency": {"from": names[0], "to": before[-1]},
    }


def broker_document(samples: RunSamples, delays: dict[str, Distribution]) -> dict[str, Any]:
    """Messages at a rate through transit, a pool of threads, cores, the fan-out to subscribers and the way out.

    `execute` is the time to the first sending as measured, with what queueing the run's own load caused; the net adds
    the queueing that a smaller pool, fewer cores or a higher rate bring. A thread is held until its message's sendings
    are done. A subscriber's place in the order of sending is taken as even over the `S` subscribers, `gap` apart.
    """
    gap = float(np.mean(samples.gaps_ms)) if len(samples.gaps_ms) else 0.0
    spread = "uniform(0, max((S - 1) * gap, 0.000001))"
    timed = {"server": "infinite"}
    return {
        "net": "broker_of_run",
        "unit": "ms",
        "about": f"one broker, fitted on run {samples.folder.name}",
        # Enough messages for queues to settle.
        "params": {"N": 200, **run_settings(samples), "gap": float(f"{gap:.6g}")},
        "aliases": {
            "tokens": "N", "messages": "N", "threads": "K", "thread_pool_size": "K", "cores": "C", "cpus": "C",
            "subscribers": "S",
        },
        "tokens": "N",
        "places": {
            "To_Send": "N", "Publisher": 0, "Request_Queue": 0, "Active_Threads": 0, "Executing": 0, "Sending": 0,
            "On_the_Way": 0, "Subscriber": 0,
        },
        "transitions": {
            "arrive": {"in": "To_Send", "out": "Publisher", "delay": "deterministic(1000 / rate)", "server": "single"},
            "publish": {"in": "Publisher", "out": "Request_Queue", "delay": str(delays["publish"]), **timed},
            "assign": {
                "in": "Request_Queue", "out": "Active_Threads", "immediate": {},
                "guard": "Active_Threads + Executing + Sending < K",
            },
            "start": {"in": "Active_Threads", "out": "Executing", "inhibit": {"Executing": "C"}, "immediate": {}},
            "execute": {"in": "Executing", "out": "Sending", "delay": str(delays["broker"]), **timed},
            "fan_out": {"in": "Sending", "out": "On_the_Way", "delay": spread, **timed},
            "deliver": {"in": "On_the_Way", "out": "Subscriber", "delay": str(delays["deliver"]), **timed},
        },
        "measures": {"delivered": {"first_passage": "Subscriber == N"}},
        "latency": {"from": "publish", "to": "Subscriber"},
    }  # fmt: skip


def _rate(samples: RunSamples) -> float:
    """Messages a second, from the spacing of different sending instants."""
    sent = np.unique(samples.sent_ms)
    if len(sent) < 2:
        return 1.0
    span = float(sent[-1] - sent[0])
    if span <= 0:
        raise ModelError(f"{samples.folder}: all messages have the same sending instant")
    return float(f"{(len(sent) - 1) / span * 1000:.6g}")
