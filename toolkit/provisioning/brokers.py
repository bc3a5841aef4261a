"""Brokers that toolkit did not write: what each is configured with, from settings of the same names for all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from toolkit.provisioning.broker_access import CERTIFICATE, INSIDE, KEY, LOGIN, OPEN_LOGIN, rabbitmq_definitions
from toolkit.provisioning.prosody import RUN, prosody_config
from toolkit.provisioning.templates import render_template
from toolkit.spec.quantities import in_base_units
from toolkit.spec.services import PORTS, client_ports, spoken
from toolkit.spec.testbed import Service

RABBITMQ_METRICS_PORT = 15692
MOSQUITTO_LOCAL_PORT = 1882
"""Of a guarded Mosquitto: its own counters, and nothing else, for whoever is on its node."""
ACTIVEMQ_LOCAL_PORT = 61612
"""Of an ActiveMQ without a login: STOMP for whoever is on its node, so that the hop probe can read its advisories."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerSetup:
    """What one broker's container is given."""

    files: Mapping[str, str] = field(default_factory=dict)
    """Name below its configuration folder -> content."""
    configuration: str
    """Where that folder is inside."""
    data: str
    """Where its data is inside."""
    environment: Mapping[str, str] = field(default_factory=dict)
    health: tuple[str, ...] = ()
    health_within_s: float = 60.0
    native: str = ""
    """KIND:PORT of its own counters, for the hop probe (`toolkit.node.native_counters`)."""


def broker_setup(service: Service, address: str, members: Sequence[str]) -> BrokerSetup | None:
    """The setup of a service on the node with that address; `members`: addresses of all its nodes."""
    make = _SETUPS.get(service.image.name)
    return make(service, address, members) if make else None


def _plain(service: Service) -> dict[str, Any]:
    return {name: in_base_units(value) for name, value in service.settings.items()}


def _ports(service: Service) -> dict[str, int]:
    return {protocol: PORTS[protocol][service.tls] for protocol in spoken(service.image.name, service.settings)}


# -- Mosquitto --------------------------------------------------------------------------------------------------------

_MOSQUITTO_NAMES = {"queue_limit": "max_queued_messages", "in_flight": "max_inflight_messages"}
MOSQUITTO_DEFAULTS: Mapping[str, Any] = {
    "in_flight": 20,
    "queue_limit": 1000,
    "max_queued_bytes": 0,
    "queue_qos0_messages": False,
    "persistence": False,
    "set_tcp_nodelay": True,
    "max_connections": -1,
}
"""Written out even where they are Mosquitto's own, so that a broker's bounds can be read from its file."""
_PER_LISTENER = ("max_connections",)
MOSQUITTO_LOGS: Mapping[str, tuple[str, ...]] = {
    "warning": ("error", "warning", "notice"),
    "info": ("error", "warning", "notice", "information"),
    "debug": ("all",),
}
"""Its own types; that messages are dropped is a notice."""


def mosquitto_config(
    settings: Mapping[str, Any], *, port: int = 1883, tls: bool = False, login: bool = False, local_port: int = 0
) -> str:
    """mosquitto.conf: on every address, with these settings over `MOSQUITTO_DEFAULTS`.

    Durations and sizes may carry their units. `autosave_interval` counts only with `persistence`. `local_port`: where
    counters can be read without a login.
    """
    merged = {**MOSQUITTO_DEFAULTS, **{name: in_base_units(value) for name, value in settings.items()}}
    logged = MOSQUITTO_LOGS[merged.pop("log_level", "warning")]
    if not merged["persistence"]:
        merged.pop("autosave_interval", None)
    if not merged.get("message_size_limit"):
        merged.pop("message_size_limit", None)
    ordered = {name: merged[name] for name in (*_PER_LISTENER, *(n for n in merged if n not in _PER_LISTENER))}
    return render_template(
        "mosquitto/mosquitto.conf.j2",
        port=port,
        certificate=f"{INSIDE}/{CERTIFICATE}" if tls else "",
        key=f"{INSIDE}/{KEY}",
        passwords=f"{INSIDE}/{LOGIN}" if login else "",
        local_port=local_port,
        logged=logged,
        settings={_MOSQUITTO_NAMES.get(name, name): _word(value) for name, value in ordered.items()},
    )


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(int(value)) if isinstance(value, float) else str(value)


def _mosquitto(service: Service, _: str, __: Sequence[str]) -> BrokerSetup:
    guarded = service.tls or service.login is not None
    local_port = MOSQUITTO_LOCAL_PORT if guarded else 0
    [port] = client_ports("mosquitto", service.settings, tls=service.tls)
    config = mosquitto_config(
        service.settings, port=port, tls=service.tls, login=service.login is not None, local_port=local_port
    )
    files = {"mosquitto.conf": config} | ({"counters.acl": "topic read $SYS/#\n"} if guarded else {})
    return BrokerSetup(
        files=files,
        configuration="/etc/mosquitto",
        data="/var/lib/mosquitto",
        native=f"mqtt:{local_port or port}",
    )


# -- RabbitMQ ---------------------------------------------------------------------------------------------------------


def _rabbitmq(service: Service, address: str, members: Sequence[str]) -> BrokerSetup:
    ports = _ports(service)
    config = render_template(
        "rabbitmq/rabbitmq.conf.j2",
        settings=_plain(service),
        protocols=ports,
        tls=service.tls,
        certificate=f"{INSIDE}/{CERTIFICATE}",
        key=f"{INSIDE}/{KEY}",
        definitions=f"{INSIDE}/{LOGIN}" if service.login else "/etc/rabbitmq/definitions.json",
        user=None if service.login else OPEN_LOGIN,
        metrics_port=RABBITMQ_METRICS_PORT,
        members=[f"rabbit@{member}" for member in members] if len(members) > 1 else [],
    )
    plugins = ["rabbitmq_prometheus", *(f"rabbitmq_{name}" for name in ports if name != "amqp")]
    files = {"rabbitmq.conf": config, "enabled_plugins": f"[{','.join(plugins)}].\n"}
    if not service.login:
        files["definitions.json"] = rabbitmq_definitions(service, OPEN_LOGIN)
    return BrokerSetup(
        files=files,
        configuration="/etc/rabbitmq",
        data="/var/lib/rabbitmq",
        environment={"RABBITMQ_NODENAME": f"rabbit@{address}", **_after(address, members, ports)},
        health=("listening", *(str(port) for port in ports.values())),
        health_within_s=300.0,
        native=f"rabbitmq:{RABBITMQ_METRICS_PORT}",
    )


def _after(address: str, members: Sequence[str], ports: Mapping[str, int]) -> dict[str, str]:
    """Where the node before this one listens for MQTT, for which it waits when the cluster is new."""
    place = members.index(address) if address in members else 0
    return {"TOOLKIT_AFTER": f"{members[place - 1]}:{ports['mqtt']}"} if place and "mqtt" in ports else {}


# -- ActiveMQ ---------------------------------------------------------------------------------------------------------

_LOG4J = {"warning": "WARN", "info": "INFO", "debug": "DEBUG"}


def _activemq(service: Service, _: str, __: Sequence[str]) -> BrokerSetup:
    ports = _ports(service)
    settings = _plain(service)
    counters_port = 0 if service.login else ACTIVEMQ_LOCAL_PORT  # its login guards every port
    config = render_template(
        "activemq/activemq.xml.j2",
        settings=settings,
        protocols=ports,
        tls=service.tls,
        counters_port=counters_port,
        login=f"{INSIDE}/{LOGIN}" if service.login else "",
    )
    return BrokerSetup(
        files={"activemq.xml": config},
        configuration="/etc/activemq",
        data="/var/lib/activemq",
        environment={
            "TOOLKIT_HEAP_BYTES": str(settings["heap"]),
            "TOOLKIT_LOG_LEVEL": _LOG4J[settings["log_level"]],
        },
        health=("listening", *(str(port) for port in ports.values())),
        health_within_s=300.0,
        native=f"activemq:{counters_port}" if counters_port else "",
    )


# -- Prosody ----------------------------------------------------------------------------------------------------------


def _prosody(service: Service, _: str, __: Sequence[str]) -> BrokerSetup:
    [port] = client_ports("prosody", service.settings, tls=service.tls)
    config = prosody_config(
        service.settings,
        port=port,
        user=service.login.user if service.login else OPEN_LOGIN[0],
        certificate=f"{RUN}/{CERTIFICATE}" if service.tls else "",
        key=f"{RUN}/{KEY}",
    )
    return BrokerSetup(
        files={"prosody.cfg.lua": config},
        configuration="/etc/prosody",
        data="/var/lib/prosody",
        health=("listening", str(port)),
    )


_SETUPS: Mapping[str, Callable[[Service, str, Sequence[str]], BrokerSetup]] = {
    "mosquitto": _mosquitto,
    "rabbitmq": _rabbitmq,
    "activemq": _activemq,
    "prosody": _prosody,
}
