"""Testbeds whose clients need nobody between them."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolkit.errors import FileInvalidError
from toolkit.spec.load import load_testbed

FILE = """
nodes: {a: {kind: vm}, b: {kind: vm}}
services:
  publisher: {on: a}
  subscriber: {on: b}
workloads:
  straight: {messages: 10, options: {protocol: %s}}
"""


def test_publishers_and_subscribers_of_dds_need_no_broker(tmp_path: Path) -> None:
    file = tmp_path / "testbed.yml"
    file.write_text(FILE % "dds")
    testbed = load_testbed(file)
    assert testbed.workloads["straight"].brokerless
    file.write_text(FILE % "mqtt")
    with pytest.raises(FileInvalidError, match="no broker to talk to"):
        load_testbed(file)
