"""Machines that exist: whom toolkit enters, whom it does not, and what it says then."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.providers.bench import Bench, Rack, on
from toolkit import ssh
from toolkit.providers.keys import KNOWN_HOSTS, make_key
from toolkit.spec.testbed import Architecture, ProviderSettings
from toolkit.state import Host

pytestmark = pytest.mark.docker


@pytest.fixture
def no_machine(rack: Rack) -> str:
    """An address that nobody has, in the rack's subnet, so that the answer comes soon: no route to host."""
    return str(rack.bench.request.subnet[77])


def entering(bench: Bench, **changes: object) -> Bench:
    """The same bench with other settings."""
    bench.settings = dataclasses.replace(bench.settings, **changes)  # type: ignore[arg-type]
    ssh.disconnect()
    return bench


@pytest.fixture
def without_sudo(rack: Rack) -> Iterator[str]:
    """A user on n0 who can log in and nothing else."""
    host = rack.hosts["n0"]
    on(host, "useradd --create-home --shell /bin/sh --password '*' plain")
    yield "plain"
    ssh.disconnect()
    on(host, "userdel --remove --force plain 2>/dev/null")


@pytest.fixture
def another_host_key(rack: Rack) -> Iterator[Host]:
    """n0 after it was installed anew."""
    access = rack.bench.testbed
    ssh.disconnect()
    key = "/etc/ssh/ssh_host_ed25519_key"
    _in_container(
        access, f"cp -p {key} /root/key; rm {key}; ssh-keygen -q -t ed25519 -N '' -f {key}; systemctl restart ssh"
    )
    yield rack.hosts["n0"]
    ssh.disconnect()
    _in_container(access, f"mv /root/key {key}; systemctl restart ssh")


def _in_container(testbed: str, script: str) -> None:
    from tests.integration.lab import docker

    docker("exec", f"toolkit-{testbed}-n0", "sh", "-c", script)


def test_a_key_that_the_machines_do_not_know(ssh_hosts: Bench, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_bytes(make_key().private)
    got = entering(ssh_hosts, identity_file=str(wrong)).acquire(ssh_hosts.node("one"), ssh_hosts.node("two"))
    assert got.hosts == {}
    for name in ("one", "two"):
        assert f"takes neither key {wrong}" in got.failed[name]
        assert f"ssh -p 22 root@{ssh_hosts.addresses[name]}" in got.failed[name]


def test_a_key_file_that_is_not_there(ssh_hosts: Bench, tmp_path: Path) -> None:
    got = entering(ssh_hosts, identity_file=str(tmp_path / "none")).acquire(ssh_hosts.node("one"))
    assert f"no file {tmp_path / 'none'}" in got.failed["one"]


def test_a_key_nobody_vouched_for_is_not_accepted(ssh_hosts: Bench) -> None:
    got = entering(ssh_hosts, trust_on_first_use=False).acquire(ssh_hosts.node("one"))
    assert "trust_on_first_use: true" in got.failed["one"]
    assert not (ssh_hosts.request.directory / KNOWN_HOSTS).exists()


def test_a_file_of_known_keys_is_believed_and_not_added_to(ssh_hosts: Bench, rack: Rack, tmp_path: Path) -> None:
    known = tmp_path / "mine"
    lines = Path(rack.hosts["n0"].ssh.known_hosts).read_text().splitlines()
    known.write_text("".join(f"{line}\n" for line in lines if line.startswith(f"{ssh_hosts.addresses['one']} ")))
    before = known.read_text()
    entering(ssh_hosts, known_hosts=str(known))
    got = ssh_hosts.acquire(ssh_hosts.node("one"), ssh_hosts.node("two"))
    assert got.hosts.keys() == {"one"}
    assert "is not known yet" in got.failed["two"]
    assert known.read_text() == before


def test_trust_on_first_use_is_told_and_kept(ssh_hosts: Bench) -> None:
    ssh_hosts.acquire(ssh_hosts.node("one"))
    told = [event.message for event in ssh_hosts.events if event.level == "warning"]
    assert len(told) == 1
    assert "SHA256:" in told[0]
    known = (ssh_hosts.request.directory / KNOWN_HOSTS).read_text()
    ssh_hosts.events.clear()
    ssh_hosts.acquire(ssh_hosts.node("one"))
    assert [event for event in ssh_hosts.events if event.level == "warning"] == []
    assert (ssh_hosts.request.directory / KNOWN_HOSTS).read_text() == known


def test_a_changed_host_key_is_refused(ssh_hosts: Bench, request: pytest.FixtureRequest) -> None:
    ssh_hosts.acquire(ssh_hosts.node("one"))
    known = (ssh_hosts.request.directory / KNOWN_HOSTS).read_text()
    request.getfixturevalue("another_host_key")
    got = ssh_hosts.acquire(ssh_hosts.node("one"), ssh_hosts.node("two"))
    assert got.hosts.keys() == {"two"}
    assert "has changed" in got.failed["one"]
    assert "ssh-keygen -f" in got.failed["one"]
    assert set(known.splitlines()) < set((ssh_hosts.request.directory / KNOWN_HOSTS).read_text().splitlines())


def test_another_architecture_than_the_file_says(ssh_hosts: Bench) -> None:
    got = ssh_hosts.acquire(ssh_hosts.node("one", architecture=Architecture.ARMV6))
    assert "the file says arm/v6" in got.failed["one"]
    assert "write `architecture: " in got.failed["one"]


def test_the_architecture_is_found_out(ssh_hosts: Bench, rack: Rack) -> None:
    host = ssh_hosts.acquire(ssh_hosts.node("one")).hosts["one"]
    assert host.architecture == rack.hosts["n0"].architecture
    assert host.facts["os_id"] == "debian"
    assert host.facts["shared_clock"] is True  # a container's


def test_a_user_who_may_not_use_sudo(ssh_hosts: Bench, without_sudo: str) -> None:
    got = entering(ssh_hosts, user=without_sudo).acquire(ssh_hosts.node("one"))
    assert "may not use sudo" in got.failed["one"]
    assert "/etc/sudoers.d/" in got.failed["one"]


def test_a_user_with_sudo_becomes_root(ssh_hosts: Bench) -> None:
    host = entering(ssh_hosts, user="toolkit").acquire(ssh_hosts.node("one")).hosts["one"]
    assert on(host, "id -un") == "toolkit"
    assert host.facts["has_engine"] is True  # though dockerd is not in this user's PATH
    assert ssh.run(host, ["id", "-un"], as_root=True).stdout.strip() == "root"


def test_machines_behind_a_bastion(ssh_hosts: Bench, no_machine: str) -> None:
    bastion = ssh_hosts.addresses["n3"]
    entering(ssh_hosts, jump=f"toolkit@{bastion}")
    got = ssh_hosts.acquire(ssh_hosts.node("one"), ssh_hosts.node("two"), ssh_hosts.node("lost", address=no_machine))
    assert got.hosts.keys() == {"one", "two"}
    for name in ("one", "two"):
        assert on(got.hosts[name], "echo $SSH_CONNECTION").split()[0] == bastion
    known = (ssh_hosts.request.directory / KNOWN_HOSTS).read_text().splitlines()
    assert sorted(line.split()[0] for line in known) == sorted([bastion, *(h.address for h in got.hosts.values())])
    assert no_machine in got.failed["lost"]


def test_a_bastion_that_is_not_there(ssh_hosts: Bench, no_machine: str) -> None:
    got = entering(ssh_hosts, jump=f"toolkit@{no_machine}").acquire(ssh_hosts.node("one"), ssh_hosts.node("two"))
    assert got.hosts == {}
    assert all("jump host" in why and no_machine in why for why in got.failed.values())


def test_every_failing_host_is_reported(ssh_hosts: Bench, without_sudo: str, no_machine: str) -> None:
    entering(ssh_hosts, user=without_sudo)  # who is there on n0 alone
    got = ssh_hosts.acquire(
        ssh_hosts.node("n0"), ssh_hosts.node("n1"), ssh_hosts.node("lost", address=no_machine), ssh_hosts.node("n2")
    )
    assert got.hosts == {}
    assert sorted(got.failed) == ["lost", "n0", "n1", "n2"]
    assert "may not use sudo" in got.failed["n0"]
    assert "user plain" in got.failed["n1"]
    assert "user plain" in got.failed["n2"]
    assert no_machine in got.failed["lost"]
    said = [event for event in ssh_hosts.events if event.state == "failed"]
    assert {event.node for event in said} == got.failed.keys()


def test_settings_may_name_a_home(ssh_hosts: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    key = Path(str(ssh_hosts.settings.identity_file))
    monkeypatch.setenv("HOME", str(key.parent))
    host = entering(ssh_hosts, identity_file=f"~/{key.name}").acquire(ssh_hosts.node("one")).hosts["one"]
    assert host.ssh.identity_file == str(key)


def test_there_is_nothing_of_ours_to_find(ssh_hosts: Bench) -> None:
    assert isinstance(ssh_hosts.settings, ProviderSettings)
    ssh_hosts.acquire(ssh_hosts.node("one"))
    assert ssh_hosts.resources() == []
    assert ssh_hosts.provider.testbeds() == frozenset()
