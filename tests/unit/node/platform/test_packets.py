"""The server's half of MQTT understands what our clients send, and raises one kind of error for everything else."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.node.drivers import mqtt_packets as client
from toolkit.node.drivers.mqtt_packets import MalformedError, PacketReader
from toolkit.node.platform import packets

VERSIONS = st.sampled_from([4, 5])
NAMES = st.text(st.characters(blacklist_characters="\0+#", blacklist_categories=["Cs"]), min_size=1, max_size=30)


def body_of(packet: bytes) -> tuple[int, int, bytes]:
    [found] = PacketReader().take(packet)
    return found


@given(VERSIONS, st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=40),
       st.integers(0, 65535), st.booleans(), st.none() | st.just("user"))  # fmt: skip
def test_connects_are_read_back(version, client_id, keep_alive_s, clean, user):
    kind, _, body = body_of(
        client.connect(version, client_id, keep_alive_s=keep_alive_s, clean=clean, user=user, password=user)
    )
    read = packets.read_connect(body)
    assert kind == packets.CONNECT
    assert (read.version, read.client_id, read.keep_alive_s, read.clean) == (version, client_id, keep_alive_s, clean)
    assert read.will is None


@given(VERSIONS, NAMES, st.binary(max_size=200), st.sampled_from([0, 1]), st.integers(1, 65535))
def test_publishes_are_read_back(version, topic, payload, qos, packet_id):
    before, after = client.publish_head(version, topic, len(payload), qos)
    kind, flags, body = body_of(before + (packet_id.to_bytes(2, "big") if qos else b"") + after + payload)
    assert kind == client.PUBLISH
    assert packets.read_publish(version, flags, body) == (topic.encode(), qos, packet_id if qos else 0, payload)


@given(VERSIONS, st.lists(NAMES, min_size=1, max_size=5), st.sampled_from([0, 1, 2]))
def test_subscriptions_are_read_back_and_answered(version, topics, qos):
    _, _, body = body_of(client.subscribe(version, 7, topics, qos))
    assert packets.read_subscribe(version, body, options=True) == (7, [(topic, qos) for topic in topics])
    _, _, answer = body_of(packets.suback(version, 7, [qos] * len(topics)))
    assert client.read_suback(version, answer) == (7, bytes([qos] * len(topics)))


@given(st.integers(1, 65535))
def test_connacks_tell_what_is_not_to_be_had(receive_maximum):
    _, _, body = body_of(packets.connack(5, 0, receive_maximum=receive_maximum, assigned_id="tk-1"))
    read = client.read_connack(5, body)
    assert (read.code, read.receive_maximum) == (0, receive_maximum)
    assert client.read_properties(body, 2)[0x24] == 1
    assert client.read_connack(4, body_of(packets.connack(4, 3))[2]).code == 3


@given(st.binary(max_size=60), VERSIONS, st.integers(0, 15))
def test_anything_else_is_malformed_and_nothing_worse(body, version, flags):
    for read in (
        lambda: packets.read_connect(body),
        lambda: packets.read_publish(version, flags, body),
        lambda: packets.read_subscribe(version, body, options=True),
        lambda: packets.read_subscribe(version, body, options=False),
    ):
        with contextlib.suppress(MalformedError):
            read()


def test_a_will_is_read():
    body = client.text("MQTT") + bytes((4, 0x02 | 0x04 | 0x08)) + b"\0\0"
    body += client.text("id") + client.text("last/words") + b"\0\3bye"
    assert packets.read_connect(body).will == packets.Will(topic="last/words", payload=b"bye", qos=1)


def test_packets_larger_than_allowed_are_refused_before_they_are_here():
    with pytest.raises(MalformedError, match="at most 1000"):
        PacketReader(1000).take(b"\x30\xff\x7f")


@pytest.mark.parametrize(
    ("name", "topic", "wanted"),
    [("a/b", True, True), ("", False, False), ("a/+", False, True), ("#", False, True), ("a/#", False, True),
     ("a#", False, False), ("a/#/b", False, False), ("a+/b", False, False), ("$share/g/a", True, False)],
)  # fmt: skip
def test_topics_and_filters(name, topic, wanted):
    assert packets.is_topic(name) == topic
    assert packets.is_filter(name) == wanted
