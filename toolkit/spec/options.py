"""What a workload's `options` may say: each option with its type, meaning and default."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

_STRICT = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)

Positive = Annotated[float, Field(gt=0)]


@with_config(_STRICT)
class OptionsEntry(TypedDict, total=False):
    """What one protocol, or a client, needs beside; docs/brokers.md says whose each is."""

    protocol: Literal["sse", "http", "mqtt", "amqp", "stomp", "xmpp", "dds"]
    """What is spoken to the broker. Default: its first."""
    device_protocol: Literal["mqtt", "rest"]
    """What publishers speak to a gateway. Default: mqtt."""
    customer_protocol: Literal["mqtt", "rest"]
    """What subscribers speak to a hub. Default: mqtt."""
    port: Annotated[int, Field(ge=1, le=65535)]
    """Of the broker. Default: the protocol's, or what its settings say."""
    loss_timeout_s: Positive
    """What arrives later than this is lost. Default: 30."""
    session: Literal["clean", "persistent"]
    """Whether subscriptions and messages survive a lost connection. Default: clean."""
    max_inflight: Annotated[int, Field(ge=1, le=65535)]
    """Unanswered messages of a publisher at QoS 1 and 2."""
    max_backlog_bytes: Annotated[int, Field(ge=0)]
    """What may wait in a publisher before it refuses messages. Default: 1048576."""
    prefetch: Annotated[int, Field(ge=1, le=65535)]
    """Unacknowledged messages of a subscriber (amqp, stomp). Default: the broker's `in_flight`."""
    share: bool
    """Whether subscribers share the messages, each going to one of them (mqtt, amqp). Default: false."""
    consume_delay_s: Annotated[float, Field(ge=0)]
    """What a subscriber takes for each message."""
    receive_buffer_bytes: Annotated[int, Field(ge=1)]
    """What the kernel may hold for each connection of a client."""
    congestion: Literal["reno", "cubic", "bbr"]
    """TCP congestion control of what clients send. Default: the node's."""
    connect_timeout_s: Positive
    """For a broker that does not answer. Default: 10."""
    dead_after_s: Positive
    """A way on which nothing is answered for so long is given up. Default: 15."""
    probe: bool
    """Send a message on every stream before the start. Default: true."""
    live_every: Annotated[int, Field(ge=1)]
    """Every which message feeds the live histograms. Default: so that it is about 200 a second."""
    mqtt: Literal["3.1.1", "5", "5.0"]
    """Version of MQTT. Default: 3.1.1."""
    exchange: Annotated[str, Field(min_length=1, max_length=255)]
    """Where amqp publishes. Default: amq.topic."""
    vhost: Annotated[str, Field(min_length=1, max_length=255)]
    """Of amqp and stomp. Default: /."""
    destination: Annotated[str, Field(min_length=1)]
    """What stands before a topic in stomp. Default: /topic/."""
    reuse: bool
    """Whether sse and http publishers keep their connections. Default: true."""
    pool_size: Annotated[int, Field(ge=1)]
    """Connections of an sse or http publisher for each of the workload's. Default: 1."""
    log_events: bool
    """Whether sse and http clients print the published lines for each event. Default: false."""
    delivery_complete_uri: str
    """Where the Event Handler tells who was reached."""
    xmpp_domain: Annotated[str, Field(min_length=1)]
    """Default: localhost."""
    xmpp_service: Annotated[str, Field(min_length=1)]
    """Default: pubsub.<domain>."""
    dds_domain: Annotated[int, Field(ge=0)]
    """Default: 0."""
    multicast: bool
    """Whether dds finds by multicast too. Default: false."""
    queue_limit: Annotated[int, Field(ge=0)]
    """Samples that a dds reader keeps at QoS 0. Default: 1000."""
    tls: bool
    """Whether clients speak TLS; a broker with `tls` sets it."""
    check_hostname: bool
    """Whether the broker's certificate must name its address."""
    ca_file: str
    """On the node: who is trusted."""
    certificate_file: str
    """On the node: the client's own certificate."""
    key_file: str
    """On the node: its key."""
    user: str
    """Who logs in; a broker with `login` sets it."""
    password_variable: str
    """The variable, or with _FILE at its end the file, that holds the password."""
    consume: bool
    """Whether a consumer asks the provider it was given too."""
    flags: dict[str, bool]
    """Orchestration flags of a consumer's requests."""
    system: str
    """Name of the consumer's system."""
    address: str
    """Of the consumer's system."""
    service: str
    """What a consumer asks for."""
    interfaces: list[str]
    """Asked for."""
    metadata: dict[str, str]
    """Asked for."""
