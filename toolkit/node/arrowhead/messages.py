"""Everything that travels between the systems of a cloud, as values."""
# ruff: noqa: RUF009 - optional, required and their like are field specifiers

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from toolkit.node.arrowhead.fields import mapping, optional, required, required_name

FLAGS = (
    "onlyPreferred",
    "overrideStore",
    "externalServiceRequest",
    "enableInterCloud",
    "enableQoS",
    "matchmaking",
    "metadataSearch",
    "triggerInterCloud",
    "pingProviders",
)
"""Orchestration flags; a missing one is false."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrowheadSystem:
    """A system of a cloud; the same one when name, address and port are."""

    id: int | None = optional(long=True)
    system_name: str = required_name()
    address: str = required(not_blank=True, shortest=3, longest=255)
    port: int = required(least=1, most=65535)
    authentication_info: str | None = optional(longest=2047)

    @property
    def key(self) -> tuple[str, str, int]:
        """What makes it the same system."""
        return (self.system_name, self.address, self.port)

    def __str__(self) -> str:
        """The key of an authorization state: `name,address,port,authInfo`."""
        return f"{self.system_name},{self.address},{self.port},{self.authentication_info or 'null'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrowheadService:
    """A service definition with its interfaces; the metadata belongs to one provider's entry."""

    id: int | None = optional(long=True)
    service_definition: str = required(not_blank=True, longest=255)
    interfaces: tuple[str, ...] = optional((), longest=100)
    service_metadata: Mapping[str, str] = mapping(longest=100, omit_empty=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrowheadCloud:
    """A local cloud; `port` is its inbound Gatekeeper port."""

    id: int | None = optional(long=True)
    operator: str = required_name()
    cloud_name: str = required_name()
    address: str = required(not_blank=True, shortest=3, longest=255)
    port: int = required(least=1, most=65535)
    gatekeeper_service_uri: str = required(name="gatekeeperServiceURI", not_blank=True, longest=255)
    authentication_info: str | None = optional(longest=2047)
    secure: bool = optional(False)

    @property
    def key(self) -> tuple[str, str, str, int, str, bool]:
        """What makes it the same cloud."""
        return (self.operator, self.cloud_name, self.address, self.port, self.gatekeeper_service_uri, self.secure)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceRegistryEntry:
    """One provider's offer of one service."""

    id: int | None = optional(long=True)
    provided_service: ArrowheadService = required()
    provider: ArrowheadSystem = required()
    service_uri: str | None = optional(name="serviceURI", longest=255)
    udp: bool = optional(False)
    end_of_validity: datetime | None = optional(future=True)
    """Local time without a zone; None is unlimited."""
    version: int = optional(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class NeighborCloud:
    """A cloud that the Gatekeeper may ask."""

    cloud: ArrowheadCloud = required()


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """A message broker for gateways."""

    id: int | None = optional(long=True)
    address: str = required(not_blank=True, shortest=3, longest=255)
    port: int = required(least=1, most=65535)
    secure: bool = optional(False)


@dataclass(frozen=True, slots=True, kw_only=True)
class IntraCloudAuthorization:
    """A consumer may use a service of a provider."""

    id: int | None = optional(long=True)
    consumer: ArrowheadSystem = required()
    provider: ArrowheadSystem = required()
    service: ArrowheadService = required()


@dataclass(frozen=True, slots=True, kw_only=True)
class InterCloudAuthorization:
    """A cloud may use a service, whoever provides it."""

    id: int | None = optional(long=True)
    cloud: ArrowheadCloud = required()
    service: ArrowheadService = required()


@dataclass(frozen=True, slots=True, kw_only=True)
class OrchestrationStore:
    """A prepared answer for one consumer and service; lower `priority` comes first."""

    id: int | None = optional(long=True)
    service: ArrowheadService = required()
    consumer: ArrowheadSystem = required()
    provider_system: ArrowheadSystem = required()
    provider_cloud: ArrowheadCloud | None = optional()
    priority: int = optional(0, least=1)
    default_entry: bool = optional(False)
    name: str | None = optional(longest=255)
    last_updated: datetime | None = optional()
    instruction: str | None = optional(longest=255)
    attributes: Mapping[str, str] = mapping(omit_empty=True, longest_value=2047)
    service_uri: str | None = optional(name="serviceURI", longest=255)


@dataclass(frozen=True, slots=True, kw_only=True)
class OrchestrationStoreQuery:
    """Which store entries are wanted."""

    requested_service: ArrowheadService | None = optional()
    requester_system: ArrowheadSystem | None = optional()


@dataclass(frozen=True, slots=True, kw_only=True)
class OrchestrationStorePriorities:
    """Ids of store entries, and the priority that each is to have."""

    priorities: Mapping[str, int] = required(shortest=1, least_value=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceQueryForm:
    """What the Service Registry is asked."""

    service: ArrowheadService = required()
    ping_providers: bool = optional(False)
    metadata_search: bool = optional(False)
    version: int | None = optional()


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceQueryResult:
    """What the Service Registry found."""

    service_query_data: tuple[ServiceRegistryEntry, ...] = optional((), drop_invalid=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceQueryByRegex:
    """One filter of a management query; without a field name the service definition is meant."""

    field_name: str = optional("serviceDefinition")
    regular_expression: str = required(longest=255)
    partial_match: bool = optional(True)


@dataclass(frozen=True, slots=True, kw_only=True)
class IntraCloudAuthEntry:
    """Rules to be made: the consumer with every provider and every service."""

    consumer: ArrowheadSystem = required()
    provider_list: tuple[ArrowheadSystem, ...] = required(shortest=1)
    service_list: tuple[ArrowheadService, ...] = required(shortest=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class InterCloudAuthEntry:
    """Rules to be made: the cloud with every service."""

    cloud: ArrowheadCloud = required()
    service_list: tuple[ArrowheadService, ...] = required(shortest=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class IntraCloudAuthRequest:
    """Asks which of some providers the consumer may use."""

    consumer: ArrowheadSystem = required()
    providers: tuple[ArrowheadSystem, ...] = required(shortest=1)
    service: ArrowheadService = required()


@dataclass(frozen=True, slots=True, kw_only=True)
class IntraCloudAuthResponse:
    """Keys are system strings."""

    authorization_state: Mapping[str, bool] = mapping()


@dataclass(frozen=True, slots=True, kw_only=True)
class InterCloudAuthRequest:
    """Asks whether a cloud may use the service."""

    cloud: ArrowheadCloud = required()
    service: ArrowheadService = required()


@dataclass(frozen=True, slots=True, kw_only=True)
class InterCloudAuthResponse:
    """It may, or not."""

    authorized: bool = optional(False)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenGenerationRequest:
    """Tokens for the consumer, one per provider; `duration` in ms, 0 is for ever."""

    consumer: ArrowheadSystem = required()
    consumer_cloud: ArrowheadCloud | None = optional()
    providers: tuple[ArrowheadSystem, ...] = required(shortest=1)
    service: ArrowheadService = required()
    duration: int = optional(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenData:
    """A token for one provider; both strings base64."""

    system: ArrowheadSystem = required()
    service: ArrowheadService = required()
    token: str = required()
    signature: str = required()


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenGenerationResponse:
    """The tokens that could be made."""

    token_data: tuple[TokenData, ...] = optional(())


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferredProvider:
    """A local system, or a cloud with or without one of its systems."""

    provider_system: ArrowheadSystem | None = optional()
    provider_cloud: ArrowheadCloud | None = optional()

    @property
    def is_local(self) -> bool:
        """A system of the own cloud."""
        return self.provider_system is not None and self.provider_cloud is None

    @property
    def is_global(self) -> bool:
        """Another cloud."""
        return self.provider_cloud is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceRequestForm:
    """What a consumer asks the Orchestrator."""

    requester_system: ArrowheadSystem = required()
    requester_cloud: ArrowheadCloud | None = optional()
    requested_service: ArrowheadService | None = optional()
    orchestration_flags: Mapping[str, bool] = mapping(longest=9)
    preferred_providers: tuple[PreferredProvider, ...] = optional((), drop_invalid=True)
    requested_qos: Mapping[str, str] = mapping(name="requestedQoS")
    commands: Mapping[str, str] = mapping()

    def flag(self, name: str) -> bool:
        """One of `FLAGS`; false when missing."""
        return bool(self.orchestration_flags.get(name))


class OrchestratorWarning(Enum):
    """What a consumer should know about an answer."""

    FROM_OTHER_CLOUD = "FROM_OTHER_CLOUD"
    TTL_EXPIRING = "TTL_EXPIRING"
    TTL_EXPIRED = "TTL_EXPIRED"
    TTL_UNKNOWN = "TTL_UNKNOWN"


@dataclass(frozen=True, slots=True, kw_only=True)
class OrchestrationForm:
    """One provider that the consumer may use."""

    service: ArrowheadService = required()
    provider: ArrowheadSystem = required()
    service_uri: str | None = optional(name="serviceURI", longest=255)
    instruction: str | None = optional(longest=255)
    authorization_token: str | None = optional()
    signature: str | None = optional()
    warnings: tuple[OrchestratorWarning, ...] = optional(())


@dataclass(frozen=True, slots=True, kw_only=True)
class OrchestrationResponse:
    """The Orchestrator's answer, best provider first."""

    response: tuple[OrchestrationForm, ...] = optional(())


@dataclass(frozen=True, slots=True, kw_only=True)
class GSDRequestForm:
    """Which clouds have the service? Asked by the own Orchestrator."""

    requested_service: ArrowheadService = required()
    search_perimeter: tuple[ArrowheadCloud, ...] = optional(())
    registry_flags: Mapping[str, bool] = mapping()


@dataclass(frozen=True, slots=True, kw_only=True)
class GSDPoll:
    """Have you the service? Asked by another cloud."""

    requested_service: ArrowheadService = required()
    requester_cloud: ArrowheadCloud = required()
    registry_flags: Mapping[str, bool] = mapping()


@dataclass(frozen=True, slots=True, kw_only=True)
class GSDAnswer:
    """A cloud that has it."""

    requested_service: ArrowheadService = required()
    provider_cloud: ArrowheadCloud = required()


@dataclass(frozen=True, slots=True, kw_only=True)
class GSDResult:
    """The clouds that have it."""

    response: tuple[GSDAnswer, ...] = optional(())


@dataclass(frozen=True, slots=True, kw_only=True)
class ICNRequestForm:
    """Get a provider from that cloud. Asked by the own Orchestrator."""

    requested_service: ArrowheadService = required()
    target_cloud: ArrowheadCloud = required()
    requester_system: ArrowheadSystem = required()
    preferred_systems: tuple[ArrowheadSystem, ...] = optional(())
    negotiation_flags: Mapping[str, bool] = mapping()


@dataclass(frozen=True, slots=True, kw_only=True)
class ICNProposal:
    """Give us a provider. Asked by another cloud; `timeout` in ms."""

    requested_service: ArrowheadService = required()
    requester_cloud: ArrowheadCloud = required()
    requester_system: ArrowheadSystem = required()
    preferred_systems: tuple[ArrowheadSystem, ...] = optional(())
    negotiation_flags: Mapping[str, bool] = mapping()
    preferred_brokers: tuple[Broker, ...] = optional(())
    timeout: int = optional(0)
    gateway_public_key: str | None = optional()


@dataclass(frozen=True, slots=True, kw_only=True)
class ICNResult:
    """The other cloud's providers."""

    orch_response: OrchestrationResponse = required()
