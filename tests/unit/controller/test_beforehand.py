"""What is told before anything is touched, and that nothing is touched then; machines of a former provider go, too."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest

from toolkit.controller import deploy, teardown
from toolkit.controller.asked import as_deployed, asked_anew
from toolkit.errors import FileInvalidError, UnreachableError, UsageError
from toolkit.events import ignore
from toolkit.providers import links
from toolkit.providers.base import Acquired, Request, Resource
from toolkit.provisioning.render import ImageReference
from toolkit.spec.load import Asked
from toolkit.spec.testbed import Node, ProviderSettings
from toolkit.state import Deployment, Host, SshAccess, load_deployment, lock_holder, locked, save_deployment

WITH_A_VAULT = """\
name: lab
nodes: {base: {}}
secrets: {broker: {vault: vault.yml, key: broker}}
services: {extra: {on: base, image: mosquitto, role: broker, secrets: {PASSWORD: broker}}}
"""


class Machines:
    """A source of machines in memory; every provider of these settings shares it."""

    released: list[str]

    def __init__(self, settings: ProviderSettings) -> None:
        self.settings = settings

    def check(self, testbed: str, subnet: IPv4Network, nodes: Sequence[Node]) -> list[str]:
        del testbed, subnet
        return [f"no power at {node.name}" for node in nodes if "dark" in node.labels]

    def acquire(self, request: Request, _: object) -> Acquired:
        return Acquired(hosts={}, failed={node.name: "nobody is there" for node in request.nodes})

    def release(self, testbed: str, nodes: Sequence[str] | None, *_: Any) -> list[Resource]:
        type(self).released.append(f"{self.settings.type} {testbed} {','.join(nodes or ('all',))}")
        return []

    def resources(self, testbed: str) -> list[Resource]:
        del testbed
        return []


@pytest.fixture
def released(workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was given back; nothing here needs an engine."""
    assert workspace
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(Machines, "released", [], raising=False)
    for module in (deploy, teardown):
        monkeypatch.setattr(module, "provider_for", Machines)
    monkeypatch.setattr(deploy, "build_images", lambda *_: {("node", "amd64"): _Image()})
    monkeypatch.setattr(deploy, "MACHINE_IMAGES", {})
    monkeypatch.setattr(teardown, "remove_registry", lambda **_: [])
    return Machines.released


class _Image:
    reference = "node:1"


def held(file: Path) -> None:
    """The testbed `lab` has a virtual node."""
    access = SshAccess(address="10.0.0.9", known_hosts="/dev/null")
    host = Host(node="base", provider="virtual", type="container", address="", ssh=access, architecture="amd64")
    settings = {"name": "virtual", "type": "container"}
    save_deployment(
        Deployment(
            name="lab",
            file=str(file),
            stage="deployed",
            hosts={"base": host},
            node_hashes={"base": "as it was"},
            providers={"virtual": settings},
        )
    )


def written(folder: Path, text: str) -> Asked:
    (folder / "testbed.yml").write_text(text)
    return Asked(file=folder / "testbed.yml")


@pytest.fixture
def vault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`vault.yml` under the password `right`; the environment names a file with another one."""
    (tmp_path / "right").write_text("right\n")
    (tmp_path / "wrong").write_text("wrong\n")
    (tmp_path / "vault.yml").write_text("broker: tell-nobody\n")
    program = Path(sys.executable).with_name("ansible-vault")
    command: list[str | Path] = [
        program,
        "encrypt",
        "--vault-password-file",
        tmp_path / "right",
        tmp_path / "vault.yml",
    ]
    subprocess.run(command, check=True, capture_output=True)
    monkeypatch.setenv("ANSIBLE_VAULT_PASSWORD_FILE", str(tmp_path / "wrong"))
    return tmp_path


@pytest.mark.parametrize("story", [deploy.deploy, deploy.redeploy])
def test_a_vault_that_does_not_open_leaves_everything_as_it_is(vault: Path, released: list[str], story: Any) -> None:
    asked = written(vault, WITH_A_VAULT)
    held(asked.file)
    before = load_deployment("lab")
    with pytest.raises(UsageError, match=r"vault\.yml does not open with the password in"):
        story(asked, ignore)
    assert released == []
    assert load_deployment("lab") == before


@pytest.mark.parametrize("story", [deploy.deploy, deploy.redeploy])
def test_what_keeps_a_provider_from_its_machines_is_told_first(tmp_path: Path, released: list[str], story: Any) -> None:
    asked = written(tmp_path, "name: lab\nnodes: {base: {labels: {dark: a}}, far: {labels: {dark: b}}}\n")
    held(asked.file)
    with pytest.raises(UnreachableError) as refused:
        story(asked, ignore)
    assert str(refused.value).splitlines() == [f"provider container: no power at {node}" for node in ("base", "far")]
    assert released == []


@pytest.mark.usefixtures("released")
def test_a_plan_tells_what_keeps_a_deploy_from_machines_that_it_would_make(tmp_path: Path, workspace: Path) -> None:
    nodes = "name: lab\nnodes: {base: {labels: {dark: a}}, far: {}}\n"
    assert deploy.plan_deploy(written(tmp_path, nodes)).obstacles == ("provider container: no power at base",)
    assert deploy.plan_deploy(written(tmp_path, nodes.replace("dark", "lit"))).obstacles == ()
    assert not (workspace / "lab").exists()


@pytest.mark.usefixtures("released")
def test_a_plan_tells_by_what_links_will_be_impaired(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "imposer", lambda: "relay")
    nodes = "name: lab\nnodes: {far: {link: {delay: 10ms}}, near: {}}\n"
    [note] = deploy.plan_deploy(written(tmp_path, nodes)).notes
    assert note == f"provider container: delay, jitter and loss of the links of far: {links.WORDS['relay']}"
    assert deploy.plan_deploy(written(tmp_path, nodes.replace("delay: 10ms", "rate: 10mbit"))).notes == ()


def test_a_manifest_that_is_not_there_leaves_no_state(workspace: Path, tmp_path: Path) -> None:
    asked = written(
        tmp_path, "name: lab\nprovider: wall\nproviders: {wall: {type: rspec, manifest: m.rspec}}\nnodes: {base: {}}\n"
    )
    with pytest.raises(FileInvalidError, match="cannot be read"):
        deploy.deploy(asked, ignore)
    [obstacle] = deploy.plan_deploy(asked).obstacles
    assert "cannot be read" in obstacle
    assert not (workspace / "lab" / "state.json").exists()


def test_machines_of_a_provider_that_left_the_file_are_given_back(tmp_path: Path, released: list[str]) -> None:
    asked = written(tmp_path, "name: lab\nprovider: ssh\nnodes: {base: {kind: host, address: 10.0.0.9}}\n")
    held(asked.file)
    for _ in range(2):
        with pytest.raises(UnreachableError, match="nobody is there"):
            deploy.deploy(asked, ignore)
    assert "container lab base" in released
    released.clear()
    teardown.teardown("lab", emit=ignore)
    assert released == ["ssh lab all", "container lab all"]


def test_a_limit_that_a_kernel_does_not_keep_is_said_once(workspace: Path, tmp_path: Path) -> None:
    text = "name: lab\nnodes: {pi: {}}\nservices: {extra: {on: pi, image: mosquitto, role: broker, memory: 64M}}\n"
    testbed = written(tmp_path, text).load()
    access = SshAccess(address="10.0.0.9", known_hosts="/dev/null")
    host = Host(node="pi", provider="lab", type="ssh", address="", ssh=access, architecture="arm/v7")
    assert workspace
    said: list[str] = []
    deployment = Deployment(name="lab", file="", stage="acquired", hosts={"pi": host})
    assert deploy.note_limits(testbed, deployment, lambda event: said.append(event.message)) == deployment
    off = dataclasses.replace(deployment, hosts={"pi": dataclasses.replace(host, facts={"memory_limits": False})})
    noted = deploy.note_limits(testbed, off, lambda event: said.append(event.message))
    assert deploy.note_limits(testbed, noted, lambda event: said.append(event.message)) == noted
    assert said == [noted.notes["memory"]]
    assert said[0].startswith("no limits of memory on pi: ")


@pytest.mark.parametrize("story", [deploy.deploy, deploy.redeploy, lambda *_: teardown.teardown("lab", emit=ignore)])
def test_a_testbed_of_that_name_in_another_workspace_is_left_alone(
    tmp_path: Path, released: list[str], monkeypatch: pytest.MonkeyPatch, story: Any
) -> None:
    asked = written(tmp_path, "name: lab\nnodes: {base: {}}\n")
    other = tmp_path / "elsewhere"
    with monkeypatch.context() as there:
        there.setenv("TOOLKIT_HOME", str(other))
        with locked("lab"):
            held(asked.file)
    there_is = [Resource(kind="container", name="toolkit-lab-base")]
    monkeypatch.setattr(Machines, "resources", lambda *_: there_is)
    with pytest.raises(UsageError, match=f"named lab is up already, from the workspace {other}"):
        story(asked, ignore)
    assert released == []
    [obstacle] = deploy.plan_deploy(asked).obstacles
    assert f"named lab is up already, from the workspace {other}" in obstacle
    there_is.clear()  # the state is all that is left of it
    with contextlib.suppress(UnreachableError):
        story(asked, ignore)


def test_grafana_that_was_brought_here_by_hand_is_taken_by_the_next_deploy(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    testbed = written(tmp_path, "name: lab\nnodes: {base: {}}\nservices: {monitor: {on: base}}\n").load()
    assert workspace
    held_content = [""]
    pulled: list[str] = []

    class Images:
        def references(self, wanted: set[Any]) -> dict[Any, Any]:
            return {key: ImageReference(reference=key[0], content=held_content[0]) for key in wanted}

        def build(self, wanted: set[Any]) -> dict[Any, Any]:
            pulled.extend(name for name, _ in wanted)
            if not held_content[0]:
                raise UnreachableError(f"image {testbed.monitoring.grafana_image} cannot be had")
            return self.references(wanted)

    monkeypatch.setattr(deploy, "_builder", lambda *_: Images())
    deployment = deploy.provide_grafana(testbed, Deployment(name="lab", file="", stage="acquired"), ignore)
    assert deploy.provide_grafana(testbed, deployment, ignore) == deployment
    assert "no Grafana" in deployment.notes["grafana"]
    assert len(pulled) == 1, "it is not asked for at each deploy"
    held_content[0] = "1234"
    assert deploy.provide_grafana(testbed, deployment, ignore).notes == {}


def test_redeploy_lets_nobody_in_between_teardown_and_deploy(
    tmp_path: Path, released: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = written(tmp_path, "name: lab\nnodes: {base: {}}\n")
    held(asked.file)
    holders: list[str | None] = []

    def acquire(_: object, request: Request, __: object) -> Acquired:
        holders.append(lock_holder("lab"))
        return Acquired(hosts={}, failed={node.name: "nobody is there" for node in request.nodes})

    monkeypatch.setattr(Machines, "acquire", acquire)
    with pytest.raises(UnreachableError, match="nobody is there"):
        deploy.redeploy(asked, ignore)
    assert "container lab all" in released
    assert holders == [f"process {os.getpid()} on {socket.gethostname()} since {(holders[0] or '')[-8:]}"]
    assert lock_holder("lab") is None


@pytest.mark.usefixtures("workspace")
def test_nodes_keep_their_addresses_whoever_comes_before_them(tmp_path: Path) -> None:
    asked = written(tmp_path, "name: lab\nnodes: {base: {}}\n")
    held(asked.file)
    deployment = load_deployment("lab")
    assert deployment is not None
    address = str(asked.load().subnet[10])
    there = {"base": dataclasses.replace(deployment.hosts["base"], address=address)}
    deployment = save_deployment(dataclasses.replace(deployment, hosts=there))
    written(tmp_path, "name: lab\nnodes: {first: {}, base: {}}\n")
    anew = asked_anew(asked.file, provider=None, overrides={}, scale=1.0)
    for testbed in (anew.load(), as_deployed(deployment).load()):
        assert testbed.node("base").address == address
        assert testbed.node("first").address == str(testbed.subnet[11])
