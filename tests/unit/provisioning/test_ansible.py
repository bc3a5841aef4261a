"""The runner with a program in Ansible's place: what it is given, how its lines are read, and that it ends with us."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import until
from toolkit.errors import DeployIncompleteError, ToolkitError
from toolkit.events import Event
from toolkit.provisioning import ansible
from toolkit.provisioning.ansible import Ansible


def line(kind: str, **values: Any) -> dict[str, Any]:
    return {"_event": kind, "_timestamp": "now", **values}


def result(kind: str, node: str, task: str = "node : Converge the node", **values: Any) -> dict[str, Any]:
    return line(f"v2_runner_on_{kind}", task={"id": task, "name": task}, hosts={node: values})


START = line("v2_playbook_on_play_start", play={"name": "x"}, tasks=[])


class Stage:
    """Prepares what the program in Ansible's place says and shows what it was given."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.given = folder / "given.json"
        self.inventory = folder / "inventory.json"
        self.events: list[Event] = []
        self.program = folder / "ansible-playbook"
        monkeypatch.setattr(ansible, "_program", lambda: str(self.program))

    def says(
        self, *lines: dict[str, Any] | str, nodes: tuple[str, ...] = ("a",), status: int = 0, then: str = ""
    ) -> None:
        self.inventory.write_text(json.dumps({"all": {"hosts": {key: {} for key in nodes}}}))
        words = [entry if isinstance(entry, str) else json.dumps(entry) for entry in lines]
        self.program.write_text(
            f"#!{sys.executable}\n"
            "import json, os, pathlib, sys, time\n"
            "files = [a[1:] for a in sys.argv if a.startswith('@')]\n"
            "secrets = [(oct(os.stat(f).st_mode & 0o777), open(f).read()) for f in files]\n"
            f"pathlib.Path({str(self.given)!r}).write_text(json.dumps("
            "{'argv': sys.argv, 'env': dict(os.environ), 'secrets': secrets}))\n"
            f"for words in {words!r}:\n    print(words, flush=True)\n"
            f"{then}\nsys.exit({status})\n"
        )
        self.program.chmod(0o755)

    def run(self, **values: Any) -> ansible.PlaybookRun:
        return Ansible(directory=self.folder).run("deploy.yml", self.inventory, self.events.append, **values)

    def was_given(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.given.read_text())
        return found


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(tmp_path, monkeypatch)


def stats(*nodes: str) -> dict[str, Any]:
    return line("v2_playbook_on_stats", stats={node: {} for node in nodes})


def test_an_outcome_for_every_node(stage: Stage) -> None:
    change = {"action": "create", "what": "toolkit-x-broker", "why": ""}
    stage.says(
        START,
        "[WARNING]: something to ignore",
        result("ok", "a", changed=True, changes=[change], notes=["no swap limit"], timings={"files": 0.1}),
        result("ok", "b", changed=False, changes=[]),
        result("failed", "c", msg="toolkit-x-broker is not healthy\n    fatal: port in use"),
        result("unreachable", "d", unreachable=True, msg="Connection refused"),
        result("skipped", "a", task="undo"),
        result("ok", "b", task="engine : Note", results=[{"noted": [{"kind": "group"}]}, {"noted": []}]),
        stats("a", "b", "c", "d"),
        nodes=("a", "b", "c", "d", "e"),
        status=2,
    )
    run = stage.run()
    assert {node: outcome.status for node, outcome in run.outcomes.items()} == {
        "a": "changed",
        "b": "ok",
        "c": "failed",
        "d": "unreachable",
        "e": "failed",
    }
    assert run.outcomes["a"].changes == (change,)
    assert run.outcomes["a"].notes == ("no swap limit",)
    assert run.outcomes["b"].noted == ({"kind": "group"},)
    assert run.failed["c"].endswith("fatal: port in use")
    assert run.failed["d"] == "cannot be reached: Connection refused"
    assert run.changed
    assert [(event.node, event.state, event.changed) for event in stage.events[:4]] == [
        ("a", "done", True),
        ("b", "done", False),
        ("c", "failed", False),
        ("d", "failed", False),
    ]
    assert stage.events[0].message == "Converge the node: create toolkit-x-broker"
    assert "something to ignore" in run.log.read_text()


@pytest.mark.parametrize(
    "said",
    [
        {"stdout": "Reading\r\ninstall python3 by hand\r\n", "stderr": "Shared connection to 10.0.0.9 closed.\r\n"},
        {"stdout": "Reading\n", "stderr": "install python3 by hand\n"},
        {"module_stderr": "Traceback\ninstall python3 by hand\n"},
    ],
    ids=["terminal", "pipe", "module"],
)
def test_a_shell_that_fails_is_heard(stage: Stage, said: dict[str, str]) -> None:
    stage.says(START, result("failed", "a", msg="non-zero return code", rc=1, **said), stats("a"), status=2)
    assert stage.run().failed == {"a": "Converge the node: install python3 by hand"}


def test_no_settings_of_the_user_leak_in(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANSIBLE_STDOUT_CALLBACK", "minimal")
    monkeypatch.setenv("ANSIBLE_STRATEGY", "debug")
    monkeypatch.setenv("PYTHONPATH", "/theirs")
    stage.says(START, stats("a", "b"), nodes=("a", "b"))
    stage.run(limit=("b",))
    given = stage.was_given()
    ours = {name: value for name, value in given["env"].items() if name.startswith("ANSIBLE_")}
    assert ours["ANSIBLE_STDOUT_CALLBACK"] == "ansible.posix.jsonl"
    assert ours["ANSIBLE_FORKS"] == "1"
    assert "ANSIBLE_STRATEGY" not in ours
    assert "PYTHONPATH" not in given["env"]
    arguments = given["argv"]
    assert arguments[arguments.index("--limit") + 1] == "b"


def test_secrets_go_through_a_file_that_is_gone(stage: Stage) -> None:
    values = {"a": {"toolkit-x-broker": {"PASSWORD": "tell-nobody"}}}
    stage.says(START, stats("a"))
    stage.run(secrets=values)
    given = stage.was_given()
    ((mode, text),) = given["secrets"]
    assert mode == "0o600"
    assert text == '{"toolkit_secrets": {"a": {"toolkit-x-broker": {"PASSWORD": !unsafe "tell-nobody"}}}}'
    (argument,) = [word for word in given["argv"] if word.startswith("@")]
    assert not Path(argument[1:]).exists()
    assert "tell-nobody" not in str(given["argv"]) + str(given["env"])


def test_the_file_of_secrets_goes_with_us_also_when_we_are_killed(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom toolkit.provisioning.ansible import _secret_file\n"
        "with _secret_file({'a': 'tell-nobody'}) as file:\n print(file, flush=True)\n sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        file = Path(process.stdout.readline().strip())
        assert "tell-nobody" in file.read_text()
        process.kill()
    until(lambda: not file.exists())


def test_secrets_are_no_templates_whatever_they_are_made_of(tmp_path: Path) -> None:
    """Asked of Ansible itself, on this machine."""
    odd = {
        "A": "{{ 7 * 7 }}{% x {# \"'\\ é \U0001f511\n\t",
        "B": "!vault |",
        "C": "",
        "D": "{{ lookup('pipe', 'id') }}",
    }
    play = {
        "hosts": "localhost",
        "gather_facts": False,
        "vars": {"ansible_python_interpreter": sys.executable},
        "tasks": [{"copy": {"dest": str(tmp_path / "out"), "content": "{{ told['x'] | default({}) | to_json }}"}}],
    }
    (tmp_path / "play.yml").write_text(json.dumps([play]))
    program = Path(sys.executable).with_name("ansible-playbook")
    with ansible._secret_file({"told": {"x": odd}}) as file:
        subprocess.run(
            [program, "-i", "localhost,", "-c", "local", "-e", f"@{file}", tmp_path / "play.yml"],
            check=True,
            capture_output=True,
            env={**os.environ, "ANSIBLE_HOME": str(tmp_path / "ansible"), "LC_ALL": "C.UTF-8"},
        )
    assert json.loads((tmp_path / "out").read_text()) == odd


def test_ansible_that_does_not_get_to_its_end(stage: Stage) -> None:
    stage.says("ERROR! the inventory is broken", status=4)
    with pytest.raises(
        DeployIncompleteError, match=r"did not get to its end: ERROR! the inventory is broken; log: .*jsonl"
    ):
        stage.run()


def test_an_interrupt_ends_the_process(stage: Stage) -> None:
    pid_file = stage.folder / "pid"
    stage.says(
        START,
        result("ok", "a"),
        then=f"open({str(pid_file)!r}, 'w').write(str(os.getpid()))\ntime.sleep(60)",
    )

    def interrupt(_: Event) -> None:
        while not pid_file.is_file() or not pid_file.read_text():
            pass
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Ansible(directory=stage.folder).run("deploy.yml", stage.inventory, interrupt)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)


def test_no_nodes_is_no_run(stage: Stage) -> None:
    stage.says(START)
    with pytest.raises(ToolkitError, match="was given no nodes"):
        stage.run(limit=())
    assert not stage.given.exists()


def test_what_was_started_ends_with_a_toolkit_that_is_killed() -> None:
    source = (
        "import os, time\n"
        "from toolkit.provisioning.ansible import _process\n"
        "with _process(['sleep', '60'], os.environ) as process:\n"
        "    print(process.pid, flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout is not None
        command = Path(f"/proc/{int(killed.stdout.readline())}/cmdline")
        until(lambda: command.read_bytes().startswith(b"sleep"), instead=command.read_bytes)  # no longer setpriv
        killed.kill()
    until(lambda: not (command.exists() and command.read_bytes()))  # empty: over, not yet reaped
