"""Systems, services and clouds: found by what makes them the same, made when they are new."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import and_, bindparam, delete, insert, select, update
from sqlalchemy.engine import Connection, RowMapping
from sqlalchemy.sql.expression import FromClause, Label

from toolkit.node.arrowhead.messages import ArrowheadCloud, ArrowheadService, ArrowheadSystem
from toolkit.node.arrowhead.schema import CLOUD, INTERFACE, SERVICE, SYSTEM


def yes_no(value: bool) -> str:
    """A boolean as the databases of the framework keep it."""
    return "Y" if value else "N"


# ---------------------------------------------------------------- systems


def system_columns(table: FromClause, prefix: str = "") -> list[Label[Any]]:
    """The columns of a system, to be read back by `system_from` with the same prefix."""
    names = ("id", "system_name", "address", "port", "authentication_info")
    return [table.c[name].label(prefix + name) for name in names]


def system_from(row: RowMapping, prefix: str = "") -> ArrowheadSystem:
    """The system in a row."""
    return ArrowheadSystem(
        id=row[prefix + "id"],
        system_name=row[prefix + "system_name"],
        address=row[prefix + "address"],
        port=row[prefix + "port"],
        authentication_info=row[prefix + "authentication_info"],
    )


_SYSTEMS = select(*system_columns(SYSTEM))


def list_systems(connection: Connection, **equal: Any) -> list[ArrowheadSystem]:
    """All systems whose columns have these values."""
    query = _SYSTEMS.where(*(SYSTEM.c[name] == value for name, value in equal.items())).order_by(SYSTEM.c.id)
    return [system_from(row) for row in connection.execute(query).mappings()]


# Statements of the hot path are built once: building one costs as much as carrying it out.
_FIND_SYSTEM = select(SYSTEM.c.id).where(
    and_(
        SYSTEM.c.system_name == bindparam("name"),
        SYSTEM.c.address == bindparam("address"),
        SYSTEM.c.port == bindparam("port"),
    )
)
_FIND_SERVICE = select(SERVICE.c.id).where(SERVICE.c.service_definition == bindparam("definition"))
_INTERFACES_OF_ONE = (
    select(INTERFACE.c.interfaces)
    .where(INTERFACE.c.arrowhead_service_id == bindparam("service"))
    .order_by(INTERFACE.c.position)
)
_FIND_CLOUD = select(CLOUD.c.id).where(
    and_(CLOUD.c.operator == bindparam("operator"), CLOUD.c.cloud_name == bindparam("cloud_name"))
)


def find_system(connection: Connection, system: ArrowheadSystem) -> int | None:
    """The id of the system with this name, address and port."""
    values = {"name": system.system_name, "address": system.address, "port": system.port}
    return connection.execute(_FIND_SYSTEM, values).scalar()


def add_system(connection: Connection, system: ArrowheadSystem) -> int:
    """Insert a system; the caller knows that it is new."""
    return new_id(
        connection,
        insert(SYSTEM).values(
            system_name=system.system_name,
            address=system.address,
            port=system.port,
            authentication_info=system.authentication_info,
        ),
    )


def keep_system(connection: Connection, system: ArrowheadSystem) -> int:
    """The id of the system, inserted when it is new."""
    found = find_system(connection, system)
    return add_system(connection, system) if found is None else found


def update_system(connection: Connection, identity: int, **values: Any) -> None:
    """Set columns of one system."""
    connection.execute(update(SYSTEM).where(SYSTEM.c.id == identity).values(**values))


def delete_system(connection: Connection, identity: int) -> bool:
    """Whether there was one to delete."""
    return connection.execute(delete(SYSTEM).where(SYSTEM.c.id == identity)).rowcount > 0


# ---------------------------------------------------------------- services


def interfaces_of(connection: Connection, services: Iterable[int]) -> dict[int, tuple[str, ...]]:
    """Interfaces by service id, in the order they were given."""
    wanted = sorted(set(services))
    if len(wanted) == 1:
        return {wanted[0]: tuple(connection.execute(_INTERFACES_OF_ONE, {"service": wanted[0]}).scalars())}
    found: dict[int, list[str]] = defaultdict(list)
    # Few at a time: databases limit the number of parameters.
    for start in range(0, len(wanted), 500):
        some = wanted[start : start + 500]
        query = select(INTERFACE.c.arrowhead_service_id, INTERFACE.c.interfaces).order_by(INTERFACE.c.position)
        for service, interface in connection.execute(query.where(INTERFACE.c.arrowhead_service_id.in_(some))):
            found[service].append(interface)
    return {service: tuple(interfaces) for service, interfaces in found.items()}


def list_services(connection: Connection, **equal: Any) -> list[ArrowheadService]:
    """All services whose columns have these values, with ids and interfaces."""
    query = select(SERVICE.c.id, SERVICE.c.service_definition).order_by(SERVICE.c.id)
    query = query.where(*(SERVICE.c[name] == value for name, value in equal.items()))
    rows = connection.execute(query).all()
    interfaces = interfaces_of(connection, [row[0] for row in rows])
    return [
        ArrowheadService(id=identity, service_definition=definition, interfaces=interfaces.get(identity, ()))
        for identity, definition in rows
    ]


def find_service(connection: Connection, definition: str) -> int | None:
    """The id of the service of that definition."""
    return connection.execute(_FIND_SERVICE, {"definition": definition}).scalar()


def add_service(connection: Connection, service: ArrowheadService) -> int:
    """Insert a service; the caller knows that it is new."""
    identity = new_id(connection, insert(SERVICE).values(service_definition=service.service_definition))
    replace_interfaces(connection, identity, service.interfaces)
    return identity


def keep_service(connection: Connection, service: ArrowheadService) -> int:
    """The id of the service, inserted when it is new."""
    found = find_service(connection, service.service_definition)
    return add_service(connection, service) if found is None else found


def replace_interfaces(connection: Connection, identity: int, interfaces: Sequence[str]) -> None:
    """All providers of a definition share one set of interfaces; the last one told counts."""
    connection.execute(delete(INTERFACE).where(INTERFACE.c.arrowhead_service_id == identity))
    if interfaces:
        rows = [
            {"arrowhead_service_id": identity, "position": position, "interfaces": interface}
            for position, interface in enumerate(interfaces)
        ]
        connection.execute(insert(INTERFACE), rows)


def rename_service(connection: Connection, identity: int, definition: str) -> None:
    """Give a service another definition."""
    connection.execute(update(SERVICE).where(SERVICE.c.id == identity).values(service_definition=definition))


def delete_service(connection: Connection, identity: int) -> bool:
    """Whether there was one to delete."""
    return connection.execute(delete(SERVICE).where(SERVICE.c.id == identity)).rowcount > 0


# ---------------------------------------------------------------- clouds


def cloud_columns(table: FromClause, prefix: str = "") -> list[Label[Any]]:
    """The columns of a cloud, to be read back by `cloud_from` with the same prefix."""
    return [column.label(prefix + column.name) for column in table.c]


def cloud_from(row: RowMapping, prefix: str = "") -> ArrowheadCloud:
    """The cloud in a row."""
    return ArrowheadCloud(
        id=row[prefix + "id"],
        operator=row[prefix + "operator"],
        cloud_name=row[prefix + "cloud_name"],
        address=row[prefix + "address"],
        port=row[prefix + "port"],
        gatekeeper_service_uri=row[prefix + "gatekeeper_service_uri"],
        authentication_info=row[prefix + "authentication_info"],
        secure=row[prefix + "is_secure"] == "Y",
    )


def cloud_values(cloud: ArrowheadCloud) -> dict[str, Any]:
    """The columns of a cloud, without its id."""
    return {
        "operator": cloud.operator,
        "cloud_name": cloud.cloud_name,
        "address": cloud.address,
        "port": cloud.port,
        "gatekeeper_service_uri": cloud.gatekeeper_service_uri,
        "authentication_info": cloud.authentication_info,
        "is_secure": yes_no(cloud.secure),
    }


def list_clouds(connection: Connection, **equal: Any) -> list[ArrowheadCloud]:
    """All clouds whose columns have these values."""
    query = select(*cloud_columns(CLOUD)).order_by(CLOUD.c.id)
    query = query.where(*(CLOUD.c[name] == value for name, value in equal.items()))
    return [cloud_from(row) for row in connection.execute(query).mappings()]


def find_cloud(connection: Connection, operator: str, cloud_name: str) -> int | None:
    """The id of the cloud of that operator and name."""
    return connection.execute(_FIND_CLOUD, {"operator": operator, "cloud_name": cloud_name}).scalar()


def add_cloud(connection: Connection, cloud: ArrowheadCloud) -> int:
    """Insert a cloud; the caller knows that it is new."""
    return new_id(connection, insert(CLOUD).values(**cloud_values(cloud)))


def keep_cloud(connection: Connection, cloud: ArrowheadCloud) -> int:
    """The id of the cloud, inserted when it is new."""
    found = find_cloud(connection, cloud.operator, cloud.cloud_name)
    return add_cloud(connection, cloud) if found is None else found


def update_cloud(connection: Connection, identity: int, **values: Any) -> None:
    """Set columns of one cloud."""
    connection.execute(update(CLOUD).where(CLOUD.c.id == identity).values(**values))


def delete_cloud(connection: Connection, identity: int) -> bool:
    """Whether there was one to delete."""
    return connection.execute(delete(CLOUD).where(CLOUD.c.id == identity)).rowcount > 0


def new_id(connection: Connection, statement: Any) -> int:
    """Carry out an insert and tell the id of the row."""
    key: Any = connection.execute(statement).inserted_primary_key
    return int(key[0])
