"""Event Handlers of local clouds as a file asks for them, their processes on loopback: found, used, gone."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from typing import Any

import pytest

from tests.clouds_on_loopback import Clouds, clouds_of
from tests.contract.arrowhead.local_cloud import ask
from tests.ports import free_port
from toolkit.provisioning import certificates

FILE = """
name: events
nodes: {{hall: {{}}, vault: {{}}, pub: {{}}, sub: {{}}}}
clouds: {{hall: {{}}, vault: {{secure: true, version: 4.1.2}}}}
services:
  registry-1: {{role: service-registry, cloud: hall, on: hall, settings: {{port: {0}}}}}
  registry-2: {{role: service-registry, cloud: vault, on: vault, settings: {{port: {1}}}}}
  open: {{role: broker, on: hall, settings: {{port: {2}, drain: 500ms}}}}
  guarded: {{role: broker, on: vault, tls: true, settings: {{port: {3}, drain: 500ms, mode: {mode}}}}}
  publisher: {{on: pub}}
  subscriber: {{on: sub}}
workloads:
  plain: {{broker: open, messages: 50, drain: 300ms}}
  secure:
    broker: guarded
    messages: 50
    drain: 300ms
    options: {{ca_file: "{home}/publisher.TOOLKIT_TLS_AUTHORITY_FILE"}}
"""
SERVICES = ("EventPublishing", "EventSubscription")


@pytest.fixture(scope="module", params=["direct", "original"])
def clouds(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clouds]:
    home = tmp_path_factory.mktemp("clouds")
    text = FILE.format(*(free_port() for _ in range(4)), mode=request.param, home=home)
    with clouds_of(text, home) as running:
        running.await_health()
        yield running


def port_of(clouds: Clouds, service: str) -> int:
    return next(int(s.settings["port"]) for s in clouds.testbed.services if s.name == service)


def asked(clouds: Clouds, registry: str) -> list[list[dict[str, Any]]]:
    """The entries of the Event Handler's services in a Service Registry, as the Orchestrator finds them."""
    tls = orchestrator_of(clouds) if registry == "registry-2" else None
    mode, interface = ("Secure", "HTTP-SECURE-JSON") if tls else ("Insecure", "JSON")
    forms = [{"service": {"serviceDefinition": mode + name, "interfaces": [interface]}} for name in SERVICES]
    answers = [
        ask(port_of(clouds, registry), "PUT", "/serviceregistry/query", form, tls=tls).json["serviceQueryData"]
        for form in forms
    ]
    return [list(answer) for answer in answers]


def orchestrator_of(clouds: Clouds) -> ssl.SSLContext:
    folder = clouds.home / ".toolkit/certificates"
    own = certificates.make_system(certificates.load(folder, "vault"), system="orchestrator")
    certificates.save(own, clouds.home, "orchestrator")
    context = ssl.create_default_context(cafile=str(folder / "vault.crt"))
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.check_hostname = False
    context.load_cert_chain(clouds.home / "orchestrator.crt", clouds.home / "orchestrator.key")
    return context


def test_handlers_are_found_used_and_gone_at_their_end(clouds: Clouds) -> None:
    for registry, handler, workload in (("registry-1", "open", "plain"), ("registry-2", "guarded", "secure")):
        for [entry] in asked(clouds, registry):
            assert entry["provider"]["systemName"] == "EVENT_HANDLER"
            assert entry["provider"]["port"] == port_of(clouds, handler)
            assert ("authenticationInfo" in entry["provider"]) == (handler == "guarded")
        kpis = clouds.run(workload).kpis()
        assert kpis["ledger"]["total"]["delivered"] == 50
        assert kpis["ledger"]["closes"]
        clouds.processes[handler].terminate()
        assert clouds.processes[handler].wait(15) == 0, (clouds.home / f"{handler}.log").read_text()
        assert asked(clouds, registry) == [[], []]
