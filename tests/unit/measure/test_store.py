"""Run folders: sealed, verified, found, pruned."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolkit.errors import UsageError
from toolkit.measure.store import RunFolder, find_run, list_runs, new_run, prune


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLKIT_HOME", str(tmp_path / ".toolkit"))


def make(now_s: float, workload: str = "hello", testbed: str = "lab") -> RunFolder:
    run = new_run(testbed, workload, now_s=now_s)
    run.write("manifest.json", {"workload": {"name": workload}, "started_at": now_s})
    return run


def test_two_runs_in_one_second_have_two_folders():
    assert [make(0).name, make(0).name] == ["19700101T000000Z-hello", "19700101T000000Z-hello-2"]


def test_a_sealed_run_knows_what_was_done_to_it():
    run = make(0)
    (run.raw / "pub").mkdir(parents=True)
    (run.raw / "pub" / "publisher-0.stamps").write_bytes(b"12")
    assert "never sealed" in run.verify()[0]
    run.seal()
    (run.path / "report.html").write_text("made again at any time")
    assert run.verify() == []
    (run.raw / "pub" / "publisher-0.stamps").write_bytes(b"13")
    (run.path / "notes").write_text("")
    (run.path / "manifest.json").unlink()
    assert run.verify() == [
        "manifest.json is missing",
        "notes was added later",
        "raw/pub/publisher-0.stamps was changed",
    ]


def test_runs_are_found_by_beginning_folder_or_as_the_latest(tmp_path: Path):
    first, second = make(0), make(100, "other", "rack")
    assert find_run("latest") == second
    assert find_run("latest", "lab") == first
    assert find_run(second.name[:16]) == second
    assert find_run(str(first.path)).path == first.path.resolve()
    with pytest.raises(UsageError, match="several runs begin with '1970"):
        find_run("1970")
    with pytest.raises(UsageError, match="there is no run 'x'; there are: 1970"):
        find_run("x")
    assert list_runs("lab", workload="other") == []


def test_a_workload_stands_for_its_latest_run_with_figures() -> None:
    first, _ = make(0, "hello"), make(100, "other")
    with pytest.raises(UsageError, match="there is no run 'hello'"):
        find_run("hello")
    for run in (first, second := make(200, "hello")):
        run.write("kpis.json", {})
    make(300, "hello")
    assert find_run("hello") == second


def test_a_run_without_kpis_says_so():
    with pytest.raises(UsageError, match="has no figures"):
        make(0).kpis()


def test_pruning_keeps_the_newest():
    runs = [make(second) for second in range(4)]
    assert prune("lab", keep=3, dry_run=True) == runs[:1]
    assert prune("lab", keep=1) == runs[:3]
    assert list_runs("lab") == runs[3:]
