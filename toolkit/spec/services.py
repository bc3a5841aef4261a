"""The catalogue of what toolkit can run: roles, the images behind them, and what each image is like.

To add an image: one entry in `IMAGES`; if it takes settings, a class of the same name in `toolkit.spec.settings`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from toolkit.spec.testbed import Architecture, Service

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
        BuiltinImage(
            name="gateway",
            summary="the platform's entrance: devices in over MQTT and HTTP, one connection out to the broker",
            roles=("gateway",),
            default_for=("gateway",),
            ports=(1884, 8084),
            exports=True,
            protocols=("mqtt", "rest"),
        ),
        BuiltinImage(
            name="hub",
            summary="the platform's exit: subscribed at the brokers, customers served over MQTT and HTTP",
            roles=("hub",),
            default_for=("hub",),
            ports=(1885, 8085),
            exports=True,
            protocols=("mqtt", "rest"),
        ),
    )
}

END_PORTS: Mapping[str, Mapping[str, int]] = {
    "gateway": {"mqtt": 1884, "rest": 8084},
    "hub": {"mqtt": 1885, "rest": 8085},
}
"""Role -> protocol of its clients -> port, unless its settings `mqtt_port` and `http_port` say otherwise."""

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


PROTOCOL_PORTS: Mapping[str, int] = {
    "sse": 8454, "http": 8454, "mqtt": 1883, "amqp": 5672, "stomp": 61613, "xmpp": 5222,
}  # fmt: skip
"""Where a broker listens for clients of a protocol, unless its setting `port` says otherwise."""


def usual_protocol(broker: Service) -> str:
    """What a built-in broker speaks as it is set; nothing for an image of somebody else's."""
    known = built_in(broker.image.name)
    if known is None or not known.protocols:
        return ""
    return "http" if broker.settings.get("mode") == "original" else known.protocols[0]


def broker_port(broker: Service, protocol: str) -> int:
    """Where a broker listens; 0 where nothing says so."""
    return int(broker.settings.get("port") or PROTOCOL_PORTS.get(protocol, 0))


def end_port(end: Service, protocol: str) -> int:
    """Where a gateway or hub listens for clients of a protocol; 0 for one that it does not speak."""
    own = {"mqtt": "mqtt_port", "rest": "http_port"}.get(protocol, "")
    return int(end.settings.get(own) or END_PORTS.get(end.role, {}).get(protocol, 0))


def upstream_broker(end: Service, services: Iterable[Service]) -> Service | None:
    """The broker whose messages a gateway or hub carries; None where there is none of that name or role."""
    wanted = end.settings.get("broker", "broker")
    there = list(services)
    return next((s for s in there if s.name == wanted), None) or next((s for s in there if s.role == wanted), None)


def built_in(image: str) -> BuiltinImage | None:
    """The catalogue's entry, or None for an image of somebody else's."""
    return IMAGES.get(image)
