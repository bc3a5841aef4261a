"""What virtual nodes imitate, how they get their images, and what is said when they cannot be had."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.providers.bench import Bench, on
from tests.integration.providers.traffic import rate_bps
from toolkit import engine
from toolkit.errors import UnreachableError
from toolkit.providers import engine_store, provider_for
from toolkit.providers.base import NodeImage
from toolkit.spec.testbed import Link, ProviderSettings

pytestmark = pytest.mark.docker

RATE_BPS = 20_000_000


@pytest.fixture
def own_image(small_image: NodeImage) -> Iterator[NodeImage]:
    """An image that only this test run has."""
    content = f"{os.getpid():016x}"
    dockerfile = f"FROM {small_image.reference}\nLABEL org.toolkit.content={content}\n".encode()
    reference = f"toolkit/test-own:{content}"
    engine.connect().images.build(fileobj=io.BytesIO(dockerfile), tag=reference, rm=True)
    yield NodeImage(reference=reference, content=content)
    engine.connect().images.remove(reference)


def test_share_of_the_processor_and_memory_are_limited(container: Bench) -> None:
    got = container.acquire(container.node("slow", cpus=0.25, memory_bytes=256 << 20))
    host = got.hosts["slow"]
    assert host.facts["cpus"] == 0.25
    assert host.facts["memory_bytes"] == 256 << 20
    busy = "import time; b = time.monotonic(); c = time.process_time()\nwhile time.monotonic() - b < 1: pass\n"
    used = float(on(host, f"python3 -c '{busy}print(time.process_time() - c)'"))
    assert used < 0.4
    grab = on(host, "python3 -c 'x = bytearray(400 << 20)' >/dev/null 2>&1; echo $?")
    assert grab != "0"


def test_more_processors_than_there_are_means_all(container: Bench) -> None:
    host = container.acquire(container.node("big", cpus=512.0)).hosts["big"]
    assert host.facts["cpus"] == engine.connect().info()["NCPU"]


def test_the_link_has_its_rate_in_both_directions_and_names_resolve(container: Bench) -> None:
    limited = container.node("limited", link=Link(rate_bps=RATE_BPS))
    hosts = container.acquire(limited, container.node("free")).hosts
    for sender, receiver in (("limited", "free"), ("free", "limited")):
        rate = rate_bps(hosts[sender], hosts[receiver])
        assert 0.7 * RATE_BPS < rate < 1.02 * RATE_BPS, (sender, rate)


def test_nodes_are_born_with_their_images(container: Bench, small_image: NodeImage) -> None:
    images = {"full": (small_image,), "empty": ()}
    got = container.acquire(container.node("full"), container.node("empty"), images=images)
    full, empty = got.hosts["full"], got.hosts["empty"]
    assert small_image.content in full.facts["images"]
    assert empty.facts["images"] == []
    assert small_image.reference in on(full, "docker images --format '{{.Repository}}:{{.Tag}}'").split()
    assert on(empty, "docker images --quiet") == ""
    run = f"docker run --rm --network host --entrypoint sh {small_image.reference} -c 'touch /new && cat /etc/hostname'"
    assert on(full, run) == "full"


def test_images_that_came_later_are_seen(container: Bench, small_image: NodeImage) -> None:
    host = container.acquire(container.node("one")).hosts["one"]
    command = (
        f"mkdir b && cd b && echo FROM scratch >Dockerfile && echo 'COPY Dockerfile /' >>Dockerfile && "
        f"docker build -q --label org.toolkit.content={small_image.content} ."
    )
    on(host, command)
    again = container.acquire(container.node("one"), images={"one": (small_image,)})
    assert again.hosts["one"].facts["images"] == [small_image.content]


def test_a_store_in_use_stays_and_a_half_built_one_is_built_again(container: Bench, own_image: NodeImage) -> None:
    api = engine.connect().api
    images = {"one": (own_image,)}
    container.acquire(container.node("one"), images=images)
    with engine_store.prepared(api, [own_image], container.request.node_image, lambda _: None) as store:
        assert store is not None
    labels = [v["Labels"][engine_store.LABEL] for v in api.volumes(filters={"label": [engine_store.LABEL]})["Volumes"]]
    others = frozenset(labels) - {store.key}
    assert engine_store.remove_unused_stores(api, keep=others) == []
    container.release()
    api.create_container(
        container.request.node_image,
        name=store.volume,
        labels={f"{engine_store.LABEL}-builder": store.key},
        host_config=api.create_host_config(binds=[f"{store.volume}:/var/lib/docker"]),
    )
    container.events.clear()
    got = container.acquire(container.node("one"), images=images)
    assert any("prepared an engine store" in event.message for event in container.events)
    assert on(got.hosts["one"], "docker images --format '{{.Repository}}:{{.Tag}}'") == own_image.reference
    container.release()
    assert [r.name for r in engine_store.remove_unused_stores(api, keep=others)] == [store.volume]


def test_a_store_begins_with_what_another_one_has(
    container: Bench, own_image: NodeImage, small_image: NodeImage
) -> None:
    api = engine.connect().api
    before = {store.name for store in engine_store.stores(api)}
    container.acquire(container.node("one"), images={"one": (own_image,)})
    got = container.acquire(
        container.node("one"), container.node("two"), images={"one": (own_image,), "two": (own_image, small_image)}
    )
    assert any("2 images (1 loaded)" in event.message for event in container.events)
    two = got.hosts["two"]
    assert set(two.facts["images"]) == {own_image.content, small_image.content}
    run = "docker run --rm --network host --entrypoint cat"
    for image in (own_image, small_image):
        assert on(two, f"{run} {image.reference} /etc/hostname") == "two"
    assert container.acquire(container.node("three"), images={"three": (own_image,)}).hosts["three"]
    made = {store.name for store in engine_store.stores(api)} - before
    container.release()
    engine_store.remove_unused_stores(api, keep=frozenset(name.removeprefix("toolkit-store-") for name in before))
    assert len(made) == 2


def test_another_kind_of_machine_is_a_new_machine(container: Bench) -> None:
    container.acquire(container.node("one"), container.node("two"))
    got = container.acquire(container.node("one", memory_bytes=300 << 20), container.node("two"))
    assert got.created == {"one"}
    assert got.hosts["one"].facts["memory_bytes"] == 300 << 20
    assert on(got.hosts["one"], "echo here") == "here"


def test_a_lost_operator_key_makes_new_machines(container: Bench) -> None:
    container.acquire(container.node("one"))
    (container.request.directory / "id_ed25519").unlink()
    got = container.acquire(container.node("one"))
    assert got.created == {"one"}
    assert on(got.hosts["one"], "echo here") == "here"


def test_a_taken_subnet_is_named_with_its_owner_and_a_free_one(container: Bench) -> None:
    api = engine.connect().api
    name = f"{container.testbed}-other"
    from docker.types import IPAMConfig, IPAMPool

    subnet = container.request.subnet
    _, half = subnet.subnets()
    pool = IPAMConfig(pool_configs=[IPAMPool(subnet=str(half))])
    network = api.create_network(name, ipam=pool, labels={"org.toolkit.testbed": name})
    try:
        told = container.check(container.node("one"))
        with pytest.raises(UnreachableError) as caught:
            container.acquire(container.node("one"))
    finally:
        api.remove_network(network["Id"])
    message = str(caught.value)
    assert message == f"testbed {container.testbed}: {told[0]}"
    assert f'{subnet} overlaps {half} (Docker network "{name}")' in message
    assert "would be free" in message


def test_an_engine_that_does_not_start_is_reported_with_its_log(container: Bench) -> None:
    host = container.acquire(container.node("one"), container.node("two")).hosts["one"]
    on(host, "echo broken > /etc/docker/daemon.json && sync")
    container.kill("one")
    got = container.acquire(container.node("one"), container.node("two"))
    assert got.hosts.keys() == {"two"}
    assert "its Docker engine does not start" in got.failed["one"]
    assert "journalctl -u docker" in got.failed["one"]


def test_a_container_that_ends_is_reported_with_its_code_and_log(container: Bench) -> None:
    host = container.acquire(container.node("one"), container.node("two")).hosts["one"]
    on(host, "printf '#!/bin/sh\\necho the disk is gone\\nexit 3\\n' > /usr/lib/toolkit/link && sync")
    container.kill("one")
    got = container.acquire(container.node("one"), container.node("two"))
    assert got.hosts.keys() == {"two"}
    assert "ended with code 3" in got.failed["one"]
    assert "the disk is gone" in got.failed["one"]


def test_without_an_engine_it_says_what_to_do(container: Bench, tmp_path: Path) -> None:
    nowhere = provider_for(
        ProviderSettings(name="virtual", type="container", docker_host=f"unix://{tmp_path}/docker.sock")
    )
    with pytest.raises(UnreachableError, match="make setup"):
        nowhere.acquire(container.request, lambda _: None)


def test_without_a_node_image_it_says_what_to_do(container: Bench) -> None:
    with pytest.raises(UnreachableError, match="toolkit images build node"):
        container.acquire(container.node("one"), node_image="toolkit/node:0000")
