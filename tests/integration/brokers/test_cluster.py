"""A RabbitMQ cluster that lets nobody in without TLS and a password, entered at each node by every protocol."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.brokers.servers import serve
from tests.integration.brokers.test_brokers import OPEN
from tests.unit.node.processes import Bench, play
from toolkit.spec.services import spoken

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]


def test_a_guarded_cluster_is_entered_at_each_node_by_every_protocol(tmp_path: Path) -> None:
    """Over MQTT it takes the Raft group of the plugin, which nodes that start together have to join one by one."""
    (tmp_path / "cluster").mkdir()
    bench = Bench(tmp_path)
    try:
        with serve(tmp_path / "cluster", "rabbitmq", guarded=True, count=2) as cluster:
            publisher = bench.publisher(**cluster.environment)  # type: ignore[arg-type]
            subscriber = bench.subscriber(**cluster.environment)  # type: ignore[arg-type]
            for protocol in spoken("rabbitmq", cluster.service.settings):
                play(
                    None, [publisher], [subscriber], run=protocol, protocol=protocol, broker=cluster.at(protocol),
                    qos=1, messages=100, connections=2, subscriber_connections=2, arrivals=OPEN,
                    options=cluster.options(),
                )  # fmt: skip
                sent, received = publisher.info(protocol).counts, subscriber.info(protocol).counts
                assert sent["acked"] == sent["sent"] == 200
                assert received["received"] == 400
                assert sent["reconnects"] == received["reconnects"] == received["duplicate"] == 0
    finally:
        bench.close()
