from __future__ import annotations

import dataclasses
import platform
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest

from toolkit.errors import UsageError
from toolkit.providers import PROVIDERS, container, keys, provider_for
from toolkit.providers.base import Request
from toolkit.spec.testbed import Architecture, Link, Node, ProviderSettings

SETTINGS = ProviderSettings(name="virtual", type="container")
OPERATOR = keys.KeyPair(private=b"", public="ssh-ed25519 AAAA")


def _node(name: str = "one", **changes: Any) -> Node:
    values: dict[str, Any] = {
        "name": name,
        "kind": "pi1",
        "provider": "virtual",
        "architecture": Architecture.ARMV6,
        "cpus": 0.5,
        "memory_bytes": 512 << 20,
        "link": Link(rate_bps=100_000_000),
    }
    return Node(**{**values, **changes})


def _request(*nodes: Node) -> Request:
    return Request(testbed="lab", subnet=IPv4Network("10.77.0.0/24"), nodes=nodes, images={}, directory=Path("unused"))


def _listed(address: str) -> dict[str, Any]:
    return {"NetworkSettings": {"Networks": {"toolkit-lab": {"IPAMConfig": {"IPv4Address": address}}}}}


def test_every_type_of_provider_can_be_asked_for_by_its_settings() -> None:
    for kind in PROVIDERS:
        settings = dataclasses.replace(SETTINGS, type=kind)  # type: ignore[arg-type]
        assert provider_for(settings).settings == settings


def test_an_unknown_type_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match="container"):
        provider_for(dataclasses.replace(SETTINGS, type="cloud"))  # type: ignore[arg-type]


def test_nodes_without_an_address_get_one_that_nobody_has() -> None:
    nodes = _node("a", address="10.77.0.253"), _node("b"), _node("c")
    given = {n.name: str(a) for n, a in container._addresses(_request(*nodes), {"c": _listed("10.77.0.252")})}
    assert given == {"a": "10.77.0.253", "b": "10.77.0.251", "c": "10.77.0.252"}


def test_an_address_of_a_former_subnet_is_not_kept() -> None:
    given = container._addresses(_request(_node("a")), {"a": _listed("10.1.0.5")})
    assert given[0][1] in IPv4Network("10.77.0.0/24")


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "pi3"},
        {"cpus": 1.0},
        {"memory_bytes": 1 << 30},
        {"link": Link(rate_bps=10_000_000)},
        {"architecture": Architecture.ARMV7},
    ],
)
def test_whatever_makes_the_machine_changes_its_hash(change: dict[str, Any]) -> None:
    provider = container.ContainerProvider(SETTINGS)
    address = IPv4Address("10.77.0.9")
    before = provider._machine(_request(), _node(), address, OPERATOR)
    assert provider._machine(_request(), _node(**change), address, OPERATOR).hash != before.hash


def test_what_is_only_said_about_a_machine_does_not_change_its_hash() -> None:
    provider = container.ContainerProvider(SETTINGS)
    address = IPv4Address("10.77.0.9")
    before = provider._machine(_request(), _node(), address, OPERATOR)
    said = _node(labels={"shelf": "2"}, group="workers", line=17)
    assert provider._machine(_request(), said, address, OPERATOR).hash == before.hash


def test_limits_are_a_quota_with_a_short_period_and_no_swap() -> None:
    assert container._limits(_node(), 2.0) == {
        "cpu_period": 20_000,
        "cpu_quota": 10_000,
        "mem_limit": 512 << 20,
        "memswap_limit": 512 << 20,
    }


def test_asking_for_all_the_processors_is_no_limit() -> None:
    assert "cpu_quota" not in container._limits(_node(cpus=4.0), 2.0)


@pytest.mark.parametrize(
    ("by", "kernel", "refused"),
    [("neither", platform.release(), True), ("netem", platform.release(), False), ("relay", platform.release(), False),
     ("unknown", platform.release(), False), ("neither", "another machine's", False)],
)  # fmt: skip
def test_links_that_the_kernel_cannot_make_are_refused_beforehand(
    monkeypatch: pytest.MonkeyPatch, by: str, kernel: str, refused: bool
) -> None:
    class Api:
        base_url = "tcp://elsewhere"

        def networks(self) -> list[dict[str, Any]]:
            return []

        def info(self) -> dict[str, str]:
            return {"KernelVersion": kernel}

    monkeypatch.setattr(container, "imposer", lambda: by)
    provider = container.ContainerProvider(SETTINGS)
    provider.__dict__["_api"] = Api()
    subnet, nodes = IPv4Network("10.77.0.0/24"), [_node("far", link=Link(loss=0.01)), _node("near")]
    found = provider.check("lab", subnet, nodes)
    assert len(found) == refused
    assert all("the links of far are" in problem and "sch_netem) nor tun" in problem for problem in found)
    assert provider.check("lab", subnet, [_node("near")]) == []


def test_a_container_that_was_never_started_is_not_kept() -> None:
    machine = container.ContainerProvider(SETTINGS)._machine(_request(), _node(), IPv4Address("10.77.0.9"), OPERATOR)
    labels = {container.NODE_HASH: machine.hash}
    assert container._kept({"Labels": labels, "State": "exited"}, machine)
    assert not container._kept({"Labels": labels, "State": "created"}, machine)
    assert not container._kept({"Labels": {container.NODE_HASH: "other"}, "State": "running"}, machine)
    assert not container._kept(None, machine)
