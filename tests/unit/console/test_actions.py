"""Actions: a process of their own, a journal that can be followed again, one at a time for each testbed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.waiting import until
from toolkit import state
from toolkit.console.actions import Action, Actions, Order, shown
from toolkit.console.catalogue import Catalogue
from toolkit.console.journal import read_events
from toolkit.errors import LockedError, UsageError
from toolkit.events import Event

FILE = "name: small\nnodes: {a: {kind: vm}}\nservices: {broker: {on: a, image: event-handler}}\n"


@pytest.fixture
def actions() -> Iterator[Actions]:
    made = Actions()
    yield made
    for child in made._children:
        child.kill()
        child.wait()


def until_over(actions: Actions, action: Action, within_s: float = 60.0) -> Action:
    until(
        lambda: actions.find(action.id).state != "running", within_s=within_s, instead=lambda: actions.find(action.id)
    )
    actions.latest()  # takes its process's exit
    return actions.find(action.id)


@pytest.fixture
def waiting(workspace: Path, tmp_path: Path) -> Path:
    """A testbed file that nobody has written yet: a deploy of it waits."""
    file = tmp_path / "small" / "testbed.yml"
    file.parent.mkdir()
    os.mkfifo(file)
    return file


def test_an_action_that_fails_says_how_and_is_over(workspace: Path, tmp_path: Path, actions: Actions) -> None:
    file = tmp_path / "testbed.yml"
    file.write_text("name: small\nnodes: {}\n")
    action = actions.start(Order(verb="deploy", testbed="small", file=str(file)))
    over = until_over(actions, action)
    assert over.state == "failed"
    assert over.outcome["exit_code"] == 3
    assert "testbed.yml" in over.outcome["message"]
    assert actions.running("small") is None
    assert [each.id for each in actions.latest("small")] == [action.id]
    assert actions.latest("other") == []


def test_one_action_at_a_time_and_another_console_sees_it(waiting: Path, actions: Actions) -> None:
    order = Order(verb="deploy", testbed="small", file=str(waiting))
    action = actions.start(order)
    elsewhere = Actions()
    assert elsewhere.find(action.id).state == "running"
    seen = elsewhere.running("small")
    assert seen is not None
    assert seen.id == action.id
    with pytest.raises(LockedError, match=action.id):
        elsewhere.start(order)
    assert elsewhere.running("other") is None
    actions.stop(action.id)
    over = until_over(actions, action)
    assert (over.state, over.outcome["exit_code"]) == ("interrupted", 130)


def test_an_action_whose_process_was_killed_is_lost_and_the_testbed_is_free(waiting: Path, actions: Actions) -> None:
    action = actions.start(Order(verb="deploy", testbed="small", file=str(waiting)))
    os.kill(action.process, signal.SIGKILL)
    assert until_over(actions, action).state == "lost"
    again = actions.start(Order(verb="deploy", testbed="small", file=str(waiting)))
    actions.stop(again.id)
    assert until_over(actions, again).state == "interrupted"


def test_the_command_lines_lock_counts_too(workspace: Path, tmp_path: Path, actions: Actions) -> None:
    (tmp_path / "testbed.yml").write_text(FILE)
    catalogue = Catalogue(tmp_path, (), actions)
    before = catalogue.entry("small").version
    with state.locked("small"):
        entry = catalogue.entry("small")
        assert entry.state == "locked"
        assert f"process {os.getpid()}" in entry.holder
        assert entry.version != before
        with pytest.raises(LockedError, match="busy"):
            actions.start(Order(verb="deploy", testbed="small", file="x"))
    assert catalogue.entry("small").state == "ready"


def test_looking_at_a_lock_does_not_take_it(workspace: Path) -> None:
    assert state.lock_holder("small") is None
    with state.locked("small"):
        assert state.lock_holder("small")
    assert state.lock_holder("small") is None


def test_a_journal_is_read_in_whole_lines(tmp_path: Path) -> None:
    journal = tmp_path / "events.jsonl"
    journal.write_bytes(b'{"a": 1}\n{"b"')
    lines, after = read_events(tmp_path, 0)
    assert [json.loads(line) for line in lines] == [{"a": 1}]
    assert read_events(tmp_path, after) == ([], after)
    with journal.open("ab") as more:
        more.write(b": 2}\n")
    assert read_events(tmp_path, after)[0] == ['{"b": 2}']


@pytest.mark.parametrize("name", ["../../x", "20260101T000000Z-deploy-none", "", "a/b"])
def test_only_actions_are_found(workspace: Path, actions: Actions, name: str) -> None:
    with pytest.raises(UsageError, match="no action"):
        actions.find(name)


STORY = """
import sys
from toolkit.cli import deploy, main
from toolkit.controller import deploy as story
from toolkit.events import Event
from toolkit.state import locked

def waits(asked, emit):
    with locked(asked.load().name):
        emit(Event(stage="acquire", message="1 node", state="started"))
        sys.stdin.readline()
        raise KeyboardInterrupt

story.deploy = waits
sys.argv = ["toolkit", "deploy", "testbed.yml"]
main.main()
"""


def test_a_deploy_on_the_command_line_is_followed_live_and_stopped_only_there(
    workspace: Path, tmp_path: Path, actions: Actions
) -> None:
    (tmp_path / "testbed.yml").write_text(FILE)
    catalogue = Catalogue(tmp_path, (), actions)
    before = catalogue.entry("small").version
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", STORY], cwd=tmp_path, text=True, stdin=pipe, stderr=pipe)
    assert process.stderr
    assert "acquire" in process.stderr.readline()
    action = actions.running("small")
    assert action is not None
    assert (action.state, action.process, action.title) == ("running", process.pid, "deploy small")
    (event,) = map(json.loads, read_events(action.folder, 0)[0])
    assert (event["stage"], event["message"], event["state"]) == ("acquire", "1 node", "started")
    assert (catalogue.entry("small").state, catalogue.entry("small").version != before) == ("busy", True)
    with pytest.raises(LockedError, match=action.id):
        actions.start(Order(verb="deploy", testbed="small", file="x"))
    with pytest.raises(LockedError, match=f"process {process.pid}; press Ctrl-C there"):
        actions.stop(action.id)
    process.communicate("\n", timeout=30)
    assert process.returncode == 130
    over = actions.find(action.id)
    assert (over.state, over.outcome["exit_code"]) == ("interrupted", 130)
    assert catalogue.entry("small").state == "ready"


def test_a_story_of_this_process_is_written_down_however_it_ends(workspace: Path, actions: Actions) -> None:
    order = Order(verb="teardown", testbed="small", by="command line")
    with shown(order) as journal:
        journal.emit(Event(stage="teardown", message="all gone"))
        journal.outcome |= {"message": "testbed small is gone"}
        with shown(order) as inner:  # taken: plays unseen
            inner.emit(Event(stage="teardown", message="nobody reads this"))
    journal.emit(Event(stage="teardown", message="too late"))
    (action,) = actions.latest()
    assert (action.state, action.outcome["message"]) == ("done", "testbed small is gone")
    assert len(read_events(action.folder, 0)[0]) == 1
    with pytest.raises(UsageError), shown(order):
        raise UsageError("no such thing")
    with pytest.raises(ZeroDivisionError), shown(order):
        print(1 / 0)
    bug, refused, _ = actions.latest()
    assert (refused.state, refused.outcome["exit_code"], refused.outcome["message"]) == ("failed", 2, "no such thing")
    assert "ZeroDivisionError" in bug.outcome["message"]
    assert "print(1 / 0)" in (bug.folder / "log").read_text()
    assert actions.running("small") is None


def test_what_is_no_name_of_a_testbed_is_not_written_down(workspace: Path) -> None:
    with shown(Order(verb="teardown", testbed="../else", by="command line")) as journal:
        journal.emit(Event(stage="teardown", message="nothing"))
    assert not workspace.exists()
