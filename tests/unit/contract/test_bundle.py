"""What a bundle says of itself."""

from __future__ import annotations

from toolkit.contract.bundle import Bundle, Container


def test_images_are_told_with_the_hash_of_their_content() -> None:
    containers = (
        Container(
            name="toolkit-t-broker", service="broker", role="broker", image="toolkit/broker:12ab", content="12ab"
        ),
        Container(name="toolkit-t-own", service="own", role="own", image="somebody/own:1", content="34cd"),
    )
    bundle = Bundle(testbed="t", node="a", root="/var/lib/toolkit/t", containers=containers)
    assert bundle.images() == {"broker": "toolkit/broker:12ab", "own": "somebody/own:1@34cd"}
