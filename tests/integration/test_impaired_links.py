"""A run over links with delay, from the testbed file alone: hops have it where it is, and who imposed it is told."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from tests.integration.lab import Lab, deployed, docker
from toolkit.measure.store import RunFolder

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]

TESTBED = """\
name: NAME
nodes:
  eh: {kind: vm}
  pub: {kind: vm, link: {delay: 20ms}}
  sub: {kind: vm, link: {delay: 5ms, jitter: 1ms}}
services:
  broker: {on: eh, image: mosquitto}
  publisher: {on: pub}
  subscriber: {on: sub}
workloads:
  few: {messages: 200, payload: 100B, arrivals: {rate: 50/s}}
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with deployed(tmp_path_factory.mktemp("links"), "test-links", TESTBED) as made:
        yield made


def test_each_hop_has_the_delay_of_its_cables(lab: Lab) -> None:
    hops = lab.run("run", "few", "--json").document["hops"]
    assert hops["end_to_end"]["count"] == 200
    assert 20 <= hops["publish"]["p50_ms"] < 24
    assert 4 <= hops["deliver"]["p50_ms"] < 9
    assert hops["broker"]["p50_ms"] < 4
    assert 24 <= hops["end_to_end"]["p50_ms"] < 35
    spread = hops["deliver"]["p90_ms"] - hops["deliver"]["p50_ms"]
    assert spread > 0.4, "of 1 ms of jitter, all values alike, 0.8 ms lie between the median and the 90th percentile"


def test_the_run_says_what_imposed_it(lab: Lab) -> None:
    [folder] = lab.home.glob(f"{lab.name}/runs/*-few")
    by = {name: node["facts"]["link"] for name, node in RunFolder(folder).manifest()["nodes"].items()}
    assert by["eh"] == ""
    assert by["pub"] == by["sub"]
    assert by["pub"] in {"netem", "relay"}
    [note] = json.loads((folder / "kpis.json").read_text())["notes"]
    assert note.startswith("delay, jitter and loss of the links of pub, sub: ")
    assert f"({by['pub']})" in note
    assert note in lab.run("results", "show", "latest").stdout


def test_a_relay_that_ends_during_a_run_is_a_fault_of_it(lab: Lab) -> None:
    if "relay" not in docker("exec", lab.node("sub"), "cat", "/run/toolkit/link"):
        pytest.skip("this kernel has netem")
    began = lab.start("run", "few", "--json")
    time.sleep(3)
    docker("exec", lab.node("sub"), "systemctl", "kill", "--signal=KILL", "toolkit-cable")
    document = json.loads(began.communicate(timeout=120)[0].splitlines()[-1])
    assert any(fault.startswith("the relay in the link of sub ended during the run") for fault in document["faults"])
