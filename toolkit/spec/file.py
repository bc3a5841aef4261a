"""The testbed file as people write it: every key, its type and its meaning; the JSON Schema comes from here.

Typed dictionaries rather than model classes: a key that is absent stays absent, which is what lets a node inherit it
from its group, its kind or the defaults. Quantities stay text here, held to their pattern.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Required

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

from toolkit.spec import conditions, quantities, selectors
from toolkit.spec.names import NAME_PATTERN
from toolkit.spec.options import OptionsEntry
from toolkit.spec.settings import Pair

_STRICT = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)

Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Variable = Annotated[str, Field(pattern="^[A-Za-z_][A-Za-z0-9_]*$")]
Duration = Annotated[str, Field(pattern=quantities.DURATION.pattern)]
Bitrate = Annotated[str, Field(pattern=quantities.BITRATE.pattern)]
Size = Annotated[str, Field(pattern=quantities.SIZE.pattern)]
Fraction = Annotated[str, Field(pattern=quantities.FRACTION.pattern)]
Frequency = Annotated[str, Field(pattern=quantities.FREQUENCY.pattern)]
Selector = Annotated[str, Field(pattern=selectors.PATTERN)]
Port = Annotated[int, Field(ge=1, le=65535)]
Scalar = str | int | float | bool
_PORT = "([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
Cpus = Annotated[float, Field(gt=0, le=512)]
Address = Annotated[str, Field(pattern=r"^[0-9]{1,3}(\.[0-9]{1,3}){3}$")]
AddressRange = Annotated[str, Field(pattern=r"^[0-9]{1,3}(\.[0-9]{1,3}){3}-[0-9]{1,3}$")]
Label = Annotated[str, Field(pattern="^[A-Za-z0-9_:-]{1,255}$")]
Text = Annotated[str, Field(min_length=1, max_length=255)]
Count = Annotated[int, Field(ge=1, le=1_000_000_000)]


@with_config(_STRICT)
class LinkEntry(TypedDict, total=False):
    """A node's cable to the switch: imposed on virtual nodes, expected of real ones."""

    rate: Bitrate
    """Each way, for example 100mbit."""
    delay: Duration
    """Added each way: to what leaves the node, and to what reaches it."""
    jitter: Duration
    """Spread of the delay."""
    loss: Fraction
    """Share that is lost each way, for example 0.1%."""


class Inherited(TypedDict, total=False):
    """What a node may take from its group, its kind or the defaults."""

    provider: Name
    """Where the node comes from: container, ssh, vm, or a name of `providers`."""
    architecture: Literal["amd64", "arm64", "arm/v7", "arm/v6"]
    """The processor, in Docker's words; images must have a variant for it."""
    cpus: Cpus
    """Cores, or a share of one; limits virtual nodes."""
    memory: Size
    """Main memory; limits virtual nodes."""
    link: LinkEntry
    """The cable to the switch; its keys are inherited one by one."""
    labels: dict[str, str]
    """Your own marks, for selectors such as label:rack=2; inherited one by one."""


@with_config(_STRICT)
class KindEntry(Inherited, total=False):
    """What nodes of a kind have in common."""

    like: Name
    """Another kind to start from."""


@with_config(_STRICT)
class GroupEntry(Inherited, total=False):
    """What nodes of a group have in common; goes over their kind."""

    kind: Name
    """pi1, pi3, pi4, vm, host, or a name of `kinds`."""


@with_config(_STRICT)
class DefaultsEntry(GroupEntry, total=False):
    """What all nodes have in common, unless kind, group or node say otherwise."""


@with_config(_STRICT)
class NodeEntry(GroupEntry, total=False):
    """A node, or with `count` several alike."""

    group: Name
    """A name of `groups`."""
    count: Annotated[int, Field(ge=1, le=512)]
    """How many; they are called NAME-1, NAME-2 …"""
    address: Address
    """Where a real machine is; virtual nodes get theirs from the subnet."""
    addresses: AddressRange | Annotated[list[Address], Field(min_length=1)]
    """For several nodes: a range such as 192.168.60.21-27, or a list."""


@with_config(_STRICT)
class ProviderEntry(TypedDict, total=False):
    """Where machines come from, and how they are entered."""

    type: Literal["container", "ssh", "vm", "rspec"]
    """Default: the provider's own name."""
    user: str
    """Login name; needs sudo without a password, or to be root."""
    port: Port
    """SSH port."""
    identity_file: str
    """Private key; without it the SSH agent is asked."""
    known_hosts: str
    """Host keys to check against, beside those toolkit has been shown."""
    jump: str
    """Bastion host: user@host or user@host:port."""
    become: bool
    """Become root with sudo."""
    trust_on_first_use: bool
    """Accept the host keys seen at the first deploy, and only those afterwards."""
    manifest: str
    """For rspec: the manifest RSpec of the reservation."""
    accelerator: Literal["auto", "kvm", "tcg"]
    """For vm."""
    docker_host: str
    """For container: another engine than the local one."""


@with_config(_STRICT)
class NetworkEntry(TypedDict, total=False):
    """The network the nodes share."""

    subnet: Annotated[str, Field(pattern=r"^[0-9]{1,3}(\.[0-9]{1,3}){3}/[0-9]{1,2}$")]
    """Virtual nodes get addresses from .10 upwards; .1 is the gateway. With it, real addresses must lie inside."""


@with_config(_STRICT)
class HealthEntry(TypedDict, total=False):
    """How a container says that it serves."""

    command: str | Annotated[list[str], Field(min_length=1)]
    """Run inside; exit code 0 is healthy. Text goes through the shell, a list does not."""
    interval: Duration
    """Between two checks."""
    within: Duration
    """Deploy gives up after this."""


@with_config(_STRICT)
class LoginEntry(TypedDict, total=False):
    """Who may enter a broker; clients of the testbed are told by toolkit."""

    user: Required[Annotated[str, Field(pattern="^[A-Za-z0-9_.-]{1,64}$")]]
    password: Required[Name]
    """A name of `secrets`."""


@with_config(_STRICT)
class ServiceEntry(TypedDict, total=False):
    """One service: what runs, and on which nodes."""

    on: Required[Selector | Annotated[list[Selector], Field(min_length=1)]]
    """Nodes, by selector: a name, all, kind:pi1, group:worker …"""
    role: Name
    """What it is for: ntp, monitor, broker, publisher, subscriber … Default: the service's name."""
    cloud: Name
    """The Arrowhead local cloud it is a system of, a name of `clouds`. Default: the only one; of an Event Handler the
    only one with a Service Registry and as secure as it is."""
    image: Name
    """An image of toolkit's own or of `images`. Default: the one of the role."""
    settings: dict[str, Any]
    """What the image lets you set."""
    environment: dict[Variable, Scalar]
    """Variables for the container; never a secret."""
    secrets: dict[Variable, Name]
    """Variable -> name in `secrets`; read on the way to the node."""
    command: str | list[str]
    """Instead of the image's own."""
    ports: list[Port]
    """Ports it listens on, so that clashes on a node are seen before deploy."""
    capabilities: list[Annotated[str, Field(pattern="^[A-Z][A-Z_]*$")]]
    """Linux capabilities to add, for example NET_ADMIN."""
    cpus: Cpus
    """Limit of the container."""
    memory: Size
    """Limit of the container."""
    replicas: Annotated[int, Field(ge=1, le=1000)]
    """How many on each of its nodes."""
    tls: bool
    """A broker that listens with TLS only, with a certificate made at deploy, which clients verify."""
    login: LoginEntry
    """A broker that wants a user and a password. Default: anybody may enter."""
    after: list[Name]
    """Services that are to be healthy first."""
    health: HealthEntry


@with_config(_STRICT)
class SystemEntry(TypedDict, total=False):
    """An Arrowhead system that the file does not place."""

    name: Required[Label]
    address: Required[Annotated[str, Field(min_length=3, max_length=255)]]
    port: Required[Port]
    key: str
    """Its public key: base64 of the DER SubjectPublicKeyInfo."""


SystemReference = str | SystemEntry
"""The name of a consumer or provider among the file's services, or a system written out."""


@with_config(_STRICT)
class RegistryEntry(TypedDict, total=False):
    """A service that is registered without a provider of ours."""

    service: Required[Text]
    provider: Required[SystemReference]
    interfaces: list[Text]
    metadata: dict[Pair, Pair]
    uri: Text
    version: int
    valid_until: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d$")]
    """Without it the entry never expires."""


@with_config(_STRICT)
class IntracloudRule(TypedDict, total=False):
    """Who may use whose services within the cloud."""

    consumer: Required[SystemReference]
    providers: Required[Annotated[list[SystemReference], Field(min_length=1)]]
    services: Required[Annotated[list[Text], Field(min_length=1)]]


@with_config(_STRICT)
class IntercloudRule(TypedDict, total=False):
    """Which services another cloud may use."""

    cloud: Required[Name]
    services: Required[Annotated[list[Text], Field(min_length=1)]]


@with_config(_STRICT)
class StoreEntry(TypedDict, total=False):
    """An entry of the orchestration store, for requests without overrideStore."""

    consumer: Required[SystemReference]
    service: Required[Text]
    provider: Required[SystemReference]
    priority: Required[Annotated[int, Field(ge=1)]]
    interfaces: list[Text]
    cloud: Name
    """Of the provider, where it is another one."""
    default: bool
    name: Text
    instruction: Text
    attributes: dict[Text, str]


@with_config(_STRICT)
class CloudEntry(TypedDict, total=False):
    """An Arrowhead local cloud: one of ours, whose systems are services, or with `address` somebody else's."""

    operator: Annotated[str, Field(pattern="^[A-Za-z0-9-]{1,40}$")]
    """Default: toolkit."""
    address: Annotated[str, Field(min_length=3, max_length=255)]
    """Of somebody else's Gatekeeper."""
    port: Port
    """Inbound port of somebody else's Gatekeeper. Default: 8446, or 8447 if secure."""
    secure: bool
    """TLS with certificates for the cloud and each of its systems, made at deploy."""
    neighbours: list[Name]
    """Clouds its Gatekeeper asks. Default: all others of its mode."""
    database: Annotated[str, Field(min_length=1)]
    """`sqlite` (default), a service with role database, or a URL such as postgresql://user@host/name."""
    database_password: Name
    """For a URL: a name of `secrets`."""
    version: Literal["4.1", "4.1.1", "4.1.2"]
    """The release whose behaviour it shows. Default: 4.1, which is 4.1.1 without its wrong status codes."""
    filler_entries: Annotated[int, Field(ge=0, le=100_000)]
    """Registry entries and rules of services that nobody asks for. Default: 0."""
    systems: list[SystemEntry]
    """Systems to know beside those that the file places."""
    definitions: dict[Text, list[Text]]
    """Service definitions to know, with their interfaces, though nobody provides them."""
    entries: list[RegistryEntry]
    """Registered beside what providers register themselves."""
    intracloud: list[IntracloudRule]
    """Default: every consumer of the cloud may use every provider of it."""
    intercloud: list[IntercloudRule]
    """Default: every neighbour may use every service that the cloud's providers offer."""
    store: list[StoreEntry]


@with_config(_STRICT)
class ImageEntry(TypedDict, total=False):
    """Somebody else's image, by reference, or one of yours, by its folder."""

    reference: str
    """For example docker.io/library/redis:7."""
    build: str
    """Folder with a Dockerfile, relative to this file."""
    platforms: Annotated[
        list[Literal["linux/amd64", "linux/arm64", "linux/arm/v7", "linux/arm/v6"]], Field(min_length=1)
    ]
    """What it has variants for."""


@with_config(_STRICT)
class ClockEntry(TypedDict, total=False):
    """How well clocks must agree before a deploy counts as done."""

    max_offset: Duration
    max_root_distance: Duration
    within: Duration


@with_config(_STRICT)
class MonitoringEntry(TypedDict, total=False):
    """How the testbed is watched."""

    scrape_interval: Duration
    retention: Duration
    grafana: str | Literal[False]
    """Grafana's image, or false for none."""
    alertmanager: Annotated[str, Field(pattern=rf"^([A-Za-z0-9.-]{{1,253}}|\[[0-9a-fA-F:]{{2,45}}\]):{_PORT}$")]
    """HOST:PORT of an Alertmanager that the monitor's node reaches; alerts are sent there."""
    console: bool
    """Whether a console that only shows runs on the monitor's node, for whoever has the link that deploy prints."""


@with_config(_STRICT)
class ArrivalsEntry(TypedDict, total=False):
    """When messages are due."""

    kind: Literal["closed", "rate", "poisson", "burst", "ramp", "step", "trace"]
    """`closed` sends the next message after the answer to the last; all others keep to their schedule."""
    rate: Frequency
    """Per publisher connection, for example 2000/s."""
    to: Frequency
    """Where ramp and step end."""
    burst: Count
    """Messages sent together."""
    step: Duration
    """How long each rate of `step` lasts."""
    trace: list[Duration] | str
    """For trace: due instants from the start, or a file (relative to this one) with one in seconds per line."""


@with_config(_STRICT)
class PayloadEntry(TypedDict, total=False):
    """Size and content of messages; one of `size`, `uniform` and `empirical`."""

    size: Size
    """The same for all."""
    uniform: Annotated[list[Size], Field(min_length=2, max_length=2)]
    """Least and largest; all between are equally likely."""
    empirical: Annotated[dict[Size, Annotated[float, Field(gt=0)]], Field(min_length=1)]
    """Size -> how often, in any unit."""
    kind: Literal["random", "text", "zeros"]
    """Content: incompressible, JSON-like text, or zeros. Default: random."""


@with_config(_STRICT)
class StopEntry(TypedDict, total=False):
    """A run that ends so is at fault."""

    after: Duration
    """From the start."""
    backlog: Count
    """Deliveries that are due and have not come."""


Figure = float | Annotated[list[float], Field(min_length=2, max_length=2)]


@with_config(_STRICT)
class ReferenceEntry(TypedDict, total=False):
    """Figures somebody published, in ms; two numbers are a range."""

    source: str
    """Who says so, for example "thesis, table 5.2"."""
    where: dict[str, Any]
    """The points it is for: key (its last word will do) -> value. Default: all."""
    hop: Annotated[str, Field(pattern="^[a-z_]+$")]
    """What it is the delay of: publish, broker, deliver … Default: end_to_end."""
    step: str
    """Instead of a hop: a step of orchestration requests, as tables call it."""
    mean: Figure
    sd: Figure
    min: Figure
    p50: Figure
    p75: Figure
    p90: Figure
    p95: Figure
    p99: Figure
    p999: Figure
    max: Figure


@with_config(_STRICT)
class DisturbEntry(TypedDict, total=False):
    """Something done on purpose to a service while messages flow: `at`, and one of the others."""

    at: Required[Duration]
    """From the start."""
    restart: Name
    """Service whose containers are ended and started again."""
    stop: Name
    """Service whose containers are ended, and started again after `lasts`."""
    pause: Name
    """Service whose processes are frozen, and go on after `lasts`."""
    node: Name
    """Only what runs of it on this node. Default: all of it."""
    lasts: Duration
    """Of a stop or pause."""


@with_config(_STRICT)
class WorkloadEntry(TypedDict, total=False):
    """The traffic of a run."""

    extends: Name
    """Another workload to start from."""
    publishers: Name
    """A service's name or role. Default: publisher."""
    subscribers: Name
    """A service's name or role. Default: subscriber."""
    broker: Name
    """A service's name or role. Default: broker."""
    gateway: Name
    """Where publishers hand their messages in, a service's name or role. Default: at the broker."""
    hub: Name
    """Where subscribers get their messages, a service's name or role. Default: from the broker."""
    consumers: Name
    """Instead of publishers: Arrowhead consumers, by name or role, that ask for orchestration."""
    connections: Annotated[int, Field(ge=1, le=100_000)]
    """Per publisher process."""
    subscriber_connections: Annotated[int, Field(ge=1, le=100_000)]
    """Per subscriber process."""
    topics: Annotated[int, Field(ge=1, le=1_000_000)]
    qos: Literal[0, 1, 2]
    messages: Count
    """Per publisher connection."""
    duration: Duration
    """Instead of a number of messages."""
    payload: Size | PayloadEntry
    """Of each message."""
    arrivals: Literal["closed"] | ArrivalsEntry
    """Default: closed."""
    warmup: Annotated[int, Field(ge=0)]
    """Messages that come first and are not counted."""
    drain: Duration
    """How long late messages are waited for."""
    stop: StopEntry
    """What ends a run early."""
    disturb: list[DisturbEntry]
    """What is done to services while messages flow, to see what it costs."""
    join: dict[Name, Duration]
    """Service or node of subscribers that come in late -> how long after the start."""
    repeat: Annotated[int, Field(ge=1, le=10_000)]
    seed: Annotated[int, Field(ge=0)]
    options: OptionsEntry
    """What one protocol, or a client, needs beside."""
    asserts: dict[str, Annotated[str, Field(pattern=conditions.PATTERN)]]
    """KPI -> condition; a broken one is exit code 7."""
    reference: list[ReferenceEntry]
    """Published figures to print beside ours."""


@with_config(_STRICT)
class ExperimentEntry(TypedDict, total=False):
    """A workload at every point of a sweep, several times."""

    description: str
    workload: Name
    """What is played. Default: the workload of the experiment's name."""
    vary: dict[str, Annotated[list[Any], Field(min_length=1)]]
    """Key -> values: a key of workloads, arrivals.KEY, options.KEY, `workload`, or a place of the file such as
    services.NAME.settings.KEY or nodes.NAME.count. Every combination is a point."""
    points: Annotated[list[dict[str, Any]], Field(min_length=1)]
    """Points written out, each key: value, with a `label` if you like; times the combinations of `vary`."""
    repeat: Annotated[int, Field(ge=1, le=10_000)]
    """Runs of each point. Default: the workload's."""
    order: Literal["listed", "shuffled"]
    """Of the points, in each round of repetitions. Default: shuffled."""
    seed: Annotated[int, Field(ge=0)]
    """Of that order."""
    reference: list[ReferenceEntry]
    """Published figures, by point."""


@with_config(_STRICT)
class VaultEntry(TypedDict, total=False):
    """A secret in a file encrypted by ansible-vault."""

    vault: Required[str]
    """The file, relative to this one."""
    key: str
    """Default: the secret's name."""


@with_config(_STRICT)
class TestbedFile(TypedDict, total=False):
    """A testbed: nodes, the services on them, and the traffic to measure."""

    version: Literal[1]
    """Of this format."""
    name: Name
    """Default: the folder's name."""
    description: str
    variables: dict[Variable, Scalar]
    """Values to write as ${NAME} elsewhere."""
    provider: Name
    """Where nodes come from that do not say so. Default: container."""
    providers: dict[Name, ProviderEntry]
    kinds: dict[Name, KindEntry]
    """Your own kinds of node, or changes to the built-in ones."""
    groups: dict[Name, GroupEntry]
    defaults: DefaultsEntry
    nodes: Required[Annotated[dict[Name, NodeEntry | None], Field(min_length=1)]]
    network: NetworkEntry
    services: dict[Name, ServiceEntry]
    clouds: dict[Name, CloudEntry | None]
    """Arrowhead local clouds. Default, where a service is a system of one: a single one called local."""
    images: dict[Name, ImageEntry]
    clock: ClockEntry
    monitoring: MonitoringEntry
    workloads: dict[Name, WorkloadEntry | None]
    experiments: dict[Name, ExperimentEntry]
    """Sweeps over workloads and settings; also in a file of their own, see `toolkit run`."""
    twin: bool
    """This file was made from another one as its local twin; every figure is labelled so."""
    secrets: dict[Name, str | VaultEntry]
    """Name -> ${env.VARIABLE}, or a key of a vault file."""


def json_schema() -> dict[str, Any]:
    """JSON Schema 2020-12 of testbed files, for editors and other checkers."""
    from toolkit.spec.schema import json_schema as made

    return made()
