"""How exactly a virtual node's link delays, and what that costs: one-way delays of small packets, TCP, processor time.

Run: .venv/bin/python tests/bench/bench_links.py [--repeats 3] [--delay-ms 5]
Three virtual nodes: `far` has the delay, `plain` has none and is the yardstick, `near` talks with both in turns. Their
clock is one, so that a one-way delay is a difference of two stamps.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

from tests.integration.providers.bench import Bench, Ground, container_bench  # noqa: E402
from tests.integration.providers.traffic import rate_bps  # noqa: E402
from toolkit import engine, ssh  # noqa: E402
from toolkit.provisioning.images import Builder  # noqa: E402
from toolkit.spec.testbed import Link  # noqa: E402
from toolkit.state import Host  # noqa: E402

RECEIVE = """
import json, socket, time
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    s.bind(("", 5556)); s.settimeout(10); found = []
    try:
        while (packet := s.recv(100)) != b"end":
            found.append(time.time_ns() - int(packet)); s.settimeout(2)
    except TimeoutError: pass
    print(json.dumps(found))
"""
SEND = """
import socket, time
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    s.connect(("{peer}", 5556)); time.sleep(0.5); due = time.monotonic()
    for _ in range({count}):
        due += 1 / {per_s}
        while (left := due - time.monotonic()) > 0: time.sleep(left)
        s.send(b"%d" % time.time_ns())
    time.sleep(0.5); s.send(b"end")
"""


def inside(bench: Bench, node: str, *command: str) -> subprocess.Popen[str]:
    """A command on a node, past its cable."""
    words = ["docker", "exec", f"toolkit-{bench.testbed}-{node}", *command]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


def one_way_ms(bench: Bench, sender: str, receiver: str, count: int, per_s: int) -> list[float]:
    """Delays of those that arrived."""
    receiving = inside(bench, receiver, "python3", "-c", RECEIVE)
    inside(bench, sender, "python3", "-c", SEND.format(peer=receiver, count=count, per_s=per_s)).wait()
    return [ns / 1e6 for ns in json.loads(receiving.communicate()[0])]


def cable_work(bench: Bench, node: str) -> tuple[int, int]:
    """Processor time of the relay in ns, and frames that it carried; nothing where the kernel does its work."""
    script = (
        "p=$(systemctl show toolkit-cable -p MainPID --value); [ $p != 0 ] || exit 0; "
        "cut -d' ' -f1 /proc/$p/schedstat; "
        "nsenter --net=/run/netns/cable awk '$1 == \"cable:\" {print $3 + $11}' /proc/net/dev"
    )
    said = inside(bench, node, "sh", "-c", script).communicate()[0].split()
    return (int(said[0]), int(said[1])) if said else (0, 0)


def tell_delays(bench: Bench, asked_ms: float, count: int, per_s: int) -> None:
    """Both directions of the delayed link beside one without."""
    for sender, receiver, expected in (("near", "far", asked_ms), ("far", "near", asked_ms), ("near", "plain", 0.0)):
        found = one_way_ms(bench, sender, receiver, count, per_s)
        off = sorted(abs(delay - expected) for delay in found)
        print(
            f"  {sender:>5} -> {receiver:<5} {expected:g} ms asked: n={len(found)} of {count}, "
            f"mean {statistics.fmean(found):.3f} p50 {statistics.median(found):.3f} ms; "
            f"off by p50 {off[len(off) // 2]:.3f} p99 {off[int(len(off) * 0.99)]:.3f} max {off[-1]:.3f} ms",
            flush=True,
        )


def tell_tcp(bench: Bench, hosts: dict[str, Host], mebibytes: int) -> None:
    """TCP both ways, and what the relay took for it."""
    for sender, receiver in (("near", "far"), ("far", "near"), ("near", "plain")):
        before = cable_work(bench, "far")
        rate = rate_bps(hosts[sender], hosts[receiver], mebibytes)
        work, frames = (after - was for after, was in zip(cable_work(bench, "far"), before, strict=True))
        cost = f", {work / frames / 1000:.1f} us of processor for each of {frames} frames" if frames > 1000 else ""
        print(f"  {sender:>5} -> {receiver:<5} {rate / 1e6:.0f} Mbit/s of TCP{cost}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--delay-ms", type=float, default=5.0)
    asked = parser.parse_args()
    key = ("node", engine.architecture())
    image = Builder(lambda event: print(event.message)).build([key])[key].reference
    with tempfile.TemporaryDirectory() as folder:
        ground = Ground(Path(folder), image, lambda: sys.exit("no rack"), str)
        bench = container_bench(ground, "test-links-bench")
        try:
            for rate_mbit in (100, None):
                rate = rate_mbit and rate_mbit * 1_000_000
                link = Link(rate_bps=rate, delay_s=asked.delay_ms / 1000)
                got = bench.acquire(
                    bench.node("far", link=link, cpus=2.0),
                    bench.node("plain", link=Link(rate_bps=rate), cpus=2.0),
                    bench.node("near", cpus=2.0),
                )
                assert not got.failed, got.failed
                print(f"== link rate {rate_mbit or 'unlimited'}, imposed by {got.hosts['far'].facts['link']}")
                for _ in range(asked.repeats):
                    tell_delays(bench, asked.delay_ms, 2000, 200)
                    tell_delays(bench, asked.delay_ms, 10_000, 5000)
                    tell_tcp(bench, got.hosts, 32)
                ssh.disconnect()
        finally:
            bench.release()


if __name__ == "__main__":
    main()
