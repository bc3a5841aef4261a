from __future__ import annotations

import errno
import os
import socket
import threading
import time

import pytest

from toolkit.node.capture import Capture, port_filter
from toolkit.node.hop_probe import Traffic

from .packets import Remembering, mqtt, order

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="looking at packets needs root (CAP_NET_RAW)")


def relay(listener: socket.socket, messages: int) -> None:
    """A broker in ten lines: what the first connection sends goes to the second."""
    subscriber, _ = listener.accept()
    publisher, _ = listener.accept()
    with subscriber, publisher:
        while data := publisher.recv(65536):
            subscriber.sendall(data)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_real_messages_over_loopback_are_stamped_once_in_the_order_of_their_way(family: int) -> None:
    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    try:
        opened = socket.create_server((host, 0), family=family)
    except OSError as error:
        if family == socket.AF_INET or error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            raise
        pytest.skip("this machine has no IPv6")
    with opened as listener:
        port = listener.getsockname()[1]
        capture = Capture([port])
        writer = Remembering()
        traffic = Traffic([port], order(), writer)  # type: ignore[arg-type]
        broker = threading.Thread(target=relay, args=(listener, 300))
        broker.start()
        sent: dict[int, int] = {}
        received: dict[int, int] = {}
        with socket.create_connection((host, port)) as subscriber, socket.create_connection((host, port)) as publisher:
            publisher.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for seq in range(300):
                sent[seq] = time.time_ns()
                publisher.sendall(mqtt(seq))
                left = len(mqtt(seq))
                while left:
                    left -= len(subscriber.recv(left))
                received[seq] = time.time_ns()
            local = subscriber.getsockname()[:2]
            publisher.shutdown(socket.SHUT_WR)
        broker.join(10)
        until = time.monotonic() + 5
        while len(writer.stamps) < 600 and time.monotonic() < until:
            for at_ns, packet in capture.packets(0.1):
                traffic.take(at_ns, packet)
        capture.count()
        lost = capture.lost
        seen = capture.seen
        capture.close()
    assert lost == 0
    t2, t3 = writer.at(3), writer.at(4)
    assert len(writer.stamps) == 600, "loopback shows every packet twice; each counts once"
    for seq in range(300):
        assert sent[seq] < t2[seq] < t3[seq] < received[seq]
    # With them it would be 1,200; a machine that is busy sends some packets again.
    assert seen < 900, "bare acknowledgements stay in the kernel"
    assert list(local) in traffic.flows.by_peer.values()


def test_other_ports_stay_in_the_kernel() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        capture = Capture([1])
        with socket.create_connection(listener.getsockname()) as client:
            client.sendall(b"not for the probe")
            assert [bytes(packet) for _, packet in capture.packets(0.2) if b"not for" in bytes(packet)] == []
        capture.close()


def test_the_filter_grows_with_its_ports_and_its_jumps_stay_inside() -> None:
    for ports in ([1883], [1883, 8883, 5672], list(range(1000, 1040))):
        program = port_filter(ports)
        for here, (code, yes, no, constant) in enumerate(program):
            assert yes < 256
            assert no < 256
            if code & 7 == 5:
                steps = [constant] if code == 0x05 else [yes, no]
                assert all(here + 1 + step < len(program) for step in steps)
