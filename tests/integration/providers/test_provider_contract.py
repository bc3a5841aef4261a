"""What every provider promises; runs on each entry of `BENCHES`."""

from __future__ import annotations

import pytest

from tests.integration.providers.bench import Bench, on
from toolkit import ssh
from toolkit.errors import UnreachableError
from toolkit.events import Event
from toolkit.providers.keys import make_key

pytestmark = pytest.mark.docker


def test_hosts_are_entered_with_checked_keys_and_say_what_they_are(bench: Bench) -> None:
    got = bench.acquire(*(bench.node(name) for name in bench.names))
    assert not got.failed
    assert got.hosts.keys() == set(bench.names)
    for name, host in got.hosts.items():
        assert (host.node, host.provider, host.type) == (name, bench.settings.name, bench.settings.type)
        assert host.address in on(host, "hostname -I").split()
        if bench.has_hostnames:
            assert on(host, "hostname") == name
        assert host.facts["cpus"] > 0
        assert host.facts["memory_bytes"] > 64 << 20
        assert host.facts["kernel"] == on(host, "uname -r")
        assert host.facts["congestion"] == on(host, "cat /proc/sys/net/ipv4/tcp_congestion_control")
        assert isinstance(host.facts["shared_clock"], bool)
        assert host.facts["has_engine"] == (on(host, "docker version >/dev/null 2>&1 && echo yes || echo no") == "yes")
    assert len({host.address for host in got.hosts.values()}) == len(bench.names)


def test_acquire_again_changes_nothing(bench: Bench) -> None:
    nodes = [bench.node(name) for name in bench.names]
    first = bench.acquire(*nodes)
    assert bench.check(*nodes) == []  # what it has itself is not taken by somebody else
    boot = on(first.hosts[bench.names[0]], "cat /proc/1/stat")
    again = bench.acquire(*nodes)
    assert again.hosts == first.hosts
    assert again.created == frozenset()
    assert on(again.hosts[bench.names[0]], "cat /proc/1/stat").split()[21] == boot.split()[21]
    assert not any(event.changed for event in bench.events[-2:])


def test_one_more_node_leaves_the_others_alone(fleet: Bench) -> None:
    first = fleet.acquire(fleet.node("one"))
    more = fleet.acquire(fleet.node("one"), fleet.node("two"))
    assert more.created <= {"two"}
    assert more.hosts["one"] == first.hosts["one"]


def test_a_host_with_another_key_is_not_entered(bench: Bench) -> None:
    host = bench.acquire(bench.node("one")).hosts["one"]
    known = bench.request.directory / "known_hosts"
    known.write_text(f"{host.ssh.address} {make_key().public}\n")
    ssh.disconnect(host)
    with pytest.raises(UnreachableError, match="key"):
        on(host, "true")


def test_a_machine_that_cannot_be_had_does_not_stop_the_rest(bench: Bench) -> None:
    got = bench.acquire(bench.node("one"), bench.node("lost", address="192.0.2.77"))
    assert got.hosts.keys() == {"one"}
    assert got.failed.keys() == {"lost"}
    assert "192.0.2.77" in got.failed["lost"]
    assert on(got.hosts["one"], "echo here") == "here"


def test_release_of_one_node_keeps_the_others(fleet: Bench) -> None:
    got = fleet.acquire(fleet.node("one"), fleet.node("two"))
    removed = fleet.release("one")
    assert {resource.node for resource in removed} <= {"one"}
    assert not [resource for resource in fleet.resources() if resource.node == "one"]
    assert on(got.hosts["two"], "echo here") == "here"


def test_release_of_everything_can_be_repeated(fleet: Bench) -> None:
    fleet.acquire(fleet.node("one"))
    fleet.release()
    assert fleet.resources() == []
    assert fleet.release() == []


def test_an_interrupted_acquire_can_be_done_again(bench: Bench) -> None:
    def interrupt(event: Event) -> None:
        if event.state == "done" and event.node:
            raise KeyboardInterrupt

    nodes = [bench.node(name) for name in bench.names]
    with pytest.raises(KeyboardInterrupt):
        bench.acquire(*nodes, emit=interrupt)
    got = bench.acquire(*nodes)
    assert got.hosts.keys() == {node.name for node in nodes}
    assert not got.failed


def test_a_machine_that_stopped_is_started_again(bench: Bench) -> None:
    if not bench.can_restart:
        pytest.skip("machines of somebody else's are not ours to start")
    before = bench.acquire(bench.node("one"))
    assert before.failed == {}
    on(before.hosts["one"], "echo kept > /root/note && sync")
    bench.kill("one")
    after = bench.acquire(bench.node("one"))
    assert after.failed == {}
    assert after.created == frozenset()
    assert after.hosts == before.hosts
    assert on(after.hosts["one"], "cat /root/note") == "kept"
