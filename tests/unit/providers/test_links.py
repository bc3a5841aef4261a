"""What is asked of a link becomes what its node is told, and by what it will be imposed is told beforehand."""

from __future__ import annotations

import dataclasses

import pytest

from toolkit.node.cable import Impairment
from toolkit.providers import links
from toolkit.spec.testbed import Link, Node, ProviderSettings

VIRTUAL = ProviderSettings(name="virtual", type="container")


def _node(name: str, **link: float) -> Node:
    return Node(
        name=name, kind="pi3", provider="virtual", architecture=None, cpus=1.0, memory_bytes=None, link=Link(**link)
    )


def test_a_link_becomes_a_rate_and_words_of_netem() -> None:
    link = Link(rate_bps=100_000_000, delay_s=0.0015, jitter_s=0.0002, loss=0.015)
    assert links.link_settings(link) == {
        "TOOLKIT_LINK_RATE": "100000000",
        "TOOLKIT_LINK_NETEM": "delay 1500us 200us loss 1.500000%",
    }
    assert links.link_settings(Link()) == {}
    assert links.link_settings(Link(loss=0.0001)) == {"TOOLKIT_LINK_NETEM": "loss 0.010000%"}


@pytest.mark.parametrize(
    "link", [Link(delay_s=0.0015, jitter_s=0.0002, loss=0.015), Link(delay_s=0.02), Link(loss=0.0001)]
)
def test_the_relay_understands_what_netem_is_told(link: Link) -> None:
    understood = Impairment.of(links.link_settings(link)["TOOLKIT_LINK_NETEM"].split())
    assert (understood.delay_ns, understood.jitter_ns) == (round(link.delay_s * 1e9), round(link.jitter_s * 1e9))
    assert understood.loss == pytest.approx(link.loss)


@pytest.mark.parametrize(
    ("netem", "tun", "by"),
    [
        (True, None, "netem"),
        (False, True, "relay"),
        (False, False, "neither"),
        (None, False, "unknown"),
        (False, None, "unknown"),
    ],
)
def test_the_kernel_comes_first(monkeypatch: pytest.MonkeyPatch, netem: bool | None, tun: bool | None, by: str) -> None:
    monkeypatch.setattr(links, "has_netem", lambda: netem)
    monkeypatch.setattr(links, "has_tun", lambda: tun)
    assert links.imposer() == by


def test_a_forecast_names_nodes_and_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "imposer", lambda: "relay")
    nodes = [_node("far", delay_s=0.01), _node("near", rate_bps=1e8), _node("lossy", loss=0.1)]
    said = links.forecast(VIRTUAL, nodes)
    assert said.startswith("delay, jitter and loss of the links of far, lossy: by a program on the node (relay)")
    assert links.forecast(VIRTUAL, nodes[1:2]) == ""
    assert links.forecast(dataclasses.replace(VIRTUAL, type="ssh"), nodes) == ""
    elsewhere = dataclasses.replace(VIRTUAL, docker_host="ssh://other")
    assert "turns out to have none" in links.forecast(elsewhere, nodes)
    monkeypatch.setattr(links, "imposer", lambda: "neither")
    assert links.forecast(VIRTUAL, nodes) == ""
    assert "(netem)" in links.forecast(dataclasses.replace(VIRTUAL, type="vm"), nodes)
