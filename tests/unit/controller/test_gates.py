"""Gates: what they refuse, in words, and when waiting is in vain."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from toolkit.contract.bundle import Bundle, Container
from toolkit.controller import gates
from toolkit.controller.gates import check_gates
from toolkit.errors import GateError
from toolkit.events import ignore
from toolkit.provisioning.observe import Observed, ObservedContainer
from toolkit.spec.load import load_testbed
from toolkit.spec.testbed import Testbed
from toolkit.state import Host, SshAccess

BUNDLE = Bundle(
    testbed="t",
    node="a",
    root="/var/lib/toolkit/t",
    containers=(Container(name="toolkit-t-s", service="s", role="s", image="i:1", content="1"),),
)


def seen(state: str = "running", status: str = "Up 3 seconds", content: str = "1", **clock: object) -> Observed:
    container = ObservedContainer(
        name="toolkit-t-s", service="s", role="s", hash="h", content=content, image="i:1",
        state=state, status=status, health="",
    )  # fmt: skip
    return Observed(
        node="a", containers={container.name: container}, engine_version="20.10", engine_error="",
        clock=clock or {"shared": True}, python="3.11",
        load=0.0, bundle=BUNDLE.digest(),
    )  # fmt: skip


def refused(what: Observed, *gates: str) -> str:
    with pytest.raises(GateError) as caught:
        check_gates(Testbed(name="t", file=Path("t.yml")), {}, {"a": BUNDLE}, ignore, gates=gates, seen={"a": what})
    return str(caught.value)


def test_what_somebody_ended_is_not_waited_for() -> None:
    before = time.monotonic()
    said = refused(seen(state="exited", status="Exited (137) 2 seconds ago"), "health")
    assert said == "health: node a: s is Exited (137) 2 seconds ago; its log: toolkit logs a --service s"
    assert time.monotonic() - before < 5


def test_what_prometheus_does_not_scrape_or_not_get_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prometheus reads its targets again by itself: until it has, none of a new node's is down, they are not there."""
    file = tmp_path / "testbed.yml"
    file.write_text("name: t\nnodes: {a: {}, b: {}}\nservices: {monitor: {on: a}}\n")
    access = SshAccess(address="", known_hosts="")
    hosts = {
        name: Host(node=name, provider="p", type="container", address=address, ssh=access, architecture="amd64")
        for name, address in (("a", "10.0.0.1"), ("b", "10.0.0.2"))
    }
    told = {
        "10.0.0.1:9100": ("up", ""), "10.0.0.1:9101": ("up", ""), "10.0.0.1:9090": ("up", ""),
        "10.0.0.1:9600": ("up", ""), "10.0.0.2:9100": ("down", "connection refused"), "10.0.0.9:9100": ("down", "gone"),
    }  # fmt: skip
    active = [
        {"scrapeUrl": f"http://{address}/metrics", "health": health, "lastError": error}
        for address, (health, error) in told.items()
    ]
    monkeypatch.setattr(gates, "prometheus", lambda *_: {"activeTargets": active})
    monkeypatch.setattr(gates, "METRICS_WITHIN_S", 0.0)
    with pytest.raises(GateError) as caught:
        check_gates(load_testbed(file), hosts, {}, ignore, gates=("metrics",))
    assert str(caught.value).splitlines() == [
        "metrics: node b: http://10.0.0.2:9100/metrics is down connection refused",
        "metrics: node b: 10.0.0.2:9101 is not among the targets of Prometheus",
    ]


def test_an_image_of_other_content_is_refused() -> None:
    assert refused(seen(content="2"), "images") == "images: node a: s runs image content 2, expected 1"
