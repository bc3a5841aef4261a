"""Sends sampled stamps to the hop exporter while a run goes on: UDP, lossy on purpose, never in the way."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator, Mapping
from typing import Any

from toolkit.contract.orders import RunOrder
from toolkit.contract.samples import STAMP, STAMP_BYTES
from toolkit.contract.settings import ProcessSettings

_MOST_STAMPS = 24
"""With its header a datagram stays below one Ethernet frame."""


class LiveSender:
    """A datagram is one JSON line (run, testbed, node, service, instance, role, flows) and whole stamps after it."""

    def __init__(self, settings: ProcessSettings, host: str, port: int) -> None:
        """Raises OSError when `host` has no address."""
        self._settings = settings
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        self._socket = socket.socket(family, kind, protocol)
        self._socket.setblocking(False)
        self._address = address

    @classmethod
    def from_environment(cls, settings: ProcessSettings, environ: Mapping[str, str] = os.environ) -> LiveSender | None:
        """The sender to TOOLKIT_HOP_EXPORTER=host:port; None without it or without its address."""
        host, _, port = environ.get("TOOLKIT_HOP_EXPORTER", "").rpartition(":")
        if not host or not port.isdigit():
            return None
        try:
            return cls(settings, host.strip("[]"), int(port))
        except OSError:
            return None

    def send(self, order: RunOrder, stamps: list[bytes], flows: dict[str, list[Any]]) -> None:
        """Send stamps with the flows of their peers; what the kernel does not take at once is dropped."""
        for group in _groups(stamps):
            peers = {str(STAMP.unpack(stamp)[2]) for stamp in group}
            head = {
                "run": order.run,
                "testbed": order.testbed,
                "node": self._settings.node,
                "service": self._settings.service,
                "instance": self._settings.instance,
                "role": order.role,
                "flows": {peer: flows[peer] for peer in sorted(peers) if peer in flows},
            }
            datagram = json.dumps(head, separators=(",", ":")).encode() + b"\n" + b"".join(group)
            with contextlib.suppress(OSError):
                self._socket.sendto(datagram, self._address)

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()


def _groups(stamps: list[bytes]) -> Iterator[list[bytes]]:
    for start in range(0, len(stamps), _MOST_STAMPS):
        yield stamps[start : start + _MOST_STAMPS]


def read_datagram(datagram: bytes) -> tuple[dict[str, Any], list[tuple[int, ...]]]:
    """(header, stamps) of one datagram; raises ValueError on anything else."""
    line, newline, body = datagram.partition(b"\n")
    if not newline or len(body) % STAMP_BYTES:
        raise ValueError("not a datagram of stamps")
    head = json.loads(line)
    if not isinstance(head, dict):
        raise ValueError("the header of a datagram of stamps is a JSON object")  # noqa: TRY004
    return head, list(STAMP.iter_unpack(body))
