"""What a workload does on purpose to services of its testbed while messages flow: restart, stop, pause."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from toolkit.controller.control import Control
from toolkit.errors import ToolkitError
from toolkit.events import Emit, Event
from toolkit.spec.testbed import Testbed
from toolkit.spec.workload import Disturbance, Workload

_END_WITHIN_S = 2


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Act:
    """One thing to do to one container."""

    at_s: float
    node: str
    command: tuple[str, ...]
    """Arguments of `docker`."""


def acts_of(testbed: Testbed, workload: Workload) -> list[Act]:
    """Everything there is to do, in the order of its instants."""
    acts: list[Act] = []
    for each in workload.disturb:
        for service in testbed.services:
            if service.name != each.service:
                continue
            for node in (each.node,) if each.node else service.nodes:
                for instance in range(service.replicas):
                    suffix = f"-{instance}" if service.replicas > 1 else ""
                    acts += _acts(each, node, f"toolkit-{testbed.name}-{service.name}{suffix}")
    return sorted(acts)


def _acts(each: Disturbance, node: str, container: str) -> Iterable[Act]:
    within = ("-t", str(_END_WITHIN_S))
    if each.action == "restart":
        return [Act(at_s=each.at_s, node=node, command=("restart", *within, container))]
    begin = ("pause", container) if each.action == "pause" else ("stop", *within, container)
    end = ("unpause", container) if each.action == "pause" else ("start", container)
    return [
        Act(at_s=each.at_s, node=node, command=begin),
        Act(at_s=each.at_s + each.lasts_s, node=node, command=end),
    ]


class Disturber:
    """Does each act when it is due, beside the watching, which a paused process holds up; `done` says when it was."""

    def __init__(self, acts: Iterable[Act], control: Control, emit: Emit) -> None:
        self._acts = list(acts)
        self._control = control
        self._emit = emit
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []
        self.done: list[dict[str, Any]] = []
        self.problems: list[str] = []

    def begin(self, start_s: float) -> None:
        """Acts are due so long after `start_s` (monotonic); those on one node keep their order."""
        for node in dict.fromkeys(act.node for act in self._acts):
            mine = [act for act in self._acts if act.node == node]
            thread = threading.Thread(target=self._do_all, args=(mine, start_s), name="disturb", daemon=True)
            self._threads.append(thread)
            thread.start()

    def finish(self) -> None:
        """Begin nothing more, do what ends a disturbance that has begun, whatever the instant; wait for all of it."""
        self._over.set()
        for thread in self._threads:
            thread.join(30)

    def _do_all(self, acts: Iterable[Act], start_s: float) -> None:
        begun: set[str] = set()
        for act in acts:
            over = self._over.wait(max(start_s + act.at_s - time.monotonic(), 0))
            if over and not (act.command[0] in {"unpause", "start"} and act.command[-1] in begun):
                continue
            if self._do(act):
                begun.add(act.command[-1])

    def _do(self, act: Act) -> bool:
        """Whether it could be done."""
        began_ns = time.time_ns()
        try:
            self._control.act(act.node, act.command)
        except ToolkitError as error:
            self.problems.append(f"{' '.join(act.command)} on {act.node} failed: {error}")
            return False
        self.done.append(
            {
                "at_ns": began_ns, "took_s": (time.time_ns() - began_ns) / 1e9, "node": act.node,
                "action": act.command[0], "container": act.command[-1],
            }
        )  # fmt: skip
        self._emit(Event(stage="run", node=act.node, message=f"{act.command[0]} {act.command[-1]}"))
        return True
