"""Secure mode: TLS, common names, who may call what, tokens, and two clouds over it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from toolkit.node.arrowhead import tokens
from toolkit.node.arrowhead.http_client import HttpClient
from toolkit.node.arrowhead.peers import exchange
from toolkit.node.arrowhead.refusals import Refusal
from toolkit.node.arrowhead.tls import client_context
from toolkit.provisioning import certificates
from toolkit.provisioning.certificates import Identity

from .local_cloud import ENTRY, GAUGE, PANEL, PRESS_GAUGE, SYSTEMS, Answered, LocalCloud, request_form

THERMOMETER = {
    "serviceDefinition": "IndoorTemperature",
    "interfaces": ["JSON"],
    "serviceMetadata": {"security": "token"},
}
ORCHESTRATE = "/orchestrator/orchestration"


@dataclass
class Secured:
    cloud: LocalCloud
    authority: Identity
    folder: Path

    def __post_init__(self) -> None:
        self.identities: dict[str, Identity] = {}

    def identity(self, name: str) -> Identity:
        if name not in self.identities:
            self.identities[name] = certificates.make_system(self.authority, system=name)
            certificates.save(self.identities[name], self.folder, name)
        return self.identities[name]

    def context(self, name: str | None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.folder / "ca.pem"))
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.check_hostname = False
        if name is not None:
            self.identity(name)
            context.load_cert_chain(self.folder / f"{name}.crt", self.folder / f"{name}.key")
        return context

    def ask(self, caller: str | None, system: str, method: str, path: str, message: Any = None) -> Answered:
        answer: Answered = getattr(self.cloud, system)(method, path, message, tls=self.context(caller))
        return answer


def secured(master: Identity, name: str, folder: Path, **environment: str) -> Secured:
    authority = certificates.make_cloud(master, cloud=name, operator="plant")
    folder.mkdir(parents=True)
    certificates.save(authority, folder, "cloud")
    (folder / "ca.pem").write_bytes(authority.certificate_pem + master.certificate_pem)
    (folder / "cloud-ca.pem").write_bytes(authority.certificate_pem)
    (folder / "master.pem").write_bytes(master.certificate_pem)
    cloud = LocalCloud(name, folder)
    cloud.environment = {
        "TOOLKIT_ARROWHEAD_SECURE": "1",
        "TOOLKIT_ARROWHEAD_TLS_CLOUD_CA_FILE": str(folder / "cloud-ca.pem"),
        "TOOLKIT_ARROWHEAD_TLS_CLOUD_CERTIFICATE_FILE": str(folder / "cloud.crt"),
        "TOOLKIT_ARROWHEAD_TLS_CLOUD_KEY_FILE": str(folder / "cloud.key"),
        "TOOLKIT_ARROWHEAD_TLS_MASTER_CA_FILE": str(folder / "master.pem"),
        **environment,
    }
    return Secured(cloud, authority, folder)


def start(one: Secured) -> None:
    files = {}
    for system in SYSTEMS:
        one.identity(system)
        files[system] = {
            "TOOLKIT_ARROWHEAD_TLS_CERTIFICATE_FILE": str(one.folder / f"{system}.crt"),
            "TOOLKIT_ARROWHEAD_TLS_KEY_FILE": str(one.folder / f"{system}.key"),
        }
    one.cloud.start(extra=files)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Secured, Secured]]:
    folder = tmp_path_factory.mktemp("secure")
    master = certificates.make_master()
    one = secured(master, "hall-1", folder / "one")
    hardened = {"TOOLKIT_ARROWHEAD_STRICT_CLOUD": "1", "TOOLKIT_ARROWHEAD_AUTH_FOR_CLOUD": "1"}
    two = secured(master, "hall-2", folder / "two", **hardened)
    for each in (one, two):
        each.cloud.own["operator"] = "plant"
    own = {each.cloud.name: {**each.cloud.own, "operator": "plant"} for each in (one, two)}
    provider_key = tokens.public_text(two.identity("therm-1").key.public_key())
    one.cloud.seed(
        ownCloud=own["hall-1"],
        neighborClouds=[own["hall-2"]],
        registryEntries=[ENTRY],
        intraCloud=[{"consumer": PANEL, "providerList": [PRESS_GAUGE], "serviceList": [GAUGE]}],
    )
    provider = {"systemName": "therm-1", "address": "10.30.0.8", "port": 8461, "authenticationInfo": provider_key}
    two.cloud.seed(
        ownCloud=own["hall-2"],
        neighborClouds=[own["hall-1"]],
        registryEntries=[{"providedService": THERMOMETER, "provider": provider, "serviceURI": "temperature"}],
        interCloud=[{"cloud": own["hall-1"], "serviceList": [THERMOMETER]}],
    )
    try:
        for each in (one, two):
            start(each)
        for each in (one, two):
            each.cloud.await_ready()
        yield one, two
    finally:
        for each in (one, two):
            codes = each.cloud.stop()
            assert set(codes.values()) <= {0}, codes


@pytest.fixture(scope="module")
def hall(pair: tuple[Secured, Secured]) -> Secured:
    return pair[0]


def test_a_client_without_certificate_is_not_heard(hall: Secured) -> None:
    with pytest.raises((ssl.SSLError, ConnectionError)):
        hall.ask(None, "orchestrator", "GET", ORCHESTRATE)


def test_a_client_of_another_cloud_is_not_heard(pair: tuple[Secured, Secured]) -> None:
    one, two = pair
    context = two.context("panel-7")
    context.load_verify_locations(one.folder / "ca.pem")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        one.cloud.orchestrator("GET", ORCHESTRATE, tls=context)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_system_whose_certificate_is_refused_hears_so(
    pair: tuple[Secured, Secured], loop: str, newest: ssl.TLSVersion
) -> None:
    """Under TLS 1.3 only after its handshake, and after the request is on its way."""
    one, two = pair
    made = two.identity("orchestrator")
    context = client_context(
        two.folder / "orchestrator.crt", two.folder / "orchestrator.key", one.folder / "cloud-ca.pem", verify_host=False
    )
    context.maximum_version = newest
    assert made.common_name.startswith("orchestrator.hall-2")
    url = f"https://127.0.0.1:{one.cloud.ports['service_registry']}/serviceregistry/query"

    async def ask() -> list[tuple[str, int, str]]:
        heard = []
        for _ in range(20):
            client = HttpClient(tls=context)
            with pytest.raises(Refusal) as raised:
                await exchange(client, "PUT", url, {"service": GAUGE}, dict)
            heard.append((raised.value.kind, raised.value.status, raised.value.message))
            client.close()
        return heard

    factory = asyncio.new_event_loop if loop == "asyncio" else pytest.importorskip("uvloop").new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        heard = runner.run(ask())
    assert {(kind, status) for kind, status, _ in heard} == {("AUTH", 401)}
    assert {"unknown ca" in message for _, _, message in heard} == {True}, heard
    log = (one.cloud.folder / "service_registry.log").read_text()
    assert "refused a client at 127.0.0.1: certificate verify failed" in log
    assert (
        one.ask("orchestrator", "service_registry", "PUT", "/serviceregistry/query", {"service": GAUGE}).status == 200
    )


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x05hello", b"\0" * 100])
def test_what_is_no_tls_is_let_go(hall: Secured, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", hall.cloud.ports["orchestrator"]), 5) as client:
        client.sendall(sent)
        while client.recv(4096):
            pass
    assert hall.ask("panel-7", "orchestrator", "GET", ORCHESTRATE).status == 200


def test_core_systems_registered_with_key_and_security(hall: Secured) -> None:
    form = {"service": {"serviceDefinition": "SecureOrchestrationService"}}
    (entry,) = hall.ask("orchestrator", "service_registry", "PUT", "/serviceregistry/query", form).json[
        "serviceQueryData"
    ]
    assert entry["providedService"]["serviceMetadata"] == {"security": "certificate"}
    key = base64.b64decode(entry["provider"]["authenticationInfo"])
    expected = tokens.public_text(hall.identity("orchestrator").key.public_key())
    assert base64.b64encode(key).decode() == expected


MESSAGES = {
    "entry": {
        **ENTRY,
        "providedService": {**GAUGE, "serviceDefinition": "Other"},
        "provider": {**PRESS_GAUGE, "systemName": "press_gauge"},
    },
    "query": {"service": GAUGE},
    "intra": {"consumer": PANEL, "providers": [PRESS_GAUGE], "service": GAUGE},
    "form": request_form(enableInterCloud=False),
    "external": request_form(externalServiceRequest=True),
    "gsd": {"requestedService": GAUGE},
}


@pytest.mark.parametrize(
    ("system", "method", "path", "message", "allowed", "denied"),
    [
        ("service_registry", "GET", "/serviceregistry/mgmt/all", None, "SysOp", "orchestrator"),
        ("service_registry", "GET", "/mgmt/systems", None, "sysop", "panel-7"),
        ("service_registry", "POST", "/serviceregistry/register", "entry", "PressGauge", "panel-7"),
        ("service_registry", "PUT", "/serviceregistry/remove", "entry", "pressgauge", "sysop"),
        ("service_registry", "PUT", "/serviceregistry/query", "query", "orchestrator", "panel-7"),
        ("service_registry", "PUT", "/serviceregistry/query", "query", "gatekeeper", "authorization"),
        ("service_registry", "GET", "/serviceregistry", None, None, "sysop"),
        ("authorization", "GET", "/authorization/mgmt/intracloud", None, "sysop", "orchestrator"),
        ("authorization", "PUT", "/authorization/intracloud", "intra", "orchestrator", "panel-7"),
        ("orchestrator", "GET", "/orchestrator/mgmt", None, "sysop", "panel-7"),
        ("orchestrator", "GET", "/orchestrator/store", None, "panel-7", None),
        ("orchestrator", "PUT", "/orchestrator/mgmt/store", "form", None, "panel-7"),
        ("orchestrator", "GET", "/orchestrator/mgmt/store/all_default", None, None, "panel-7"),
        ("orchestrator", "GET", "/orchestrator/mgmt/store", None, "sysop", "panel-7"),
        ("orchestrator", "POST", ORCHESTRATE, "form", "panel-7", "pressgauge"),
        ("orchestrator", "POST", ORCHESTRATE, "external", "gatekeeper", "panel-7"),
        ("outbound", "PUT", "/gatekeeper/init_gsd", "gsd", None, "panel-7"),
        ("outbound", "GET", "/gatekeeper/mgmt/neighborhood", None, "sysop", "orchestrator"),
    ],
)
def test_who_may_call_what(
    hall: Secured, system: str, method: str, path: str, message: str | None, allowed: str | None, denied: str | None
) -> None:
    body = None if message is None else MESSAGES[message]
    if denied is not None:
        answer = hall.ask(denied, system, method, path, body)
        assert (answer.status, answer.json["exceptionType"]) == (401, "AUTH"), answer.body
        url = f"https://127.0.0.1:{hall.cloud.ports[system]}{path}"
        assert answer.json["errorMessage"] == f"{denied}.hall-1.plant.arrowhead.eu is unauthorized to access {url}"
    if allowed is not None:
        assert hall.ask(allowed, system, method, path, body).status in (200, 201, 204)


def test_an_authorization_for_the_whole_cloud(pair: tuple[Secured, Secured]) -> None:
    one, two = pair
    rule = {"consumer": PANEL, "providerList": [PRESS_GAUGE], "serviceList": [GAUGE]}
    calls = (("POST", "/authorization/mgmt/intracloud", rule), ("PUT", "/authorization/intracloud", MESSAGES["intra"]))
    for method, path, message in calls:
        assert one.ask("panel-7", "authorization", method, path, message).json["exceptionType"] == "AUTH"
        assert two.ask("panel-7", "authorization", method, path, message).status in (200, 201)
    denied = two.ask("panel-7", "authorization", "GET", "/authorization/mgmt/intracloud")
    assert (denied.status, denied.json["exceptionType"]) == (401, "AUTH")


def test_the_store_by_certificate(hall: Secured) -> None:
    entries = [
        {"service": {**GAUGE, "serviceDefinition": name}, "consumer": consumer, "providerSystem": PRESS_GAUGE}
        for name, consumer in (("One", "shelf_9"), ("Two", "shelf_9"), ("Two", "panel-7"))
    ]
    for priority, entry in enumerate(entries, 1):
        entry["consumer"] = {**PANEL, "systemName": entry["consumer"]}
        entry["priority"] = priority
    assert len(hall.ask("sysop", "orchestrator", "POST", "/orchestrator/mgmt/store", entries).json) == 3

    def found(caller: str, path: str) -> list[str]:
        answer = hall.ask(caller, "orchestrator", "GET", f"/orchestrator/store/{path}")
        assert answer.status == 200, answer.body
        return [one["service"]["serviceDefinition"] for one in answer.json]

    # Certificates leave underscores out.
    assert found("shelf9", "query") == ["One", "Two"]
    assert found("Shelf9", "query/servicedef/Two") == ["Two"]
    assert found("panel-7", "query") == ["Two"]
    for caller, path in (
        ("pressgauge", "query"),
        ("panel-7", "query/servicedef/One"),
        ("panel-7", "query/servicedef/X"),
    ):
        nothing = hall.ask(caller, "orchestrator", "GET", f"/orchestrator/store/{path}")
        assert (nothing.status, nothing.json["exceptionType"]) == (404, "DATA_NOT_FOUND")


def test_inbound_gatekeeper_wants_a_cloud(pair: tuple[Secured, Secured]) -> None:
    one, two = pair
    poll = {"requestedService": THERMOMETER, "requesterCloud": {**one.cloud.own, "operator": "plant"}}
    poll["registryFlags"] = {"metadataSearch": True, "pingProviders": False}

    def as_cloud(who: Secured) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(two.folder / "master.pem"))
        context.check_hostname = False
        context.load_cert_chain(who.folder / "cloud.crt", who.folder / "cloud.key")
        return context

    assert two.cloud.gatekeeper("PUT", "/gatekeeper/gsd_poll", poll, tls=as_cloud(one)).status == 200
    # Strict: this certificate cannot speak for hall-1.
    answer = two.cloud.gatekeeper("PUT", "/gatekeeper/gsd_poll", poll, tls=as_cloud(two))
    assert (answer.status, answer.json["exceptionType"]) == (401, "AUTH")
    answer = two.ask("orchestrator", "gatekeeper", "PUT", "/gatekeeper/gsd_poll", poll)
    assert (answer.status, answer.json["exceptionType"]) == (401, "AUTH")


def test_a_certificate_that_nobody_vouches_for_is_auth(hall: Secured, tmp_path: Path) -> None:
    """Another cloud's Gatekeeper shows a certificate that is not under our master's."""
    stranger = certificates.make_cloud(certificates.make_master(), cloud="hall-9", operator="plant")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificates.save(stranger, tmp_path, "stranger"))
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def shake_hands() -> None:
            connection, _ = listening.accept()
            with connection, contextlib.suppress(OSError):
                context.wrap_socket(connection, server_side=True)

        hands = threading.Thread(target=shake_hands, daemon=True)
        hands.start()
        port = listening.getsockname()[1]
        form = {
            "requestedService": THERMOMETER,
            "targetCloud": {**hall.cloud.own, "cloudName": "hall-9", "port": port},
            "requesterSystem": PANEL,
            "negotiationFlags": {"metadataSearch": True},
        }
        answer = hall.ask("orchestrator", "outbound", "PUT", "/gatekeeper/init_icn", form)
        hands.join(10)
    assert (answer.status, answer.json["exceptionType"]) == (401, "AUTH"), answer.body
    assert answer.json["origin"] == f"https://127.0.0.1:{port}/gatekeeper/icn_proposal"


def test_intracloud_over_tls(hall: Secured) -> None:
    answer = hall.ask("panel-7", "orchestrator", "POST", ORCHESTRATE, request_form())
    assert answer.json["response"][0]["provider"]["systemName"] == "PressGauge01"


def test_intercloud_over_tls_with_a_token(pair: tuple[Secured, Secured]) -> None:
    one, two = pair
    answer = one.ask("panel-7", "orchestrator", "POST", ORCHESTRATE, request_form(THERMOMETER))
    assert answer.status == 200, answer.body
    (form,) = answer.json["response"]
    assert form["warnings"] == ["FROM_OTHER_CLOUD"]
    key_text = two.ask("sysop", "authorization", "GET", "/authorization/mgmt/publickey").body.decode()
    token = tokens.Token(token=form["authorizationToken"].replace("+", " "), signature=form["signature"])
    keys: Any = {
        "provider_key": two.identity("therm-1").key,
        "authorization_key": tokens.public_key_from(key_text),
    }
    assert tokens.check_token(token, consumer="Panel-7", **keys) == "JSON.IndoorTemperature"
    with pytest.raises(tokens.TokenError, match=r"belongs to panel-7\.hall-1\.plant"):
        tokens.check_token(token, consumer="stranger", **keys)
    forged = tokens.Token(token=token.token, signature=base64.b64encode(b"x" * 256).decode())
    with pytest.raises(tokens.TokenError, match="not signed"):
        tokens.check_token(forged, consumer="panel-7", **keys)


def test_tokens_only_for_providers_with_a_key(hall: Secured) -> None:
    provider = {**PRESS_GAUGE, "authenticationInfo": tokens.public_text(hall.identity("pressgauge").key.public_key())}
    message = {"consumer": PANEL, "providers": [PRESS_GAUGE, provider], "service": GAUGE, "duration": 60_000}
    answer = hall.ask("orchestrator", "authorization", "PUT", "/authorization/token", message)
    (data,) = answer.json["tokenData"]
    assert data["system"] == provider
    encrypted = base64.b64decode(data["token"])
    from cryptography.hazmat.primitives.asymmetric import padding

    document = json.loads(hall.identity("pressgauge").key.decrypt(encrypted, padding.PKCS1v15()))
    assert (document["s"], document["c"]) == ("JSON.GaugeReading", "panel-7.hall-1.plant")
    assert document["e"] > 1_700_000_000_000
    nobody = hall.ask(
        "orchestrator", "authorization", "PUT", "/authorization/token", {**message, "providers": [PRESS_GAUGE]}
    )
    assert (nobody.status, nobody.json["exceptionType"]) == (500, "ARROWHEAD")


def test_a_malformed_common_name_ends_the_process(tmp_path: Path) -> None:
    master = certificates.make_master()
    wrong = secured(master, "hall-3", tmp_path / "three")
    certificates.save(wrong.authority, wrong.folder, "authorization")
    files = {
        "TOOLKIT_ARROWHEAD_TLS_CERTIFICATE_FILE": str(wrong.folder / "authorization.crt"),
        "TOOLKIT_ARROWHEAD_TLS_KEY_FILE": str(wrong.folder / "authorization.key"),
    }
    wrong.cloud.start("authorization", extra={"authorization": files})
    assert wrong.cloud.processes.pop("authorization").wait(20) == 2
    assert "expected <system>.<cloud>.<operator>.arrowhead.eu" in (wrong.folder / "authorization.log").read_text()


def test_keys_are_for_their_owner_alone(tmp_path: Path) -> None:
    _, key = certificates.save(certificates.make_master(), tmp_path, "master")
    assert key.stat().st_mode & 0o077 == 0
    assert certificates.load(tmp_path, "master").common_name == "arrowhead.eu"
