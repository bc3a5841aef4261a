"""The Service Registry's entries."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import and_, bindparam, delete, insert, select, update
from sqlalchemy.engine import Connection
from sqlalchemy.sql.expression import Select

from toolkit.node.arrowhead.messages import ArrowheadService, ServiceRegistryEntry
from toolkit.node.arrowhead.refusals import bad_payload
from toolkit.node.arrowhead.schema import REGISTRY, SERVICE, SYSTEM
from toolkit.node.arrowhead.stores import identities

_ENTRIES = (
    select(
        REGISTRY.c.id,
        REGISTRY.c.arrowhead_service_id,
        REGISTRY.c.service_uri,
        REGISTRY.c.metadata,
        REGISTRY.c.version,
        REGISTRY.c.udp,
        REGISTRY.c.end_of_validity,
        SERVICE.c.service_definition,
        *identities.system_columns(SYSTEM, "provider_"),
    )
    .select_from(REGISTRY.join(SERVICE).join(SYSTEM))
    .order_by(REGISTRY.c.id)
)
_ENTRIES_OF_DEFINITION = _ENTRIES.where(SERVICE.c.service_definition == bindparam("definition"))
_ENTRIES_OF_SERVICE = _ENTRIES.where(REGISTRY.c.arrowhead_service_id == bindparam("service"))


def metadata_text(metadata: Mapping[str, str]) -> str | None:
    """`k=v,k2=v2`; raises Refusal where that could not be read back."""
    for text in (*metadata.keys(), *metadata.values()):
        if "," in text or "=" in text:
            raise bad_payload(f"service metadata may contain neither ',' nor '=', as {text!r} does")
    return ",".join(f"{key}={value}" for key, value in metadata.items()) or None


def metadata_from(text: str | None) -> dict[str, str]:
    """The map written by `metadata_text`."""
    return dict(pair.partition("=")[::2] for pair in text.split(",")) if text else {}


def register(connection: Connection, entry: ServiceRegistryEntry) -> ServiceRegistryEntry | None:
    """Insert an entry and return it as stored; None when there is one of this service and provider."""
    metadata = metadata_text(entry.provided_service.service_metadata)
    service = identities.find_service(connection, entry.provided_service.service_definition)
    if service is None:
        service = identities.add_service(connection, entry.provided_service)
    else:
        identities.replace_interfaces(connection, service, entry.provided_service.interfaces)
    provider = identities.find_system(connection, entry.provider)
    if provider is None:
        provider = identities.add_system(connection, entry.provider)
    else:
        identities.update_system(connection, provider, authentication_info=entry.provider.authentication_info)
    if _find(connection, service, provider) is not None:
        return None
    identity = identities.new_id(
        connection,
        insert(REGISTRY).values(
            arrowhead_service_id=service,
            provider_system_id=provider,
            service_uri=entry.service_uri,
            metadata=metadata,
            version=entry.version,
            udp=identities.yes_no(entry.udp),
            end_of_validity=entry.end_of_validity,
        ),
    )
    return dataclasses.replace(
        entry,
        id=identity,
        provided_service=dataclasses.replace(entry.provided_service, id=None),
        provider=dataclasses.replace(entry.provider, id=provider),
    )


def _find(connection: Connection, service: int, provider: int) -> int | None:
    query = select(REGISTRY.c.id).where(
        and_(REGISTRY.c.arrowhead_service_id == service, REGISTRY.c.provider_system_id == provider)
    )
    return connection.execute(query).scalar()


def remove(connection: Connection, entry: ServiceRegistryEntry) -> ServiceRegistryEntry | None:
    """Delete the entry of this service and provider; returns it, or None when there was none."""
    service = identities.find_service(connection, entry.provided_service.service_definition)
    provider = identities.find_system(connection, entry.provider)
    identity = None if service is None or provider is None else _find(connection, service, provider)
    if identity is None:
        return None
    removed = by_id(connection, identity)
    connection.execute(delete(REGISTRY).where(REGISTRY.c.id == identity))
    return removed


def of_service(connection: Connection, definition: str) -> list[ServiceRegistryEntry] | None:
    """The entries of a definition; None when no such definition is known."""
    found = _entries(connection, _ENTRIES_OF_DEFINITION, {"definition": definition})
    if not found and identities.find_service(connection, definition) is None:
        return None
    return found


def of_service_id(connection: Connection, identity: int) -> list[ServiceRegistryEntry]:
    """The entries of the service with this id."""
    return _entries(connection, _ENTRIES_OF_SERVICE, {"service": identity})


def of_system(connection: Connection, identity: int) -> list[ServiceRegistryEntry]:
    """The entries of the provider with this id."""
    return _entries(connection, _ENTRIES.where(REGISTRY.c.provider_system_id == identity))


def by_id(connection: Connection, identity: int) -> ServiceRegistryEntry | None:
    """One entry."""
    found = _entries(connection, _ENTRIES.where(REGISTRY.c.id == identity))
    return found[0] if found else None


def list_entries(connection: Connection) -> list[ServiceRegistryEntry]:
    """Every entry."""
    return _entries(connection, _ENTRIES)


def update_entry(connection: Connection, identity: int, entry: ServiceRegistryEntry) -> ServiceRegistryEntry | None:
    """Set what belongs to the entry alone; None when there is none with this id."""
    connection.execute(
        update(REGISTRY)
        .where(REGISTRY.c.id == identity)
        .values(
            service_uri=entry.service_uri,
            metadata=metadata_text(entry.provided_service.service_metadata),
            version=entry.version,
            udp=identities.yes_no(entry.udp),
            end_of_validity=entry.end_of_validity,
        )
    )
    return by_id(connection, identity)


def delete_entries(connection: Connection, ids: Sequence[int] | None = None) -> int:
    """Delete these entries, or all; returns how many there were."""
    statement = delete(REGISTRY)
    if ids is not None:
        statement = statement.where(REGISTRY.c.id.in_(ids))
    return connection.execute(statement).rowcount


def expired(connection: Connection, now: datetime) -> list[int]:
    """Ids of entries whose validity has ended."""
    return list(connection.execute(select(REGISTRY.c.id).where(REGISTRY.c.end_of_validity <= now)).scalars())


def _entries(
    connection: Connection, query: Select[Any], values: Mapping[str, Any] | None = None
) -> list[ServiceRegistryEntry]:
    rows = connection.execute(query, dict(values or {})).mappings().all()
    if not rows:
        return []
    interfaces = identities.interfaces_of(connection, [row["arrowhead_service_id"] for row in rows])
    return [
        ServiceRegistryEntry(
            id=row["id"],
            provided_service=ArrowheadService(
                service_definition=row["service_definition"],
                interfaces=interfaces.get(row["arrowhead_service_id"], ()),
                service_metadata=metadata_from(row["metadata"]),
            ),
            provider=identities.system_from(row, "provider_"),
            service_uri=row["service_uri"],
            udp=row["udp"] == "Y",
            end_of_validity=row["end_of_validity"],
            version=row["version"],
        )
        for row in rows
    ]
