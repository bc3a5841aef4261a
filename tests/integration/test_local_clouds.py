"""Two local clouds on virtual nodes, secure, one on MariaDB, and an Event Handler whose subscriptions are there too."""

from __future__ import annotations

import stat
from collections.abc import Iterator

import pytest

from tests.integration.lab import Lab, deployed, docker

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]

TESTBED = """\
name: NAME
nodes:
  one: {kind: vm}
  two: {kind: vm}
clouds:
  a: {secure: true, filler_entries: 10}
  b: {secure: true, filler_entries: 10, database: database}
services:
  ntp: {on: one}
  registry-a: {role: service-registry, cloud: a, on: one}
  authorization-a: {role: authorization, cloud: a, on: one}
  orchestrator-a: {role: orchestrator, cloud: a, on: one}
  gatekeeper-a: {role: gatekeeper, cloud: a, on: one}
  consumer: {cloud: a, on: one}
  database: {on: two}
  registry-b: {role: service-registry, cloud: b, on: two, settings: {database_timeout: 20s}}
  authorization-b: {role: authorization, cloud: b, on: two, settings: {database_timeout: 20s}}
  orchestrator-b: {role: orchestrator, cloud: b, on: two, settings: {database_timeout: 20s}}
  gatekeeper-b: {role: gatekeeper, cloud: b, on: two, settings: {database_timeout: 20s}}
  provider: {cloud: b, on: two}
  broker: {on: two, settings: {mode: original, database: database, sql_log: true, database_timeout: 20s}}
  publisher: {on: one}
  subscriber: {on: one}
workloads:
  events: {publishers: publisher, messages: 20, arrivals: {rate: 20/s}}
  intercloud:
    consumers: consumer
    messages: 10
    arrivals: {rate: 5/s}
  restarted:
    consumers: consumer
    messages: 40
    arrivals: {rate: 5/s}
    disturb: [{at: 2s, stop: database, lasts: 2s}]
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with deployed(tmp_path_factory.mktemp("clouds"), "test-clouds", TESTBED) as made:
        yield made


def test_the_consumer_is_answered_from_the_other_cloud(lab: Lab) -> None:
    document = lab.run("run", "intercloud", "--json").document
    assert document["ledger"]["total"]["delivered"] == 10, document["processes"]
    operations = [step["operation"] for step in document["sequence"] if step["kind"] == "message"]
    assert {"init_gsd", "gsd_poll", "init_icn", "icn_proposal"} <= set(operations)
    assert document["hops"]["gatekeeper@a -> gatekeeper@b: gsd_poll"]["count"] == 10
    assert document["hops"]["service_registry@b query: query"]["mean_ms"] > 0
    assert not [fault for fault in document["faults"] if "was late" not in fault]


def test_subscriptions_and_log_of_the_event_handler_are_on_the_server(lab: Lab) -> None:
    document = lab.run("run", "events", "--json").document
    assert document["ledger"]["total"]["delivered"] == 20, document["processes"]
    tables = "SELECT count(*) FROM events_broker.logs; SELECT count(*) FROM events_broker.event_filter"
    client = ("mariadb", "--defaults-file=/dev/shm/client.cnf", "--skip-column-names", f"--execute={tables}")
    shown = docker("exec", lab.node("two"), "docker", "exec", f"toolkit-{lab.name}-database", *client)
    logs, filters = map(int, shown.split())
    assert logs >= 3 * 20
    assert filters <= 1  # the subscriber takes its own back at the end of a run


def test_again_changes_nothing(lab: Lab) -> None:
    assert lab.run("deploy", "--json").document["changed"] is False


def test_a_database_that_restarts_meanwhile_is_told_and_found_again(lab: Lab) -> None:
    document = lab.run("run", "restarted", "--json", expect=None).document
    total = document["ledger"]["total"]
    assert total["refused"] > 0
    assert total["delivered"] > 0
    # Each request is answered, those meanwhile by an error.
    assert total["delivered"] + total["refused"] == 40
    for _ in range(8):  # the server may take its time to come back on a busy machine
        after = lab.run("run", "intercloud", "--json", expect=None).document
        if after["ledger"]["total"]["delivered"] == 10:
            break
    assert after["ledger"]["total"]["delivered"] == 10, after["faults"]


def test_what_was_made_at_deploy_is_private(lab: Lab) -> None:
    state = lab.home / lab.name
    keys = [*(state / "certificates").glob("*.key"), *(state / "passwords").iterdir()]
    assert {file.stem for file in keys} >= {"master", "a", "b", "a.gatekeeper", "b.provider1", "a.sysop", "database"}
    assert {stat.S_IMODE(file.stat().st_mode) for file in keys} == {0o600}
    password = (state / "passwords" / "database").read_text()
    shown = docker("exec", lab.node("two"), "docker", "inspect", f"toolkit-{lab.name}-registry-b")
    assert password not in shown
    assert "BEGIN PRIVATE KEY" not in shown
