"""Inventories: what Ansible is told of hosts, and that both kinds are what Ansible reads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from toolkit.contract.bundle import Bundle
from toolkit.provisioning.inventory import dynamic_inventory, make_inventory, write_bundles, write_inventory
from toolkit.spec.testbed import Image, Link, Node, Service, Testbed
from toolkit.state import Deployment, Host, SshAccess


def node(name: str, kind: str, group: str | None = None) -> Node:
    return Node(
        name=name,
        kind=kind,
        provider="lab-1",
        architecture=None,
        cpus=None,
        memory_bytes=None,
        link=Link(),
        group=group,
    )


def host(name: str, architecture: str = "arm/v7", **facts: object) -> Host:
    access = SshAccess(address="10.0.0.1", user="pi", known_hosts="/k", become=True)
    return Host(
        node=name, provider="lab-1", type="ssh", address="10.0.0.1", ssh=access, architecture=architecture, facts=facts
    )


TESTBED = Testbed(
    name="x",
    file=Path("testbed.yml"),
    nodes=(node("hub", "pi3"), node("sub-1", "pi1", "worker"), node("gone", "pi1")),
    services=(Service(name="events", role="broker", image=Image(name="event-handler"), nodes=("hub", "gone")),),
)
HOSTS = {"hub": host("hub", python="/usr/bin/python3.11"), "sub-1": host("sub-1", "arm/v6", python="3.11.2")}


def test_groups_and_variables(tmp_path: Path) -> None:
    bundle = Bundle(testbed="x", node="hub", root="/var/lib/toolkit/x")
    files = write_bundles({"hub": bundle}, tmp_path / "bundles")
    made = make_inventory(
        TESTBED,
        HOSTS,
        directory=tmp_path,
        bundle_files=files,
        registry_port=5001,
        bare=["sub-1", "gone"],
        clocks=["hub"],
    )["all"]
    groups = {name: sorted(group["hosts"]) for name, group in made["children"].items()}
    assert groups == {
        "nodes": ["hub", "sub-1"],
        "bare": ["sub-1"],
        "clocks": ["hub"],
        "kind_pi3": ["hub"],
        "kind_pi1": ["sub-1"],
        "group_worker": ["sub-1"],
        "provider_lab_1": ["hub", "sub-1"],
        "role_broker": ["hub"],
        "service_events": ["hub"],
    }
    hub, sub = made["hosts"]["hub"], made["hosts"]["sub-1"]
    assert hub["ansible_python_interpreter"] == "/usr/bin/python3.11"
    assert sub["ansible_python_interpreter"] == "/usr/bin/python3"
    assert hub["ansible_become"] is True
    assert hub["node_registry"] == "127.0.0.1:5001"
    assert hub["ansible_ssh_extra_args"] == "-R 127.0.0.1:5001:127.0.0.1:5001"
    assert sub["node_platform"] == "linux/arm/v6"
    assert "node_bundle_file" not in sub
    document = json.loads(Path(hub["node_bundle_file"]).read_text())
    assert document["digest"] == bundle.digest()


def test_a_bundle_that_stays_is_not_written_again(tmp_path: Path) -> None:
    bundle = Bundle(testbed="x", node="hub", root="/var/lib/toolkit/x")
    file = write_bundles({"hub": bundle}, tmp_path)["hub"]
    before = file.stat().st_mtime_ns
    write_bundles({"hub": bundle}, tmp_path)
    assert file.stat().st_mtime_ns == before


@pytest.mark.parametrize("kind", ["static", "dynamic"])
def test_ansible_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setenv("TOOLKIT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    if kind == "static":
        file = write_inventory(
            make_inventory(TESTBED, HOSTS, directory=tmp_path, bundle_files={}), tmp_path / "inventory.json"
        )
    else:
        deployment = Deployment(name="x", file="testbed.yml", stage="deployed", hosts=HOSTS)
        answer = tmp_path / "answer.json"
        answer.write_text(json.dumps(dynamic_inventory(deployment, TESTBED)))
        file = tmp_path / "inventory.sh"
        file.write_text(f"#!/bin/sh\ncat {answer}\n")
        file.chmod(0o755)
    program = Path(sys.executable).with_name("ansible-inventory")
    listed = subprocess.run([program, "-i", file, "--list"], capture_output=True, text=True, check=True, cwd=tmp_path)
    read = json.loads(listed.stdout)
    assert sorted(read["nodes"]["hosts"]) == ["hub", "sub-1"]
    assert read["role_broker"]["hosts"] == ["hub"]
    assert read["_meta"]["hostvars"]["sub-1"]["toolkit_kind"] == "pi1"
    assert read["_meta"]["hostvars"]["hub"]["toolkit_testbed"] == "x"
