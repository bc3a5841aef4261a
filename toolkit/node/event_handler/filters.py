"""The filters of mode `original` and the rows of its log, in the storage of the core systems: SQLite or a server."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from sqlalchemy import and_, bindparam, delete, func, insert, select
from sqlalchemy.engine import Connection

from toolkit.node.arrowhead.messages import ArrowheadSystem
from toolkit.node.arrowhead.refusals import Refusal
from toolkit.node.arrowhead.schema import EVENT_FILTER, EVENT_FILTER_METADATA, EVENT_FILTER_SOURCE, LOG, SYSTEM
from toolkit.node.arrowhead.storage import Storage, open_storage
from toolkit.node.arrowhead.stores import identities
from toolkit.node.event_handler.documents import Filter, System
from toolkit.node.event_handler.problems import Problem
from toolkit.node.event_handler.settings import HandlerSettings

T = TypeVar("T")

_AGAIN_AFTER_S = 0.2
_OF_TYPE = EVENT_FILTER.c.event_type == bindparam("event_type")
_FILTERS = (
    select(
        EVENT_FILTER.c.id.label("filter"),
        EVENT_FILTER.c.start_date,
        EVENT_FILTER.c.end_date,
        EVENT_FILTER.c.notify_uri,
        EVENT_FILTER.c.match_metadata,
        *identities.system_columns(SYSTEM),
    )
    .join_from(EVENT_FILTER, SYSTEM, SYSTEM.c.id == EVENT_FILTER.c.consumer_system_id)
    .where(_OF_TYPE)
    .order_by(EVENT_FILTER.c.id)
)
_SOURCES = (
    select(EVENT_FILTER_SOURCE.c.filter_id.label("filter"), *identities.system_columns(SYSTEM))
    .join_from(EVENT_FILTER, EVENT_FILTER_SOURCE, EVENT_FILTER_SOURCE.c.filter_id == EVENT_FILTER.c.id)
    .join(SYSTEM, SYSTEM.c.id == EVENT_FILTER_SOURCE.c.sources_id)
    .where(_OF_TYPE)
)
_METADATA = (
    select(
        EVENT_FILTER_METADATA.c.filter_id,
        EVENT_FILTER_METADATA.c.metadata_key,
        EVENT_FILTER_METADATA.c.metadata_value,
    )
    .join_from(EVENT_FILTER, EVENT_FILTER_METADATA, EVENT_FILTER_METADATA.c.filter_id == EVENT_FILTER.c.id)
    .where(_OF_TYPE)
)


class FilterStore:
    """Filters and log rows; whoever changes or logs something waits until the database has it."""

    def __init__(self, settings: HandlerSettings) -> None:
        """Waits for a server that is still starting; raises UsageError for a database that cannot be used."""
        self._storage = _open(settings)
        self._logs = settings.sql_log
        self._closing = threading.Event()
        if settings.forgets_filters:  # a file for the log alone keeps none
            self._storage.wait_write(lambda connection: connection.execute(delete(EVENT_FILTER)))
        self._count = self._storage.wait_read(_count)

    def __len__(self) -> int:
        return self._count

    def add(self, wanted: Filter) -> int | None:
        """The filter's number; None where one of that type and consumer is there already (it stays as it is).

        Raises Problem where it could not be stored.
        """

        def work(connection: Connection) -> tuple[int | None, int]:
            return _add(connection, wanted), _count(connection)

        number, self._count = _or_problem(lambda: self._storage.wait_write(work))
        return number

    def remove(self, event_type: str, system_name: str) -> bool:
        """Remove the filters of one type of every consumer of that name; False for a name never heard of.

        Raises Problem where they could not be removed.
        """

        def work(connection: Connection) -> tuple[bool, int]:
            return _remove(connection, event_type, system_name), _count(connection)

        known, self._count = _or_problem(lambda: self._storage.wait_write(work))
        return known

    def of_type(self, event_type: str) -> list[Filter]:
        """Every filter for a type, looked up anew for each event; waits for a database that is away."""
        return self._patiently(lambda: self._storage.wait_read(lambda connection: _of_type(connection, event_type)))

    def log(self, line: str) -> None:
        """Write a line of the log, where a log is wanted; whoever logs waits for it."""
        if self._logs:
            row = {"date": datetime.now(), "origin": "event_handler", "level": "INFO", "message": line[:2047]}  # noqa: DTZ005 - a LocalDateTime has no zone
            self._patiently(
                lambda: self._storage.wait_write(lambda connection: connection.execute(insert(LOG).values(**row)))
            )

    def give_up(self) -> None:
        """Wait no more for a database that is away."""
        self._closing.set()

    def close(self) -> None:
        """Close the connections."""
        self._storage.close()

    def _patiently(self, work: Callable[[], T]) -> T:
        """For what was accepted already: again and again while the database is away, until `give_up`."""
        while True:
            try:
                return work()
            except Refusal as refusal:
                if refusal.kind != "UNAVAILABLE" or self._closing.wait(_AGAIN_AFTER_S):
                    raise


def _open(settings: HandlerSettings) -> Storage:
    password = settings.database_password_file
    return open_storage(
        settings.storage_url,
        password=Path(password) if password else None,
        pool=1 if settings.in_memory else settings.database_pool,  # the memory is a connection's own
        timeout_s=settings.database_timeout_s,
        durable=True,
        variable="TOOLKIT_EVENT_HANDLER_DATABASE_URL",
    )


def _or_problem(work: Callable[[], T]) -> T:
    try:
        return work()
    except Refusal as refusal:
        raise Problem(refusal.status, refusal.kind, f"the subscriptions cannot be reached: {refusal.message}") from None


def _count(connection: Connection) -> int:
    return int(connection.execute(select(func.count()).select_from(EVENT_FILTER)).scalar_one())


def _add(connection: Connection, wanted: Filter) -> int | None:
    consumer = identities.keep_system(connection, _arrowhead(wanted.consumer))
    same = and_(EVENT_FILTER.c.event_type == wanted.event_type, EVENT_FILTER.c.consumer_system_id == consumer)
    if connection.execute(select(EVENT_FILTER.c.id).where(same)).scalar() is not None:
        return None
    number = identities.new_id(
        connection,
        insert(EVENT_FILTER).values(
            event_type=wanted.event_type,
            consumer_system_id=consumer,
            start_date=_without_zone(wanted.start),
            end_date=_without_zone(wanted.end),
            notify_uri=wanted.notify_uri,
            match_metadata=identities.yes_no(wanted.match_metadata),
        ),
    )
    sources = {identities.keep_system(connection, _arrowhead(source)) for source in wanted.sources}
    if sources:
        rows = [{"filter_id": number, "sources_id": source} for source in sorted(sources)]
        connection.execute(insert(EVENT_FILTER_SOURCE), rows)
    if wanted.metadata:
        pairs = [
            {"filter_id": number, "metadata_key": key, "metadata_value": value}
            for key, value in wanted.metadata.items()
        ]
        connection.execute(insert(EVENT_FILTER_METADATA), pairs)
    return number


def _remove(connection: Connection, event_type: str, system_name: str) -> bool:
    known = [system.id for system in identities.list_systems(connection, system_name=system_name)]
    if known:
        theirs = and_(EVENT_FILTER.c.event_type == event_type, EVENT_FILTER.c.consumer_system_id.in_(known))
        connection.execute(delete(EVENT_FILTER).where(theirs))
    return bool(known)


def _of_type(connection: Connection, event_type: str) -> list[Filter]:
    wanted = {"event_type": event_type}
    rows = connection.execute(_FILTERS, wanted).mappings().all()
    if not rows:
        return []
    sources: defaultdict[int, set[System]] = defaultdict(set)
    for row in connection.execute(_SOURCES, wanted).mappings():
        sources[row["filter"]].add(_system(identities.system_from(row)))
    metadata: defaultdict[int, dict[str, str]] = defaultdict(dict)
    for number, key, value in connection.execute(_METADATA, wanted):
        metadata[number][key] = value
    return [
        Filter(
            event_type=event_type,
            consumer=_system(identities.system_from(row)),
            sources=frozenset(sources[row["filter"]]),
            start=_in_utc(row["start_date"]),
            end=_in_utc(row["end_date"]),
            metadata=metadata[row["filter"]],
            match_metadata=row["match_metadata"] == "Y",
            notify_uri=row["notify_uri"],
        )
        for row in rows
    ]


def _arrowhead(system: System) -> ArrowheadSystem:
    return ArrowheadSystem(
        system_name=system.name,
        address=system.address,
        port=system.port,
        authentication_info=system.authentication_info,
    )


def _system(found: ArrowheadSystem) -> System:
    return System(
        name=found.system_name,
        address=found.address,
        port=found.port,
        authentication_info=found.authentication_info,
    )


def _without_zone(instant: datetime | None) -> datetime | None:
    """As databases keep it: in UTC."""
    return None if instant is None else instant.astimezone(UTC).replace(tzinfo=None)


def _in_utc(kept: datetime | None) -> datetime | None:
    return None if kept is None else kept.replace(tzinfo=UTC)
