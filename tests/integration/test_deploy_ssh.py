"""Deploy to machines of somebody's own, and give them back as they were; virtual nodes stand for the machines."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.lab import Lab, docker
from tests.subnets import free_subnet
from toolkit import engine, ssh
from toolkit.providers import provider_for
from toolkit.providers.base import Request
from toolkit.providers.keys import IDENTITY
from toolkit.provisioning.images import Builder
from toolkit.provisioning.inventory import SSH_CONFIG
from toolkit.spec.testbed import Link, Node, ProviderSettings

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]

RACK = f"test-deployrack{os.getpid()}"
SUBNET = free_subnet()
ADDRESSES = {"eh": str(SUBNET[11]), "pub": str(SUBNET[12]), "sub": str(SUBNET[13])}
TESTBED = f"""\
name: NAME
provider: rack
providers:
  rack: {{type: ssh, user: toolkit, identity_file: IDENTITY, trust_on_first_use: true}}
network: {{subnet: {SUBNET}}}
nodes:
  eh: {{kind: host, address: {ADDRESSES["eh"]}}}
  pub: {{kind: host, address: {ADDRESSES["pub"]}}}
  sub: {{kind: host, address: {ADDRESSES["sub"]}}}
services:
  broker: {{on: eh}}
  publisher: {{on: pub}}
  subscriber: {{on: sub}}
workloads:
  few: {{messages: 200, asserts: {{lost: "== 0"}}}}
"""


@dataclass(frozen=True)
class Seen:
    """What a look inside a machine finds."""

    containers: str
    images: str
    volumes: str
    files: str
    units: str
    """Time daemons and the engine: their states."""


LOOKS = {
    "containers": "docker ps -aq",
    "images": "docker images -aq",
    "volumes": "docker volume ls -q",
    "files": "find /var/lib/toolkit /etc/toolkit /opt/toolkit /home/toolkit /root -mindepth 0 2>/dev/null | "
    "grep -v -e '/\\.ansible' -e '/\\.bash' -e sudo_as_admin | sort",
    "units": "for unit in docker systemd-timesyncd chrony ntp ntpsec; do "
    "echo $unit $(systemctl is-enabled $unit 2>/dev/null) $(systemctl is-active $unit); done",
}


def look(node: str) -> Seen:
    return Seen(**{what: inside(node, command) for what, command in LOOKS.items()})


def inside(node: str, script: str) -> str:
    return docker("exec", f"toolkit-{RACK}-{node}", "sh", "-c", f"{{ {script}; }} || true")


@pytest.fixture(scope="module")
def identity_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Three machines without any image are up; the key that enters them."""
    directory = tmp_path_factory.mktemp("rack")
    key = ("node", engine.architecture())
    provider = provider_for(ProviderSettings(name="rack", type="container"))
    nodes = [
        Node(
            name=name,
            kind="pi3",
            provider="rack",
            architecture=None,
            cpus=1.0,
            memory_bytes=1 << 30,
            link=Link(),
            address=address,
        )
        for name, address in ADDRESSES.items()
    ]
    request = Request(
        testbed=RACK,
        subnet=SUBNET,
        nodes=nodes,
        images={},
        directory=directory,
        node_image=Builder(lambda _: None).build([key])[key].reference,
    )
    try:
        assert not provider.acquire(request, lambda _: None).failed
        yield directory / IDENTITY
    finally:
        provider.release(RACK, None, directory, lambda _: None)
    assert provider.resources(RACK) == []


@pytest.fixture(scope="module")
def before(identity_file: Path) -> dict[str, Seen]:
    """The machines as they were."""
    assert identity_file.is_file()
    return {node: look(node) for node in ADDRESSES}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, identity_file: Path, before: dict[str, Seen]) -> Iterator[Lab]:
    assert all(seen.images == "" for seen in before.values())
    made = Lab(folder=tmp_path_factory.mktemp("lab"), name="test-deploy-ssh")
    made.write(TESTBED.replace("IDENTITY", str(identity_file)))
    try:
        made.run("deploy", within_s=600)  # the images come over SSH, to three machines on this one's processor
        yield made
    finally:
        made.run("teardown", expect=None)


def test_machines_that_do_not_answer_are_exit_4_each_named(tmp_path: Path, identity_file: Path) -> None:
    nobody = Lab(folder=tmp_path, name="test-deploy-nobody")
    nobody.write(
        f"""\
name: NAME
provider: rack
providers:
  rack: {{type: ssh, user: toolkit, identity_file: {identity_file}, trust_on_first_use: true, port: 9}}
nodes:
  one: {{kind: host, address: {ADDRESSES["eh"]}}}
  two: {{kind: host, address: {ADDRESSES["pub"]}}}
"""
    )
    for command, words in (("deploy", "node {}: "), ("doctor", "LACK {}: reach: ")):
        ran = nobody.run(command, expect=4)
        assert words.format("one") in ran.stdout + ran.stderr
        assert words.format("two") in ran.stdout + ran.stderr
    nobody.run("teardown")
    nobody.edit(", port: 9", "")
    machines = {f["where"]: f for f in nobody.run("doctor", "--json").document}
    assert "deploy brings what is missing" in machines["one"]["found"]
    assert not (nobody.home / nobody.name / "known_hosts").exists()  # a look trusts nobody


def test_images_came_over_ssh_and_services_are_healthy(lab: Lab, before: dict[str, Seen]) -> None:
    nodes = lab.status()
    assert {name: node["state"] for name, node in nodes.items()} == dict.fromkeys(ADDRESSES, "up")
    assert "broker" in nodes["eh"]["services"]
    for node in ADDRESSES:
        assert look(node).images != before[node].images
        assert inside(node, "ss -Hltn 'sport = :5000'") == ""  # nothing of the way there is left open
    lab.run("verify")


def test_again_changes_nothing(lab: Lab) -> None:
    ids = {node: inside(node, "docker ps -q --no-trunc") for node in ADDRESSES}
    assert lab.run("deploy", "--json").document["changed"] is False
    assert lab.run("plan", "--detailed-exitcode").stdout.startswith("nothing to do")
    assert {node: inside(node, "docker ps -q --no-trunc") for node in ADDRESSES} == ids


def test_a_workload_is_measured(lab: Lab) -> None:
    hops = lab.run("run", "few", "--json").document["hops"]
    assert hops["end_to_end"]["count"] == 200
    assert hops["end_to_end"]["lost"] == 0


def test_host_keys_seen_at_first_are_the_only_ones_later(lab: Lab) -> None:
    known = lab.home / lab.name / "known_hosts"
    kept = known.read_text()
    assert {line.split()[0] for line in kept.splitlines()} == set(ADDRESSES.values())
    words = kept.splitlines()[0].split()
    others = [line.split()[2] for line in kept.splitlines()[1:]]
    known.write_text(kept.replace(words[2], others[0]))
    try:
        close_shared(lab)
        ran = lab.run("deploy", expect=None)
        assert ran.code in {4, 5}, ran
        assert f"the host key of {words[0]}:22 has changed" in ran.stderr
    finally:
        known.write_text(kept)
    assert lab.run("deploy", "--json").document["changed"] is False


def close_shared(lab: Lab) -> None:
    ssh.close_shared(lab.home / lab.name / SSH_CONFIG)


def test_a_machine_that_went_away_does_not_keep_the_others(lab: Lab) -> None:
    docker("pause", f"toolkit-{RACK}-sub")
    try:
        lab.edit("messages: 200", "messages: 201")
        ran = lab.run("deploy", expect=5)
        assert "node sub" in ran.stderr
    finally:
        docker("unpause", f"toolkit-{RACK}-sub")
    time.sleep(0.5)
    lab.run("deploy")


def test_teardown_gives_the_machines_back_as_they_were(lab: Lab, before: dict[str, Seen]) -> None:
    removed = lab.run("teardown", "--json").document[0]["removed"]
    assert removed.count(f"remove /var/lib/toolkit/{lab.name}") == len(ADDRESSES)
    for node, seen in before.items():
        assert look(node) == seen, shlex.quote(node)
        assert inside(node, f"ls -d /var/lib/toolkit/{lab.name} 2>/dev/null") == ""
        assert inside(node, "pgrep -f '[p]ython'") == ""
    assert lab.left() == []
    assert lab.run("teardown", "--json").document[0]["removed"] == []
