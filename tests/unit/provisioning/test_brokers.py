"""What brokers are configured with, and how they are entered: bounds, listeners, logins, certificates."""

import base64
import hashlib
import json
import ssl
from pathlib import Path

import pytest
from cryptography import x509

from toolkit.provisioning.broker_access import (
    access_secrets,
    activemq_credentials,
    client_environment,
    entry_options,
    made_variables,
    mosquitto_passwords,
    password_variable,
    rabbitmq_definitions,
)
from toolkit.provisioning.brokers import BrokerSetup, broker_setup
from toolkit.provisioning.cloud_secrets import cloud_secrets
from toolkit.provisioning.local_clouds import made_secrets, membership_environment
from toolkit.spec.load import load_testbed
from toolkit.spec.testbed import Testbed
from toolkit.state import Host, SshAccess

FILE = """\
name: access
nodes: {{a: {{}}, b: {{}}, c: {{}}}}
services:
  broker: {{on: [{on}], image: {image}, settings: {{{settings}}}{access}}}
  publisher: {{on: c}}
  subscriber: {{on: c}}
secrets: {{lab: "${{env.LAB}}"}}
"""
GUARDED = ", tls: true, login: {user: lab, password: lab}"
PASSWORD = "pä$$: \\w"  # noqa: S105 - for these tests


def written(folder: Path, image: str, *, on: str = "a", settings: str = "", access: str = "") -> Testbed:
    (folder / "testbed.yml").write_text(FILE.format(on=on, image=image, settings=settings, access=access))
    return load_testbed(folder / "testbed.yml")


def setup(made: Testbed, members: tuple[str, ...] = ("10.0.0.1",)) -> BrokerSetup:
    found = broker_setup(made.services[0], members[0], members)
    assert found is not None
    return found


def hosts(*nodes: str) -> dict[str, Host]:
    return {
        node: Host(
            node=node, provider="container", type="container", address=f"10.0.0.{number}", architecture="amd64",
            ssh=SshAccess(address=f"10.0.0.{number}", known_hosts="/dev/null"),
        )
        for number, node in enumerate(nodes, 1)
    }  # fmt: skip


def test_one_setting_bounds_every_broker(tmp_path: Path) -> None:
    bounds = "queue_limit: 77, in_flight: 7"
    mosquitto = setup(written(tmp_path, "mosquitto", settings=bounds)).files["mosquitto.conf"].splitlines()
    assert {"max_queued_messages 77", "max_inflight_messages 7"} <= set(mosquitto)
    rabbitmq = setup(written(tmp_path, "rabbitmq", settings=bounds)).files
    [policy] = json.loads(rabbitmq["definitions.json"])["policies"]
    assert policy["definition"] == {"max-length": 77, "overflow": "drop-head"}
    assert "mqtt.prefetch = 7" in rabbitmq["rabbitmq.conf"].splitlines()
    activemq = written(tmp_path, "activemq", settings=bounds)
    assert 'constantPendingMessageLimitStrategy limit="77"' in setup(activemq).files["activemq.xml"]
    assert entry_options(activemq.services[0]) == {"prefetch": 7}


def test_how_much_a_broker_logs_is_a_setting_and_little_by_default(tmp_path: Path) -> None:
    places = {
        "mosquitto": ("mosquitto.conf", "log_type notice", "log_type all"),
        "rabbitmq": ("rabbitmq.conf", "log.console.level = warning", "log.console.level = debug"),
        "prosody": ("prosody.cfg.lua", 'min = "warn"', 'min = "debug"'),
    }
    for image, (file, little, much) in places.items():
        assert little in setup(written(tmp_path, image)).files[file]
        loud = written(tmp_path, image, settings="log_level: debug")
        assert much in setup(loud).files[file]
        assert loud.services[0].settings["log_level"] == "debug", "what a manifest keeps"
    assert setup(written(tmp_path, "activemq")).environment["TOOLKIT_LOG_LEVEL"] == "WARN"
    loud = written(tmp_path, "activemq", settings="log_level: debug")
    assert setup(loud).environment["TOOLKIT_LOG_LEVEL"] == "DEBUG"


def test_a_broker_listens_for_what_it_is_asked_to_and_with_tls_for_nothing_else(tmp_path: Path) -> None:
    plain = written(tmp_path, "rabbitmq", settings="protocols: [amqp, stomp]")
    assert plain.services[0].ports == (5672, 61613, 4369, 25672, 15692)
    assert setup(plain).files["enabled_plugins"] == "[rabbitmq_prometheus,rabbitmq_stomp].\n"
    assert setup(plain).health == ("listening", "5672", "61613")
    secure = written(tmp_path, "rabbitmq", access=GUARDED)
    lines = setup(secure).files["rabbitmq.conf"].splitlines()
    assert {"listeners.tcp = none", "mqtt.listeners.tcp = none", "stomp.listeners.tcp = none"} <= set(lines)
    assert {
        "listeners.ssl.default = 5671",
        "mqtt.listeners.ssl.default = 8883",
        "stomp.listeners.ssl.1 = 61614",
    } <= set(lines)
    assert "mqtt.allow_anonymous = false" in lines
    assert not any("default_pass" in line for line in lines)
    mosquitto = setup(written(tmp_path, "mosquitto", access=GUARDED)).files
    assert "listener 8883 0.0.0.0" in mosquitto["mosquitto.conf"].splitlines()
    assert "listener 1882 127.0.0.1" in mosquitto["mosquitto.conf"].splitlines()
    assert mosquitto["counters.acl"] == "topic read $SYS/#\n"


def test_several_nodes_of_rabbitmq_know_each_other(tmp_path: Path) -> None:
    cluster = written(tmp_path, "rabbitmq", on="a, b")
    found = setup(cluster, ("10.0.0.1", "10.0.0.2"))
    assert found.environment["RABBITMQ_NODENAME"] == "rabbit@10.0.0.1"
    assert "cluster_formation.classic_config.nodes.2 = rabbit@10.0.0.2" in found.files["rabbitmq.conf"].splitlines()
    values = access_secrets(cluster, hosts("a", "b", "c"), tmp_path, lambda _: PASSWORD)
    again = access_secrets(cluster, hosts("a", "b", "c"), tmp_path, lambda _: PASSWORD)
    assert values == again
    assert len(values["broker"]["TOOLKIT_COOKIE_FILE"]) >= 20
    assert "TOOLKIT_AFTER" not in found.environment, "the first of a cluster waits for nobody"
    second = broker_setup(cluster.services[0], "10.0.0.2", ("10.0.0.1", "10.0.0.2"))
    assert second
    assert second.environment["TOOLKIT_AFTER"] == "10.0.0.1:1883"
    assert "cluster_formation" not in setup(written(tmp_path, "rabbitmq")).files["rabbitmq.conf"]


def test_each_broker_is_told_the_login_in_its_own_words(tmp_path: Path) -> None:
    broker = written(tmp_path, "rabbitmq", access=GUARDED).services[0]
    user, _, kind, rounds, salt, digest = (
        mosquitto_passwords(broker, ("lab", PASSWORD)).strip().replace(":", "$", 1).split("$")
    )
    assert (user, kind) == ("lab", "7")
    again = hashlib.pbkdf2_hmac("sha512", PASSWORD.encode(), base64.b64decode(salt), int(rounds))
    assert base64.b64decode(digest) == again
    [account] = json.loads(rabbitmq_definitions(broker, ("lab", PASSWORD)))["users"]
    raw = base64.b64decode(account["password_hash"])
    assert raw[4:] == hashlib.sha256(raw[:4] + PASSWORD.encode()).digest()
    assert activemq_credentials(broker, ("lab", "a:")) == "toolkit.user=lab\ntoolkit.password=\\u0061\\u003a\n"


def test_a_certificate_is_for_the_brokers_addresses_and_is_kept(tmp_path: Path) -> None:
    made = written(tmp_path, "rabbitmq", on="a, b", access=GUARDED)
    values = access_secrets(made, hosts("a", "b", "c"), tmp_path, lambda _: PASSWORD)
    chain = x509.load_pem_x509_certificates(values["broker"]["TOOLKIT_TLS_CERTIFICATE_FILE"].encode())
    names = chain[0].extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.1", "10.0.0.2"]
    assert values["publisher"] == values["subscriber"]
    assert values["publisher"][password_variable("broker")] == PASSWORD
    ssl.create_default_context(cadata=values["publisher"]["TOOLKIT_TLS_AUTHORITY_FILE"])
    assert access_secrets(made, hosts("a", "b", "c"), tmp_path, lambda _: PASSWORD) == values
    moved = access_secrets(made, hosts("c", "a", "b"), tmp_path, lambda _: PASSWORD)
    assert moved["broker"]["TOOLKIT_TLS_CERTIFICATE_FILE"] != values["broker"]["TOOLKIT_TLS_CERTIFICATE_FILE"]
    assert moved["publisher"] == values["publisher"], "the authority stays"
    assert all(not file.stat().st_mode & 0o077 for file in (tmp_path / "certificates").glob("*.key"))


def test_an_event_handler_with_tls_knows_its_clients_by_certificates_of_one_cloud(tmp_path: Path) -> None:
    made = written(tmp_path, "event-handler", access=", tls: true")
    handler, publisher, _ = made.services
    assert handler.ports == (8455,)
    values = access_secrets(made, hosts("a", "b", "c"), tmp_path, lambda _: PASSWORD)
    prefix = "TOOLKIT_EVENT_HANDLER_TLS_"
    assert set(values["broker"]) == {f"{prefix}{name}_FILE" for name in ("CERTIFICATE", "KEY", "CLOUD_CA")}
    [cloud] = x509.load_pem_x509_certificates(values["broker"][f"{prefix}CLOUD_CA_FILE"].encode())
    for service, variable in (("publisher", "TOOLKIT_TLS_"), ("subscriber", "TOOLKIT_TLS_"), ("broker", prefix)):
        own = x509.load_pem_x509_certificates(values[service][f"{variable}CERTIFICATE_FILE"].encode())[0]
        own.verify_directly_issued_by(cloud)
        assert own.subject.rfc4514_string() == f"CN={service}.brokers.brokers.arrowhead.eu"
    assert client_environment(made, publisher) == {"TOOLKIT_SYSTEM": "publisher"}
    assert client_environment(made, handler) == {}
    assert access_secrets(made, hosts("a", "b", "c"), tmp_path, lambda _: PASSWORD) == values


def test_an_event_handler_of_a_local_cloud_and_its_clients_have_certificates_of_that(tmp_path: Path) -> None:
    (tmp_path / "testbed.yml").write_text("""\
name: access
nodes: {a: {}, b: {}, c: {}}
clouds: {hall: {secure: true, operator: an-operator-with-a-name}}
services:
  service-registry: {on: b}
  broker: {on: a, tls: true}
  a-publisher-with-a-name: {role: publisher, on: c}
  mosquitto: {role: broker, image: mosquitto, on: b, tls: true}
""")
    made = load_testbed(tmp_path / "testbed.yml")
    _, handler, publisher, _ = made.services
    assert handler.cloud == "hall"
    assert handler.after == ("service-registry",)
    assert made_secrets(made, handler) == ()
    places = hosts("a", "b", "c")
    values = access_secrets(made, places, tmp_path, lambda _: PASSWORD)
    of_cloud = cloud_secrets(made, tmp_path, lambda _: PASSWORD)["service-registry"]
    prefix = "TOOLKIT_EVENT_HANDLER_TLS_"
    authority = values["broker"][f"{prefix}CLOUD_CA_FILE"]
    assert authority == of_cloud["TOOLKIT_ARROWHEAD_TLS_CLOUD_CA_FILE"]
    [cloud] = x509.load_pem_x509_certificates(authority.encode())
    for service, variable, name in (
        ("broker", prefix, "eventhandler"),
        ("a-publisher-with-a-name", "TOOLKIT_TLS_", "a-publisher-with-a-nam"),
    ):
        own = x509.load_pem_x509_certificates(values[service][f"{variable}CERTIFICATE_FILE"].encode())[0]
        own.verify_directly_issued_by(cloud)
        [common] = own.subject
        assert common.value == f"{name}.hall.an-operator-with-a-name.arrowhead.eu"
        assert len(common.value) <= 64
    assert client_environment(made, publisher) == {"TOOLKIT_SYSTEM": "a-publisher-with-a-nam"}
    other = x509.load_pem_x509_certificates(values["mosquitto"]["TOOLKIT_TLS_CERTIFICATE_FILE"].encode())[0]
    assert other.subject.rfc4514_string() == "CN=mosquitto.brokers.brokers.arrowhead.eu"
    assert access_secrets(made, places, tmp_path, lambda _: PASSWORD) == values
    assert membership_environment(made, places, handler, "a") == {
        "TOOLKIT_EVENT_HANDLER_REGISTERED_ADDRESS": "10.0.0.1",
        "TOOLKIT_EVENT_HANDLER_REGISTRY": "10.0.0.2:8443",
        "TOOLKIT_EVENT_HANDLER_VERSION": "4.1",
    }


def test_clients_of_other_brokers_need_no_certificates_of_their_own(tmp_path: Path) -> None:
    made = written(tmp_path, "mosquitto", access=GUARDED)
    publisher = made.services[1]
    assert made_variables(made, publisher) == ("TOOLKIT_TLS_AUTHORITY_FILE", password_variable("broker"))
    assert client_environment(made, publisher) == {}


@pytest.mark.parametrize("image", ["mosquitto", "rabbitmq", "activemq", "event-handler"])
def test_who_is_open_to_anybody_has_no_secrets(tmp_path: Path, image: str) -> None:
    made = written(tmp_path, image)
    assert [made_variables(made, service) for service in made.services] == [(), (), ()]
    assert access_secrets(made, hosts("a", "b", "c"), tmp_path, lambda _: PASSWORD) == {}
