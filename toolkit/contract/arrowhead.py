"""What both places agree on about Arrowhead local clouds: the systems and the ports they listen on."""

from __future__ import annotations

from collections.abc import Mapping

PORTS: Mapping[str, tuple[int, int]] = {
    "service_registry": (8442, 8443),
    "authorization": (8444, 8445),
    "orchestrator": (8440, 8441),
    "gatekeeper": (8446, 8447),
    "gatekeeper_outbound": (8448, 8449),
    "event_handler": (8454, 8455),
    "provider": (8460, 8461),
    "consumer": (8080, 8080),
}
"""Insecure and secure port of each system; `gatekeeper` is the side that other clouds call."""

ENVIRONMENT = "TOOLKIT_ARROWHEAD_"
"""Beginning of every variable that sets a system."""
