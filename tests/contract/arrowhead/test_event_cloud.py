"""The Event Handler as a system of a local cloud: its services in the Service Registry from start to end."""

from __future__ import annotations

import base64
import json
import signal
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.unit.node.processes import Bench, NodeProcess
from tests.waiting import until
from toolkit.provisioning import certificates

from .local_cloud import NODE_PYTHON, Answered, LocalCloud, ask

MODES = ("direct", "enhanced", "original")
SERVICES = {"EventPublishing": "eventhandler/publish", "EventSubscription": "eventhandler/subscription"}


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path / "handlers", NODE_PYTHON)
    made.folder.mkdir()
    yield made
    made.close()


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCloud]:
    cloud = LocalCloud("hall", tmp_path_factory.mktemp("hall"))
    cloud.seed()
    cloud.environment["TOOLKIT_ARROWHEAD_VERSION"] = "4.1.2"
    cloud.start("service_registry")
    try:
        cloud.await_ready("service_registry")
        yield cloud
    finally:
        assert cloud.stop() == {"service_registry": 0}


def join(bench: Bench, registry: LocalCloud, mode: str, **environment: str) -> NodeProcess:
    return bench.event_handler(
        TOOLKIT_SETTINGS=json.dumps({"mode": mode, "drain": 0.2}),
        TOOLKIT_EVENT_HANDLER_REGISTRY=f"127.0.0.1:{registry.ports['service_registry']}",
        TOOLKIT_EVENT_HANDLER_REGISTERED_ADDRESS="127.0.0.1",
        TOOLKIT_EVENT_HANDLER_VERSION="4.1.2",
        **environment,
    )


def health(handler: NodeProcess) -> Answered:
    return ask(handler.settings.metrics_port, "GET", "/healthz")


def await_health(handler: NodeProcess, within_s: float = 20.0) -> None:
    until(lambda: health(handler).status == 200, within_s=within_s, instead=lambda: health(handler).body)


def end(bench: Bench, handler: NodeProcess) -> None:
    handler.process.terminate()
    assert handler.process.wait(15) == 0
    assert "Traceback" not in bench.log("broker")


def entries(registry: LocalCloud, prefix: str, *, tls: ssl.SSLContext | None = None) -> dict[str, Any]:
    """Definition -> the only entry of it, None where there is none."""
    found: dict[str, Any] = {}
    for definition in SERVICES:
        interface = f"HTTP-{'SECURE' if tls else 'INSECURE'}-JSON"
        form = {"service": {"serviceDefinition": prefix + definition, "interfaces": [interface]}}
        answer = registry.service_registry("PUT", "/serviceregistry/query", form, tls=tls)
        data = answer.json["serviceQueryData"]
        assert len(data) <= 1
        found[definition] = data[0] if data else None
    return found


@pytest.mark.parametrize("mode", MODES)
def test_its_services_are_registered_from_start_to_end(bench: Bench, registry: LocalCloud, mode: str) -> None:
    handler = join(bench, registry, mode)
    await_health(handler)
    for definition, entry in entries(registry, "Insecure").items():
        provider = entry["provider"]
        assert (provider["systemName"], provider["address"], provider["port"]) == (
            "EVENT_HANDLER",
            "127.0.0.1",
            handler.port,
        )
        assert "authenticationInfo" not in provider
        assert entry["serviceURI"] == SERVICES[definition]
        assert entry["providedService"]["interfaces"] == ["HTTP-INSECURE-JSON"]
    end(bench, handler)
    assert set(entries(registry, "Insecure").values()) == {None}


def test_one_that_was_killed_registers_again(bench: Bench, registry: LocalCloud) -> None:
    handler = join(bench, registry, "direct")
    await_health(handler)
    handler.process.kill()
    handler.process.wait(10)
    assert None not in entries(registry, "Insecure").values()
    again = bench.launch(
        "event_handler",
        "broker",
        TOOLKIT_EVENT_HANDLER_PORT=str(handler.port),
        TOOLKIT_EVENT_HANDLER_REGISTRY=f"127.0.0.1:{registry.ports['service_registry']}",
        TOOLKIT_EVENT_HANDLER_VERSION="4.1.2",
    )
    await_health(again)
    assert None not in entries(registry, "Insecure").values()
    end(bench, again)
    assert set(entries(registry, "Insecure").values()) == {None}


def test_it_waits_for_a_registry_that_comes_later_and_serves_meanwhile(bench: Bench, tmp_path: Path) -> None:
    late = LocalCloud("late", tmp_path / "late")
    late.seed()
    handler = join(bench, late, "direct")
    answer = health(handler)
    assert (answer.status, answer.body.decode()) == (
        503,
        f"not registered with the Service Registry at 127.0.0.1:{late.ports['service_registry']} yet\n",
    )
    assert ask(handler.port, "GET", "/eventhandler").status == 200
    late.start("service_registry")
    process = late.processes["service_registry"]
    try:
        await_health(handler)
        assert None not in entries(late, "Insecure").values()
        process.send_signal(signal.SIGSTOP)
        end(bench, handler)  # though nobody answers when it takes its registrations back
    finally:
        process.send_signal(signal.SIGCONT)
        late.stop()


def test_without_a_registry_nothing_is_said(bench: Bench) -> None:
    handler = bench.event_handler(TOOLKIT_SETTINGS=json.dumps({"drain": 0.2}))
    assert health(handler).status == 200
    end(bench, handler)
    assert "Registry" not in bench.log("broker")


@pytest.mark.parametrize("mode", ["direct", "original"])
def test_in_secure_mode_it_shows_its_certificate_and_tells_its_key(bench: Bench, tmp_path: Path, mode: str) -> None:
    master = certificates.make_master()
    authority = certificates.make_cloud(master, cloud="hall", operator="plant")
    names = ("serviceregistry", "eventhandler", "orchestrator")
    own = {name: certificates.make_system(authority, system=name) for name in names}
    for name, identity in {**own, "cloud": authority}.items():
        certificates.save(identity, tmp_path, name)
    cloud = LocalCloud("hall", tmp_path / "stores")
    cloud.seed()
    cloud.environment |= {"TOOLKIT_ARROWHEAD_SECURE": "1", "TOOLKIT_ARROWHEAD_VERSION": "4.1.2"} | {
        f"TOOLKIT_ARROWHEAD_TLS_{variable}_FILE": str(tmp_path / file)
        for variable, file in (
            ("CERTIFICATE", "serviceregistry.crt"), ("KEY", "serviceregistry.key"), ("CLOUD_CA", "cloud.crt"),
        )
    }  # fmt: skip
    caller = ssl.create_default_context(cafile=str(tmp_path / "cloud.crt"))
    caller.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    caller.check_hostname = False
    caller.load_cert_chain(tmp_path / "orchestrator.crt", tmp_path / "orchestrator.key")
    cloud.start("service_registry")
    try:
        cloud.await_ready("service_registry")
        files = (("CERTIFICATE", "eventhandler.crt"), ("KEY", "eventhandler.key"), ("CLOUD_CA", "cloud.crt"))
        handler = join(
            bench,
            cloud,
            mode,
            **{f"TOOLKIT_EVENT_HANDLER_TLS_{variable}_FILE": str(tmp_path / file) for variable, file in files},
        )
        await_health(handler)
        for entry in entries(cloud, "Secure", tls=caller).values():
            assert entry["providedService"]["serviceMetadata"] == {"security": "certificate"}
            assert entry["provider"]["authenticationInfo"] == _key_of(own["eventhandler"])
        end(bench, handler)
        assert set(entries(cloud, "Secure", tls=caller).values()) == {None}
    finally:
        cloud.stop()


def _key_of(identity: certificates.Identity) -> str:
    key = identity.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(key).decode()
