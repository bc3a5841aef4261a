from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.ports import await_port, free_port
from tests.programs import find_program
from toolkit.provisioning.brokers import mosquitto_config


def lines(settings: dict[str, Any]) -> list[str]:
    return [line for line in mosquitto_config(settings).splitlines() if not line.startswith("#")]


def test_every_bound_is_written_out_even_where_nobody_set_it() -> None:
    written = lines({})
    assert "listener 1883 0.0.0.0" in written
    assert "allow_anonymous true" in written
    assert "sys_interval 1" in written
    assert "max_inflight_messages 20" in written
    assert "max_queued_messages 1000" in written
    assert "max_queued_bytes 0" in written
    assert "persistence false" in written


def test_settings_win_in_the_words_of_mosquitto() -> None:
    written = lines({"queue_limit": 5, "persistence": True, "autosave_interval": 30.0, "max_connections": 7})
    assert "max_queued_messages 5" in written
    assert "max_queued_messages 1000" not in written
    assert "persistence true" in written
    assert "autosave_interval 30" in written
    assert written.index("max_connections 7") < written.index("max_inflight_messages 20"), "belongs to the listener"


def test_what_has_no_effect_is_left_out() -> None:
    written = "\n".join(lines({"autosave_interval": 1800.0, "message_size_limit": 0}))
    assert "autosave" not in written
    assert "message_size_limit" not in written


@pytest.mark.parametrize(
    "settings",
    [{}, {"persistence": True, "autosave_interval": 60.0, "message_size_limit": 1000, "queue_qos0_messages": True}],
)
def test_mosquitto_itself_takes_it(tmp_path: Path, settings: dict[str, Any]) -> None:
    port = free_port()
    config = mosquitto_config(settings, port=port).replace("/var/lib/mosquitto/", f"{tmp_path}/")
    file = tmp_path / "mosquitto.conf"
    file.write_text(config + f"user {Path('/proc/self').owner()}\n")
    process = subprocess.Popen([find_program("mosquitto"), "-c", str(file)], stderr=subprocess.PIPE, text=True)
    try:
        await_port(port, process=process)
    finally:
        process.terminate()
        process.communicate(timeout=10)
