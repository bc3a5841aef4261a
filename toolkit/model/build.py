"""Nets that a run makes by itself: a broker's from settings, cables and fitted hops, a sequence from recorded steps."""

from __future__ import annotations

from typing import Any

import numpy as np

from toolkit.model.broker import broker_document, kind_suffixes
from toolkit.model.classes import message_classes
from toolkit.model.delays import delay_of
from toolkit.model.distributions import FloatArray
from toolkit.model.samples import HOPS, RunSamples

_STEP_CLASSES = 3


def net_from_run(samples: RunSamples, *, subscribers: int = 0, at_a_rate: bool = False) -> dict[str, Any]:
    """A net document (see docs/models.md) for the latency of one message or request, with what-if parameters.

    `subscribers`: the most that the net will be asked for, where that is not what the run had. `at_a_rate`: messages
    come at a rate also where those of the run waited for each other.
    """
    if samples.messages:
        return broker_document(samples, subscribers or samples.subscribers, at_a_rate=at_a_rate)
    delays = samples.steps or (samples.hops if len(samples.hops) == len(HOPS) else {"end_to_end": samples.end_to_end})
    return sequence_document(samples, delays)


def sequence_document(samples: RunSamples, delays: dict[str, FloatArray]) -> dict[str, Any]:
    """One token through every step in order, each kind of request on its own way."""
    kinds = message_classes(np.stack(list(delays.values()), axis=1), most=_STEP_CLASSES)
    places: dict[str, Any] = {"Start": "N"}
    transitions: dict[str, Any] = {}
    shares = np.bincount(kinds) / len(kinds)
    for kind, (suffix, share) in enumerate(zip(kind_suffixes(kinds), shares, strict=True)):
        before = "Start"
        if suffix:
            before = f"Start{suffix}"
            places[before] = 0
            transitions[f"kind{suffix}"] = {
                "in": "Start", "out": before, "immediate": {"weight": float(f"{share:.6g}")},
            }  # fmt: skip
        for i, (name, values) in enumerate(delays.items()):
            after = f"After_{name}{suffix}" if i < len(delays) - 1 else "Done"
            places.setdefault(after, 0)
            delay = str(delay_of(name, values[kinds == kind]))
            transitions[f"{name}{suffix}"] = {"in": before, "out": after, "delay": delay, "server": "infinite"}
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
