from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest

from tests.ports import free_port
from toolkit.contract import metrics
from toolkit.measure.clocks import read_log
from toolkit.node.clock import ClockLog, ClockSettings, ClockState, Tracking, chrony_config, parse_tracking, run

SLOW = (
    "C0A80001,192.168.0.1,11,1795318543.716202698,0.000500000,0.000000675,0.000000887,-3.030,0.010,2.383,"
    "0.001000000,0.000200000,1.0,Normal"
)
LOST = "00000000,,0,0.000000000,0.000000000,0.000000000,0.000000000,0.000,0.000,0.000,1.0,1.0,0.0,Not synchronised"
CLIENT = ClockSettings(
    node="pub", role="client", servers=("10.0.0.2",), allow="", shared=False, metrics_port=9101,
    samples_dir=Path("/nowhere"),
)  # fmt: skip


def test_chronycs_slow_is_a_negative_offset_and_the_bound_is_its_formula() -> None:
    tracking = parse_tracking(SLOW)
    assert tracking.offset_s == -0.0005
    assert tracking.bound_s == pytest.approx(0.0005 + 0.0002 + 0.0005)
    assert tracking.synchronised
    assert tracking.reference == "192.168.0.1"
    assert not parse_tracking(LOST).synchronised


@pytest.mark.parametrize("line", ["", "506 Cannot talk to daemon", SLOW + ",more", SLOW.replace("0.0005", "zero")])
def test_anything_else_is_no_tracking(line: str) -> None:
    with pytest.raises(ValueError, match=r"chronyc answered|could not convert"):
        parse_tracking(line)


def test_a_client_follows_its_servers_and_serves_nobody() -> None:
    config = chrony_config(replace(CLIENT, servers=("10.0.0.2", "10.0.0.3")))
    assert "server 10.0.0.2 iburst minpoll 0 maxpoll 2 xleave\nserver 10.0.0.3 iburst" in config
    assert "port 0\n" in config
    assert "allow" not in config
    assert "makestep 1.0 3\n" in config


def test_a_server_without_upstream_serves_its_own_time_to_its_subnet() -> None:
    config = chrony_config(replace(CLIENT, role="server", servers=(), allow="10.0.0.0/24"))
    assert "local stratum 10\nallow 10.0.0.0/24\nport 123\n" in config
    assert "server " not in config


def test_settings_come_from_the_environment_and_name_what_is_wrong() -> None:
    environ = {"TOOLKIT_CLOCK_ROLE": "client", "TOOLKIT_CLOCK_SERVER": "10.0.0.2,10.0.0.3", "TOOLKIT_CLOCK_SHARED": "1"}
    settings = ClockSettings.from_environment(environ)
    assert settings.servers == ("10.0.0.2", "10.0.0.3")
    assert settings.shared
    assert settings.metrics_port == 9101
    with pytest.raises(KeyError, match="TOOLKIT_CLOCK_SERVER"):
        ClockSettings.from_environment({})
    with pytest.raises(ValueError, match="'both'"):
        ClockSettings.from_environment({"TOOLKIT_CLOCK_ROLE": "both"})


def known(tracking: Tracking | None, *, shared: bool = False, age_s: float = 0.0) -> ClockState:
    state = ClockState(settings=replace(CLIENT, shared=shared))
    state.tracking, state.tracked_at_s = tracking, time.monotonic() - age_s
    return state


def test_the_document_tells_offset_and_bound_of_a_clock_that_follows() -> None:
    document = known(parse_tracking(SLOW)).document()
    assert document["synchronised"] is True
    assert document["offset_s"] == -0.0005
    assert document["bound_s"] == pytest.approx(0.0012)


def test_a_shared_clock_is_exact_by_construction_and_still_shows_what_was_measured() -> None:
    document = known(parse_tracking(SLOW), shared=True).document()
    assert (document["offset_s"], document["bound_s"], document["measured_offset_s"]) == (0.0, 0.0, -0.0005)


@pytest.mark.parametrize("state", [known(None), known(parse_tracking(LOST)), known(parse_tracking(SLOW), age_s=6)])
def test_what_is_not_known_now_is_not_claimed(state: ClockState) -> None:
    document = state.document()
    assert document["synchronised"] is False
    assert document["bound_s"] is None
    families = state.families()
    assert metrics.CLOCK_BOUND not in families
    assert families[metrics.CLOCK_SYNCHRONISED] == 0.0


def test_every_metric_of_the_clock_is_in_the_contract_with_its_labels() -> None:
    families = known(parse_tracking(SLOW)).families()
    assert set(families) <= set(metrics.ALL)
    assert all(metric.labels == () for metric in families)
    assert families[metrics.CLOCK_FREQUENCY_ERROR] == pytest.approx(-3.03e-6)


def test_the_log_is_what_a_run_reads_and_never_grows_without_end(tmp_path: Path) -> None:
    log = ClockLog(tmp_path / "samples", limit_bytes=4000)
    reading = known(parse_tracking(SLOW)).reading(parse_tracking(SLOW))
    for at_ns in range(100):
        log.append(reading | {"at_ns": at_ns, "monotonic_ns": at_ns})
        assert log.file.stat().st_size < 4300
    assert [file.name for file in (tmp_path / "samples").iterdir()] == ["clock.jsonl"]
    readings = read_log(log.file)
    assert [r.at_ns for r in readings] == list(range(100))[-len(readings) :], "the newest, without a gap"
    assert len(readings) >= 8
    assert readings[0].offset_ns == -500_000
    assert readings[0].root_delay_ns == 1_000_000
    assert readings[0].root_dispersion_ns == 200_000
    assert readings[0].synchronised


@pytest.mark.skipif(shutil.which("chronyd") is None, reason="needs chronyd (apt-get install chrony)")
def test_a_real_chronyd_is_started_asked_logged_and_ended(tmp_path: Path) -> None:
    port = free_port()
    settings = ClockSettings(
        node="base", role="server", servers=(), allow="127.0.0.1", shared=True, metrics_port=port,
        samples_dir=tmp_path / "samples", ntp_port=free_port(),
    )  # fmt: skip
    stopped = threading.Event()
    thread = threading.Thread(target=run, args=(settings, stopped, tmp_path / "run"))
    thread.start()
    try:
        document = {}
        for _ in range(100):
            time.sleep(0.1)
            document = json.loads(fetch(port, "/clock"))
            if document["synchronised"]:
                break
        assert document["synchronised"], document
        assert document["stratum"] == 10
        assert fetch(port, "/healthz") == "ok\n"
        assert "toolkit_clock_shared 1\n" in fetch(port, "/metrics")
        pid = int((tmp_path / "run" / "chronyd.pid").read_text())
    finally:
        stopped.set()
        thread.join(10)
    assert not thread.is_alive()
    assert subprocess.run(["ps", "-p", str(pid)], capture_output=True, check=False).returncode != 0
    assert read_log(tmp_path / "samples" / "clock.jsonl")


@pytest.mark.skipif(shutil.which("chronyd") is None, reason="needs chronyd (apt-get install chrony)")
def test_a_chronyd_that_ends_is_an_error_that_says_what_to_look_for(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as holder:
        holder.bind(("0.0.0.0", 0))
        settings = ClockSettings(
            node="base", role="server", servers=(), allow="bad subnet", shared=True, metrics_port=free_port(),
            samples_dir=tmp_path, ntp_port=holder.getsockname()[1],
        )  # fmt: skip
        with pytest.raises(ChildProcessError, match="chronyd ended with code 1"):
            run(settings, threading.Event(), tmp_path / "run")


def fetch(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
        return answer.read().decode()
