"""What a shell is offered for each place of a command line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from toolkit.cli import main
from toolkit.cli.files import _EXAMPLE
from toolkit.state import Deployment, save_deployment


@pytest.fixture
def here(workspace: Path, tmp_path: Path) -> Path:
    (tmp_path / "testbed.yml").write_text(_EXAMPLE.format(name="lab"))
    (tmp_path / "rack.yml").write_text(_EXAMPLE.format(name="rack").replace("hello:", "greeting:"))
    for name in ("lab", "ladder", "rack"):
        save_deployment(Deployment(name=name, file=str(tmp_path / f"{name}.yml"), stage="deployed"))
    for run in ("20260101-hello", "20260102-hello"):
        folder = workspace / "lab" / "runs" / run
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text("{}")
    return tmp_path


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("tear", ["teardown"]),
        ("deploy la", ["lab", "ladder"]),
        ("deploy --sc", ["--scale"]),
        ("status --nodes k", ["kind:vm", "kind:pi3", "kind:pi1"]),
        ("exec role:b", ["role:broker"]),
        ("exec sub-1,!s", ["sub-1,!sub-1", "sub-1,!sub-2"]),
        ("ssh s", ["sub-1", "sub-2"]),
        ("logs eh --service su", ["subscriber"]),
        ("run h", ["hello"]),
        ("run --testbed rack.yml g", ["greeting"]),
        ("run --testbed lost.yml g", []),
        ("results show 2", ["20260102-hello", "20260101-hello"]),
        ("results show l", ["latest"]),
    ],
)
def test_what_is_offered(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], typed: str, offered: list[str]
) -> None:
    words = ["toolkit", *typed.split(" ")]
    monkeypatch.setenv("_TOOLKIT_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", " ".join(words))
    monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
    monkeypatch.delenv("TOOLKIT_TESTBED", raising=False)
    monkeypatch.setattr(sys, "argv", ["toolkit"])
    with pytest.raises(SystemExit, match="0"):
        main._exit_code()
    assert capsys.readouterr().out.split() == offered
