"""The quick form of the converge module: whatever the arguments hold, they arrive as they were."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from toolkit import paths
from toolkit.contract.bundle import Bundle, BundleFile
from toolkit.provisioning.light import MODULES, write_light_playbook

MARKER = "<<INCLUDE_ANSIBLE_MODULE_JSON_ARGS>>"


@pytest.mark.parametrize(
    "content", ["plain", '"""', 'r"""+x+"""', "\\", 'ends with \\""', "\n\t\x00 é 漢", "{{ x }} {% y %}"]
)
def test_arguments_arrive(tmp_path: Path, content: str) -> None:
    playbook = write_light_playbook("deploy.yml", tmp_path)
    assert json.loads(playbook.read_text()) == [{"import_playbook": str(paths.PLAYBOOKS / "deploy.yml")}]
    root = tmp_path / "nodes/lab/x"
    bundle = Bundle(testbed="light", node="n", root=str(root), files=(BundleFile(path="f", content=content),))
    arguments = {"bundle": json.dumps(bundle.document()), "state": "present", "_ansible_check_mode": True}
    source = (tmp_path / "library/toolkit_converge.py").read_text()
    assert source.count(MARKER) == 1
    ran = subprocess.run(
        [sys.executable, "-I", "-"],
        input=source.replace(MARKER, json.dumps(arguments)),
        capture_output=True,
        text=True,
        check=False,
    )
    result = json.loads(ran.stdout)
    assert {"action": "write", "what": "f", "why": "new"} in result["changes"]
    shown = result["diff"][0]["prepared"].partition("@@\n")[2]
    assert "".join(line[1:] for line in shown.splitlines(keepends=True)) == content
    assert not root.exists()


def test_every_module_is_sent() -> None:
    on_disk = {file.stem for file in (paths.PLAYBOOKS / "module_utils").glob("*.py")}
    assert set(MODULES) | {"toolkit_look"} == on_disk
