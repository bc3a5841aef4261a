"""Which server has which database, and what those who keep something there are told."""

import json
from pathlib import Path

from tests.rendered import AnyImage, hosts_on_loopback
from toolkit.contract.bundle import Container
from toolkit.provisioning.cloud_secrets import cloud_file_secrets, cloud_secrets
from toolkit.provisioning.databases import databases_on
from toolkit.provisioning.render import render_bundles
from toolkit.spec.load import load_testbed
from toolkit.spec.testbed import Testbed

FILE = """\
name: kept
nodes: {a: {}, b: {}, c: {}, d: {}, e: {}}
secrets: {mine: "${env.MINE}"}
clouds: {hall-1: {database: stores}}
services:
  registry: {role: service-registry, cloud: hall-1, on: a}
  stores: {role: database, on: a, settings: {port: 3307}}
  broker: {on: b, settings: {mode: original, database: stores, database_pool: 3}}
  second-one: {role: broker, on: c, settings: {mode: original, database: stores}}
  elsewhere:
    role: broker
    on: d
    settings: {mode: original, database: "postgresql://user@192.0.2.9/events"}
    secrets: {TOOLKIT_EVENT_HANDLER_DATABASE_PASSWORD_FILE: mine}
  streams: {role: broker, on: e, settings: {mode: direct, database: stores}}
"""
URL, PASSWORD_FILE = (f"TOOLKIT_EVENT_HANDLER_DATABASE_{name}" for name in ("URL", "PASSWORD_FILE"))


def loaded(folder: Path, text: str = FILE) -> Testbed:
    (folder / "testbed.yml").write_text(text)
    return load_testbed(folder / "testbed.yml")


def containers(testbed: Testbed) -> dict[str, Container]:
    bundles = render_bundles(testbed, hosts_on_loopback(testbed), AnyImage())
    return {container.service: container for bundle in bundles.values() for container in bundle.containers}


def test_event_handlers_have_a_database_each_on_the_server_they_name(tmp_path: Path) -> None:
    testbed = loaded(tmp_path)
    server = next(service for service in testbed.services if service.role == "database")
    assert databases_on(testbed, server) == ("arrowhead_hall_1", "events_broker", "events_second_one")
    found = containers(testbed)
    assert found["stores"].environment["MARIADB_DATABASES"].split() == list(databases_on(testbed, server))
    assert found["broker"].environment[URL] == "mariadb://arrowhead@127.0.0.1:3307/events_broker"
    assert json.loads(found["broker"].environment["TOOLKIT_SETTINGS"])["database_pool"] == 3
    assert found["second-one"].environment[URL].endswith("/events_second_one")
    assert found["elsewhere"].environment[URL] == "postgresql://user@192.0.2.9/events"
    assert URL not in found["streams"].environment
    assert found["broker"].secrets == found["elsewhere"].secrets == (PASSWORD_FILE,)
    assert found["streams"].secrets == ()


def test_a_server_and_those_who_use_it_have_one_password(tmp_path: Path) -> None:
    testbed = loaded(tmp_path)
    made = cloud_secrets(testbed, tmp_path, {}.__getitem__)
    password = made["stores"]["MARIADB_PASSWORD_FILE"]
    assert len(password) > 20
    assert made["broker"] == made["second-one"] == {PASSWORD_FILE: password}
    assert made["registry"] == {"TOOLKIT_ARROWHEAD_DATABASE_PASSWORD_FILE": password}
    assert "elsewhere" not in made  # the file gives its secret
    assert cloud_secrets(testbed, tmp_path, {}.__getitem__) == made


def test_the_file_may_give_the_servers_password(tmp_path: Path) -> None:
    old = "settings: {port: 3307}"
    testbed = loaded(tmp_path, FILE.replace(old, f"{old}, secrets: {{MARIADB_PASSWORD_FILE: mine}}"))
    assert cloud_file_secrets(testbed) == {"mine"}
    made = cloud_secrets(testbed, tmp_path, {"mine": "s3cret"}.__getitem__)
    assert made == {
        "broker": {PASSWORD_FILE: "s3cret"},
        "second-one": {PASSWORD_FILE: "s3cret"},
        "registry": {"TOOLKIT_ARROWHEAD_DATABASE_PASSWORD_FILE": "s3cret"},
    }
