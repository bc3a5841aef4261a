"""Which testbed is meant, also while its file is not what it should be."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolkit.cli.files import _EXAMPLE
from toolkit.cli.target import loaded, name_of
from toolkit.errors import FileInvalidError, UsageError
from toolkit.state import Deployment, kept_file, save_deployment

SPOILT = {
    "a value": _EXAMPLE.format(name="lab").replace("kind: pi3", "kind: pi33"),
    "its syntax": "name: [",
}


@pytest.fixture
def file(workspace: Path, tmp_path: Path) -> Path:
    """Deployed as `lab`, beside another testbed."""
    file = tmp_path / "testbed.yml"
    file.write_text(_EXAMPLE.format(name="lab"))
    save_deployment(Deployment(name="other", file=str(tmp_path / "other.yml"), stage="deployed"))
    deployment = save_deployment(Deployment(name="lab", file=str(file), stage="deployed"))
    kept_file(deployment).write_text(file.read_text())
    return file


@pytest.mark.parametrize("spoilt", SPOILT)
def test_a_deployed_testbed_can_be_looked_at_and_removed_while_its_file_is_spoilt(
    file: Path, capsys: pytest.CaptureFixture[str], spoilt: str
) -> None:
    file.write_text(SPOILT[spoilt])
    assert name_of(None) == name_of("testbed.yml") == name_of("lab") == "lab"
    testbed, deployment = loaded(None)
    assert [node.kind for node in testbed.nodes] == ["vm", "pi3", "pi3", "pi1", "pi1"]
    assert deployment.name == "lab"
    assert capsys.readouterr().err == (
        f"{file} is invalid now (toolkit validate); this goes by it as it was deployed\n"
    )


def test_where_the_copy_is_no_better_the_file_is_explained(file: Path, workspace: Path) -> None:
    file.write_text(_EXAMPLE.format(name="lab") + "description: ${env.TOOLKIT_NOT_SET}\n")
    (workspace / "lab" / "testbed.yml").write_text(file.read_text())
    with pytest.raises(FileInvalidError, match=f"^{file}:"):
        loaded("lab")


def test_of_a_file_that_was_never_deployed_its_mistakes_are_told(file: Path, tmp_path: Path) -> None:
    (tmp_path / "new.yml").write_text("name: [")
    with pytest.raises(FileInvalidError, match="not YAML"):
        name_of("new.yml")
    (tmp_path / "new.yml").write_text("nodes: {a: {kind: pi33}}")
    assert name_of("new.yml") == "new"
    with pytest.raises(UsageError, match="testbed new is not deployed here"):
        loaded("new.yml")
