"""Orders of a run whose clients find each other."""

from __future__ import annotations

from pathlib import Path

from toolkit.controller.cast import make_cast
from toolkit.spec.load import load_testbed
from toolkit.state import Deployment, Host, SshAccess

FILE = """
nodes: {pub: {kind: vm}, sub: {kind: vm, count: 2}}
services:
  publisher: {on: pub}
  subscriber: {on: sub, replicas: 2}
workloads:
  straight: {messages: 10, subscriber_connections: 3, options: {protocol: dds, dds_domain: 7}}
"""


def test_everybody_is_told_of_all_the_others_and_publishers_how_many_to_find(tmp_path: Path) -> None:
    file = tmp_path / "testbed.yml"
    file.write_text(FILE)
    testbed = load_testbed(file)
    hosts = {
        node.name: Host(
            node=node.name, provider="container", type="container", address=f"10.77.0.{10 + number}",
            architecture="amd64", ssh=SshAccess(address="10.77.0.1", known_hosts="/dev/null"),
        )
        for number, node in enumerate(testbed.nodes)
    }  # fmt: skip
    deployment = Deployment(name=testbed.name, file=str(file), stage="deployed", hosts=hosts)
    cast = make_cast(testbed, deployment, testbed.workloads["straight"], "r1")
    assert cast.brokers == ()
    assert len(cast.subscribers) == 4
    for _, order in cast.parts:
        assert order.protocol == "dds"
        assert order.broker == ""
        assert order.options["peers"] == ["10.77.0.10", "10.77.0.11", "10.77.0.12"]
        assert order.options["readers"] == 12
        assert order.options["dds_domain"] == 7
