"""The TCP side of drivers: what the kernel may hold for a client that does not read."""

from __future__ import annotations

import socket
import time

import pytest

from toolkit.errors import WorkloadError
from toolkit.node.drivers.wire import Wire


def taken_before_it_is_read(**options: int) -> int:
    """Bytes that a client's kernel takes while the client reads nothing; read at the end, so that none are missing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        wire = Wire(address, options=options, timeout_s=5)
        sender, _ = server.accept()
        with sender:
            # What is sent counts, not what waits here: the kernel keeps nothing beyond the other side's window.
            sender.setsockopt(socket.IPPROTO_TCP, 25, 1)
            sender.setblocking(False)
            sent = 0
            quiet_since = time.monotonic()
            while time.monotonic() < quiet_since + 0.3:
                try:
                    sent += sender.send(b"x" * 128)
                    quiet_since = time.monotonic()
                except BlockingIOError:
                    time.sleep(0.005)
            wire.blocking(5)
            received = 0
            while received < sent:
                received += len(wire.read()[0])
        wire.close()
        assert received == sent
        return sent


def test_a_bounded_receive_buffer_bounds_what_waits() -> None:
    small, large = taken_before_it_is_read(receive_buffer_bytes=4096), taken_before_it_is_read()
    assert small < 20_000
    assert large > 2 * small


def test_a_congestion_control_is_that_of_the_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        wire = Wire(address, options={"congestion": "reno"}, timeout_s=5)
        with socket.socket(fileno=wire.fileno()) as seen:
            assert seen.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0") == b"reno"
            seen.detach()
        wire.close()
        with pytest.raises(
            WorkloadError, match=r"option congestion: the kernel refuses 'no-such' \(.*\); it allows .*reno"
        ):
            Wire(address, options={"congestion": "no-such"}, timeout_s=5)
