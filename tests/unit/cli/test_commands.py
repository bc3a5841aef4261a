"""Every command is documented and helps with an example; exit codes are the documented ones."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.models import TyperInfo

from toolkit import errors
from toolkit.cli.main import COMMANDS, application
from toolkit.errors import EXIT_CODES, ToolkitError

ROOT = Path(__file__).resolve().parents[3]
COMMANDS_DOC = (ROOT / "docs/commands.md").read_text()


APPLICATION = application()


def commands(of: typer.Typer = APPLICATION, prefix: str = "") -> Iterator[tuple[str, str]]:
    """(name, help) of every command a person can see."""
    for command in of.registered_commands:
        if not command.hidden and command.callback is not None:
            yield f"{prefix}{command.name}", command.callback.__doc__ or ""
    for group in of.registered_groups:
        assert group.typer_instance is not None
        yield from commands(group.typer_instance, f"{prefix}{group.name} ")


@pytest.mark.parametrize(("name", "text"), list(commands()), ids=[name for name, _ in commands()])
def test_every_command_has_an_example_and_is_documented(name: str, text: str) -> None:
    assert "Example: " in text
    assert f"toolkit {name.split(maxsplit=1)[0]}" in COMMANDS_DOC
    assert all(word in COMMANDS_DOC for word in name.split())


@pytest.mark.parametrize("group", APPLICATION.registered_groups, ids=lambda group: group.name)
def test_every_group_has_an_example(group: TyperInfo) -> None:
    assert group.typer_instance is not None
    assert f"Example: toolkit {group.name} " in (group.typer_instance.info.help or "")


@pytest.mark.parametrize("module", COMMANDS)
def test_a_command_starts_with_no_module_but_its_own(module: str) -> None:
    app = application(COMMANDS[module][0])
    found = {command.name for command in app.registered_commands} | {group.name for group in app.registered_groups}
    assert found == {*COMMANDS[module], "version"}


def test_every_error_has_an_exit_code_of_the_contract() -> None:
    found = {
        kind.__name__: kind.exit_code
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, ToolkitError)
    }
    assert set(found.values()) <= set(EXIT_CODES)
    assert found["LockedError"] == 9
    for code, meaning in EXIT_CODES.items():
        assert f"| {code} | {meaning} |" in COMMANDS_DOC


def toolkit(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "toolkit", *arguments], capture_output=True, text=True, check=False, cwd=folder
    )


def test_wrong_use_is_2_and_an_invalid_file_3_and_nothing_to_do_0(tmp_path: Path, workspace: Path) -> None:
    assert toolkit(tmp_path, "deploi").returncode == 2
    assert toolkit(tmp_path, "status").returncode == 2
    assert toolkit(tmp_path, "validate", "none.yml").returncode == 3
    assert toolkit(tmp_path, "teardown", "--all").returncode == 0
    made = toolkit(tmp_path, "init")
    assert made.returncode == 0, made.stderr
    assert toolkit(tmp_path, "init").returncode == 2
    valid = toolkit(tmp_path, "validate")
    assert valid.returncode == 0, valid.stderr
    assert "testbed lab, 5 nodes, 5 services" in valid.stdout
    resolved = toolkit(tmp_path, "validate", "--resolved", "--provider", "container")
    (tmp_path / "whole.yml").write_text(resolved.stdout)
    assert "max_offset" in resolved.stdout
    assert "testbed lab, 5 nodes, 5 services" in toolkit(tmp_path, "validate", "whole.yml").stdout


def test_a_file_of_experiments_is_checked_with_the_testbed_it_names(tmp_path: Path) -> None:
    toolkit(tmp_path, "init")
    sweep = tmp_path / "sweep.yml"
    sweep.write_text("testbed: testbed.yml\nexperiments: {e: {workload: hello, vary: {qos: [0, 1]}}}\n")
    valid = toolkit(tmp_path, "validate", "sweep.yml")
    assert valid.stdout.startswith("sweep.yml: valid: testbed lab, 5 nodes"), valid.stderr
    sweep.write_text("testbed: testbed.yml\nexperiments: {e: {workload: hello, vary: {qos: [3]}}}\n")
    wrong = toolkit(tmp_path, "validate", "sweep.yml")
    assert (wrong.returncode, wrong.stderr.split(" ")[0]) == (3, f"{sweep.name}:2:49:"), wrong.stderr
    sweep.write_text("experiments: {e: {workload: hello}}\n")
    assert "or `testbed: FILE` if these experiments are for a testbed of another file" in (
        toolkit(tmp_path, "validate", "sweep.yml").stderr
    )


def test_images_needed_are_those_of_the_nodes_and_of_this_machine(tmp_path: Path) -> None:
    toolkit(tmp_path, "init")
    needed = json.loads(toolkit(tmp_path, "images", "needed", "--json").stdout)
    assert needed["this machine"] == "node registry"
    assert [node for node, images in needed.items() if "grafana/grafana:11.6.0" in images] == ["base"]
    assert all("node-exporter" in images for node, images in needed.items() if node != "this machine")


def test_a_bug_ends_with_1_and_a_traceback_in_a_file(
    tmp_path: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from toolkit.cli import main

    def broken(_: str) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr(main, "application", broken)
    assert main._exit_code() == 1
    said = capsys.readouterr().err
    assert "RuntimeError: boom" in said
    log = Path(said.rpartition(" in ")[2].strip())
    assert "Traceback" in log.read_text()


def test_an_interrupt_is_130(monkeypatch: pytest.MonkeyPatch) -> None:
    from toolkit.cli import main

    def interrupted(_: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(main, "application", interrupted)
    assert main._exit_code() == 130


def python(program: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("closed", [1, 2])
def test_a_stream_may_be_closed(closed: int) -> None:
    program = (
        f"import os, sys; os.close({closed}); os.execv(sys.executable, [sys.executable, '-m', 'toolkit', 'version'])"
    )
    ended = python(program, ROOT)
    assert (ended.returncode, ended.stderr) == (0, "")


AT_ITS_END = """
import os, signal, sys, threading
from toolkit.cli import main

class AtItsEnd:
    def __del__(self):
        os.kill(os.getpid(), signal.{signal})
        threading.Event().wait(0.1)  # in which the signal is taken

main.at_its_end = AtItsEnd()
sys.argv = ["toolkit", *{words}]
main.main()
"""


@pytest.mark.parametrize("late", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.parametrize(("words", "code"), [(["version"], 0), (["validate", "nowhere.yml"], 3)])
def test_a_signal_to_a_command_that_is_over_makes_no_other_code_of_it(
    tmp_path: Path, late: str, words: list[str], code: int
) -> None:
    program = AT_ITS_END.format(signal=late, words=words)
    ended = python(program, tmp_path)
    assert (ended.returncode, "Traceback" in ended.stderr) == (code, False), ended
    assert ended.stdout or ended.stderr


@pytest.mark.parametrize("second", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_second_interrupt_while_the_first_is_told_of_is_130(tmp_path: Path, second: str) -> None:
    program = f"""
import os, signal
from toolkit.cli import main

def again(words, **_):
    os.kill(os.getpid(), signal.{second})

def interrupted(_):
    raise KeyboardInterrupt

main.application, main.typer.echo = interrupted, again
main.main()
"""
    ended = python(program, tmp_path)
    assert (ended.returncode, ended.stderr) == (130, "")
