"""Looks at TCP packets of some ports, sent and received, with the kernel's own time stamps.

An AF_PACKET socket with a memory-mapped ring (TPACKET_V3): the kernel fills blocks of packets, so that neither a system
call nor a copy is paid per packet, and a busy moment waits in the ring. A BPF filter leaves everything else, and bare
acknowledgements too, in the kernel. Layouts: linux/if_packet.h, linux/filter.h.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import select
import socket
import struct
from collections.abc import Iterator, Sequence

from toolkit.errors import ToolkitError

_SOL_PACKET, _PACKET_RX_RING, _PACKET_STATISTICS, _PACKET_VERSION = 263, 5, 6, 10
_TPACKET_V3 = 2
_SO_TIMESTAMPNS = 35
"""Not in Python's `socket`; makes the kernel stamp packets as they arrive, not as they are copied."""
_SO_ATTACH_FILTER = 26
_ETH_P_ALL = 3
_BLOCK_BYTES = 1 << 20
_FRAME_BYTES = 1 << 11
_RETIRE_MS = 50
"""A block that is not full is handed over after this."""
_TP_STATUS_USER = 1
_PACKET_OUTGOING = 4
_ANCILLARY = 0xFFFFF000
"""From here on a filter loads facts about the packet: +4 its direction, +28 the kind of its interface."""
_ARPHRD_LOOPBACK = 772
_FIRST_PACKET = struct.Struct("=II")
"""num_pkts, offset_to_first_pkt; 12 bytes into a block."""
_PACKET = struct.Struct("=IIIIIIHH")
"""tp_next_offset, tp_sec, tp_nsec, tp_snaplen, tp_len, tp_status, tp_mac, tp_net."""
Instruction = tuple[int, int, int, int]
"""code, jump if true, jump if false, constant."""
_ACCEPT_BYTES = 0x40000


RING_BYTES = 32 << 20
"""What may wait while the probe has no processor: a third of a second of a full gigabit."""


class CaptureError(ToolkitError):
    """Packets cannot be looked at here."""


class Capture:
    """Packets from now on; `close` ends it."""

    def __init__(self, ports: Sequence[int], *, ring_bytes: int = RING_BYTES) -> None:
        """Raises CaptureError without the right to look (CAP_NET_RAW) or without a ring."""
        try:
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL))
            self._socket.setsockopt(_SOL_PACKET, _PACKET_VERSION, _TPACKET_V3)
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            _attach(self._socket, port_filter(ports))
            self._blocks = ring_bytes // _BLOCK_BYTES
            frames = ring_bytes // _FRAME_BYTES
            ring = struct.pack("=IIIIIII", _BLOCK_BYTES, self._blocks, _FRAME_BYTES, frames, _RETIRE_MS, 0, 0)
            self._socket.setsockopt(_SOL_PACKET, _PACKET_RX_RING, ring)
            self._ring = mmap.mmap(self._socket.fileno(), ring_bytes, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        except OSError as error:
            raise CaptureError(
                f"cannot look at packets: {error.strerror}; the probe needs the capability NET_RAW on the broker's node"
            ) from error
        self._view = memoryview(self._ring)
        self._next = 0
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN | select.POLLERR)
        self.seen = 0
        self.lost = 0

    def packets(self, timeout_s: float) -> Iterator[tuple[int, memoryview]]:
        """(ns since the epoch, packet from its IP header on) of what is there, else of what comes within the timeout.

        A view is good until the next one is asked for.
        """
        if not self._ready():
            self._poll.poll(timeout_s * 1000)
        while self._ready():
            start = self._next * _BLOCK_BYTES
            count, offset = _FIRST_PACKET.unpack_from(self._ring, start + 12)
            at = start + offset
            for _ in range(count):
                step, seconds, ns, captured, _, _, _, network = _PACKET.unpack_from(self._ring, at)
                yield seconds * 1_000_000_000 + ns, self._view[at + network : at + network + captured]
                at += step
            self._ring[start + 8 : start + 12] = b"\0\0\0\0"  # the block is the kernel's again
            self._next = (self._next + 1) % self._blocks

    def count(self) -> None:
        """Bring `seen` and `lost` up to date; the kernel's counters restart with each look."""
        passed, dropped, _ = struct.unpack("=III", self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 12))
        self.seen += passed - dropped
        self.lost += dropped

    def close(self) -> None:
        """Stop looking; memory goes once the last view of a packet has gone."""
        self._socket.close()
        with contextlib.suppress(BufferError):
            self._view.release()
            self._ring.close()

    def _ready(self) -> bool:
        return bool(self._ring[self._next * _BLOCK_BYTES + 8] & _TP_STATUS_USER)


def port_filter(ports: Sequence[int]) -> list[Instruction]:
    """Classic BPF, from the IP header on: TCP of these ports that carries data, or opens or ends a connection."""
    twice = [  # loopback shows a packet on its way out and in again: the first is left out
        (0x20, 0, 0, _ANCILLARY + 28), (0x15, 0, 3, _ARPHRD_LOOPBACK),
        (0x20, 0, 0, _ANCILLARY + 4), (0x15, 0, 1, _PACKET_OUTGOING), (0x06, 0, 0, 0),
    ]  # fmt: skip
    version = [(0x30, 0, 0, 0), (0x74, 0, 0, 4)]  # A = packet[0] >> 4
    four = [
        (0x30, 0, 0, 9), ("unless", 6),  # protocol is TCP
        (0x28, 0, 0, 6), ("if bits", 0x1FFF),  # not a later fragment
        (0xB1, 0, 0, 0),  # X = length of the IP header
        *_tcp(ports, size=[(0x28, 0, 0, 2)]),
    ]  # fmt: skip
    six = [
        (0x30, 0, 0, 6), ("unless", 6),
        (0x01, 0, 0, 40),  # X = 40
        *_tcp(ports, size=[(0x28, 0, 0, 4), (0x04, 0, 0, 40)]),
    ]  # fmt: skip
    body_four, body_six = _resolve(four), _resolve(six)
    return [
        *twice,
        *version,
        (0x15, 0, len(body_four), 4),
        *body_four,
        (0x15, 0, len(body_six), 6),
        *body_six,
        (0x06, 0, 0, 0),
    ]


def _tcp(ports: Sequence[int], size: list[Instruction]) -> list[tuple[int | str, ...]]:
    """X holds the length of the IP header; `size` loads that of the whole packet."""
    return [
        (0x48, 0, 0, 0), *(("port", port) for port in ports),
        (0x48, 0, 0, 2), *(("port", port) for port in ports),
        ("drop",),
        ("wanted",),
        (0x50, 0, 0, 13), ("accept if bits", 0x07),  # FIN, SYN, RST
        (0x50, 0, 0, 12), (0x74, 0, 0, 2), (0x54, 0, 0, 0x3C),  # A = length of the TCP header
        (0x0C, 0, 0, 0), (0x07, 0, 0, 0),  # X = both headers
        *size,
        ("unless more",),
        ("accept",),
    ]  # fmt: skip


def _resolve(lines: list[tuple[int | str, ...]]) -> list[Instruction]:
    """Words become jumps; the body ends in an accept and a drop, which jumps aim at."""
    body = [line for line in lines if line not in {("wanted",), ("accept",)}]
    wanted = lines.index(("wanted",)) if ("wanted",) in lines else 0
    accept, drop = len(body), len(body) + 1
    resolved: list[Instruction] = []
    for here, line in enumerate(body):
        constant = int(line[1]) if len(line) > 1 else 0
        to_accept, to_drop, to_wanted = accept - here - 1, drop - here - 1, wanted - here - 1
        match line[0]:
            case "unless":
                resolved.append((0x15, 0, to_drop, constant))
            case "if bits":
                resolved.append((0x45, to_drop, 0, constant))
            case "port":
                resolved.append((0x15, to_wanted, 0, constant))
            case "accept if bits":
                resolved.append((0x45, to_accept, 0, constant))
            case "unless more":
                resolved.append((0x1D, to_drop, 0, 0))
            case "drop":
                resolved.append((0x05, 0, 0, to_drop))
            case _:
                resolved.append((int(line[0]), int(line[1]), int(line[2]), int(line[3])))
    return [*resolved, (0x06, 0, 0, _ACCEPT_BYTES), (0x06, 0, 0, 0)]


def _attach(sock: socket.socket, program: Sequence[Instruction]) -> None:
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in program))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(program), ctypes.addressof(code)))
