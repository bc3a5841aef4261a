import pytest

from toolkit.contract.orders import Arrivals
from toolkit.contract.payloads import Payload, size_of
from toolkit.contract.samples import Point

from .processes import Bench, of_point, play


def test_closed_run_stamps_every_hop_of_every_message(bench: Bench) -> None:
    broker = bench.event_handler()
    publisher, subscriber = bench.publisher(), bench.subscriber()
    play(broker, [publisher], [subscriber], run="r1", broker=f"127.0.0.1:{broker.port}", messages=200,
         warmup_messages=5, payload_bytes=71, subscriber_connections=2)  # fmt: skip

    sent = publisher.stamps("r1")
    at_broker = broker.stamps("r1")
    received = subscriber.stamps("r1")
    t1 = {stamp[4]: stamp[5] for stamp in of_point(sent, Point.SENT)}
    t5 = {stamp[4]: stamp[5] for stamp in of_point(sent, Point.ACKED)}
    t2 = {stamp[4]: stamp[5] for stamp in of_point(at_broker, Point.BROKER_RECEIVED)}
    t3 = {(stamp[2], stamp[4]): stamp[5] for stamp in of_point(at_broker, Point.BROKER_SENT)}
    t4 = {(stamp[2], stamp[4]): stamp[5] for stamp in of_point(received, Point.RECEIVED)}
    assert set(t1) == set(t5) == set(t2) == set(range(205))
    assert len(t3) == len(t4) == 410

    broker_peer = {tuple(flow): int(peer) for peer, flow in broker.info("r1").flows.items()}
    for peer, flow in subscriber.info("r1").flows.items():
        for seq in range(205):
            instants = [t1[seq], t2[seq], t3[broker_peer[tuple(flow)], seq], t4[int(peer), seq]]
            assert instants == sorted(instants)
            assert t5[seq] > t2[seq]

    assert publisher.info("r1").counts["sent"] == 200
    assert publisher.info("r1").counts["acked"] == 200
    assert publisher.info("r1").counts["warmup"] == 5
    assert subscriber.info("r1").counts["received"] == 400
    assert subscriber.info("r1").counts["duplicate"] == 0
    assert subscriber.info("r1").counts["probes"] == 2
    assert broker.info("r1").counts["received"] == 205


def test_messages_of_differing_sizes_are_what_their_numbers_tell(bench: Bench) -> None:
    broker = bench.event_handler()
    publisher, subscriber = bench.publisher(), bench.subscriber()
    payload = Payload(sizes=[64, 200, 4000], weights=[2, 1, 1], seed=3)
    play(broker, [publisher], [subscriber], run="r1", broker=f"127.0.0.1:{broker.port}", messages=300,
         payload_bytes=4000, payload=payload)  # fmt: skip
    assert subscriber.info("r1").counts["received"] == 300
    assert subscriber.info("r1").counts["foreign"] == 0
    sent = of_point(publisher.stamps("r1"), Point.SENT)
    tell = size_of(payload)
    sizes = [tell(stamp[3], stamp[4]) for stamp in sent]
    assert 100 < sizes.count(64) < 200
    assert set(sizes) == {64, 200, 4000}
    assert broker.info("r1").counts["received"] == 300


@pytest.mark.parametrize("version", ["3.1.1", "5"])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_mqtt_delivers_everything_once_at_every_qos(bench: Bench, mosquitto: int, qos: int, version: str) -> None:
    publisher, subscriber = bench.publisher(), bench.subscriber()
    play(
        None,
        [publisher],
        [subscriber],
        run="m",
        protocol="mqtt",
        broker=f"127.0.0.1:{mosquitto}",
        qos=qos,
        messages=300,
        connections=2,
        payload_bytes=300,
        topics=["a/b", "a/c"],
        arrivals=Arrivals(kind="rate", rate_per_s=3000),
        options={"mqtt": version},
    )
    sent, received = publisher.info("m"), subscriber.info("m")
    assert sent.counts["sent"] == 1200
    assert sent.counts["acked"] == (1200 if qos else 0)
    assert received.counts["received"] == 1200
    assert received.counts["duplicate"] == received.counts["foreign"] == received.counts["reordered"] == 0
    assert received.facts["granted_qos"] == qos
    assert received.facts["mqtt"] == version
