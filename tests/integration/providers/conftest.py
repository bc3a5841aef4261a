"""Fixtures of the provider tests: a bench of each provider, cleared and looked at after every test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.providers.bench import BENCHES, Bench, container_bench
from toolkit import engine
from toolkit.providers.base import NodeImage
from toolkit.provisioning.images import Builder


@pytest.fixture(scope="session")
def small_image() -> NodeImage:
    """An image of toolkit's own that nodes can be born with."""
    key = ("mosquitto", engine.architecture())
    found = Builder(lambda _: None).build([key])[key]
    return NodeImage(reference=found.reference, content=found.content)


@pytest.fixture(scope="session")
def node_image() -> str:
    key = ("node", engine.architecture())
    return Builder(lambda _: None).build([key])[key].reference


@pytest.fixture(params=sorted(BENCHES))
def bench(request: pytest.FixtureRequest, tmp_path: Path, node_image: str) -> Iterator[Bench]:
    """A bench of each provider; after the test nothing of it is left, and that is looked at."""
    yield from _cleared(BENCHES[request.param](tmp_path / "testbed", node_image))


@pytest.fixture
def container(tmp_path: Path, node_image: str) -> Iterator[Bench]:
    """A bench of the container provider alone."""
    yield from _cleared(container_bench(tmp_path / "testbed", node_image))


def _cleared(bench: Bench) -> Iterator[Bench]:
    try:
        yield bench
    finally:
        bench.release()
    assert bench.resources() == []
