"""What the command line plays is journalled, so that consoles show it; the stories themselves are stand-ins."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import typer

from toolkit.cli import deploy, run, teardown
from toolkit.console.actions import Action, Actions
from toolkit.controller import deploy as deploy_story
from toolkit.controller import run as run_story
from toolkit.controller import teardown as teardown_story
from toolkit.controller.experiment import Outcome
from toolkit.errors import WorkloadError
from toolkit.events import Emit, Event
from toolkit.measure.store import RunFolder
from toolkit.state import Deployment, load_deployment, save_deployment

FILE = """\
name: small
nodes: {a: {kind: vm}}
services:
  broker: {on: a, image: event-handler}
  publisher: {on: a}
  subscriber: {on: a}
workloads: {hello: {messages: 10}}
"""


@pytest.fixture
def small(workspace: Path, tmp_path: Path) -> Deployment:
    file = tmp_path / "testbed.yml"
    file.write_text(FILE)
    return save_deployment(Deployment(name="small", file=str(file), stage="deployed", deployed_at=time.time()))


def only_action() -> Action:
    (action,) = Actions().latest()
    assert action.order.by == "command line"
    assert (action.folder / "events.jsonl").read_text().count("\n") == 1
    return action


@pytest.mark.parametrize("verb", ["deploy", "redeploy"])
def test_deploy_and_redeploy(small: Deployment, monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    def story(_: Any, emit: Emit) -> deploy_story.Outcome:
        emit(Event(stage="gate", message="healthy", state="done"))
        return deploy_story.Outcome(deployment=small, changed=True, seconds=1.5)

    monkeypatch.setattr(deploy_story, verb, story)
    getattr(deploy, verb)("testbed.yml")
    action = only_action()
    assert (action.title, action.state) == (f"{verb} small", "done")
    assert action.outcome["message"] == "testbed small is up: 0 nodes, 1.5 s"


def test_teardown_of_what_is_there(
    small: Deployment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def story(name: str, *, emit: Emit) -> teardown_story.Removal:
        emit(Event(stage="teardown", message=name, state="done"))
        return teardown_story.Removal(seconds=0.5)

    monkeypatch.setattr(teardown_story, "teardown", story)
    teardown.teardown("unknown")
    assert Actions().latest() == []
    teardown.teardown("small")
    assert load_deployment("small") == small
    assert only_action().outcome["message"] == "nothing to do: looked, and nothing of a testbed small is there, 0.5 s"
    assert only_action().outcome["message"] in capsys.readouterr().out


def test_run(small: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    def story(*_: Any, emit: Emit, **__: Any) -> Outcome:
        emit(Event(stage="run", message="10 messages", state="done"))
        return Outcome(runs=[RunFolder(Path("20260101-r"))])

    monkeypatch.setattr(run_story, "play_experiment", story)
    monkeypatch.setattr(run, "_print", lambda *_, **__: None)
    run.run(["hello"], testbed="small")
    action = only_action()
    assert action.title == "run hello on small"
    assert (action.outcome["message"], action.outcome["runs"]) == ("1 run measured and saved", ["20260101-r"])


def test_a_run_that_misses_an_assertion_is_shown_all_the_same(
    small: Deployment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def story(*_: Any, emit: Emit, **__: Any) -> Outcome:
        emit(Event(stage="run", message="10 messages", state="done"))
        return Outcome(runs=[RunFolder(Path("20260101-r"))], broken=["20260101-r: p99 is 9 ms, not below 5 ms"])

    printed: list[Outcome] = []
    monkeypatch.setattr(run_story, "play_experiment", story)
    monkeypatch.setattr(run, "_print", lambda outcome, **_: printed.append(outcome))
    monkeypatch.setattr(run, "_document", lambda outcomes: {"runs": [r.name for o in outcomes for r in o.runs]})
    with pytest.raises(typer.Exit) as ended:
        run.run(["hello"], testbed="small", json_output=True)
    assert ended.value.exit_code == WorkloadError.exit_code
    told = capsys.readouterr()
    assert len(printed) == 1
    assert json.loads(told.out) == {"runs": ["20260101-r"]}
    assert told.err == "assertions do not hold:\n20260101-r: p99 is 9 ms, not below 5 ms\n"
    assert (only_action().state, only_action().outcome["exit_code"]) == ("failed", WorkloadError.exit_code)
