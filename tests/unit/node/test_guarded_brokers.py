"""Guarded brokers on loopback, with the variables, files and secrets of a deploy: clients, gateways and hubs enter."""

from __future__ import annotations

import getpass
import json
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.ports import await_port, free_port
from tests.programs import find_program
from tests.rendered import AnyImage, hosts_on_loopback
from tests.unit.node.platform.test_platform import play as play_chain
from tests.unit.node.processes import Bench, Front, NodeProcess, of_point, play
from toolkit.contract.orders import RunOrder
from toolkit.contract.samples import Point
from toolkit.provisioning.broker_access import INSIDE, access_secrets, entry_options
from toolkit.provisioning.brokers import broker_setup
from toolkit.provisioning.render import render_bundles
from toolkit.spec.load import load_testbed
from toolkit.spec.testbed import Service

FILE = """\
name: guarded
nodes: {{a: {{}}, b: {{}}}}
secrets: {{lab: "${{env.LAB}}"}}
services:
  broker: {{on: a, {broker}}}
  publisher: {{on: b}}
  subscriber: {{on: b}}
  gateway: {{on: a, settings: {{mqtt_port: {ports[0]}, http_port: {ports[1]}}}}}
  hub: {{on: b, settings: {{mqtt_port: {ports[2]}, http_port: {ports[3]}}}}}
"""
PASSWORD = "pä$$: w"  # noqa: S105 - for these tests


@dataclass
class Place:
    """A testbed as it was rendered, all of its nodes on 127.0.0.1; secrets are files of `folder`."""

    folder: Path
    bench: Bench
    broker: Service
    variables: dict[str, dict[str, str]]
    ports: list[int]

    def start(self, module: str, service: str, **more: str) -> NodeProcess:
        return self.bench.launch(module, service, **self.variables[service], **more)

    def front(self, role: str, **more: str) -> Front:
        first = 0 if role == "gateway" else 2
        return Front(self.start(role, role, **more), {"mqtt": self.ports[first], "rest": self.ports[first + 1]})

    def options(self) -> dict[str, Any]:
        """As orders have them."""
        text = json.dumps(entry_options(self.broker)).replace(f"{INSIDE}/", f"{self.folder}/publisher/")
        return {**json.loads(text), "password_variable": "TOOLKIT_PASSWORD_BROKER_FILE"}


def rendered(folder: Path, bench: Bench, broker: str) -> Place:
    """Variables of every container, without those of the process itself, which the bench gives."""
    ports = [free_port() for _ in range(4)]
    (folder / "testbed.yml").write_text(FILE.format(broker=broker, ports=ports))
    testbed = load_testbed(folder / "testbed.yml")
    hosts = hosts_on_loopback(testbed)
    made = access_secrets(testbed, hosts, folder / "state", lambda _: PASSWORD)
    variables: dict[str, dict[str, str]] = {}
    for bundle in render_bundles(testbed, hosts, AnyImage()).values():
        for container in bundle.containers:
            values = made.get(container.service, {})
            assert set(container.secrets) == set(values)
            place = folder / container.service
            place.mkdir(exist_ok=True)
            own = {
                name: value.replace(f"{INSIDE}/", f"{place}/")
                for name, value in container.environment.items()
                if name in ("TOOLKIT_SETTINGS", "TOOLKIT_SYSTEM") or name.startswith("TOOLKIT_UPSTREAM")
            }
            for name, value in values.items():
                (place / name).write_text(value)
                own[name] = str(place / name)
            variables[container.service] = own
    return Place(folder, bench, testbed.services[0], variables, ports)


@pytest.mark.parametrize(("mode", "protocol"), [("direct", "sse"), ("original", "http")])
def test_tls_alone_is_enough_for_the_event_handler(tmp_path: Path, bench: Bench, mode: str, protocol: str) -> None:
    port = free_port()
    place = rendered(tmp_path, bench, f"tls: true, settings: {{mode: {mode}, port: {port}}}")
    handler = place.start("event_handler", "broker")
    publisher, subscriber = place.start("publisher", "publisher"), place.start("subscriber", "subscriber")
    play(
        handler, [publisher], [subscriber], run="r", protocol=protocol, broker=f"127.0.0.1:{port}", messages=50,
        payload_bytes=71, options=place.options(),
    )  # fmt: skip
    sent = {stamp[3:5] for stamp in of_point(publisher.stamps("r"), Point.SENT)}
    assert len(sent) == 50
    assert {stamp[3:5] for stamp in of_point(subscriber.stamps("r"), Point.RECEIVED)} == sent
    with socket.create_connection(("127.0.0.1", port), 5) as plain:
        plain.sendall(b"GET /eventhandler HTTP/1.1\r\nHost: x\r\n\r\n")
        assert not plain.recv(100).startswith(b"HTTP")


def test_gateway_and_hub_show_their_certificates_to_the_event_handler(tmp_path: Path, bench: Bench) -> None:
    place = rendered(tmp_path, bench, f"tls: true, settings: {{port: {free_port()}}}")
    place.start("event_handler", "broker")
    assert delivered(place, place.front("gateway"), place.front("hub")) == 40


@pytest.fixture
def guarded_mosquitto(tmp_path: Path, bench: Bench) -> Iterator[tuple[Place, dict[str, str]]]:
    """A Mosquitto with the configuration and secrets of a deploy, and what gateways and hubs are told of its port."""
    place = rendered(tmp_path, bench, "image: mosquitto, tls: true, login: {user: lab, password: lab}")
    port = free_port()
    setup = broker_setup(place.broker, "127.0.0.1", ["127.0.0.1"])
    assert setup is not None
    for name, text in setup.files.items():
        here = text.replace(f"{INSIDE}/", f"{tmp_path}/broker/").replace("/etc/mosquitto/", f"{tmp_path}/")
        here = here.replace("listener 8883 0.0.0.0", f"listener {port} 127.0.0.1")
        (tmp_path / name).write_text(here.replace("listener 1882", f"listener {free_port()}"))
    with (tmp_path / "mosquitto.conf").open("a") as file:
        file.write(f"user {getpass.getuser()}\n")
    with subprocess.Popen([find_program("mosquitto"), "-c", str(tmp_path / "mosquitto.conf")]) as process:
        await_port(port, process=process)
        yield place, {"TOOLKIT_UPSTREAM": f"127.0.0.1:{port}"}
        process.terminate()


def test_gateway_and_hub_enter_a_broker_that_asks_for_tls_and_a_password(
    guarded_mosquitto: tuple[Place, dict[str, str]],
) -> None:
    place, upstream = guarded_mosquitto
    for role in ("gateway", "hub"):
        place.variables[role] |= upstream
    assert delivered(place, place.front("gateway"), place.front("hub")) == 40


def test_a_gateway_says_why_the_broker_does_not_let_it_in(guarded_mosquitto: tuple[Place, dict[str, str]]) -> None:
    place, upstream = guarded_mosquitto
    place.variables["gateway"] |= upstream
    (place.folder / "gateway" / "TOOLKIT_PASSWORD_BROKER_FILE").write_text("wrong")
    process = place.front("gateway").process
    process.order(RunOrder(role="gateway", protocol="mqtt", run="r", testbed="unit"))
    with pytest.raises(AssertionError, match=r"no connection to 127\.0\.0\.1:\d+: .* does not authorise"):
        process.wait_for("ready", within_s=30)


def delivered(place: Place, gateway: Front, hub: Front) -> int:
    """Messages of 40 that pass the whole chain."""
    publisher, subscriber = place.bench.publisher(), place.bench.subscriber()
    play_chain(gateway, hub, publisher, subscriber, qos=1, messages=40)
    return int(subscriber.info("r").counts["received"])
