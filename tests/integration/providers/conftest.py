"""Fixtures of the provider tests: a bench of each provider, cleared and looked at after every test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.providers.bench import BENCHES, Bench, Ground, Rack, container_bench, ssh_bench, vm_bench
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


@pytest.fixture(scope="package")
def rack(tmp_path_factory: pytest.TempPathFactory, node_image: str) -> Iterator[Rack]:
    """Four machines that exist."""
    ground = Ground(tmp_path_factory.mktemp("rack"), node_image, _no_rack, str)
    bench = container_bench(ground, "test-rack")
    try:
        got = bench.acquire(*(bench.node(name) for name in bench.names))
        assert not got.failed
        yield Rack(bench, got.hosts)
    finally:
        bench.release()


def _no_rack() -> Rack:
    raise AssertionError("a rack stands on no other rack")


@pytest.fixture
def ground(request: pytest.FixtureRequest, tmp_path: Path, node_image: str) -> Ground:
    return Ground(
        directory=tmp_path / "testbed",
        node_image=node_image,
        rack=lambda: request.getfixturevalue("rack"),
        vm_image=str,
    )


@pytest.fixture(scope="package")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """The bench of the vm provider, whose machine stays up from test to test; at the end nothing of it is left."""
    key = ("vm", engine.architecture())
    image = Builder(lambda _: None).build([key])[key].reference
    bench = vm_bench(Ground(tmp_path_factory.mktemp("vm") / "testbed", "", _no_rack, lambda: image))
    yield from _cleared(bench)
    assert bench.release() == []
    assert [entry.name for entry in bench.request.directory.iterdir()] == ["known_hosts"]


def _bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    if request.param == "vm":
        yield request.getfixturevalue("machine")
    else:
        yield from _cleared(BENCHES[request.param](request.getfixturevalue("ground")))


SLOW = {"vm": [pytest.mark.slow, pytest.mark.timeout(900)]}
ALL = [pytest.param(name, marks=SLOW.get(name, [])) for name in sorted(BENCHES)]


@pytest.fixture(params=ALL)
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """A bench of each provider; after the test nothing of it is left, and that is looked at."""
    yield from _bench(request)


@pytest.fixture(params=sorted(BENCHES.keys() - SLOW.keys()))
def fleet(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """The same where several machines cost little."""
    yield from _bench(request)


@pytest.fixture
def container(ground: Ground) -> Iterator[Bench]:
    """A bench of the container provider alone."""
    yield from _cleared(container_bench(ground))


@pytest.fixture
def ssh_hosts(ground: Ground) -> Iterator[Bench]:
    """A bench of the ssh provider alone."""
    yield from _cleared(ssh_bench(ground))


def _cleared(bench: Bench) -> Iterator[Bench]:
    try:
        yield bench
    finally:
        bench.release()
    assert bench.resources() == []
