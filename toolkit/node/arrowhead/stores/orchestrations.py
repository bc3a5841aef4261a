"""The Orchestration Store: answers prepared by an operator."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import and_, delete, insert, select, update
from sqlalchemy.engine import Connection

from toolkit.node.arrowhead.messages import ArrowheadService, OrchestrationStore
from toolkit.node.arrowhead.schema import CLOUD, SERVICE, STORE, STORE_ATTRIBUTE, SYSTEM
from toolkit.node.arrowhead.stores import identities

_CONSUMER = SYSTEM.alias("consumer")
_PROVIDER = SYSTEM.alias("provider")
_ENTRIES = (
    select(
        STORE.c.id.label("entry_id"),
        STORE.c.priority,
        STORE.c.is_default,
        STORE.c.name,
        STORE.c.instruction,
        STORE.c.last_updated,
        SERVICE.c.id.label("service_id"),
        SERVICE.c.service_definition,
        *identities.system_columns(_CONSUMER, "consumer_"),
        *identities.system_columns(_PROVIDER, "provider_"),
        *identities.cloud_columns(CLOUD, "cloud_"),
    )
    .select_from(
        STORE.join(SERVICE, SERVICE.c.id == STORE.c.arrowhead_service_id)
        .join(_CONSUMER, _CONSUMER.c.id == STORE.c.consumer_system_id)
        .join(_PROVIDER, _PROVIDER.c.id == STORE.c.provider_system_id)
        .outerjoin(CLOUD, CLOUD.c.id == STORE.c.provider_cloud_id)
    )
    .order_by(STORE.c.priority, STORE.c.id)
)


def merged_attributes(entry: OrchestrationStore) -> dict[str, str]:
    """The entry's attributes with its service's metadata; values under the same key are joined."""
    merged = dict(entry.attributes)
    for key, value in entry.service.service_metadata.items():
        merged[key] = f"{merged[key]}, {value}" if key in merged else value
    return merged


def add(connection: Connection, entry: OrchestrationStore, now: datetime) -> OrchestrationStore | None:
    """Insert an entry and what it names; None when there is one of this service, consumer, priority and kind."""
    cloud = entry.provider_cloud
    row = {
        "arrowhead_service_id": identities.keep_service(connection, entry.service),
        "consumer_system_id": identities.keep_system(connection, entry.consumer),
        "priority": entry.priority,
        "is_default": identities.yes_no(entry.default_entry),
    }
    same = and_(*(STORE.c[name] == value for name, value in row.items()))
    if connection.execute(select(STORE.c.id).where(same)).scalar() is not None:
        return None
    identity = identities.new_id(
        connection,
        insert(STORE).values(
            **row,
            provider_system_id=identities.keep_system(connection, entry.provider_system),
            provider_cloud_id=None if cloud is None else identities.keep_cloud(connection, cloud),
            name=entry.name,
            instruction=entry.instruction,
            last_updated=now,
        ),
    )
    _replace_attributes(connection, identity, merged_attributes(entry))
    return by_id(connection, identity)


def change(
    connection: Connection, identity: int, entry: OrchestrationStore, now: datetime
) -> OrchestrationStore | None:
    """Set what belongs to the entry alone; None when there is none with this id."""
    connection.execute(
        update(STORE)
        .where(STORE.c.id == identity)
        .values(
            priority=entry.priority,
            is_default=identities.yes_no(entry.default_entry),
            name=entry.name,
            instruction=entry.instruction,
            last_updated=now,
        )
    )
    _replace_attributes(connection, identity, merged_attributes(entry))
    return by_id(connection, identity)


def set_priorities(connection: Connection, priorities: Mapping[int, int]) -> list[int]:
    """Give entries new priorities, all at the same time, so that they can be exchanged; the ids that are not there."""
    missing = [identity for identity in priorities if not _move(connection, identity, -identity)]
    if not missing:
        for identity, priority in priorities.items():
            _move(connection, identity, priority)
    return missing


def _move(connection: Connection, identity: int, priority: int) -> bool:
    return connection.execute(update(STORE).where(STORE.c.id == identity).values(priority=priority)).rowcount > 0


def set_default(connection: Connection, identity: int, *, default: bool) -> None:
    """Make an entry a default one, or not."""
    connection.execute(update(STORE).where(STORE.c.id == identity).values(is_default=identities.yes_no(default)))


def _replace_attributes(connection: Connection, identity: int, attributes: Mapping[str, str]) -> None:
    connection.execute(delete(STORE_ATTRIBUTE).where(STORE_ATTRIBUTE.c.store_entry_id == identity))
    rows = [
        {"store_entry_id": identity, "attribute_key": key, "attribute_value": value}
        for key, value in attributes.items()
    ]
    if rows:
        connection.execute(insert(STORE_ATTRIBUTE), rows)


def by_id(connection: Connection, identity: int) -> OrchestrationStore | None:
    """One entry."""
    found = list_entries(connection, id=identity)
    return found[0] if found else None


def list_entries(connection: Connection, **equal: Any) -> list[OrchestrationStore]:
    """The entries whose columns have these values, by priority."""
    query = _ENTRIES.where(*(STORE.c[name] == value for name, value in equal.items()))
    rows = connection.execute(query).mappings().all()
    if not rows:
        return []
    interfaces = identities.interfaces_of(connection, [row["service_id"] for row in rows])
    attributes: dict[int, dict[str, str]] = {row["entry_id"]: {} for row in rows}
    for start in range(0, len(rows), 500):
        some = [row["entry_id"] for row in rows[start : start + 500]]
        wanted = select(STORE_ATTRIBUTE).where(STORE_ATTRIBUTE.c.store_entry_id.in_(some))
        for entry, key, value in connection.execute(wanted):
            attributes[entry][key] = value
    return [
        OrchestrationStore(
            id=row["entry_id"],
            service=ArrowheadService(
                id=row["service_id"],
                service_definition=row["service_definition"],
                interfaces=interfaces.get(row["service_id"], ()),
            ),
            consumer=identities.system_from(row, "consumer_"),
            provider_system=identities.system_from(row, "provider_"),
            provider_cloud=None if row["cloud_id"] is None else identities.cloud_from(row, "cloud_"),
            priority=row["priority"],
            default_entry=row["is_default"] == "Y",
            name=row["name"],
            last_updated=row["last_updated"],
            instruction=row["instruction"],
            attributes=attributes[row["entry_id"]],
        )
        for row in rows
    ]


def delete_entries(connection: Connection, **equal: Any) -> int:
    """Delete the entries whose columns have these values; returns how many there were."""
    statement = delete(STORE).where(*(STORE.c[name] == value for name, value in equal.items()))
    return connection.execute(statement).rowcount
