"""The catalogue of what toolkit can run: roles, the images behind them, and what each image is like.

To add an image: one entry in `IMAGES`; if it takes settings, a class of the same name in `toolkit.spec.settings`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from toolkit.spec.testbed import Architecture

EVERYWHERE = frozenset(Architecture)
NOT_ARMV6 = EVERYWHERE - {Architecture.ARMV6}

MONITOR_PORTS = (9090, 3000, 9600, 9601)
"""Prometheus, Grafana, the hop exporter's metrics, and its UDP port for stamps."""

NODE_PORTS: Mapping[int, str] = {9100: "node-exporter", 9101: "clock"}
"""Taken on every node, by what runs on every node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltinImage:
    """One image of toolkit's own; its folder is `images/<name>`."""

    name: str
    summary: str
    roles: tuple[str, ...] = ()
    """Roles it can play; the first is the one it is known for."""
    default_for: tuple[str, ...] = ()
    """Roles that take this image where the file names none."""
    platforms: frozenset[Architecture] = EVERYWHERE
    ports: tuple[int, ...] = ()
    """Taken on the node, since every container shares its network."""
    capabilities: tuple[str, ...] = ()
    health: tuple[str, ...] = ()
    """Command run inside the container; empty: its /healthz is asked (if `exports`), else running is healthy."""
    exports: bool = False
    """Speaks the contract of node processes: metrics and control ports, samples."""
    probed: bool = False
    """A broker without stamps of its own: a hop probe runs beside it."""
    protocols: tuple[str, ...] = ()
    """What clients may speak to it; the first is the default."""


IMAGES: Mapping[str, BuiltinImage] = {
    image.name: image
    for image in (
        BuiltinImage(
            name="clock",
            summary="chrony as NTP server or client, with the clock's metrics",
            roles=("ntp",),
            default_for=("ntp",),
            ports=(123,),
            capabilities=("SYS_TIME",),
        ),
        BuiltinImage(
            name="prometheus",
            summary="Prometheus, the hop exporter and, where its image can be had, Grafana",
            roles=("monitor",),
            default_for=("monitor",),
            ports=MONITOR_PORTS,
        ),
        BuiltinImage(
            name="event-handler",
            summary="the Arrowhead Event Handler over HTTP and server-sent events",
            roles=("broker",),
            default_for=("broker",),
            ports=(8454,),
            exports=True,
            protocols=("sse",),
        ),
        BuiltinImage(
            name="mosquitto",
            summary="the Mosquitto MQTT broker",
            roles=("broker",),
            ports=(1883,),
            probed=True,
            protocols=("mqtt",),
        ),
        BuiltinImage(
            name="client",
            summary="publishers and subscribers for every broker",
            roles=("publisher", "subscriber"),
            default_for=("publisher", "subscriber"),
            exports=True,
        ),
    )
}

ROLES = (
    "ntp",
    "monitor",
    "broker",
    "publisher",
    "subscriber",
    "registry",
    "gateway",
    "hub",
    "consumer",
    "provider",
)
"""Words with a meaning to toolkit; a service of that name plays that role without saying so."""

AFTER: Mapping[str, tuple[str, ...]] = {
    "broker": ("registry",),
    "gateway": ("broker",),
    "hub": ("broker",),
    "subscriber": ("broker", "gateway", "hub"),
    "publisher": ("broker", "gateway", "hub"),
    "consumer": ("registry", "provider"),
    "provider": ("registry",),
}
"""Role -> roles whose services are to be healthy first, where the testbed has them and the file says nothing."""

DEFAULT_IMAGE: Mapping[str, str] = {role: image.name for image in IMAGES.values() for role in image.default_for}


def built_in(image: str) -> BuiltinImage | None:
    """The catalogue's entry, or None for an image of somebody else's."""
    return IMAGES.get(image)
