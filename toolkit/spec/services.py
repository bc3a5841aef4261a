"""The catalogue of what toolkit can run: roles, the images behind them, and what each image is like.

To add an image: one entry in `IMAGES`; if it takes settings, a class of the same name in `toolkit.spec.settings`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from toolkit.contract import arrowhead
from toolkit.spec.testbed import Architecture, Service

EVERYWHERE = frozenset(Architecture)
NOT_ARMV6 = EVERYWHERE - {Architecture.ARMV6}

CONSOLE_PORT = 8400
MONITOR_PORTS = (9090, 3000, 9600, 9601, CONSOLE_PORT)
"""Prometheus, Grafana, the hop exporter's metrics, its UDP port for stamps, and the console."""

PORTS: Mapping[str, tuple[int, int]] = {
    "sse": (8454, 8455),
    "http": (8454, 8455),
    "mqtt": (1883, 8883),
    "amqp": (5672, 5671),
    "stomp": (61613, 61614),
    "xmpp": (5222, 5223),
}
"""Protocol -> where brokers listen for it: in the clear, with TLS."""

CORE_ROLES = ("service-registry", "authorization", "orchestrator", "gatekeeper")
"""Of each there is at most one in a local cloud."""
CLOUD_ROLES = (*CORE_ROLES, "consumer", "provider")

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
    """Taken on the node beside those of its protocols, since every container shares its network."""
    capabilities: tuple[str, ...] = ()
    health: tuple[str, ...] = ()
    """Command run inside the container; empty: its /healthz is asked (if `exports`), else running is healthy."""
    exports: bool = False
    """Speaks the contract of node processes: metrics and control ports, samples."""
    probed: bool = False
    """A broker without stamps of its own: a hop probe runs beside it."""
    in_cloud: bool = False
    """Runs the systems of Arrowhead local clouds; settings and ports are those of the role."""
    joins_cloud: str = ""
    """By which name it is a system of a local cloud that has a Service Registry; empty: of none."""
    protocols: tuple[str, ...] = ()
    """What clients may speak to it; the first is the default. The setting `protocols` chooses among them."""
    mqtt: tuple[str, ...] = ("3.1.1",)
    """Versions of MQTT it speaks, where it speaks any."""
    shares: bool = False
    """Has shared subscriptions in MQTT."""
    guards: tuple[str, ...] = ()
    """Of a broker: which of `tls` and `login` it can be told to ask for."""
    knows_clients: bool = False
    """With TLS its clients show certificates too."""
    clusters: bool = False
    """Several nodes of one service are one broker, whichever of them a client enters."""


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
            summary="Prometheus, the hop exporter and, where wanted, the console and Grafana",
            roles=("monitor",),
            default_for=("monitor",),
            ports=MONITOR_PORTS,
        ),
        BuiltinImage(
            name="event-handler",
            summary="the Arrowhead Event Handler over HTTP and server-sent events",
            roles=("broker",),
            default_for=("broker",),
            exports=True,
            protocols=("sse",),
            guards=("tls",),
            knows_clients=True,
            joins_cloud="eventhandler",
        ),
        BuiltinImage(
            name="mosquitto",
            summary="the Mosquitto MQTT broker",
            roles=("broker",),
            probed=True,
            protocols=("mqtt",),
            mqtt=("3.1.1", "5"),
            shares=True,
            guards=("tls", "login"),
        ),
        BuiltinImage(
            name="rabbitmq",
            summary="the RabbitMQ broker for AMQP 0.9.1, MQTT 3.1.1 and STOMP 1.2; several nodes are a cluster",
            roles=("broker",),
            ports=(4369, 25672, 15692),
            probed=True,
            protocols=("amqp", "mqtt", "stomp"),
            guards=("tls", "login"),
            clusters=True,
        ),
        BuiltinImage(
            name="activemq",
            summary="the ActiveMQ broker for STOMP 1.2 and MQTT 3.1.1",
            roles=("broker",),
            platforms=NOT_ARMV6,
            probed=True,
            protocols=("stomp", "mqtt"),
            guards=("tls", "login"),
        ),
        BuiltinImage(
            name="prosody",
            summary="the Prosody XMPP server with its publish/subscribe service",
            roles=("broker",),
            probed=True,
            protocols=("xmpp",),
            guards=("tls", "login"),
        ),
        BuiltinImage(
            name="client",
            summary="publishers and subscribers for every broker, and for DDS, which has none",
            roles=("publisher", "subscriber"),
            default_for=("publisher", "subscriber"),
            exports=True,
        ),
        BuiltinImage(
            name="gateway",
            summary="the platform's entrance: devices in over MQTT and HTTP, one connection out to the broker",
            roles=("gateway",),
            default_for=("gateway",),
            exports=True,
            protocols=("mqtt", "rest"),
        ),
        BuiltinImage(
            name="hub",
            summary="the platform's exit: subscribed at the brokers, customers served over MQTT and HTTP",
            roles=("hub",),
            default_for=("hub",),
            exports=True,
            protocols=("mqtt", "rest"),
        ),
        BuiltinImage(
            name="arrowhead",
            summary="the core systems of an Arrowhead local cloud, its consumers and providers",
            roles=CLOUD_ROLES,
            default_for=CLOUD_ROLES,
            exports=True,
            in_cloud=True,
            protocols=("arrowhead",),
        ),
        BuiltinImage(
            name="mariadb",
            summary="the MariaDB database server, for the stores of local clouds and subscriptions",
            roles=("database",),
            default_for=("database",),
            ports=(3306,),
            health=("mariadb", "--defaults-file=/dev/shm/client.cnf", "--execute=SELECT 1"),
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
    "database",
    *CLOUD_ROLES,
)
"""Words with a meaning to toolkit; a service of that name plays that role without saying so."""

AFTER: Mapping[str, tuple[str, ...]] = {
    "broker": ("registry", "database", "service-registry"),
    "gateway": ("broker",),
    "hub": ("broker",),
    "subscriber": ("broker", "gateway", "hub"),
    "publisher": ("broker", "gateway", "hub"),
    "service-registry": ("database",),
    "authorization": ("service-registry",),
    "orchestrator": ("service-registry",),
    "gatekeeper": ("service-registry",),
    "provider": ("registry", "service-registry"),
    "consumer": ("registry", "service-registry", "provider"),
}
"""Role -> roles whose services are to be healthy first, where the testbed has them and the file says nothing."""

DEFAULT_IMAGE: Mapping[str, str] = {role: image.name for image in IMAGES.values() for role in image.default_for}


def system_name(service: Service) -> str:
    """By which a certificate of its local cloud names a service; names in certificates have no underscores."""
    known = IMAGES.get(service.image.name)
    if known and known.joins_cloud:
        return known.joins_cloud
    return str(service.settings.get("system", service.role.replace("-", ""))).replace("_", "")


def usual_protocol(broker: Service) -> str:
    """What a built-in broker speaks as it is set; nothing for an image of somebody else's."""
    return next(iter(spoken(broker.image.name, broker.settings)), "")


def broker_port(broker: Service, protocol: str) -> int:
    """Where a broker listens; 0 where nothing says so."""
    return int(broker.settings.get("port") or PORTS.get(protocol, (0, 0))[broker.tls])


def end_port(end: Service, protocol: str) -> int:
    """Where a gateway or hub listens for clients of a protocol; 0 for one that it does not speak."""
    own = {"mqtt": "mqtt_port", "rest": "http_port"}.get(protocol, "")
    return int(end.settings.get(own) or END_PORTS.get(end.role, {}).get(protocol, 0))


def upstream_broker(end: Service, services: Iterable[Service]) -> Service | None:
    """The broker whose messages a gateway or hub carries; None where there is none of that name or role."""
    wanted = end.settings.get("broker", "broker")
    there = list(services)
    return next((s for s in there if s.name == wanted), None) or next((s for s in there if s.role == wanted), None)


def settings_name(image: str, role: str) -> str:
    """Under which a service's settings are found among the compiled types."""
    known = IMAGES.get(image)
    return f"settings:{image}:{role}" if known and known.in_cloud else f"settings:{image}"


def system_ports(role: str, settings: Mapping[str, Any], *, secure: bool) -> tuple[int, ...]:
    """Ports that a system of a local cloud takes on its node."""
    if role not in CLOUD_ROLES or role == "consumer":
        return ()
    ports = [settings.get("port") or arrowhead.PORTS[role.replace("-", "_")][secure]]
    if role == "gatekeeper":
        ports.append(settings.get("outbound_port") or arrowhead.PORTS["gatekeeper_outbound"][secure])
    return tuple(ports)


def built_in(image: str) -> BuiltinImage | None:
    """The catalogue's entry, or None for an image of somebody else's."""
    return IMAGES.get(image)


def spoken(image: str, settings: Mapping[str, Any]) -> tuple[str, ...]:
    """What clients may speak to a broker as it is set; the first is the default."""
    known = IMAGES.get(image)
    if known is None:
        return ()
    if settings.get("mode") == "original":
        return ("http",)
    chosen = settings.get("protocols") or known.protocols
    return tuple(protocol for protocol in known.protocols if protocol in chosen)


def listens_on(image: str, settings: Mapping[str, Any], *, tls: bool) -> tuple[int, ...]:
    """Ports that a service takes on its node, unless the file says otherwise."""
    known = IMAGES.get(image)
    if own := [settings[key] for key in ("port", "mqtt_port", "http_port") if key in settings]:
        return tuple(own)
    return (*client_ports(image, settings, tls=tls), *known.ports) if known else ()


def client_ports(image: str, settings: Mapping[str, Any], *, tls: bool) -> tuple[int, ...]:
    """Ports at which clients enter a broker."""
    return tuple(dict.fromkeys(PORTS[protocol][tls] for protocol in spoken(image, settings) if protocol in PORTS))
