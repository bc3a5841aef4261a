"""The TCP side of drivers: what the kernel may hold for a client that does not read."""

from __future__ import annotations

import select
import socket
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from toolkit.errors import WorkloadError
from toolkit.node.drivers.wire import Wire
from toolkit.provisioning import certificates


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


def test_what_tls_brings_later_has_a_later_instant(tmp_path: Path) -> None:
    cloud = certificates.make_cloud(certificates.make_master(), cloud="a", operator="op")
    certificates.save(certificates.make_system(cloud, system="gauge"), tmp_path, "gauge")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "gauge.crt", tmp_path / "gauge.key")
    (tmp_path / "ca.crt").write_bytes(cloud.certificate_pem)
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:
        options = {"tls": True, "ca_file": str(tmp_path / "ca.crt"), "check_hostname": False}
        opening = pool.submit(Wire, f"127.0.0.1:{server.getsockname()[1]}", options=options, timeout_s=20)
        with context.wrap_socket(server.accept()[0], server_side=True) as broker:
            wire = opening.result(20)
            wire.blocking(None)
            broker.sendall(b"first")
            broker.sendall(b"second")
            instants = {}
            for expected in (b"first", b"second"):
                assert select.select([wire.fileno()], [], [], 20)[0], f"nobody tells of {expected!r}"
                while not (read := wire.read())[0]:
                    pass
                assert read[0] == expected
                instants[expected] = read[1]
        wire.close()
    assert instants[b"first"] < instants[b"second"]


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
