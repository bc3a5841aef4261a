"""What only a virtual machine has: a kernel and a clock of its own; and that it takes no room once it is gone."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import statistics
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.integration.providers.bench import VM_LINK, Bench, on
from tests.waiting import until
from toolkit import paths
from toolkit.providers import vm_disks
from toolkit.providers.vm import kernels_in_use
from toolkit.provisioning.observe import Observed, observe

PINGS = 1500
DATAGRAMS = """
import socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
if sys.argv[1] == "send":
    for _ in range(1000): s.sendto(bytes(1222), (sys.argv[2], int(sys.argv[3])))
else:
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    s.bind(("", 5557)); s.recv(2000); began, count = time.monotonic(), 0; s.settimeout(3)
    try:
        while s.recv(2000): count += 1; last = time.monotonic()
    except TimeoutError: pass
    print(count * 10000 / (last - began))
"""

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(900)]


def test_kernel_and_boot_are_its_own(machine: Bench) -> None:
    host = machine.acquire(machine.node("one")).hosts["one"]
    boot_id = "/proc/sys/kernel/random/boot_id"
    assert on(host, f"cat {boot_id}") != Path(boot_id).read_text().strip()
    assert host.facts["shared_clock"] is False
    assert host.facts["accelerator"] in {"kvm", "tcg"}
    seen = observe({"one": host}, machine.testbed)["one"]
    assert isinstance(seen, Observed)
    assert seen.engine_version


def test_its_clock_can_be_set_and_ours_does_not_follow(machine: Bench) -> None:
    host = machine.acquire(machine.node("one")).hosts["one"]
    before_s = time.time()
    on(host, "date --set '+1 hour' >/dev/null")
    try:
        ahead_s = float(on(host, "date +%s.%N")) - time.time()
        assert 3500 < ahead_s < 3700
        assert time.time() - before_s < 600
    finally:
        on(host, "date --set '-1 hour' >/dev/null")


def test_processes_links_and_files_carry_the_testbed(machine: Bench) -> None:
    machine.acquire(machine.node("one"))
    assert sorted(resource.kind for resource in machine.resources()) == [
        "bridge",
        "firewall rule",
        "tap",
        "virtual machine",
    ]
    assert machine.testbed in machine.provider.testbeds()
    listed = subprocess.run(["ip", "-d", "link"], capture_output=True, text=True, check=True).stdout
    assert f"org.toolkit.testbed={machine.testbed}/one" in listed


def test_the_disk_that_it_lies_over_is_in_use(machine: Bench) -> None:
    machine.acquire(machine.node("one"))
    golden = paths.cache() / "vm" / vm_disks.content_of(machine.request.node_image)
    assert golden / "vmlinuz" in kernels_in_use()
    assert str(golden) not in {resource.name for resource in vm_disks.unused_disks(())}


def test_the_host_s_firewall_passes_what_stays_on_the_bridge(machine: Bench) -> None:
    host = machine.acquire(machine.node("one")).hosts["one"]
    bridge = next(found.name for found in machine.resources() if found.kind == "bridge")
    far, near, subnet = f"tkfar{os.getpid()}", f"tknear{os.getpid()}", machine.request.subnet
    with contextlib.ExitStack() as undo:
        for words in (
            f"ip netns add {far}",
            f"ip link add {near} type veth peer name eth0 netns {far}",
            f"ip link set {near} master {bridge} up",
            f"ip -n {far} address add {subnet[200]}/{subnet.prefixlen} dev eth0",
            f"ip -n {far} link set eth0 up",
        ):
            subprocess.run(words.split(), check=True)
            if "netns add" in words:  # takes the pair of links with it
                undo.callback(subprocess.run, ["ip", "netns", "delete", far], check=True)
        ping = ["ip", "netns", "exec", far, "ping", "-c", "3", "-i", "0.5", "-W", "5", host.ssh.address]
        assert subprocess.run(ping, capture_output=True, check=False).returncode == 0


def test_its_link_is_as_asked_for_each_way(machine: Bench) -> None:
    host = machine.acquire(machine.node("one")).hosts["one"]
    assert host.facts["link"] == "netem"
    column = on(host, "grep -m 1 ^Icmp: /proc/net/snmp").split().index("InEchos")
    arrived = "awk '/^Icmp:/ {line = $0} END {print line}' /proc/net/snmp"
    before = int(on(host, arrived).split()[column])
    ping = ["ping", "-c", str(PINGS), "-i", "0.01", "-W", "5", host.ssh.address]
    said = subprocess.run(ping, capture_output=True, text=True, check=True).stdout
    came = int(on(host, arrived).split()[column]) - before
    delays = [float(found) for found in re.findall(r"time=([\d.]+)", said)]
    assert min(delays) >= 100
    assert statistics.median(delays) < 145
    for sent, kept in ((PINGS, came), (came, len(delays))):
        expected = sent * VM_LINK.loss
        assert abs(sent - kept - expected) < 5 * expected**0.5, (sent, kept)


def test_its_link_has_its_rate_each_way(machine: Bench) -> None:
    host = machine.acquire(machine.node("one")).hosts["one"]
    assert VM_LINK.rate_bps is not None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours, ThreadPoolExecutor(1) as pool:
        ours.bind((str(machine.request.subnet[1]), 0))
        address, port = ours.getsockname()

        def came_bps() -> float:
            there = pool.submit(on, host, f"python3 -c '{DATAGRAMS}' receive")
            until(lambda: ":15B5 " in on(host, "cat /proc/net/udp"), within_s=60)  # 5557: it listens
            for _ in range(1000):
                ours.sendto(bytes(1222), (host.ssh.address, 5557))  # 1250 with its headers
            return float(there.result())

        def left_bps() -> float:
            there = pool.submit(on, host, f"python3 -c '{DATAGRAMS}' send {address} {port}")
            bps = received_bps(ours)
            there.result()
            return bps

        for measure in (came_bps, left_bps):
            found = [measure()]
            while found[-1] < 0.5 * VM_LINK.rate_bps and len(found) < 4:  # a busy machine emulates too slowly for it
                found.append(measure())
            assert max(found) < 1.1 * VM_LINK.rate_bps
            assert found[-1] >= 0.5 * VM_LINK.rate_bps, found


def received_bps(ours: socket.socket) -> float:
    """What arrives of datagrams of 1250 bytes until there is silence."""
    ours.settimeout(60)
    ours.recv(2000)
    began, count, last = time.monotonic(), 0, 0.0
    ours.settimeout(3)
    with contextlib.suppress(TimeoutError):
        while ours.recv(2000):
            count, last = count + 1, time.monotonic()
    return count * 10_000 / (last - began)


def test_an_address_outside_the_subnet_is_refused_at_once(machine: Bench) -> None:
    began = time.monotonic()
    got = machine.acquire(machine.node("lost", address="10.99.0.9"))
    assert f"10.99.0.9 is not in the testbed's subnet {machine.request.subnet}" in got.failed["lost"]
    assert time.monotonic() - began < 30
