"""What only a virtual machine has: a kernel and a clock of its own; and that it takes no room once it is gone."""

from __future__ import annotations

import contextlib
import subprocess
import time
from pathlib import Path

import pytest

from tests.integration.providers.bench import Bench, on
from toolkit import paths
from toolkit.providers import vm_disks
from toolkit.providers.vm import kernels_in_use
from toolkit.provisioning.observe import Observed, observe

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
    far, near = "tktestfar", "tktestnear"
    with contextlib.ExitStack() as undo:
        for words in (
            f"ip netns add {far}",
            f"ip link add {near} type veth peer name eth0 netns {far}",
            f"ip link set {near} master {bridge} up",
            f"ip -n {far} address add 10.87.34.200/24 dev eth0",
            f"ip -n {far} link set eth0 up",
        ):
            subprocess.run(words.split(), check=True)
            if "netns add" in words:  # takes the pair of links with it
                undo.callback(subprocess.run, ["ip", "netns", "delete", far], check=True)
        ping = ["ip", "netns", "exec", far, "ping", "-c", "3", "-i", "0.5", "-W", "5", host.ssh.address]
        assert subprocess.run(ping, capture_output=True, check=False).returncode == 0


def test_an_address_outside_the_subnet_is_refused_at_once(machine: Bench) -> None:
    began = time.monotonic()
    got = machine.acquire(machine.node("lost", address="10.99.0.9"))
    assert "10.99.0.9 is not in the testbed's subnet 10.87.34.0/24" in got.failed["lost"]
    assert time.monotonic() - began < 30
