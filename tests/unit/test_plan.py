"""Plans are exact: nothing where nothing differs, and only what differs otherwise."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.contract.bundle import Bundle, BundleFile, Container
from toolkit.plan import Running, make_plan, node_hash, plan_services
from toolkit.spec.testbed import Link, Node, ProviderSettings, Testbed
from toolkit.state import Deployment

HERE = ProviderSettings(name="container", type="container")


def a_node(name: str, **changes: object) -> Node:
    fields: dict[str, object] = {
        "name": name,
        "kind": "pi3",
        "provider": "container",
        "architecture": None,
        "cpus": 1.0,
        "memory_bytes": 1 << 30,
        "link": Link(rate_bps=100_000_000),
        "address": "10.77.0.10",
    }
    return Node(**(fields | changes))  # type: ignore[arg-type]


def a_testbed(*nodes: Node) -> Testbed:
    return Testbed(name="t", file=Path("t.yml"), nodes=nodes, providers={"container": HERE})


def a_bundle(node: str, *services: str, content: str = "1") -> Bundle:
    file = BundleFile(path="etc/a/a.conf", content=content)
    return Bundle(
        testbed="t",
        node=node,
        root="/var/lib/toolkit/t",
        files=(file,),
        containers=tuple(
            Container(name=f"toolkit-t-{s}", service=s, role=s, image="i:1", content="1", files=("etc/a/a.conf",))
            for s in services
        ),
    )


def as_running(bundle: Bundle) -> Running:
    return Running(
        hashes={c.name: bundle.container_hash(c) for c in bundle.containers}, unwell={}, bundle=bundle.digest()
    )


def as_deployed(testbed: Testbed) -> Deployment:
    return Deployment(
        name="t", file="t.yml", stage="deployed", node_hashes={n.name: node_hash(n, HERE) for n in testbed.nodes}
    )


names = st.lists(st.sampled_from(["a", "b", "c", "d", "e"]), unique=True, min_size=1)


@given(names, names)
def test_the_plan_of_a_deployed_testbed_is_empty(nodes: list[str], services: list[str]) -> None:
    testbed = a_testbed(*map(a_node, nodes))
    bundles = {node: a_bundle(node, *services) for node in nodes}
    assert not make_plan(testbed, as_deployed(testbed), bundles, {n: as_running(b) for n, b in bundles.items()})


@given(names, names)
def test_a_new_testbed_creates_every_node_and_service_once(nodes: list[str], services: list[str]) -> None:
    testbed = a_testbed(*map(a_node, nodes))
    plan = make_plan(testbed, None, {node: a_bundle(node, *services) for node in nodes}, {})
    assert len(plan.actions) == len(nodes) * (1 + len(services))
    assert {action.verb for action in plan.actions} == {"create"}
    assert plan.touched == set(nodes)


def test_another_limit_replaces_only_that_node() -> None:
    before = a_testbed(a_node("a"), a_node("b"))
    after = a_testbed(a_node("a"), a_node("b", cpus=0.5))
    bundles = {node: a_bundle(node, "s") for node in "ab"}
    plan = make_plan(after, as_deployed(before), bundles, {n: as_running(b) for n, b in bundles.items()})
    assert [str(action) for action in plan.actions] == [
        "replace node b (its machine changed)",
        "create service s on b",
    ]


@pytest.mark.parametrize("field", ["labels", "group", "line"])
def test_words_about_a_node_do_not_make_another_machine(field: str) -> None:
    value = {"labels": {"rack": "2"}, "group": "g", "line": 99}[field]
    assert node_hash(a_node("a"), HERE) == node_hash(dataclasses.replace(a_node("a"), **{field: value}), HERE)


def test_a_changed_file_replaces_the_containers_that_read_it() -> None:
    old, new = a_bundle("a", "s", content="1"), a_bundle("a", "s", content="2")
    plan = plan_services({"a": new}, {"a": as_running(old)})
    assert [str(action) for action in plan.actions] == ["replace service s on a (its settings changed)"]


def test_what_is_unwell_drifted_or_unwanted_is_named() -> None:
    bundle = a_bundle("a", "s")
    seen = dataclasses.replace(
        as_running(a_bundle("a", "s", "old")), unwell={"toolkit-t-s": "it is exited"}, drift=("etc/a/a.conf",)
    )
    assert [str(action) for action in plan_services({"a": bundle}, {"a": seen}).actions] == [
        "update service s on a (it is exited)",
        "remove service toolkit-t-old on a (no longer in the file)",
        "update file etc/a/a.conf on a (changed on the node by hand)",
    ]


def test_a_deploy_that_was_cut_off_is_not_taken_for_somebodys_hand() -> None:
    bundle = a_bundle("a", "s")
    cut_off = dataclasses.replace(as_running(bundle), bundle="")
    said = [str(action) for action in plan_services({"a": bundle}, {"a": cut_off}).actions]
    assert said == ["update files on a (the last deploy did not come to its end there)"]
    halfway = dataclasses.replace(cut_off, drift=("etc/a/a.conf",))
    said = [str(action) for action in plan_services({"a": bundle}, {"a": halfway}).actions]
    assert said == ["update file etc/a/a.conf on a (the last deploy did not come to its end there)"]


def test_a_node_that_left_the_file_is_removed() -> None:
    before, after = a_testbed(a_node("a"), a_node("b")), a_testbed(a_node("a"))
    plan = make_plan(after, as_deployed(before), {}, {})
    assert plan.nodes("remove") == {"b"}
    assert plan.touched == set()


def test_of_a_node_that_cannot_be_looked_at_nothing_is_guessed() -> None:
    testbed = a_testbed(a_node("a"), a_node("b"))
    bundles = {node: a_bundle(node, "s") for node in "ab"}
    plan = make_plan(testbed, as_deployed(testbed), bundles, {"a": as_running(bundles["a"])}, {"b": "it is off"})
    assert [str(action) for action in plan.actions] == ["update node b (it cannot be looked at: it is off)"]
