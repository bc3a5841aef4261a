"""Frames of AMQP 0.9.1: what is written can be cut anywhere and read back, and what is no AMQP is refused."""

import struct

import pytest

from toolkit.node.drivers import amqp_frames as frames


def test_frames_come_back_however_the_network_cut_them() -> None:
    stream = frames.method(frames.ACK, struct.pack(">QB", 7, 1)) + frames.frame(frames.BODY, 1, b"\xce" * 30)
    for cut in range(len(stream)):
        reader = frames.FrameReader()
        found = reader.take(stream[:cut]) + reader.take(stream[cut:])
        assert [(f.kind, f.method) for f in found] == [(frames.METHOD, frames.ACK), (frames.BODY, 0)]
        assert found[1].body == b"\xce" * 30


@pytest.mark.parametrize("fill_bytes", [0, 1, 4096 - 48, 4096 - 47, 4096 - 49, 10_000])
def test_a_body_larger_than_a_frame_goes_into_several(fill_bytes: int) -> None:
    fill = bytes(range(256)) * (fill_bytes // 256) + bytes(fill_bytes % 256)
    before, after = frames.publish_parts("e", "k", fill, header_bytes=40, persistent=False, frame_max=4096)
    header = b"h" * 40
    publish, properties, *bodies = frames.FrameReader().take(before + header + after)
    assert publish.method == frames.PUBLISH
    assert int.from_bytes(properties.body[4:12], "big") == 40 + fill_bytes
    assert b"".join(body.body for body in bodies) == header + fill
    assert all(len(body.body) + frames.OVERHEAD <= 4096 for body in bodies)


def test_an_acknowledgement_covers_everything_before() -> None:
    [found] = frames.FrameReader().take(frames.acknowledgement(300))
    assert found.method == frames.ACK
    assert struct.unpack(">QB", found.body) == (300, 1)


def test_another_protocol_is_named() -> None:
    with pytest.raises(frames.MalformedError, match="another AMQP"):
        frames.FrameReader().take(b"AMQP\x00\x01\x00\x00")
    with pytest.raises(frames.MalformedError, match="without its end"):
        frames.FrameReader().take(b"\x01\x00\x00\x00\x00\x00\x00x..")


def test_names_have_255_bytes() -> None:
    assert len(frames.short("x" * 255)) == 256
    with pytest.raises(ValueError, match="255 bytes"):
        frames.short("ä" * 128)


def test_a_table_holds_every_type_that_is_used() -> None:
    written = frames.table({"a": True, "n": 5, "s": "x", "t": {"b": False}})
    assert written == frames.long(
        b"\x01at\x01" + b"\x01nl" + struct.pack(">q", 5) + b"\x01sS\0\0\0\x01x" + b"\x01tF\0\0\0\x04\x01bt\0"
    )
