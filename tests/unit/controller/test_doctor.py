"""What is looked at before anything is deployed."""

from __future__ import annotations

from pathlib import Path

from tests.ports import free_port
from toolkit.controller.doctor import check_nodes
from toolkit.spec.load import load_testbed

RACK = """\
nodes:
  base: {{kind: vm, count: 3}}
  one: {{kind: host, provider: rack, address: 127.0.0.2}}
  two: {{kind: host, provider: rack, address: 127.0.0.3}}
providers:
  rack: {{type: ssh, trust_on_first_use: true, port: {port}}}
"""


def test_machines_are_entered_and_named_each_and_virtual_ones_are_counted(tmp_path: Path, workspace: Path) -> None:
    file = tmp_path / "rack.yml"
    file.write_text(RACK.format(port=free_port()))
    one, two, made = check_nodes(load_testbed(file), None)
    assert [(f.where, f.well) for f in (one, two, made)] == [("one", False), ("two", False), ("nodes", True)]
    assert "node one: 127.0.0.2:" in one.found
    assert made.found == "deploy makes 3 of them"
    assert not workspace.exists()
