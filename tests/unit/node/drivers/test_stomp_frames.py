"""Frames of STOMP 1.2: bodies with NUL, escaped headers, heart-beats between frames, every way to cut them."""

from pathlib import Path

import pytest

from toolkit.contract.orders import RunOrder
from toolkit.errors import WorkloadError
from toolkit.node.drivers import stomp_frames as frames
from toolkit.node.drivers.stomp import _Session

MESSAGE = frames.head("MESSAGE", {"subscription": "0", "content-length": "5", "ack": "a:b"}) + b"a\0b\nc\0"


def test_frames_come_back_however_the_network_cut_them() -> None:
    stream = b"\n" + MESSAGE + b"\n\r\n" + frames.frame("RECEIPT", {"receipt-id": "12"})
    for cut in range(len(stream)):
        reader = frames.FrameReader()
        message, receipt = reader.take(stream[:cut]) + reader.take(stream[cut:])
        assert (message.command, message.body, message.headers[b"ack"]) == (b"MESSAGE", b"a\0b\nc", b"a:b")
        assert (receipt.command, receipt.headers) == (b"RECEIPT", {b"receipt-id": b"12"})


def test_headers_are_escaped_but_in_connect() -> None:
    assert frames.frame("SEND", {"destination": "/topic/a:b\\c\n"}) == b"SEND\ndestination:/topic/a\\cb\\\\c\\n\n\n\0"
    assert frames.frame("CONNECT", {"passcode": "a:b"}) == b"CONNECT\npasscode:a:b\n\n\0"


def test_a_body_without_its_length_ends_at_nul_and_lines_may_end_as_in_windows() -> None:
    [error] = frames.FrameReader().take(b"ERROR\r\nmessage:Bad\r\nmessage:worse\r\n\r\nlong  story\n\0")
    assert error.headers == {b"message": b"Bad"}
    assert error.complaint == "Bad long story"


@pytest.mark.parametrize(
    "wrong",
    [
        b"MESSAGE\nno header\n\n\0",
        b"MESSAGE\ncontent-length:x\n\n\0",
        b"MESSAGE\ncontent-length:1\n\nabc\0",
        b"x" * 70_000,
    ],
)
def test_what_is_no_stomp_is_refused(wrong: bytes) -> None:
    with pytest.raises(frames.MalformedError):
        frames.FrameReader().take(wrong)


def test_a_backslash_in_a_password_is_refused_before_a_broker_reads_it_differently(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("a\\b")
    order = RunOrder(
        run="r",
        testbed="t",
        role="subscriber",
        protocol="stomp",
        broker="127.0.0.1:1",
        options={"user": "lab", "password_variable": "STOMP_PASSWORD_FILE"},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STOMP_PASSWORD_FILE", str(tmp_path / "password"))
        with pytest.raises(WorkloadError, match="without one"):
            _Session(order, client_id="c", timeout_s=1.0)
