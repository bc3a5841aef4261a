"""The operator's engine: what containers that are machines ask of it."""

from __future__ import annotations

import pytest
from docker import APIClient

from toolkit.engine import machine_powers


@pytest.mark.parametrize(("version", "dropped"), [("1.41", ["SYS_RESOURCE"]), ("1.42", []), ("1.45", []), ("2.0", [])])
def test_what_an_engine_may_lack_is_taken_out_only_where_that_is_accepted(version: str, dropped: list[str]) -> None:
    api = APIClient(base_url="tcp://127.0.0.1:1", version=version)
    config = api.create_host_config(**machine_powers(api))
    assert config["CapAdd"] == ["ALL"]
    assert config.get("CapDrop", []) == dropped
    assert config["CgroupnsMode"] == "private"
