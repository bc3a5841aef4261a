"""What people type wrong: the answer says what, where and what to try, on few lines, and never with a traceback."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

import pytest

from tests.unit.report.test_report import make_run
from toolkit.cli import main
from toolkit.cli.files import _EXAMPLE
from toolkit.cli.main import application
from toolkit.controller import doctor
from toolkit.errors import UnreachableError
from toolkit.ssh import Completed
from toolkit.state import Deployment, Host, SshAccess, load_deployment, locked, save_deployment

from tests.unit.cli.test_commands import commands  # isort: skip

WIDTH = 80


@pytest.fixture
def here(workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in; `lab.yml` is valid, `folder` has none, `rack` has one, nothing is deployed."""
    folder = tmp_path / "here"
    (folder / "folder").mkdir(parents=True)
    (folder / "rack").mkdir()
    (folder / "lab.yml").write_text(_EXAMPLE.format(name="lab"))
    (folder / "rack" / "testbed.yml").write_text(_EXAMPLE.format(name="rack"))
    (folder / "broken.yml").write_text("name: [")
    (folder / "binary.yml").write_bytes(bytes(range(128, 255)))
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    for name in ("TOOLKIT_TESTBED", "DOCKER_HOST"):
        monkeypatch.delenv(name, raising=False)
    return folder


class Shell:
    """Runs the command line as a person would, in this process."""

    def __init__(self, patch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]) -> None:
        self._patch = patch
        self._capture = capture

    def __call__(self, line: str) -> tuple[int, str]:
        self._capture.readouterr()
        self._patch.setattr(sys, "argv", ["toolkit", *line.split()])
        code = main._exit_code()
        told = self._capture.readouterr()
        assert "Traceback" not in told.out + told.err
        return code, told.out + told.err


def held(node: str) -> Host:
    """A machine of that name."""
    access = SshAccess(address="10.0.0.9", known_hosts="/dev/null")
    return Host(node=node, provider="container", type="container", address="10.0.0.9", ssh=access, architecture="amd64")


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(monkeypatch, capsys)


def test_what_doctor_misses_is_one_document_and_an_exit_code(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lack = doctor.Finding(where="this machine", what="ssh", well=False, found="not found")
    monkeypatch.setattr(doctor, "check_machine", lambda: [lack])
    monkeypatch.setattr(sys, "argv", ["toolkit", "doctor", "--local", "--json"])
    assert main._exit_code() == 4
    told = capsys.readouterr()
    assert json.loads(told.out) == [dataclasses.asdict(lack)]
    assert told.err == "1 of 1 things are not as they should be\n"


@pytest.mark.parametrize("command", ["build", "list"])
def test_an_architecture_that_no_node_has_is_told_with_the_nearest(here: Path, shell: Shell, command: str) -> None:
    assert shell(f"images {command} --architecture armv6") == (
        2,
        "there are no images for architecture 'armv6'; did you mean 'arm/v6'?\n",
    )


MISTAKES = [
    ("deploy none.yml", 3, "none.yml:1:1: cannot be read"),
    ("deploy", 2, "try: toolkit init, then toolkit deploy testbed.yml"),
    ("deploy folder", 2, "there is no testbed.yml in the folder folder; try: toolkit init folder/testbed.yml"),
    ("deploy broken.yml", 3, "broken.yml:1:8: not YAML"),
    ("deploy binary.yml", 3, "is not UTF-8 text"),
    ("deploy lab.yml --set a", 2, "write KEY=VALUE"),
    ("deploy lab.yml --provider containr", 2, "did you mean 'container'?"),
    ("deploy lab.yml --scale 7", 2, "not in the range 0.001<=x<=1.0; try: toolkit deploy --help"),
    ("deploy lab.yml --scal 1", 2, "--scale); try: toolkit deploy --help"),
    ("teardown lab --yes", 2, "No such option: --yes; no command asks back; type: toolkit teardown lab"),
    ("teardown -f", 2, "No such option: -f; no command asks back; type: toolkit teardown"),
    ("deploy -f lab.yml --dry-run", 2, "it is named without an option; type: toolkit deploy lab.yml --dry-run"),
    ("plan --file=lab.yml", 2, "it is named without an option; type: toolkit plan lab.yml"),
    ("run hello -f lab.yml", 2, "No such option: -f; type: toolkit run hello --testbed lab.yml"),
    ("--version", 2, "No such option: --version; type: toolkit version"),
    ("status -h", 2, "No such option: -h; type: toolkit status --help"),
    ("results list --colour", 2, "No such option: --colour; try: toolkit results list --help"),
    ("deploi lab.yml", 2, "Did you mean 'deploy'"),
    ("plan --set", 2, "requires an argument; try: toolkit plan --help"),
    ("status nosuch", 2, "testbed nosuch is not deployed here; nothing is; try: toolkit deploy FILE"),
    ("status lab.yml", 2, "testbed lab is not deployed here; nothing is; try: toolkit deploy lab.yml"),
    ("status rack", 2, "testbed rack is not deployed here; nothing is; try: toolkit deploy rack/testbed.yml"),
    ("status gone.yml", 2, "there is no file gone.yml; nothing is deployed here"),
    ("redeploy nosuch", 2, "not deployed here"),
    ("doctor nosuch", 2, "not deployed here"),
    ("doctor gone.yml", 2, "there is no file gone.yml"),
    ("teardown gone.yml", 2, "there is no file gone.yml; nothing is deployed here"),
    ("run hello -t nosuch", 2, "not deployed here"),
    ("run lab.yml hello", 2, "testbed lab is not deployed here; nothing is; try: toolkit deploy lab.yml"),
    ("run lab.yml rack/testbed.yml", 2, "one testbed at a time, not lab.yml, rack/testbed.yml"),
    ("run none.yml", 2, "there is no file none.yml"),
    ("run binary.yml", 3, "is not UTF-8 text"),
    ("run broken.yml hello", 3, "broken.yml:1:8: not YAML"),
    ("run -t lab.yml --repeat 0", 2, "'--repeat': 0 is not in the range x>=1"),
    ("logs --lines -5", 2, "'--lines': -5 is not in the range x>=1"),
    ("verify --gate clok", 2, "did you mean 'clock'?"),
    ("results show", 2, "there are no runs yet; try: toolkit run"),
    ("results show nosuch -t lab", 2, "there are no runs of testbed lab yet"),
    ("results list", 0, "no runs yet; try: toolkit run"),
    ("results list -t nosuch", 0, "no runs of testbed nosuch yet"),
    ("results list -t lab.yml", 0, "no runs of testbed lab yet"),
    ("results list -t rack", 0, "no runs of testbed rack yet"),
    ("results list -t gone.yml", 2, "there is no file gone.yml"),
    ("results list --status running", 0, "no runs are so"),
    ("results list --workload x", 0, "no runs are so"),
    ("results list --since yesterday", 2, "write a day, such as 2026-11-22"),
    ("results list --status compleet", 2, "is not one of 'running', 'complete', 'interrupted', 'failed'"),
    ("results prune -t lab --keep -3", 2, "'--keep': -3 is not in the range x>=0"),
    ("results prune -t lab --keep 1", 0, "nothing to do: testbed lab has no more than 1 run"),
    ("results export --to x.zip", 2, "x.zip does not end in .tar.gz"),
    ("report nosuch", 2, "there are no runs yet"),
    ("compare a b", 2, "there are no runs yet"),
    ("graph none.yml", 3, "cannot be read"),
    ("graph lab.yml --format png", 2, "not one of 'mermaid', 'dot'; try: toolkit graph --help"),
    ("console --port 99999", 2, "99999 is not in the range 0<=x<=65535"),
    ("console none.yml", 2, "'none.yml' does not exist"),
    ("console --host 203.0.113.1 --port 0", 2, "203.0.113.1: Cannot assign requested address; try another --host"),
    ("dashboards export --to lab.yml", 2, "lab.yml: File exists"),
    ("dashboards export --to lab.yml/x", 2, "lab.yml/x: Not a directory"),
    ("init lab.yml", 2, "choose another name"),
    ("init new.yml --name Lab", 2, "--name Lab: expected small letters"),
    ("validate broken.yml lab.yml binary.yml", 3, "binary.yml:1:1: is not UTF-8 text"),
    ("redeploy none.yml --dry-run", 3, "none.yml:1:1: cannot be read"),
    ("teardown --all --forget a", 2, "--forget takes nodes of one testbed"),
    ("teardown lab --forget a", 2, "testbed lab holds no machine for node 'a'"),
    ("graph lab.yml --json", 0, '"after": "broker"'),
    ("init nowhere/lab.yml", 2, "nowhere/lab.yml: No such file or directory"),
    ("validate folder", 3, "Is a directory"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "code", "words"), MISTAKES, ids=[line for line, _, _ in MISTAKES])
def test_a_mistake_is_answered_with_what_to_try(here: Path, shell: Shell, line: str, code: int, words: str) -> None:
    got, told = shell(line)
    assert words in told
    assert got == code
    assert told.count("\n") <= 3
    assert "internal error" not in told


def test_wrong_use_is_a_document_too_where_one_was_asked_for(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for line in ("status --nope --json", "statos --json", "validate none.yml --json", "results show --json"):
        monkeypatch.setattr(sys, "argv", ["toolkit", *line.split()])
        code = main._exit_code()
        told = capsys.readouterr()
        assert json.loads(told.out)["exit_code"] == code > 1
        assert json.loads(told.out)["error"] == told.err.rstrip("\n")


def test_a_group_without_its_command_answers_with_its_help(here: Path, shell: Shell) -> None:
    code, told = shell("results")
    assert code == 2
    assert told.rstrip().endswith("Delete all but the newest runs of a testbed.")


@pytest.mark.parametrize(
    ("host", "words"),
    [
        (
            "unix:///nosuch.sock",
            'no Docker engine runs at unix:///nosuch.sock (No such file or directory); "make setup"',
        ),
        ("tcp://127.0.0.1:1", "the Docker engine at tcp://127.0.0.1:1 does not answer (Connection refused); try"),
    ],
)
def test_an_engine_that_is_not_there_is_named(
    here: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch, host: str, words: str
) -> None:
    from toolkit import engine

    monkeypatch.setenv("DOCKER_HOST", host)
    engine.connect.cache_clear()
    for line, code in (("deploy lab.yml --quiet", 4), ("teardown lab", 4), ("doctor --local", 4)):
        got, told = shell(line)
        assert words in told, line
        assert got == code
    engine.connect.cache_clear()


def test_a_name_that_is_nearly_one_that_is_deployed(here: Path, shell: Shell) -> None:
    save_deployment(Deployment(name="lab", file=str(here / "lab.yml"), stage="deployed"))
    assert "testbed lob is not deployed here; did you mean 'lab'?" in shell("status lob")[1]
    assert "there is no file gone.yml; name the testbed itself: lab" in shell("teardown gone.yml")[1]
    (here / "lab").mkdir()
    assert "no testbed.yml" not in shell("graph lab")[1], "a deployed name comes before a folder of that name"


def test_a_run_that_is_not_there_names_those_that_are(here: Path, shell: Shell, workspace: Path) -> None:
    make_run(workspace / "lab" / "runs" / "20260101T000001Z-slow")
    assert "there is no run 'x'; there are: 20260101T000001Z-slow" in shell("results show x")[1]
    (here / "empty").mkdir()
    for line in ("model fit missing.csv", "report runs/missing", "results verify missing.csv"):
        *_, name = line.split()
        assert shell(line) == (2, f"there is no file or folder {name}; runs: toolkit results list\n")
    assert "./empty is no folder of a run: it holds no manifest.json" in shell("results show ./empty")[1]
    code, told = shell("report latest --to lab.yml/report.html")
    assert code == 2
    assert "lab.yml: File exists" in told


def test_a_run_that_nobody_plays_any_more_is_interrupted(here: Path, shell: Shell, workspace: Path) -> None:
    run = make_run(workspace / "lab" / "runs" / "20260101T000001Z-slow")
    run.write("manifest.json", run.manifest() | {"status": "running"})
    with locked("lab"):
        assert " running " in shell("results list")[1]
    assert " interrupted " in shell("results list --status interrupted")[1]


def test_nodes_that_are_not_reached_are_named_once_and_below_the_table(
    here: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("base", "eh", "pub", "sub-1", "sub-2")
    hosts = {name: held(name) for name in names}
    notes = {"grafana": "no image"}  # of an image that is there, the engine would be asked
    save_deployment(Deployment(name="lab", file=str(here / "lab.yml"), stage="deployed", hosts=hosts, notes=notes))
    why = "10.0.0.9:22 refuses SSH; is sshd running there?"
    gone = {name: UnreachableError(f"node {name}: {why}") for name in names}
    monkeypatch.setattr("toolkit.provisioning.observe.observe", lambda *_: gone)
    monkeypatch.setattr("toolkit.controller.gates.observe", lambda *_: gone)
    code, told = shell("status lab")
    assert code == 4
    assert told.splitlines()[-5:] == [f"node {name}: {why}" for name in names]
    monkeypatch.setenv("COLUMNS", "40")
    assert ["sub-2", "unreachable", "-"] in [line.split() for line in shell("status lab")[1].splitlines()]
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    code, told = shell("logs -t lab")
    assert code == 4
    assert told.splitlines() == [f"node {name}: {why}" for name in names]
    code, told = shell("verify lab --gate engine --gate images")
    assert code == 6
    assert "images: 0 of 5 nodes pass, the others were not reached" in told
    assert f"engine: node eh: {why}" in told


def test_nodes_that_are_in_the_file_only_are_no_trouble_to_look_at(
    here: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolkit.provisioning.observe.observe", lambda *_: {})
    deployment = Deployment(name="lab", file=str(here / "lab.yml"), stage="deployed", notes={"grafana": "no image"})
    save_deployment(deployment)
    assert shell("status lab")[0] == 0
    save_deployment(dataclasses.replace(deployment, failed={"eh": "no address is free"}))
    code, told = shell("status lab")
    assert code == 4
    assert told.splitlines()[-1] == "node eh: no address is free"


def test_an_inventory_has_no_variables_of_nodes_that_are_not_there(here: Path, shell: Shell) -> None:
    save_deployment(Deployment(name="lab", file=str(here / "lab.yml"), stage="deployed", hosts={"eh": held("eh")}))
    assert shell("inventory lab --host e") == (2, "no node is named 'e'; did you mean 'eh'?\n")
    code, told = shell("inventory lab --host eh")
    assert code == 0
    assert json.loads(told)["ansible_host"] == "eh"


def test_nodes_without_a_machine_are_not_passed_over(here: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.ssh.run", lambda host, *_, **__: Completed(status=0, stdout=host.node, stderr=""))
    one = held("eh")
    save_deployment(Deployment(name="lab", file=str(here / "lab.yml"), stage="acquired", hosts={"eh": one}))
    code, told = shell("exec eh,pub -t lab -- hostname")
    assert code == 4
    assert told.splitlines() == ["eh: eh", "node pub has no machine: try: toolkit deploy"]
    code, told = shell("exec @failed -t lab -- hostname")
    assert (code, told) == (0, "nothing to do: @failed picks no node\n")


def test_a_machine_that_is_gone_for_good_can_be_struck_off(here: Path, shell: Shell) -> None:
    hosts = {"eh": held("eh"), "sub-2": dataclasses.replace(held("sub-2"), type="ssh")}
    hashes = dict.fromkeys(hosts, "1")
    save_deployment(
        Deployment(name="lab", file=str(here / "lab.yml"), stage="deployed", hosts=hosts, node_hashes=hashes)
    )
    code, told = shell("teardown lab --forget sub-2")
    assert code == 0
    assert "forgot node sub-2" in told
    assert "still there: containers, images, files below /var/lib/toolkit/lab on sub-2" in told
    deployment = load_deployment("lab")
    assert deployment is not None
    assert (list(deployment.hosts), list(deployment.node_hashes)) == (["eh"], ["eh"])
    assert "did you mean 'eh'" in shell("teardown lab --forget eeh")[1]


def test_an_engine_that_fails_in_the_middle_is_no_bug_of_ours(
    here: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    import docker.errors
    import requests

    troubles: tuple[Exception, ...] = (
        docker.errors.APIError("500 Server Error", explanation="no space left on device"),
        requests.exceptions.ConnectionError("Connection refused"),
    )
    for trouble in troubles:

        def failing(_: str, trouble: Exception = trouble) -> None:
            raise trouble

        monkeypatch.setattr(main, "application", failing)
        code, told = shell("deploy lab.yml")
        assert code == 4
        assert told.startswith("the Docker engine of this machine: ")
    assert "Connection refused" in told


def test_signs_that_a_terminal_lacks_do_not_end_a_command(here: Path) -> None:
    command = [sys.executable, "-m", "toolkit", "validate", "lab.yml", "--resolved"]
    (here / "lab.yml").write_text((here / "lab.yml").read_text() + 'description: "Größe ✓"\n')
    told = subprocess.run(command, capture_output=True, check=True, env={**os.environ, "PYTHONIOENCODING": "latin-1"})
    assert "Größe ?".encode("latin-1") in told.stdout


def test_a_workspace_that_may_not_be_written_is_named_and_another_is_proposed(
    here: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "taken").write_text("")
    monkeypatch.setenv("TOOLKIT_HOME", str(here / "taken" / "home"))
    code, told = shell("deploy lab.yml --quiet")
    assert code == 2
    assert "Not a directory" in told
    assert "try another workspace: TOOLKIT_HOME=FOLDER" in told


def test_what_commands_write_and_remove_is_one_document(
    here: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(workspace / "lab" / "runs" / "20260101T000001Z-slow")

    def document(line: str) -> dict[str, list[str]]:
        monkeypatch.setattr(sys, "argv", ["toolkit", *line.split(), "--json"])
        assert main._exit_code() == 0
        told: dict[str, list[str]] = json.loads(capsys.readouterr().out)
        return told

    written = [
        *document("report --to r.html --tables tables")["wrote"],
        *document("results export --to r.tar.gz")["wrote"],
        *document("dashboards export --to boards")["wrote"],
        *document("init new.yml")["wrote"],
    ]
    assert {"r.html", "tables/hops.csv", "r.tar.gz", "boards/kpis.json", "new.yml"} <= set(written)
    assert all((here / name).is_file() for name in written)
    name = "20260101T000001Z-slow"
    assert document("results prune -t lab --keep 0 --dry-run") == {"would_delete": [name]}
    assert document("results prune -t lab --keep 0") == {"deleted": [name]}
    assert document("results prune -t lab --keep 0") == {"deleted": []}


def told_to(place: BinaryIO, line: str) -> tuple[int, str]:
    """How a command ends whose results go there, and what it says to people."""
    command = [sys.executable, "-m", "toolkit", *line.split()]
    ran = subprocess.run(command, stdout=place, stderr=subprocess.PIPE, text=True, check=False)
    return ran.returncode, ran.stderr


@pytest.mark.parametrize("line", ["schema", "validate lab.yml --resolved", "deploy --help"])
def test_where_nobody_reads_on_what_only_shows_is_done(here: Path, line: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as nobody:
        assert told_to(nobody, line) == (0, "")


def test_where_nobody_reads_on_what_acts_is_interrupted(
    here: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def emits(_: str) -> None:
        try:
            raise BrokenPipeError
        except OSError:
            sys.exit(1)  # as typer does

    monkeypatch.setattr(main, "application", emits)
    assert shell("deploy lab.yml --json") == (
        130,
        "interrupted; the state is saved: deploy again to go on, or teardown\n",
    )
    assert shell("deploy lab.yml --dry-run") == (0, "")


@pytest.mark.parametrize("line", ["schema", "validate lab.yml --json"])
def test_output_that_cannot_be_written_is_told(here: Path, line: str) -> None:
    with Path("/dev/full").open("wb") as full:
        code, said = told_to(full, line)
    assert code == 2
    assert said.count("\n") == 1
    assert "No space left on device" in said


def test_a_full_disk_is_told_with_what_lies_where(
    here: Path, shell: Shell, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(main, "application", full)
    code, told = shell("deploy lab.yml")
    assert code == 2
    assert f"No space left on device; the workspace is {workspace}" in told


def test_interrupting_says_what_is_left_only_where_something_is(
    here: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(main, "application", interrupted)
    assert shell("status --watch") == (130, "interrupted\n")
    code, told = shell("deploy lab.yml")
    assert code == 130
    assert "the state is saved: deploy again to go on" in told


def test_a_bug_without_a_workspace_still_leaves_its_traceback(
    here: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: str) -> None:
        raise RuntimeError("boom")

    (here / "taken").write_text("")
    monkeypatch.setenv("TOOLKIT_HOME", str(here / "taken" / "home"))
    monkeypatch.setattr(main, "application", broken)
    code, told = shell("status")
    assert code == 1
    assert "Traceback" in Path(told.rpartition(" in ")[2].strip()).read_text()


@pytest.mark.parametrize("name", ["", *(name for name, _ in commands())])
def test_help_fits_a_narrow_terminal_and_names_what_options_take(here: Path, shell: Shell, name: str) -> None:
    code, told = shell(f"{name} --help")
    assert code == 0
    assert max(map(len, told.splitlines())) <= WIDTH
    for vague in ("<str>", "<int>", "<float", "<path>", "<int range>"):
        assert vague not in told
    assert not [line for line in told.splitlines() if line.endswith("...") and not line.startswith("Usage")]


def test_groups_list_their_commands_in_whole_words(here: Path, shell: Shell) -> None:
    for group in application().registered_groups:
        told = shell(f"{group.name} --help")[1]
        assert not [line for line in told.splitlines() if line.endswith("...") and not line.startswith("Usage")]
