"""The tables of a local cloud's database, and how an older one becomes a newer one.

Names, columns and keys are those of the Java systems' databases; `'Y'`/`'N'` are their booleans. Every migration is
listed once and never changed; `schema_version` tells how many a database has had.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    func,
    insert,
    select,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.engine import Connection

METADATA = MetaData()

# SQLite counts up only a column that is exactly INTEGER.
_ID = BigInteger().with_variant(Integer, "sqlite")
_MOMENT = DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql").with_variant(mysql.DATETIME(fsp=6), "mariadb")
_TABLE_OPTIONS: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    # Names differ by case and by trailing spaces, here as in SQLite and PostgreSQL.
    "mysql_collate": "utf8mb4_nopad_bin",
    "mariadb_engine": "InnoDB",
    "mariadb_charset": "utf8mb4",
    "mariadb_collate": "utf8mb4_nopad_bin",
}


def _table(name: str, *parts: Any) -> Table:
    table: Table = Table(name, METADATA, *parts, **_TABLE_OPTIONS)
    return table


def _id() -> Any:
    return Column("id", _ID, primary_key=True, autoincrement=True)


def _to(name: str, table: str, *, primary: bool = False, optional: bool = False) -> Any:
    return Column(
        name,
        _ID,
        ForeignKey(f"{table}.id", ondelete="CASCADE"),
        primary_key=primary,
        nullable=optional,
        autoincrement=False,
    )


SCHEMA_VERSION = _table("schema_version", Column("version", Integer, primary_key=True, autoincrement=False))

SYSTEM = _table(
    "arrowhead_system",
    _id(),
    Column("system_name", String(255), nullable=False),
    Column("address", String(255), nullable=False),
    Column("port", Integer, nullable=False),
    Column("authentication_info", String(2047)),
    UniqueConstraint("system_name", "address", "port", name="system_identity"),
)
SERVICE = _table("arrowhead_service", _id(), Column("service_definition", String(255), nullable=False, unique=True))
INTERFACE = _table(
    "arrowhead_service_interfaces",
    _to("arrowhead_service_id", "arrowhead_service", primary=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("interfaces", String(255), nullable=False),
)
REGISTRY = _table(
    "service_registry",
    _id(),
    _to("arrowhead_service_id", "arrowhead_service"),
    _to("provider_system_id", "arrowhead_system"),
    Column("service_uri", String(255)),
    Column("metadata", Text),
    Column("version", Integer, nullable=False),
    Column("udp", String(1), nullable=False),
    Column("end_of_validity", _MOMENT),
    UniqueConstraint("arrowhead_service_id", "provider_system_id", name="registry_identity"),
)
INTRA_CLOUD = _table(
    "intra_cloud_authorization",
    _id(),
    _to("consumer_system_id", "arrowhead_system"),
    _to("provider_system_id", "arrowhead_system"),
    _to("arrowhead_service_id", "arrowhead_service"),
    UniqueConstraint("consumer_system_id", "provider_system_id", "arrowhead_service_id", name="intra_identity"),
)
CLOUD = _table(
    "arrowhead_cloud",
    _id(),
    Column("operator", String(255), nullable=False),
    Column("cloud_name", String(255), nullable=False),
    Column("address", String(255), nullable=False),
    Column("port", Integer, nullable=False),
    Column("gatekeeper_service_uri", String(255), nullable=False),
    Column("authentication_info", String(2047)),
    Column("is_secure", String(1), nullable=False),
    UniqueConstraint("operator", "cloud_name", name="cloud_identity"),
)
INTER_CLOUD = _table(
    "inter_cloud_authorization",
    _id(),
    _to("consumer_cloud_id", "arrowhead_cloud"),
    _to("arrowhead_service_id", "arrowhead_service"),
    UniqueConstraint("consumer_cloud_id", "arrowhead_service_id", name="inter_identity"),
)
OWN_CLOUD = _table("own_cloud", _to("cloud_id", "arrowhead_cloud", primary=True))
NEIGHBOR_CLOUD = _table("neighbor_cloud", _to("cloud_id", "arrowhead_cloud", primary=True))
STORE = _table(
    "orchestration_store",
    _id(),
    _to("arrowhead_service_id", "arrowhead_service"),
    _to("consumer_system_id", "arrowhead_system"),
    _to("provider_system_id", "arrowhead_system"),
    _to("provider_cloud_id", "arrowhead_cloud", optional=True),
    Column("priority", Integer, nullable=False),
    Column("is_default", String(1), nullable=False),
    Column("name", String(255)),
    Column("instruction", String(255)),
    Column("last_updated", _MOMENT),
    UniqueConstraint("arrowhead_service_id", "consumer_system_id", "priority", "is_default", name="store_identity"),
)
STORE_ATTRIBUTE = _table(
    "orchestration_store_attributes",
    _to("store_entry_id", "orchestration_store", primary=True),
    Column("attribute_key", String(255), primary_key=True),
    Column("attribute_value", String(2047)),
)
BROKER = _table(
    "broker",
    _id(),
    Column("address", String(255), nullable=False),
    Column("port", Integer, nullable=False),
    Column("is_secure", String(1), nullable=False),
)
LOG = _table(
    "logs",
    _id(),
    Column("date", _MOMENT, nullable=False),
    Column("origin", String(255)),
    Column("level", String(10)),
    Column("message", String(2047)),
)
_FIRST = tuple(METADATA.sorted_tables)

EVENT_FILTER = _table(
    "event_filter",
    _id(),
    Column("event_type", String(255), nullable=False),
    _to("consumer_system_id", "arrowhead_system"),
    Column("start_date", _MOMENT),
    Column("end_date", _MOMENT),
    Column("notify_uri", String(255)),
    Column("match_metadata", String(1), nullable=False),
    UniqueConstraint("event_type", "consumer_system_id", name="filter_identity"),
)
EVENT_FILTER_SOURCE = _table(
    "event_filter_sources_list",
    _to("filter_id", "event_filter", primary=True),
    _to("sources_id", "arrowhead_system", primary=True),
)
EVENT_FILTER_METADATA = _table(
    "event_filter_metadata",
    _to("filter_id", "event_filter", primary=True),
    Column("metadata_key", String(255), primary_key=True),
    Column("metadata_value", String(2047), nullable=False),
)


def _create_tables(connection: Connection) -> None:
    METADATA.create_all(connection, tables=_FIRST)


def _index_back_references(connection: Connection) -> None:
    """Deleting a system looks up the rows that hang on it."""
    for table, column in (
        ("service_registry", "provider_system_id"),
        ("intra_cloud_authorization", "provider_system_id"),
        ("orchestration_store", "consumer_system_id"),
    ):
        connection.exec_driver_sql(f"CREATE INDEX {table}_{column} ON {table} ({column})")


def _keep_event_filters(connection: Connection) -> None:
    METADATA.create_all(connection, tables=(EVENT_FILTER, EVENT_FILTER_SOURCE, EVENT_FILTER_METADATA))


MIGRATIONS: tuple[Callable[[Connection], None], ...] = (_create_tables, _index_back_references, _keep_event_filters)


def migrate(connection: Connection) -> int:
    """Bring the database to the newest version; returns how many migrations were carried out.

    The caller keeps other processes out meanwhile.
    """
    SCHEMA_VERSION.create(connection, checkfirst=True)
    done = connection.execute(select(func.max(SCHEMA_VERSION.c.version))).scalar() or 0
    for version, step in enumerate(MIGRATIONS[done:], start=done + 1):
        step(connection)
        connection.execute(insert(SCHEMA_VERSION).values(version=version))
    return len(MIGRATIONS) - min(done, len(MIGRATIONS))
