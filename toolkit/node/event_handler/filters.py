"""The filters of mode `original` and the rows of its log, in the storage of the core systems: SQLite or a server."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from sqlalchemy import and_, bindparam, delete, func, insert, select, true, update
from sqlalchemy.engine import Connection
from sqlalchemy.sql.expression import ColumnElement

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


class _Look:
    """The statements that find the filters for which a condition holds; building them costs more than a look."""

    def __init__(self, where: ColumnElement[bool]) -> None:
        self._filters = (
            select(
                EVENT_FILTER.c.id.label("filter"),
                EVENT_FILTER.c.event_type,
                EVENT_FILTER.c.start_date,
                EVENT_FILTER.c.end_date,
                EVENT_FILTER.c.notify_uri,
                EVENT_FILTER.c.match_metadata,
                *identities.system_columns(SYSTEM),
            )
            .join_from(EVENT_FILTER, SYSTEM, SYSTEM.c.id == EVENT_FILTER.c.consumer_system_id)
            .where(where)
            .order_by(EVENT_FILTER.c.id)
        )
        self._sources = (
            select(EVENT_FILTER_SOURCE.c.filter_id.label("filter"), *identities.system_columns(SYSTEM))
            .join_from(EVENT_FILTER, EVENT_FILTER_SOURCE, EVENT_FILTER_SOURCE.c.filter_id == EVENT_FILTER.c.id)
            .join(SYSTEM, SYSTEM.c.id == EVENT_FILTER_SOURCE.c.sources_id)
            .where(where)
        )
        self._metadata = (
            select(
                EVENT_FILTER_METADATA.c.filter_id,
                EVENT_FILTER_METADATA.c.metadata_key,
                EVENT_FILTER_METADATA.c.metadata_value,
            )
            .join_from(EVENT_FILTER, EVENT_FILTER_METADATA, EVENT_FILTER_METADATA.c.filter_id == EVENT_FILTER.c.id)
            .where(where)
        )

    def __call__(self, connection: Connection, **values: object) -> list[Filter]:
        rows = connection.execute(self._filters, values).mappings().all()
        if not rows:
            return []
        sources: defaultdict[int, set[System]] = defaultdict(set)
        for row in connection.execute(self._sources, values).mappings():
            sources[row["filter"]].add(_system(identities.system_from(row)))
        metadata: defaultdict[int, dict[str, str]] = defaultdict(dict)
        for number, key, value in connection.execute(self._metadata, values):
            metadata[number][key] = value
        return [
            Filter(
                id=row["filter"],
                event_type=row["event_type"],
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


_all = _Look(true())
_of_type = _Look(EVENT_FILTER.c.event_type == bindparam("event_type"))
_of_number = _Look(EVENT_FILTER.c.id == bindparam("number"))


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

    def add(self, wanted: Filter) -> Filter | None:
        """The filter as it is stored; None where one of that type and consumer is there already (it stays as it is).

        Raises Problem where it could not be stored.
        """

        def work(connection: Connection) -> tuple[Filter | None, int]:
            return _add(connection, wanted), _count(connection)

        stored, self._count = _or_problem(lambda: self._storage.wait_write(work))
        return stored

    def remove(self, event_type: str, system_name: str) -> bool:
        """Remove the filters of one type of every consumer of that name; False for a name never heard of.

        Raises Problem where they could not be removed.
        """

        def work(connection: Connection) -> tuple[bool, int]:
            return _remove(connection, event_type, system_name), _count(connection)

        known, self._count = _or_problem(lambda: self._storage.wait_write(work))
        return known

    def listed(self) -> list[Filter]:
        """Every filter; raises Problem where they cannot be read."""
        return _or_problem(lambda: self._storage.wait_read(_all))

    def find(self, number: int) -> Filter | None:
        """The filter of that number; raises Problem where it cannot be read."""
        found = _or_problem(lambda: self._storage.wait_read(lambda connection: _of_number(connection, number=number)))
        return found[0] if found else None

    def alter(self, number: int, change: Callable[[Filter], Filter]) -> Filter | None:
        """Put what `change` makes of a filter in its place: as it is stored then, None where there is none.

        Raises Problem where it could not be stored, because there is another of that type and consumer, for one.
        """
        return _or_problem(
            lambda: self._storage.wait_write(lambda connection: _alter(connection, number, change)),
        )

    def delete(self, number: int) -> bool:
        """Remove the filter of that number; False where there is none. Raises Problem where it could not be removed."""

        def work(connection: Connection) -> tuple[bool, int]:
            gone = connection.execute(delete(EVENT_FILTER).where(EVENT_FILTER.c.id == number)).rowcount > 0
            return gone, _count(connection)

        gone, self._count = _or_problem(lambda: self._storage.wait_write(work))
        return gone

    def remove_old(self, now: datetime) -> int:
        """Remove the filters that ended before now, and say how many; raises Problem where they stay."""

        def work(connection: Connection) -> tuple[int, int]:
            over = delete(EVENT_FILTER).where(EVENT_FILTER.c.end_date < _without_zone(now))
            return connection.execute(over).rowcount, _count(connection)

        removed, self._count = _or_problem(lambda: self._storage.wait_write(work))
        return removed

    def of_type(self, event_type: str) -> list[Filter]:
        """Every filter for a type, looked up anew for each event; waits for a database that is away."""
        return self._patiently(
            lambda: self._storage.wait_read(lambda connection: _of_type(connection, event_type=event_type))
        )

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
        away = refusal.kind == "UNAVAILABLE"
        message = f"the subscriptions cannot be reached: {refusal.message}" if away else refusal.message
        raise Problem(refusal.status, refusal.kind, message) from None


def _count(connection: Connection) -> int:
    return int(connection.execute(select(func.count()).select_from(EVENT_FILTER)).scalar_one())


def _add(connection: Connection, wanted: Filter) -> Filter | None:
    stored = _kept(connection, wanted)
    same = and_(EVENT_FILTER.c.event_type == stored.event_type, EVENT_FILTER.c.consumer_system_id == stored.consumer.id)
    if connection.execute(select(EVENT_FILTER.c.id).where(same)).scalar() is not None:
        return None
    number = identities.new_id(connection, insert(EVENT_FILTER).values(**_columns(stored)))
    _add_lists(connection, number, stored)
    return replace(stored, id=number)


def _alter(connection: Connection, number: int, change: Callable[[Filter], Filter]) -> Filter | None:
    found = _of_number(connection, number=number)
    if not found:
        return None
    stored = _kept(connection, change(found[0]))
    connection.execute(update(EVENT_FILTER).where(EVENT_FILTER.c.id == number).values(**_columns(stored)))
    for table in (EVENT_FILTER_SOURCE, EVENT_FILTER_METADATA):
        connection.execute(delete(table).where(table.c.filter_id == number))
    _add_lists(connection, number, stored)
    return stored


def _kept(connection: Connection, wanted: Filter) -> Filter:
    """The filter with the numbers of its systems, who are inserted when they are new."""

    def numbered(system: System) -> System:
        return replace(system, id=identities.keep_system(connection, _arrowhead(system)))

    return replace(wanted, consumer=numbered(wanted.consumer), sources=frozenset(map(numbered, wanted.sources)))


def _columns(stored: Filter) -> dict[str, object]:
    return {
        "event_type": stored.event_type,
        "consumer_system_id": stored.consumer.id,
        "start_date": _without_zone(stored.start),
        "end_date": _without_zone(stored.end),
        "notify_uri": stored.notify_uri,
        "match_metadata": identities.yes_no(stored.match_metadata),
    }


def _add_lists(connection: Connection, number: int, stored: Filter) -> None:
    sources = sorted(source.id for source in stored.sources if source.id is not None)
    if sources:
        rows = [{"filter_id": number, "sources_id": source} for source in sources]
        connection.execute(insert(EVENT_FILTER_SOURCE), rows)
    if stored.metadata:
        pairs = [
            {"filter_id": number, "metadata_key": key, "metadata_value": value}
            for key, value in stored.metadata.items()
        ]
        connection.execute(insert(EVENT_FILTER_METADATA), pairs)


def _remove(connection: Connection, event_type: str, system_name: str) -> bool:
    known = [system.id for system in identities.list_systems(connection, system_name=system_name)]
    if known:
        theirs = and_(EVENT_FILTER.c.event_type == event_type, EVENT_FILTER.c.consumer_system_id.in_(known))
        connection.execute(delete(EVENT_FILTER).where(theirs))
    return bool(known)


def _arrowhead(system: System) -> ArrowheadSystem:
    return ArrowheadSystem(
        system_name=system.name,
        address=system.address,
        port=system.port,
        authentication_info=system.authentication_info,
    )


def _system(found: ArrowheadSystem) -> System:
    return System(
        id=found.id,
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
