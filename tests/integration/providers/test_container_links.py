"""Delay, jitter and loss of virtual nodes' links are real in both directions, and never go away unseen."""

from __future__ import annotations

import re
import statistics
import subprocess

import pytest

from tests.integration.providers.bench import Bench, on
from tests.integration.providers.traffic import rate_bps
from tests.waiting import until
from toolkit import engine
from toolkit.providers.links import imposer
from toolkit.spec.testbed import Link

pytestmark = pytest.mark.docker

PINGS = 600


def inside(bench: Bench, node: str, command: str) -> str:
    """What a command prints on a node, past its cable."""
    container = f"toolkit-{bench.testbed}-{node}"
    done = subprocess.run(
        ["docker", "exec", container, "sh", "-c", command], capture_output=True, text=True, check=False
    )
    return done.stdout


def round_trips_ms(bench: Bench, node: str, peer: str, count: int = 30) -> list[float]:
    """Of those that came back; the first ones, which also ask for the peer's hardware address, are left out."""
    inside(bench, node, f"ping -c 5 -i 0.2 {peer}")
    return [
        float(found) for found in re.findall(r"time=([\d.]+)", inside(bench, node, f"ping -c {count} -i 0.05 {peer}"))
    ]


def test_a_path_has_the_delay_of_both_its_cables_each_way(container: Bench) -> None:
    link = Link(delay_s=0.01)
    got = container.acquire(*(container.node(name, link=link) for name in ("one", "two")), container.node("near"))
    assert got.failed == {}
    by = {name: host.facts["link"] for name, host in got.hosts.items()}
    assert by["near"] == ""
    assert by["one"] == by["two"]
    assert by["one"] in ({"netem", "relay"} if imposer() == "unknown" else {imposer()})
    both = round_trips_ms(container, "one", "two")
    assert len(both) == 30
    assert min(both) >= 40
    assert statistics.median(both) < 50
    one = round_trips_ms(container, "one", "near")
    assert min(one) >= 20
    assert statistics.median(one) < 30


def test_jitter_spreads_what_is_delayed(container: Bench) -> None:
    got = container.acquire(container.node("far", link=Link(delay_s=0.02, jitter_s=0.005)), container.node("near"))
    assert got.failed == {}
    found = round_trips_ms(container, "near", "far", 100)
    low, middle, high = statistics.quantiles(found)
    assert 30 <= min(found) < 34, "with jitter one way only it were 35"
    assert middle == pytest.approx(41, abs=4)
    assert 4 < high - low < 12  # 5.9 for the sum of two uniform distributions


def test_packets_are_lost_each_way(container: Bench) -> None:
    got = container.acquire(container.node("far", link=Link(loss=0.2)), container.node("near"))
    assert got.failed == {}
    arrived = "awk '/^Icmp:/ {line = $0} END {print line}' /proc/net/snmp"
    column = inside(container, "far", "grep -m 1 ^Icmp: /proc/net/snmp").split().index("InEchos")
    inside(container, "near", "ping -c 10 -i 0.2 -W 1 far")  # until both know where the other is
    before = int(inside(container, "far", arrived).split()[column])
    said = inside(container, "near", f"ping -q -c {PINGS} -i 0.01 -W 1 far")
    came = int(inside(container, "far", arrived).split()[column]) - before
    returned = int(str(re.search(r"(\d+) received", said)[1]))  # type: ignore[index]
    for sent, kept in ((PINGS, came), (came, returned)):
        assert abs(kept - 0.8 * sent) < 5 * (sent * 0.2 * 0.8) ** 0.5, (sent, kept)


def test_a_delayed_cable_keeps_its_rate(container: Bench) -> None:
    rate = 100_000_000
    link = Link(rate_bps=rate, delay_s=0.01)
    hosts = container.acquire(container.node("far", link=link), container.node("near")).hosts
    for sender, receiver in (("far", "near"), ("near", "far")):
        found = rate_bps(hosts[sender], hosts[receiver], mebibytes=16)
        assert 0.6 * rate < found < 1.02 * rate, (sender, found)


def test_without_its_relay_a_cable_is_cut_and_systemd_mends_it(container: Bench) -> None:
    got = container.acquire(container.node("far", link=Link(delay_s=0.01)), container.node("near"))
    if got.hosts["far"].facts["link"] != "relay":
        pytest.skip("this kernel has netem")
    assert on(got.hosts["far"], "ls /sys/class/net").split() == ["eth0", "lo"]
    inside(container, "far", "systemctl stop toolkit-cable")
    assert "0 received" in inside(container, "near", "ping -c 3 -i 0.2 -W 1 far")
    inside(container, "far", "systemctl start toolkit-cable")
    assert min(round_trips_ms(container, "near", "far")) >= 20
    inside(container, "far", "systemctl kill --signal KILL toolkit-cable")
    until(lambda: "1 received" in inside(container, "near", "ping -c 1 -W 1 far"))
    assert min(round_trips_ms(container, "near", "far")) >= 20
    log = engine.connect().api.logs(f"toolkit-{container.testbed}-far").decode()
    assert "toolkit-cable.service: Failed with result 'signal'" in log


def test_a_node_that_is_started_again_has_its_delay_again(container: Bench) -> None:
    nodes = [container.node("far", link=Link(delay_s=0.01)), container.node("near")]
    container.acquire(*nodes)
    container.kill("far")
    got = container.acquire(*nodes)
    assert got.failed == {}
    assert min(round_trips_ms(container, "near", "far")) >= 20
