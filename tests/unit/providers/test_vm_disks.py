"""Which golden disks lie under no machine's disk, and that only those go."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

import pytest

from toolkit.events import ignore
from toolkit.providers import vm_disks
from toolkit.providers.lock_files import held
from toolkit.providers.vm_disks import GoldenDisk

SIZE = 1 << 20


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache" / "vm").mkdir(parents=True)
    (tmp_path / "cache" / "vm" / "kvm").write_text("boot no\n")
    return tmp_path / "cache" / "vm"


def golden(cache: Path, content: str, *, finished: bool = True) -> GoldenDisk:
    disk = GoldenDisk(folder=cache / content)
    disk.folder.mkdir()
    with disk.image.open("wb") as file:
        file.write(os.urandom(SIZE))
        file.truncate(64 * SIZE)
    if finished:
        disk.finish()
    return disk


def overlay(workspace: Path, node: str) -> Path:
    file = workspace / "vm" / node / "disk.qcow2"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    return file


def test_disks_under_no_machine_go_and_say_what_they_took(cache: Path, tmp_path: Path) -> None:
    used, running, _current = (golden(cache, name) for name in ("used", "running", "current"))
    left, torn = golden(cache, "left"), golden(cache, "torn", finished=False)
    used.add_user(overlay(tmp_path / "elsewhere", "a"))
    gone = overlay(tmp_path / "elsewhere", "b")
    left.add_user(gone)
    gone.unlink()

    found = vm_disks.unused_disks({running.kernel}, {"current"})
    assert [(r.kind, r.name) for r in found] == [("disk", str(left.folder)), ("disk", str(torn.folder))]
    assert all(SIZE <= r.size_bytes < 2 * SIZE for r in found)
    assert vm_disks.remove_unused_disks({running.kernel}, {"current"}) == found
    assert {entry.name for entry in cache.iterdir()} == {"used", "running", "current", "kvm"}
    assert [r.name for r in vm_disks.unused_disks({running.kernel})] == [str(cache / "current")]


def test_a_machine_whose_disk_was_made_anew_over_another_uses_that_one(cache: Path, tmp_path: Path) -> None:
    old, new = golden(cache, "old"), golden(cache, "new")
    disk = overlay(tmp_path / "workspace", "a")
    old.add_user(disk)
    assert old.lies_under(disk)
    new.add_user(disk)
    assert not old.lies_under(disk)
    assert [r.name for r in vm_disks.unused_disks(())] == [str(old.folder)]


def test_a_disk_that_was_made_again_lies_under_none_of_before(cache: Path, tmp_path: Path) -> None:
    golden_disk, disk = golden(cache, "made"), overlay(tmp_path / "workspace", "a")
    golden_disk.add_user(disk)
    later = time.time() + 1
    os.utime(golden_disk.folder / "complete", (later, later))
    assert not golden_disk.lies_under(disk)


def test_a_disk_that_somebody_is_about_to_use_stays(cache: Path) -> None:
    disk = golden(cache, "coming")
    with vm_disks.prepared("toolkit/vm:coming", ignore) as prepared:
        assert prepared == disk
        assert vm_disks.remove_unused_disks(()) == []
    with held(cache / "coming.lock", fcntl.LOCK_EX | fcntl.LOCK_NB):
        pass
    assert [r.name for r in vm_disks.remove_unused_disks(())] == [str(disk.folder)]
    assert not (cache / "coming.lock").exists()
