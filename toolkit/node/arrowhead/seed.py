"""Fills the stores of a local cloud from a file, once or again: what is there stays, but for addresses of clouds."""
# ruff: noqa: RUF009 - optional, required and their like are field specifiers

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy.engine import Connection

from toolkit.errors import UsageError
from toolkit.node.arrowhead import wire
from toolkit.node.arrowhead.fields import optional
from toolkit.node.arrowhead.messages import (
    ArrowheadCloud,
    ArrowheadService,
    ArrowheadSystem,
    InterCloudAuthEntry,
    IntraCloudAuthEntry,
    OrchestrationStore,
    ServiceRegistryEntry,
)
from toolkit.node.arrowhead.refusals import Refusal
from toolkit.node.arrowhead.stores import authorisations, identities, neighbours, orchestrations, registry


@dataclass(frozen=True, slots=True, kw_only=True)
class Seed:
    """What the file may hold; each list has the form of the message that would add it."""

    own_cloud: ArrowheadCloud | None = optional()
    neighbor_clouds: tuple[ArrowheadCloud, ...] = optional(())
    systems: tuple[ArrowheadSystem, ...] = optional(())
    services: tuple[ArrowheadService, ...] = optional(())
    registry_entries: tuple[ServiceRegistryEntry, ...] = optional(())
    intra_cloud: tuple[IntraCloudAuthEntry, ...] = optional(())
    inter_cloud: tuple[InterCloudAuthEntry, ...] = optional(())
    store: tuple[OrchestrationStore, ...] = optional(())
    filler_entries: int = optional(0, least=0, most=100_000)
    """As many more registry entries and authorisation rules, of services that nobody asks for."""


def load_seed(path: Path) -> Seed:
    """Read the file; raises UsageError saying what is wrong in it."""
    try:
        return wire.read(Seed, path.read_bytes())
    except OSError as error:
        raise UsageError(f"seed file {path} cannot be read: {error.strerror}") from None
    except Refusal as refusal:
        raise UsageError(f"seed file {path} is wrong: {refusal.message}") from None


def plant(connection: Connection, seed: Seed) -> Mapping[str, int]:
    """Put everything in; returns how many of each were new."""
    if seed.own_cloud is not None:
        neighbours.set_own_cloud(connection, seed.own_cloud)
    for system in seed.systems:
        identities.keep_system(connection, system)
    for service in seed.services:
        identities.keep_service(connection, service)
    new = {
        "neighbours": sum(neighbours.keep_neighbour(connection, cloud) for cloud in seed.neighbor_clouds),
        "entries": sum(registry.register(connection, entry) is not None for entry in seed.registry_entries),
        "store": 0,
        "rules": 0,
    }
    for intra in seed.intra_cloud:
        new["rules"] += len(
            authorisations.allow_intra(connection, intra.consumer, intra.provider_list, intra.service_list)
        )
    for inter in seed.inter_cloud:
        new["rules"] += len(authorisations.allow_inter(connection, inter.cloud, inter.service_list))
    now = datetime.now()  # noqa: DTZ005 - a LocalDateTime has no zone
    new["store"] += sum(orchestrations.add(connection, entry, now) is not None for entry in seed.store)
    new["filler"] = sum(_fill(connection, number) for number in range(seed.filler_entries))
    return new


def _fill(connection: Connection, number: int) -> bool:
    service = ArrowheadService(service_definition=f"Filler{number:05}", interfaces=("JSON",))
    provider = ArrowheadSystem(system_name=f"filler-provider-{number:05}", address="192.0.2.1", port=8460)
    consumer = ArrowheadSystem(system_name=f"filler-consumer-{number:05}", address="192.0.2.2", port=8080)
    entry = ServiceRegistryEntry(provided_service=service, provider=provider, service_uri="filler")
    if registry.register(connection, entry) is None:
        return False
    authorisations.allow_one(connection, consumer, provider, service)
    return True
