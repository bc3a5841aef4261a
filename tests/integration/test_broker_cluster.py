"""A RabbitMQ cluster of two virtual nodes, from the testbed file alone: entered at both, and one of them goes down."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.lab import Lab, deployed

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]

TESTBED = """\
name: NAME
nodes:
  b: {kind: vm, count: 2}
services:
  broker: {on: b, image: rabbitmq, settings: {protocols: [amqp]}}
  publisher: {on: b-1}
  subscriber: {on: b-2}
workloads:
  both:
    {messages: 100, qos: 1, connections: 2, subscriber_connections: 2, payload: 100B, arrivals: {rate: 50/s}}
  down: {extends: both, messages: 300, drain: 3s, disturb: [{at: 2s, stop: broker, node: b-1, lasts: 2s}]}
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with deployed(tmp_path_factory.mktemp("cluster"), "test-cluster", TESTBED) as made:
        yield made


def kpis(lab: Lab, workload: str) -> dict[str, Any]:
    lab.run("run", workload)
    [folder] = sorted(lab.home.glob(f"{lab.name}/runs/*-{workload}"))[-1:]
    document: dict[str, Any] = json.loads((folder / "kpis.json").read_text())
    assert document["ledger"]["closes"]
    return document


def test_both_nodes_are_one_broker_and_clients_enter_at_each(lab: Lab) -> None:
    """What enters at one node reaches the subscribers at both."""
    found = kpis(lab, "both")
    whole = found["ledger"]["total"]
    assert whole["delivered"] == whole["expected"] == 2 * 2 * 100
    assert whole["duplicates"] == 0
    assert [fault for fault in found["faults"] if "was late" not in fault] == []
    probes = {p["node"]: p["counts"] for p in found["processes"] if p["role"] == "probe"}
    assert set(probes) == {"b-1", "b-2"}
    assert all(counts["received"] == 100 for counts in probes.values()), "one publisher's connection entered at each"
    assert found["hops"]["broker"]["count"] == whole["delivered"], "also of messages that came in here and left there"


def test_the_loss_of_a_node_is_named_and_every_message_is_accounted_for(lab: Lab) -> None:
    found = kpis(lab, "down")
    whole = found["ledger"]["total"]
    assert whole["expected"] == 2 * 2 * 300
    lost = [fault for fault in found["faults"] if "lost its connection" in fault]
    assert {fault.partition(" ")[0] for fault in lost} == {"b-1/publisher-0", "b-2/subscriber-0"}
    assert not found["valid"]
    for subscriber in found["ledger"]["subscribers"].values():
        assert subscriber["delivered"] > 0.4 * subscriber["expected"], "both went on at the node that was left"
    assert whole["delivered"] + whole["dropped"] + whole["refused"] + whole["unconfirmed"] == whole["expected"]
