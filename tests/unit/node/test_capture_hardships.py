"""The capture on a real kernel where it is hard: cut messages, full segments, retransmissions, a ring that overruns."""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from toolkit.contract.samples import Point
from toolkit.node.capture import Capture
from toolkit.node.hop_probe import Traffic

from .packets import Remembering, mqtt, order

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="looking at packets needs root (CAP_NET_RAW)")
IN, OUT = int(Point.BROKER_RECEIVED), int(Point.BROKER_SENT)
_CLONE_NEWNET = 0x40000000


class Bench:
    """A relay between one publisher and one subscriber, and a probe's view of it."""

    def __init__(self, *, ring_bytes: int = 32 << 20, payload_bytes: int = 100) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.capture = Capture([self.port], ring_bytes=ring_bytes)
        self.writer = Remembering()
        self.traffic = Traffic([self.port], order("mqtt", payload_bytes), self.writer)  # type: ignore[arg-type]
        self.received = bytearray()

    def play(self, publish: Callable[[socket.socket], None], expected: int) -> None:
        """Let `publish` write, and wait until that many bytes have come out at the other end."""
        with socket.create_connection(("127.0.0.1", self.port)) as subscriber, socket.socket() as publisher:
            publisher.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            to_subscriber, _ = self.listener.accept()
            publisher.connect(("127.0.0.1", self.port))
            from_publisher, _ = self.listener.accept()
            relay = threading.Thread(target=self._relay, args=(from_publisher, to_subscriber))
            reader = threading.Thread(target=self._read, args=(subscriber, expected))
            relay.start()
            reader.start()
            publish(publisher)
            publisher.shutdown(socket.SHUT_WR)
            reader.join(30)
            relay.join(30)
            for end in (to_subscriber, from_publisher):
                end.close()

    def _relay(self, source: socket.socket, sink: socket.socket) -> None:
        while data := source.recv(1 << 20):
            sink.sendall(data)

    def _read(self, source: socket.socket, expected: int) -> None:
        while len(self.received) < expected and (data := source.recv(1 << 20)):
            self.received += data

    def look(self) -> None:
        """Work in what the ring holds."""
        until = time.monotonic() + 1
        while time.monotonic() < until:
            for at_ns, packet in self.capture.packets(0.1):
                self.traffic.take(at_ns, packet)
        self.traffic.finish()
        self.capture.count()

    def close(self) -> None:
        self.capture.close()
        self.listener.close()


def test_messages_over_many_segments_and_many_messages_in_one() -> None:
    """1,000 bytes leave in pieces of 130, each in a segment of its own; then 50 small messages leave in one write."""
    bench = Bench(payload_bytes=1000)
    long = b"".join(mqtt(seq, 1000) for seq in range(40))

    def in_pieces(publisher: socket.socket) -> None:
        for begin in range(0, len(long), 130):
            publisher.sendall(long[begin : begin + 130])
            time.sleep(0.0005)

    bench.play(in_pieces, len(long))
    bench.look()
    assert sorted(bench.writer.at(IN)) == sorted(bench.writer.at(OUT)) == list(range(40))
    assert bench.capture.seen > 40 * 5, "each message came in several segments"
    bench.close()

    bench = Bench()
    together = b"".join(mqtt(seq) for seq in range(50))
    bench.play(lambda publisher: publisher.sendall(together), len(together))
    bench.look()
    came = bench.writer.at(IN)
    assert sorted(came) == sorted(bench.writer.at(OUT)) == list(range(50))
    assert len(set(came.values())) == 1, "one segment, one instant"
    bench.close()


def test_retransmissions_on_a_way_that_loses_packets_are_seen_once_each() -> None:
    """The kernel drops every ninth packet of data before its TCP gets it; what is dropped was seen, and comes again."""
    if shutil.which("iptables") is None:
        pytest.skip("needs iptables, to lose packets")

    def lossy() -> None:
        run("ip", "link", "set", "lo", "up")
        bench = Bench()
        rule = ["-p", "tcp", "--dport", str(bench.port), "-m", "length", "--length", "120:65535"]
        run(
            "iptables",
            "-A",
            "INPUT",
            *rule,
            "-m",
            "statistic",
            "--mode",
            "nth",
            "--every",
            "9",
            "--packet",
            "5",
            "-j",
            "DROP",
        )
        messages = [mqtt(seq) for seq in range(80)]

        def publish(publisher: socket.socket) -> None:
            for one in messages:
                publisher.sendall(one)
                time.sleep(0.002)

        bench.play(publish, sum(map(len, messages)))
        bench.look()
        assert bytes(bench.received) == b"".join(messages)
        assert bench.traffic.repeated > 0
        assert bench.traffic.gaps == 0
        came, left = bench.writer.at(IN), bench.writer.at(OUT)
        assert sorted(came) == sorted(left) == list(range(80))
        assert len(bench.writer.stamps) == 160
        assert all(came[seq] < left[seq] for seq in came)
        bench.close()

    in_a_network_of_its_own(lossy)


def test_a_ring_that_overruns_counts_what_it_lost_and_makes_nothing_up() -> None:
    bench = Bench(ring_bytes=2 << 20, payload_bytes=1000)
    messages = [mqtt(seq, 1000) for seq in range(20_000)]
    bench.play(lambda publisher: publisher.sendall(b"".join(messages)), sum(map(len, messages)))
    bench.look()
    assert bench.capture.lost > 0
    found = bench.writer.at(IN)
    assert 0 < len(found) < 20_000
    assert len(bench.writer.stamps) == len(found) + len(bench.writer.at(OUT))
    bench.close()


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


def in_a_network_of_its_own(action: Callable[[], Any]) -> None:
    """In a thread that left the machine's network for an empty one, which goes with it."""
    problems: list[BaseException] = []

    def work() -> None:
        try:
            if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET):
                pytest.skip(f"needs a network namespace: {os.strerror(ctypes.get_errno())}")
            action()
        except BaseException as problem:  # noqa: BLE001  raised again in the test's own thread
            problems.append(problem)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if problems:
        raise problems[0]
