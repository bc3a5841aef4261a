"""Brokers run from toolkit's own images, with the very files and secrets that a deploy gives them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.controller.cast import entrances
from toolkit.provisioning.broker_access import AUTHORITY, access_secrets, entry_options, password_variable
from toolkit.provisioning.brokers import BrokerSetup, broker_setup
from toolkit.provisioning.images import Builder
from toolkit.spec.load import load_testbed
from toolkit.spec.services import PORTS
from toolkit.spec.testbed import Service, Testbed
from toolkit.state import Deployment, Host, SshAccess

PASSWORD = 'pa ss:w"ö$1'  # noqa: S105 - for these tests
STARTS_WITHIN_S = 180


@dataclass
class Server:
    """One broker in a container; `folder` holds what its clients need."""

    testbed: Testbed
    service: Service
    setups: list[BrokerSetup]
    containers: list[str]
    deployment: Deployment
    folder: Path
    environment: dict[str, str]
    """Of its clients."""

    def at(self, protocol: str) -> str:
        port = PORTS[protocol][self.service.tls]
        return ",".join(f"{address}:{port}" for address in entrances(self.service, self.deployment))

    def options(self, **more: Any) -> dict[str, Any]:
        """Of its clients' orders; the files that containers find at /run/secrets are in `folder` here."""
        options = entry_options(self.service)
        if "ca_file" in options:
            options["ca_file"] = str(self.folder / AUTHORITY)
        return options | more

    def logs(self) -> str:
        return "\n".join(docker("logs", name, check=False) for name in self.containers)

    def restart(self, which: int = 0) -> None:
        docker("restart", "-t", "5", self.containers[which])
        self.await_health(which)

    def await_health(self, which: int = 0) -> float:
        """Seconds until its health check passes."""
        started = time.monotonic()
        health = self.setups[which].health
        while time.monotonic() - started < STARTS_WITHIN_S:
            if (
                not health
                or not subprocess.run(
                    ["docker", "exec", self.containers[which], *health], check=False, capture_output=True
                ).returncode
            ):
                return time.monotonic() - started
            time.sleep(0.2)
        raise AssertionError(f"{self.containers[which]} is not healthy:\n{self.logs()[-4000:]}")


TESTBED = """\
name: {name}
nodes:
{nodes}
services:
  broker: {{on: [{on}], image: {image}, settings: {{{settings}}}{access}}}
  publisher: {{on: {first}}}
  subscriber: {{on: {first}}}
secrets: {{lab: "${{env.TEST_BROKER_PASSWORD}}"}}
"""


@contextlib.contextmanager
def serve(
    folder: Path, image: str, *, settings: str = "", guarded: bool = False, count: int = 1, memory: str = "1g"
) -> Iterator[Server]:
    """One broker of `count` nodes, healthy; removed at the end."""
    os.environ["TEST_BROKER_PASSWORD"] = PASSWORD
    name = f"test-brokers-{image}{'-guarded' if guarded else ''}{count}-{os.getpid()}"
    names = [f"b{number}" for number in range(count)]
    file = folder / "testbed.yml"
    access = ", tls: true, login: {user: lab, password: lab}" if guarded else ""
    nodes = "\n".join(f"  {node}: {{}}" for node in names)
    file.write_text(
        TESTBED.format(
            name=name[:40], nodes=nodes, on=", ".join(names), image=image, settings=settings, access=access, first="b0"
        )
    )
    testbed = load_testbed(file)
    service = next(s for s in testbed.services if s.name == "broker")
    reference = Builder(lambda _: None).build({(image, "amd64")})[image, "amd64"].reference
    containers = [f"{name}-{node}" for node in names]
    try:
        for container in containers:  # addresses are known once something runs; the broker joins it
            docker("run", "-d", "--name", f"{container}-net", "--entrypoint", "sleep", reference, "infinity")
        look = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        addresses = [docker("inspect", "-f", look, f"{container}-net").strip() for container in containers]
        hosts = {node: _host(node, address) for node, address in zip(names, addresses, strict=True)}
        made = access_secrets(testbed, hosts, folder, lambda _: PASSWORD)
        setups = []
        for container, address in zip(containers, addresses, strict=True):
            setup = broker_setup(service, address, addresses)
            assert setup is not None
            setups.append(setup)
            _start(folder / container, container, reference, setup, made.get("broker", {}), memory)
        for variable, value in made.get("publisher", {}).items():
            (folder / variable).write_text(value)
        environment = {password_variable("broker"): str(folder / password_variable("broker"))} if guarded else {}
        deployment = Deployment(name=testbed.name, file=str(file), stage="deployed", hosts=hosts)
        server = Server(testbed, service, setups, containers, deployment, folder, environment)
        for which in range(count):
            server.await_health(which)
        yield server
    finally:
        for container in containers:
            docker("rm", "-f", "-v", container, f"{container}-net", check=False)


def _start(
    place: Path, container: str, reference: str, setup: BrokerSetup, secrets: dict[str, str], memory: str
) -> None:
    for kind, content in (("etc", setup.files), ("secrets", secrets)):
        (place / kind).mkdir(parents=True)
        for file, text in content.items():
            (place / kind / file).write_text(text)
    environment = {**setup.environment, **{variable: f"/run/secrets/{variable}" for variable in secrets}}
    docker(
        "run", "-d", "--name", container, "--network", f"container:{container}-net", "--memory", memory,
        *(part for variable, value in environment.items() for part in ("-e", f"{variable}={value}")),
        "-v", f"{place}/etc:{setup.configuration}:ro", "-v", f"{place}/secrets:/run/secrets:ro", reference,
    )  # fmt: skip


def _host(node: str, address: str) -> Host:
    return Host(
        node=node,
        provider="container",
        type="container",
        address=address,
        architecture="amd64",
        ssh=SshAccess(address=address, known_hosts="/dev/null"),
        facts={"shared_clock": True},
    )


def docker(*arguments: str, check: bool = True) -> str:
    done = subprocess.run(["docker", *arguments], check=False, capture_output=True, text=True)
    assert not check or done.returncode == 0, f"docker {' '.join(arguments[:3])}: {done.stderr}"
    return done.stdout + ("" if check else done.stderr)
