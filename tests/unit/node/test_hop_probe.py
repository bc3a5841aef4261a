from __future__ import annotations

import itertools
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.contract.samples import MAGIC, Flag, Point
from toolkit.node.hop_probe import Traffic
from toolkit.node.segments import MOST_WAITING, WAIT_NS, parse_segment

from .packets import ACK, BROKER, PUBLISHER, SUBSCRIBER, SYN, Remembering, fed, message, mqtt, order, packet, sse

IN, OUT = int(Point.BROKER_RECEIVED), int(Point.BROKER_SENT)


def watching(protocol: str = "mqtt", payload_bytes: int = 100) -> tuple[Traffic, Remembering]:
    writer = Remembering()
    return Traffic([1883], order(protocol, payload_bytes), writer), writer  # type: ignore[arg-type]


def segments(
    stream: bytes, cuts: list[int], *, source=PUBLISHER, destination=BROKER, first: int = 1000
) -> list[memoryview]:
    edges = [0, *sorted({cut for cut in cuts if 0 < cut < len(stream)}), len(stream)]
    return [packet(source, destination, first + begin, stream[begin:end]) for begin, end in itertools.pairwise(edges)]


def test_a_message_in_one_segment_is_received_and_sent() -> None:
    traffic, writer = watching()
    fed(traffic, [(10, packet(PUBLISHER, BROKER, 1000, mqtt(5))), (25, packet(BROKER, SUBSCRIBER, 77, mqtt(5)))])
    assert writer.stamps == [(IN, 0, 7, 5, 10), (OUT, 1, 7, 5, 25)]
    assert traffic.flows.by_peer == {"0": ["10.0.0.2", 50001], "1": ["10.0.0.3", 50002]}


@pytest.mark.parametrize("make", [mqtt, sse])
def test_wherever_a_message_is_cut_its_last_byte_and_its_first_byte_are_stamped(make) -> None:
    stream = make(5)
    start = stream.find(MAGIC if make is mqtt else b"9VRL")
    for cut in range(1, len(stream)):
        traffic, writer = watching("mqtt" if make is mqtt else "sse")
        for ends in ((PUBLISHER, BROKER), (BROKER, SUBSCRIBER)):
            parts = segments(stream, [cut], source=ends[0], destination=ends[1])
            fed(traffic, [(10, parts[0]), (20, parts[1])])
        end = start + (100 if make is mqtt else 136)
        assert writer.at(IN) == {5: 10 if end <= cut else 20}, cut
        assert writer.at(OUT) == {5: 10 if start < cut else 20}, cut


def test_what_clients_here_say_to_a_broker_elsewhere_is_not_this_ones() -> None:
    here, there = ("10.0.0.1", 1883), ("10.0.0.9", 1883)
    local = frozenset({bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2))})  # a client on the broker's node
    writer = Remembering()
    traffic = Traffic([1883], order("mqtt", 100), writer, local)  # type: ignore[arg-type]
    client, loopback = ("10.0.0.1", 50001), ("127.0.0.1", 50002)
    fed(traffic, [(10, packet(client, there, 1, mqtt(1))), (20, packet(there, client, 1, mqtt(1)))])
    fed(traffic, [(30, packet(client, here, 1, mqtt(2))), (40, packet(here, ("10.0.0.9", 50003), 1, mqtt(2)))])
    fed(traffic, [(50, packet(loopback, ("127.0.0.1", 1883), 1, mqtt(3)))])
    assert writer.at(IN) == {2: 30, 3: 50}
    assert writer.at(OUT) == {2: 40}


def test_several_messages_share_a_segment_and_one_goes_on_in_the_next() -> None:
    stream = b"".join(mqtt(seq) for seq in range(4))
    cut = len(mqtt(0)) * 2 + 50
    traffic, writer = watching()
    fed(traffic, list(zip((10, 20), segments(stream, [cut]), strict=True)))
    assert writer.at(IN) == {0: 10, 1: 10, 2: 20, 3: 20}
    traffic, writer = watching()
    fed(traffic, list(zip((10, 20), segments(stream, [cut], source=BROKER, destination=SUBSCRIBER), strict=True)))
    assert writer.at(OUT) == {0: 10, 1: 10, 2: 10, 3: 20}


def test_a_frame_that_the_kernel_merged_is_read_to_its_end() -> None:
    stream = b"".join(mqtt(seq, 1000) for seq in range(70))
    assert len(stream) > 65536
    traffic, writer = watching(payload_bytes=1000)
    fed(traffic, [(10, packet(PUBLISHER, BROKER, 1, stream, merged=True))])
    assert writer.at(IN) == dict.fromkeys(range(70), 10)


def test_a_retransmission_keeps_the_first_stamp_and_is_counted() -> None:
    traffic, writer = watching()
    one = packet(BROKER, SUBSCRIBER, 77, mqtt(5))
    fed(traffic, [(10, one), (300, one), (400, packet(BROKER, SUBSCRIBER, 77 + len(mqtt(5)), mqtt(6)))])
    assert writer.at(OUT) == {5: 10, 6: 400}
    assert traffic.repeated == 1


def test_a_retransmission_that_brings_more_than_before_gives_only_what_is_new() -> None:
    stream = mqtt(5) + mqtt(6)
    traffic, writer = watching()
    fed(traffic, [(10, packet(PUBLISHER, BROKER, 9, stream[:150])), (20, packet(PUBLISHER, BROKER, 9, stream))])
    assert writer.at(IN) == {5: 10, 6: 20}


def test_what_waited_for_a_lost_segment_was_received_when_that_came() -> None:
    stream = mqtt(5) + mqtt(6) + mqtt(7)
    size = len(mqtt(5))
    parts = segments(stream, [size, 2 * size])
    traffic, writer = watching()
    fed(traffic, [(10, parts[0]), (30, parts[2]), (200, parts[1])])
    assert writer.at(IN) == {5: 10, 6: 200, 7: 200}
    assert traffic.gaps == 0


@pytest.mark.parametrize("by", ["time", "number"])
def test_what_the_capture_lost_is_given_up_counted_and_does_not_stop_the_rest(by: str) -> None:
    traffic, writer = watching()
    size = len(mqtt(0))
    fed(traffic, [(0, packet(PUBLISHER, BROKER, 1, mqtt(0)))])
    later = MOST_WAITING + 3 if by == "number" else 2
    for n in range(1, later + 1):
        at_ns = n if by == "number" else n * (WAIT_NS + 1)
        traffic.take(at_ns, packet(PUBLISHER, BROKER, 1 + (n + 1) * size, mqtt(n + 1)))
    assert traffic.gaps == 1
    assert set(writer.at(IN)) == {0, *range(2, later + 2)}


def test_a_message_broken_by_a_gap_is_never_made_up_from_its_halves() -> None:
    stream = mqtt(5) + mqtt(6) + mqtt(7)
    traffic, writer = watching()
    fed(
        traffic,
        [(0, packet(PUBLISHER, BROKER, 0, stream[:120])), (WAIT_NS, packet(PUBLISHER, BROKER, 150, stream[150:]))],
    )
    traffic.take(3 * WAIT_NS, packet(PUBLISHER, BROKER, len(stream) + 500, mqtt(9)))
    assert set(writer.at(IN)) == {5, 7}
    traffic.finish()
    assert set(writer.at(IN)) == {5, 7, 9}
    assert traffic.gaps == 2


def test_a_port_used_again_is_a_new_connection_with_a_new_peer() -> None:
    traffic, writer = watching()
    fed(
        traffic,
        [
            (1, packet(PUBLISHER, BROKER, 99, flags=SYN)),
            (2, packet(PUBLISHER, BROKER, 100, mqtt(5))),
            (3, packet(PUBLISHER, BROKER, 5_000_000, flags=SYN)),
            (4, packet(PUBLISHER, BROKER, 5_000_001, mqtt(5))),
        ],
    )
    assert writer.stamps == [(IN, 0, 7, 5, 2), (IN, 1, 7, 5, 4)]
    assert traffic.flows.by_peer["0"] == traffic.flows.by_peer["1"]


def test_both_directions_of_a_connection_are_one_peer() -> None:
    traffic, writer = watching()
    fed(
        traffic,
        [
            (1, packet(PUBLISHER, BROKER, 99, flags=SYN)),
            (1, packet(BROKER, PUBLISHER, 299, flags=SYN | ACK)),
            (2, packet(PUBLISHER, BROKER, 100, mqtt(5))),
            (4, packet(BROKER, PUBLISHER, 300, mqtt(5))),
        ],
    )
    assert writer.stamps == [(IN, 0, 7, 5, 2), (OUT, 0, 7, 5, 4)]


def test_sequence_numbers_wrap() -> None:
    first = 2**32 - 150
    traffic, writer = watching()
    stream = mqtt(1) + mqtt(2) + mqtt(3)
    parts = segments(stream, [100, 200], first=first)
    fed(traffic, [(1, parts[0]), (3, parts[2]), (4, parts[1]), (5, parts[1])])
    assert writer.at(IN) == {1: 4, 2: 4, 3: 4}


def test_damaged_headers_probes_and_strangers_are_left_out() -> None:
    damaged = bytearray(message(5))
    damaged[10] ^= 1
    probe = message(6, flags=Flag.PROBE)
    stream = bytes(damaged) + probe + MAGIC + b"somebody else's" * 4 + message(8)
    traffic, writer = watching()
    fed(
        traffic, [(1, packet(PUBLISHER, BROKER, 1, stream)), (2, packet(("10.0.0.9", 22), ("10.0.0.8", 5), 1, mqtt(9)))]
    )
    assert writer.at(IN) == {8: 1}


def test_the_same_message_again_on_the_same_connection_keeps_its_first_stamp() -> None:
    traffic, writer = watching()
    fed(traffic, [(1, packet(BROKER, SUBSCRIBER, 0, mqtt(5))), (9, packet(BROKER, SUBSCRIBER, len(mqtt(5)), mqtt(5)))])
    assert writer.at(OUT) == {5: 1}
    assert traffic.duplicates == 1


def test_of_tls_it_says_that_it_cannot_see() -> None:
    traffic, writer = watching()
    hello = b"\x16\x03\x01\x02\x00" + b"x" * 100
    fed(traffic, [(1, packet(PUBLISHER, BROKER, 1, hello)), (2, packet(PUBLISHER, BROKER, 106, mqtt(5)))])
    assert traffic.encrypted == 1
    assert writer.stamps == []


def test_ipv6_is_seen_too() -> None:
    traffic, writer = watching()
    fed(traffic, [(1, packet(("fd00::2", 5), ("fd00::1", 1883), 1, mqtt(5)))])
    assert writer.at(IN) == {5: 1}
    assert traffic.flows.by_peer == {"0": ["fd00::2", 5]}


@pytest.mark.parametrize(
    "junk",
    [
        b"",
        b"\x45",
        b"\x45" * 19,
        struct.pack(">BBHHHBBH", 0x45, 0, 28, 0, 0, 64, 17, 0) + bytes(16),
        b"\x60" + bytes(50),
    ],
)
def test_what_is_no_tcp_is_no_segment(junk: bytes) -> None:
    assert parse_segment(memoryview(junk)) is None
    traffic, writer = watching()
    traffic.take(1, memoryview(junk))
    assert writer.stamps == []


@settings(max_examples=150, deadline=None)
@given(
    cuts=st.lists(st.integers(1, 799), max_size=12),
    swaps=st.lists(st.integers(0, 11), max_size=6),
    again=st.lists(st.integers(0, 12), max_size=4),
    text=st.booleans(),
    payload_bytes=st.integers(40, 130),
)
def test_every_message_is_found_once_however_the_stream_is_cut_swapped_and_repeated(
    cuts: list[int], swaps: list[int], again: list[int], text: bool, payload_bytes: int
) -> None:
    stream = b"".join((sse if text else mqtt)(seq, payload_bytes) for seq in range(5))
    parts = segments(stream, cuts)
    for index in swaps:
        if 0 < index < len(parts) - 1:  # the first one tells where the connection begins
            parts[index], parts[index + 1] = parts[index + 1], parts[index]
    for index in again:
        if index < len(parts):
            parts.append(parts[index])
    traffic, writer = watching("sse" if text else "mqtt", payload_bytes)
    fed(traffic, list(enumerate(parts, start=1)))
    assert sorted(writer.at(IN)) == [0, 1, 2, 3, 4]
    assert len(writer.stamps) == 5
    instants = [writer.at(IN)[seq] for seq in range(5)]
    assert instants == sorted(instants)
    assert traffic.gaps == 0
