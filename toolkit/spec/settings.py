"""What each built-in image lets people set: one class per image, its fields with unit, default and meaning."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

from toolkit.spec.quantities import DURATION, SIZE

_STRICT = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)

Duration = Annotated[str, Field(pattern=DURATION.pattern)]
Size = Annotated[str, Field(pattern=SIZE.pattern)]
Pair = Annotated[str, Field(pattern="^[^,=]{1,255}$")]
"""Key or value of metadata, which the framework joins by these."""


@with_config(_STRICT)
class EventHandlerSettings(TypedDict, total=False):
    """The Event Handler."""

    mode: Annotated[Literal["direct", "enhanced", "original"], Field(default="direct")]
    """`original` opens a connection per notification, `enhanced` streams from a thread pool, `direct` streams from one
    event loop."""
    port: Annotated[int, Field(ge=1, le=65535)]
    """Where it listens. Default: 8454, with `tls` 8455."""
    thread_pool_size: Annotated[int, Field(default=64, ge=0, le=1024)]
    """Workers of `enhanced` (and of `original`); 0 takes twice the cores."""
    queue_limit: Annotated[int, Field(default=1024, ge=1, le=10_000_000)]
    """Messages that may wait for one subscriber."""
    overflow: Annotated[Literal["block", "drop-oldest", "disconnect"], Field(default="block")]
    """What happens when a subscriber's queue is full."""
    send_buffer: Annotated[Size, Field(default="0B")]
    """Buffer asked of the kernel for each subscriber's connection (SO_SNDBUF); Linux holds twice that. 0B leaves it to
    the kernel, which sizes each connection's by what was ever under way on it."""
    congestion: Annotated[Literal["kernel", "reno", "cubic", "bbr"], Field(default="kernel")]
    """Congestion control of those connections; `kernel` is what the node uses."""
    replay: Annotated[int, Field(default=0, ge=0, le=1_000_000)]
    """Messages kept for subscribers that come back with Last-Event-ID."""
    publishing_tolerance: Annotated[Duration, Field(default="60m")]
    """An event whose time stamp is further from the broker's clock than this is refused."""
    database: Annotated[str, Field(default="none", min_length=1)]
    """Where `original` keeps subscriptions: `none`, `sqlite`, a service with role database, or a URL such as
    postgresql://user@host/name; the other modes keep them in memory."""
    database_pool: Annotated[int, Field(default=10, ge=1, le=1000)]
    """Connections to that database."""
    database_timeout: Annotated[Duration, Field(default="2s")]
    """Wait for a connection or a lock; a server gets three times that for an answer."""
    sql_log: Annotated[bool, Field(default=False)]
    """`original` writes each log line to the database before it goes on."""
    feedback: Annotated[bool, Field(default=True)]
    """Tell publishers that name a deliveryCompleteUri which subscribers were reached."""
    connection_reuse: Annotated[bool, Field(default=False)]
    """`original` keeps its connections to subscribers."""
    drain: Annotated[Duration, Field(default="5s")]
    """How long a stopping broker goes on delivering what waits."""
    remove_old_filters: Annotated[bool, Field(default=False)]
    """Remove stored filters whose end has passed; until then they stay, and want nothing."""
    check_interval: Annotated[Duration, Field(default="60m")]
    """How often those are looked for; the first time after a minute at the latest."""
    log_events: Annotated[bool, Field(default=False)]
    """Print the published lines for each event, with milliseconds; costs time, so it is part of a result."""


class Logged(TypedDict, total=False):
    """What brokers that toolkit did not write say in their logs: more of it costs time, so it is part of a result."""

    log_level: Annotated[Literal["warning", "info", "debug"], Field(default="warning")]
    """How much it logs."""


@with_config(_STRICT)
class QueueBounds(Logged, total=False):
    """Bounds that every broker has, by the same names and with the same defaults, so that brokers compare."""

    queue_limit: Annotated[int, Field(default=1000, ge=0, le=10_000_000)]
    """Messages that may wait for one subscriber; 0 is no limit."""
    in_flight: Annotated[int, Field(default=20, ge=1, le=65_535)]
    """Messages under way to one subscriber that it has not acknowledged yet (QoS 1 and 2)."""


@with_config(_STRICT)
class MosquittoSettings(QueueBounds, total=False):
    """Mosquitto; the names beside the common bounds are those of mosquitto.conf."""

    max_queued_bytes: Annotated[Size, Field(default="0B")]
    """Bytes that may wait for one client; 0B is no limit."""
    queue_qos0_messages: Annotated[bool, Field(default=False)]
    """Also queue QoS 0 messages for clients that are away."""
    persistence: Annotated[bool, Field(default=False)]
    """Keep retained messages and sessions over a restart."""
    autosave_interval: Annotated[Duration, Field(default="30m")]
    """How often they are written."""
    set_tcp_nodelay: Annotated[bool, Field(default=True)]
    """Send small packets at once instead of waiting for more."""
    max_connections: Annotated[int, Field(default=-1, ge=-1)]
    """Clients at a time; -1 is no limit."""
    message_size_limit: Annotated[Size, Field(default="0B")]
    """Largest payload; 0B is the protocol's own limit."""


@with_config(_STRICT)
class EndSettings(TypedDict, total=False):
    """What gateway and hub have in common."""

    broker: Annotated[str, Field(default="broker")]
    """The service whose messages it carries, by its name or role."""
    protocol: Annotated[Literal["auto", "mqtt", "sse", "amqp", "stomp"], Field(default="auto")]
    """What it speaks to that broker; `auto`: what the broker usually speaks."""
    mqtt: Annotated[Literal["3.1.1", "5"], Field(default="3.1.1")]
    """Version of MQTT towards the broker."""
    queue_limit: Annotated[int, Field(default=1000, ge=1, le=10_000_000)]
    """Messages that may wait: of a gateway for the broker, of a hub for each customer."""
    max_inflight: Annotated[int, Field(default=20, ge=1, le=65535)]
    """QoS 1 messages without an answer, of the broker or of each customer."""
    send_buffer: Annotated[Size, Field(default="128K")]
    """What the kernel holds beyond the queue: for the broker, or for each customer."""
    max_payload: Annotated[Size, Field(default="1M")]
    """Larger messages are refused."""
    max_connections: Annotated[int, Field(default=20_000, ge=1, le=60_000)]
    """Clients at a time."""


@with_config(_STRICT)
class GatewaySettings(EndSettings, total=False):
    """The gateway."""

    mqtt_port: Annotated[int, Field(default=1884, ge=1, le=65535)]
    """Where devices connect over MQTT."""
    http_port: Annotated[int, Field(default=8084, ge=1, le=65535)]
    """Where devices POST."""
    overflow: Annotated[Literal["block", "drop-newest", "drop-oldest"], Field(default="drop-oldest")]
    """What happens to QoS 0 messages when the queue is full; QoS 1 messages always wait."""


@with_config(_STRICT)
class HubSettings(EndSettings, total=False):
    """The hub."""

    mqtt_port: Annotated[int, Field(default=1885, ge=1, le=65535)]
    """Where customers connect over MQTT."""
    http_port: Annotated[int, Field(default=8085, ge=1, le=65535)]
    """Where customers read streams."""
    overflow: Annotated[Literal["block", "drop-newest", "drop-oldest", "disconnect"], Field(default="drop-oldest")]
    """What happens when a customer's queue is full, at QoS 0 and 1."""


@with_config(_STRICT)
class RabbitmqSettings(QueueBounds, total=False):
    """RabbitMQ."""

    protocols: Annotated[list[Literal["amqp", "mqtt", "stomp"]], Field(default=["amqp", "mqtt", "stomp"], min_length=1)]
    """What it listens for; each plugin that is left out makes it start sooner."""
    overflow: Annotated[Literal["drop-head", "reject-publish"], Field(default="drop-head")]
    """What happens when a subscriber's queue is full: its oldest message goes, or the publisher is told no."""
    memory_limit: Annotated[Size, Field(default="300M")]
    """Memory in use from which publishers are blocked."""
    disk_free_limit: Annotated[Size, Field(default="50M")]
    """Free disk space below which publishers are blocked."""
    max_message_size: Annotated[Size, Field(default="128M")]
    """Largest payload."""


@with_config(_STRICT)
class ActivemqSettings(QueueBounds, total=False):
    """ActiveMQ."""

    protocols: Annotated[list[Literal["stomp", "mqtt"]], Field(default=["stomp"], min_length=1)]
    """What it listens for."""
    heap: Annotated[Size, Field(default="128M")]
    """Of the Java virtual machine."""
    memory_limit: Annotated[Size, Field(default="64M")]
    """For messages, part of the heap."""
    persistence: Annotated[bool, Field(default=False)]
    """Keep persistent messages over a restart, which an embedded store writes to disk."""


@with_config(_STRICT)
class ProsodySettings(Logged, total=False):
    """Prosody; it has no bound on what waits for a subscriber that is there."""

    max_stanza_size: Annotated[Size, Field(default="10M")]
    """Largest stanza, with the payload as base64 in it."""
    max_unacknowledged: Annotated[int, Field(default=1000, ge=1, le=10_000_000)]
    """Messages kept for a QoS 1 subscriber until it acknowledges them; with more its session cannot be resumed."""
    resume_within: Annotated[Duration, Field(default="10m")]
    """How long they are kept for one whose connection was lost."""


@with_config(_STRICT)
class MariadbSettings(TypedDict, total=False):
    """MariaDB; the names are those of its configuration."""

    port: Annotated[int, Field(default=3306, ge=1, le=65535)]
    """Where it listens."""
    innodb_buffer_pool_size: Annotated[Size, Field(default="64M")]
    """Main memory for pages of tables."""
    innodb_flush_log_at_trx_commit: Annotated[Literal[0, 1, 2], Field(default=1)]
    """1 writes every commit to the disk; 2 leaves that to the system, 0 does it once a second."""
    max_connections: Annotated[int, Field(default=151, ge=10, le=100_000)]
    """Each core system keeps up to `database_pool`."""


class _CoreSettings(TypedDict, total=False):
    """What the core systems of a local cloud have in common."""

    port: Annotated[int, Field(ge=1, le=65535)]
    """Where it listens. Default: the framework's, which differs between the modes."""
    database_pool: Annotated[int, Field(default=10, ge=1, le=1000)]
    """Connections to the database."""
    database_timeout: Annotated[Duration, Field(default="5s")]
    """How long to wait for one, or for a lock."""
    peer_timeout: Annotated[Duration, Field(default="30s")]
    """How long to wait for an answer of another system."""
    largest_body: Annotated[Size, Field(default="1M")]
    """A larger request is refused."""
    request_timeout: Annotated[Duration, Field(default="15s")]
    """A request must have arrived whole within this."""
    sql_log: Annotated[bool, Field(default=False)]
    """Write each log line to the database before going on, and print every statement, as the original systems do."""


@with_config(_STRICT)
class ServiceRegistrySettings(_CoreSettings, total=False):
    """The Service Registry."""

    ping_timeout: Annotated[Duration, Field(default="5s")]
    """For a provider that is pinged."""
    ping_interval: Annotated[Duration, Field(default="0s")]
    """How often providers are pinged and the dead deleted; 0s is never."""
    ttl_interval: Annotated[Duration, Field(default="0s")]
    """How often expired entries are deleted; 0s is never."""


@with_config(_STRICT)
class AuthorizationSettings(_CoreSettings, total=False):
    """The Authorization."""

    auth_for_cloud: Annotated[bool, Field(default=False)]
    """In secure mode every system of the cloud may ask it, and make rules within the cloud."""


@with_config(_STRICT)
class OrchestratorSettings(_CoreSettings, total=False):
    """The Orchestrator."""


@with_config(_STRICT)
class GatekeeperSettings(_CoreSettings, total=False):
    """The Gatekeeper; `port` is the one that other clouds call."""

    outbound_port: Annotated[int, Field(ge=1, le=65535)]
    """The one that its own Orchestrator calls."""
    gsd: Annotated[Literal["parallel", "sequential"], Field(default="parallel")]
    """Ask neighbour clouds one after another, as the original does, or at the same time."""
    strict_cloud: Annotated[bool, Field(default=False)]
    """In secure mode a Gatekeeper speaks only for the cloud of its certificate."""


@with_config(_STRICT)
class ProviderSettings(TypedDict, total=False):
    """A provider: a thermometer that registers itself."""

    system: Annotated[str, Field(default="provider1", pattern="^[A-Za-z0-9_:-]{1,63}$")]
    """Its system name."""
    service: Annotated[str, Field(default="IndoorTemperature", min_length=1, max_length=255)]
    """The service definition it offers."""
    interfaces: list[Annotated[str, Field(pattern="^[^,]{1,255}$")]]
    """Default: [JSON]."""
    metadata: dict[Pair, Pair]
    """Of the service. Default: {unit: celsius}. In secure mode, {security: token} asks for tokens."""
    uri: Annotated[str, Field(default="temperature", min_length=1, max_length=255)]
    """Path of the service."""
    port: Annotated[int, Field(ge=1, le=65535)]
    """Where it listens. Default: 8460, in secure mode 8461."""


@with_config(_STRICT)
class ConsumerSettings(TypedDict, total=False):
    """A consumer: asks the Orchestrator of its cloud for a service."""

    system: Annotated[str, Field(default="client1", pattern="^[A-Za-z0-9_:-]{1,63}$")]
    """Its system name."""
    port: Annotated[int, Field(default=8080, ge=1, le=65535)]
    """Part of its identity; nothing listens there."""
    service: Annotated[str, Field(min_length=1, max_length=255)]
    """The definition it asks for. Default: that of the file's first provider."""
    interfaces: list[Annotated[str, Field(min_length=1, max_length=255)]]
    """Default: [json]."""
    metadata: dict[str, str]
    """Asked for. Default: that of the file's first provider."""


SETTINGS: dict[str, Any] = {
    "gateway": GatewaySettings,
    "hub": HubSettings,
    "event-handler": EventHandlerSettings,
    "mosquitto": MosquittoSettings,
    "rabbitmq": RabbitmqSettings,
    "activemq": ActivemqSettings,
    "prosody": ProsodySettings,
    "mariadb": MariadbSettings,
    "arrowhead:service-registry": ServiceRegistrySettings,
    "arrowhead:authorization": AuthorizationSettings,
    "arrowhead:orchestrator": OrchestratorSettings,
    "arrowhead:gatekeeper": GatekeeperSettings,
    "arrowhead:provider": ProviderSettings,
    "arrowhead:consumer": ConsumerSettings,
}
"""Image, or image:role -> its settings; images of the catalogue that are not here take none."""
