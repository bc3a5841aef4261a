"""The connections a process had in a run, numbered as the `peer` of its stamps."""

from __future__ import annotations

from typing import Any

LAST_PEER = 0xFFFF
"""Shared by every connection beyond the 65,535th; such flows cannot be told apart."""


class Flows:
    """Numbers connections in the order they came; a connection opened again is a new flow."""

    def __init__(self) -> None:
        self.by_peer: dict[str, list[Any]] = {}
        """peer -> [address, port], as `StampsInfo.flows` wants them."""
        self.slots: dict[str, int] = {}
        """peer -> number of the logical connection it served."""

    def add(self, slot: int, address: str, port: int) -> int:
        """The peer number of a new connection."""
        peer = min(len(self.by_peer), LAST_PEER)
        self.by_peer[str(peer)] = [address, port]
        self.slots[str(peer)] = slot
        return peer
