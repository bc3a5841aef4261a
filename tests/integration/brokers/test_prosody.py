"""Prosody from toolkit's own image, with the files and secrets of a deploy, in the clear and guarded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.brokers.servers import docker, serve
from tests.unit.node.processes import Bench, play
from toolkit.contract.orders import Arrivals

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    started = Bench(tmp_path)
    yield started
    started.close()


@pytest.mark.parametrize("guarded", [False, True])
def test_every_message_is_delivered_and_confirmed(tmp_path: Path, bench: Bench, guarded: bool) -> None:
    with serve(tmp_path, "prosody", settings="max_stanza_size: 2M", guarded=guarded) as server:
        publisher, subscriber = bench.publisher(**server.environment), bench.subscriber(**server.environment)
        play(
            None, [publisher], [subscriber], run="i", protocol="xmpp", broker=server.at("xmpp"), qos=1, messages=50,
            topics=["a", "b"], payload_bytes=200, options=server.options(),
            arrivals=Arrivals(kind="rate", rate_per_s=50),
        )  # fmt: skip
        assert publisher.info("i").counts["acked"] == 100
        assert subscriber.info("i").counts["received"] == 100
        assert subscriber.info("i").facts["granted_qos"] == 1
        owner = docker("exec", server.containers[0], "sh", "-c", "stat -c %U /proc/1")
        assert owner.strip() == "prosody", "root is given up"
