"""A node's cable in user space, where the kernel has no netem: frames between two taps, with delay, jitter and loss.

`cable delay 1500us 200us loss 1.5%`: netem's own words, which mean here what they mean there. Each direction by itself:
every frame waits for the delay give or take up to the jitter, all values alike, so that frames may overtake each other;
every frame is lost with the same probability. What the taps are tied to is the business of images/node's `link`. This
file stands alone in that image and needs nothing but the standard library.
"""

from __future__ import annotations

import ctypes
import fcntl
import gc
import heapq
import os
import random
import re
import select
import socket
import struct
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

TUN = Path("/dev/net/tun")
INSIDE, OUTSIDE = "eth0", "cable"
"""The node's own tap, and the one in the namespace where the network is."""
NAMESPACE = Path("/run/netns/cable")
LIMIT = 10_000
"""Frames that may wait in one direction."""
_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000
_CLONE_NEWNET = 0x40000000
_LONGEST = 65_550
_AT_ONCE = 32
"""Frames read before those that are due get their turn."""
_WORDS = re.compile(r"(?:delay (\d+)us(?: (\d+)us)?)? ?(?:loss ([\d.]+)%)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Impairment:
    """What one direction does to its frames."""

    delay_ns: int = 0
    jitter_ns: int = 0
    loss: float = 0.0
    """A fraction, 0 to 1."""

    @classmethod
    def of(cls, words: Sequence[str]) -> Impairment:
        """Read netem's words; raises ValueError for others."""
        found = _WORDS.fullmatch(" ".join(words))
        if found is None:
            raise ValueError(f"{' '.join(words)!r} is not `delay MICROSECONDSus [JITTERus] loss PERCENT%`")
        delay, jitter, loss = found.groups(default="0")
        return cls(delay_ns=int(delay) * 1000, jitter_ns=int(jitter) * 1000, loss=float(loss) / 100)


@dataclass(slots=True)
class Way:
    """One direction: frames from their arrival until they are due."""

    impairment: Impairment
    chance: random.Random
    waiting: list[tuple[int, int, bytes]] = field(default_factory=list)
    """A heap of (when it is due in ns, its number, frame)."""
    arrived: int = 0

    def take(self, frame: bytes, now_ns: int) -> None:
        """Let a frame wait, unless it is lost or too many do."""
        asked = self.impairment
        if (asked.loss and self.chance.random() < asked.loss) or len(self.waiting) >= LIMIT:
            return
        due_ns = now_ns + asked.delay_ns
        if asked.jitter_ns:
            due_ns += int((2 * self.chance.random() - 1) * asked.jitter_ns)
        self.arrived += 1
        heapq.heappush(self.waiting, (due_ns, self.arrived, frame))

    def due(self, now_ns: int) -> Iterator[bytes]:
        """Frames whose time has come, the earliest first."""
        waiting = self.waiting
        while waiting and waiting[0][0] <= now_ns:
            yield heapq.heappop(waiting)[2]


def carry(ways: Mapping[int, tuple[Way, int]]) -> None:
    """Without an end: descriptor that frames come from -> their way and the descriptor they go to."""
    read, write, clock_ns, wait = os.read, os.write, time.monotonic_ns, select.select
    while True:
        for way, target in ways.values():
            for frame in way.due(clock_ns()):
                try:
                    write(target, frame)
                except OSError:  # the device is down: whoever took it down meant that
                    continue
        first_ns = min((way.waiting[0][0] for way, _ in ways.values() if way.waiting), default=None)
        left_s = None if first_ns is None else max(0, first_ns - clock_ns()) / 1e9
        for source in wait(ways, (), (), left_s)[0]:
            take = ways[source][0].take
            try:
                for _ in range(_AT_ONCE):
                    take(read(source, _LONGEST), clock_ns())
            except BlockingIOError:
                continue


def attach(name: str) -> int:
    """The descriptor of a tap, which is there already and stays when this process ends; then it drops all frames."""
    tap = os.open(TUN, os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tap, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI))
    return tap


def enter(namespace: Path) -> None:
    """Go where the far end of the cable is; what is open stays where it was."""
    libc = ctypes.CDLL(None, use_errno=True)
    with namespace.open() as there:
        if libc.setns(there.fileno(), _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter {namespace}")


def say_ready(address: str) -> None:
    """Tell systemd, by its protocol, that the cable is plugged in."""
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
            told.sendto(b"READY=1", address.replace("@", "\0", 1))


def main(arguments: Sequence[str] = tuple(sys.argv[1:])) -> None:
    """Plug in and carry."""
    impairment = Impairment.of(arguments)
    inside = attach(INSIDE)
    enter(NAMESPACE)
    outside = attach(OUTSIDE)
    say_ready(os.environ.get("NOTIFY_SOCKET", ""))
    gc.disable()
    out, back = (Way(impairment, random.Random()) for _ in range(2))  # noqa: S311 - chance, no secrets
    carry({inside: (out, outside), outside: (back, inside)})


if __name__ == "__main__":
    main()
