"""Disturbances become commands to containers, done when they are due and always brought to their end."""

from __future__ import annotations

import time
from pathlib import Path

from tests.waiting import until
from toolkit.controller.disturb import Act, Disturber, acts_of
from toolkit.errors import UnreachableError
from toolkit.spec.testbed import Image, Service, Testbed
from toolkit.spec.workload import Disturbance, Workload


def lab() -> Testbed:
    broker = Service(name="broker", role="broker", image=Image(name="mosquitto"), nodes=("b-1", "b-2"))
    hub = Service(name="hub", role="hub", image=Image(name="hub"), nodes=("h",), replicas=2)
    return Testbed(name="lab", file=Path("lab.yml"), nodes=(), services=(broker, hub))


class Control:
    def __init__(self, failing: str = "") -> None:
        self.asked: list[tuple[str, tuple[str, ...]]] = []
        self.failing = failing

    def act(self, node: str, command: tuple[str, ...]) -> None:
        if node == self.failing:
            raise UnreachableError(f"node {node} does not answer")
        self.asked.append((node, command))


def test_every_container_of_a_service_is_meant():
    workload = Workload(
        name="w",
        disturb=(
            Disturbance(at_s=2.0, action="stop", service="broker", lasts_s=3.0),
            Disturbance(at_s=1.0, action="restart", service="hub"),
            Disturbance(at_s=9.0, action="restart", service="broker", node="b-2"),
        ),
    )
    assert [(act.at_s, act.node, act.command[0], act.command[-1]) for act in acts_of(lab(), workload)] == [
        (1.0, "h", "restart", "toolkit-lab-hub-0"),
        (1.0, "h", "restart", "toolkit-lab-hub-1"),
        (2.0, "b-1", "stop", "toolkit-lab-broker"),
        (2.0, "b-2", "stop", "toolkit-lab-broker"),
        (5.0, "b-1", "start", "toolkit-lab-broker"),
        (5.0, "b-2", "start", "toolkit-lab-broker"),
        (9.0, "b-2", "restart", "toolkit-lab-broker"),
    ]


def test_what_was_begun_is_ended_even_if_the_run_is_over():
    control = Control()
    acts = [
        Act(at_s=1.0, node="a", command=("pause", "x")),
        Act(at_s=900.0, node="a", command=("unpause", "x")),
        Act(at_s=900.0, node="b", command=("pause", "y")),
        Act(at_s=901.0, node="b", command=("unpause", "y")),
    ]
    disturber = Disturber(acts, control, lambda _: None)  # type: ignore[arg-type]
    disturber.begin(time.monotonic() - 1.0)
    until(lambda: bool(disturber.done))
    assert control.asked == [("a", ("pause", "x"))]
    disturber.finish()
    assert control.asked == [("a", ("pause", "x")), ("a", ("unpause", "x"))]
    assert [done["action"] for done in disturber.done] == ["pause", "unpause"]
    assert disturber.problems == []


def test_an_end_does_not_wait_for_anybody_to_look():
    control = Control()
    acts = [Act(at_s=0.0, node="a", command=("pause", "x")), Act(at_s=0.2, node="a", command=("unpause", "x"))]
    disturber = Disturber(acts, control, lambda _: None)  # type: ignore[arg-type]
    disturber.begin(time.monotonic())
    until(lambda: len(disturber.done) == 2)
    assert disturber.done[1]["at_ns"] - disturber.done[0]["at_ns"] >= 0.1e9
    disturber.finish()


def test_what_cannot_be_done_is_told_and_not_ended():
    acts = [Act(at_s=0.0, node="a", command=("pause", "x")), Act(at_s=900.0, node="a", command=("unpause", "x"))]
    disturber = Disturber(acts, Control(failing="a"), lambda _: None)  # type: ignore[arg-type]
    disturber.begin(time.monotonic())
    until(lambda: bool(disturber.problems))
    disturber.finish()
    assert disturber.problems == ["pause x on a failed: node a does not answer"]
