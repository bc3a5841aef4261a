"""What `gc` takes for garbage: nothing of a testbed that some workspace knows or works on, nor a disk in use."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from toolkit.controller import teardown
from toolkit.providers.base import Resource
from toolkit.providers.vm_disks import GoldenDisk
from toolkit.state import Deployment, names_on_machine, save_deployment

WORKS = (
    "import sys\nfrom toolkit.state import locked\nwith locked('works'):\n print('held', flush=True)\n sys.stdin.read()"
)


class Machines:
    """A provider on which things of these testbeds are."""

    def __init__(self, *names: str) -> None:
        self.names = set(names)

    def testbeds(self) -> frozenset[str]:
        return frozenset(self.names)

    def resources(self, testbed: str) -> list[Resource]:
        return [Resource(kind="container", name=f"toolkit-{testbed}-a", node="a")]

    def release(self, testbed: str, *_: object) -> list[Resource]:
        self.names.remove(testbed)
        return self.resources(testbed)


def deployed_in(home: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from toolkit.state import locked

    with monkeypatch.context() as there:
        there.setenv("TOOLKIT_HOME", str(home))
        with locked(name):
            save_deployment(Deployment(name=name, file="testbed.yml", stage="deployed"))


def test_garbage_is_what_no_workspace_knows(workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))
    machines = Machines("mine", "elsewhere", "works", "lost")
    monkeypatch.setattr(teardown, "_providers", lambda _: [machines])
    monkeypatch.setattr(teardown, "_next_disks", lambda: frozenset({"next"}))
    for content in ("next", "old"):
        GoldenDisk(folder=tmp_path / "cache/vm" / content).folder.mkdir(parents=True)
    deployed_in(workspace, "mine", monkeypatch)
    deployed_in(tmp_path / "other", "elsewhere", monkeypatch)
    worker = subprocess.Popen([sys.executable, "-c", WORKS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    try:
        assert worker.stdout.readline().strip() == "held"  # its first deploy has made containers, but no state yet
        would = teardown.collect_garbage(dry_run=True)
        assert machines.names == {"mine", "elsewhere", "works", "lost"}
        assert (tmp_path / "cache/vm/old").is_dir()
        assert teardown.collect_garbage() == would
    finally:
        worker.communicate()
    assert [(r.kind, r.name) for r in would] == [
        ("container", "toolkit-lost-a"),
        ("disk", str(tmp_path / "cache/vm/old")),
    ]
    assert machines.names == {"mine", "elsewhere", "works"}
    assert [folder.name for folder in (tmp_path / "cache/vm").iterdir()] == ["next"]


def test_a_workspace_that_is_gone_is_forgotten(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))
    deployed_in(workspace, "mine", monkeypatch)
    deployed_in(tmp_path / "other", "elsewhere", monkeypatch)
    assert names_on_machine() == {"mine", "elsewhere"}
    (tmp_path / "other").rename(tmp_path / "moved")
    assert names_on_machine() == {"mine"}
    assert len(list((tmp_path / "cache/workspaces").iterdir())) == 1
