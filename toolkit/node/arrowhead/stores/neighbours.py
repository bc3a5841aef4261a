"""The own cloud, the clouds around it, and the brokers between them."""

from __future__ import annotations

from sqlalchemy import bindparam, delete, insert, select, update
from sqlalchemy.engine import Connection

from toolkit.node.arrowhead.messages import ArrowheadCloud, Broker
from toolkit.node.arrowhead.schema import BROKER, CLOUD, NEIGHBOR_CLOUD, OWN_CLOUD
from toolkit.node.arrowhead.stores import identities

_OWN = (
    select(*identities.cloud_columns(CLOUD))
    .select_from(OWN_CLOUD.join(CLOUD))
    .where(CLOUD.c.is_secure == bindparam("secure"))
    .order_by(CLOUD.c.id)
    .limit(1)
)
_NEIGHBOURS = select(*identities.cloud_columns(CLOUD)).select_from(NEIGHBOR_CLOUD.join(CLOUD)).order_by(CLOUD.c.id)
_NEIGHBOURS_OF_MODE = _NEIGHBOURS.where(CLOUD.c.is_secure == bindparam("secure"))


def own_cloud(connection: Connection, *, secure: bool) -> ArrowheadCloud | None:
    """The own cloud of this mode."""
    row = connection.execute(_OWN, {"secure": identities.yes_no(secure)}).mappings().first()
    return None if row is None else identities.cloud_from(row)


def set_own_cloud(connection: Connection, cloud: ArrowheadCloud) -> None:
    """Make this the own cloud of its mode, with this address."""
    old = own_cloud(connection, secure=cloud.secure)
    identity = identities.find_cloud(connection, cloud.operator, cloud.cloud_name)
    if identity is None:
        identity = identities.add_cloud(connection, cloud)
    else:
        identities.update_cloud(connection, identity, **identities.cloud_values(cloud))
    if old is not None:
        connection.execute(delete(OWN_CLOUD).where(OWN_CLOUD.c.cloud_id == old.id))
    connection.execute(insert(OWN_CLOUD).values(cloud_id=identity))


def list_neighbours(connection: Connection, *, secure: bool | None = None) -> list[ArrowheadCloud]:
    """The neighbour clouds, or those of one mode."""
    if secure is None:
        rows = connection.execute(_NEIGHBOURS).mappings()
    else:
        rows = connection.execute(_NEIGHBOURS_OF_MODE, {"secure": identities.yes_no(secure)}).mappings()
    return [identities.cloud_from(row) for row in rows]


def neighbour(connection: Connection, operator: str, cloud_name: str) -> ArrowheadCloud | None:
    """One neighbour cloud."""
    identity = identities.find_cloud(connection, operator, cloud_name)
    return next((cloud for cloud in list_neighbours(connection) if cloud.id == identity), None)


def add_neighbour(connection: Connection, cloud: ArrowheadCloud) -> ArrowheadCloud | None:
    """Make a cloud a neighbour; None when it is one."""
    identity = identities.keep_cloud(connection, cloud)
    if connection.execute(select(NEIGHBOR_CLOUD.c.cloud_id).where(NEIGHBOR_CLOUD.c.cloud_id == identity)).first():
        return None
    connection.execute(insert(NEIGHBOR_CLOUD).values(cloud_id=identity))
    return neighbour(connection, cloud.operator, cloud.cloud_name)


def keep_neighbour(connection: Connection, cloud: ArrowheadCloud) -> bool:
    """Make a cloud a neighbour, or give it this address; whether it is new."""
    if add_neighbour(connection, cloud) is not None:
        return True
    identity = identities.find_cloud(connection, cloud.operator, cloud.cloud_name)
    if identity is not None:
        identities.update_cloud(connection, identity, **identities.cloud_values(cloud))
    return False


def delete_neighbour(connection: Connection, operator: str, cloud_name: str) -> bool:
    """Whether there was one; the cloud itself stays known."""
    identity = identities.find_cloud(connection, operator, cloud_name)
    return connection.execute(delete(NEIGHBOR_CLOUD).where(NEIGHBOR_CLOUD.c.cloud_id == identity)).rowcount > 0


def list_brokers(connection: Connection) -> list[Broker]:
    """Every broker."""
    rows = connection.execute(select(BROKER).order_by(BROKER.c.id)).mappings()
    return [
        Broker(id=row["id"], address=row["address"], port=row["port"], secure=row["is_secure"] == "Y") for row in rows
    ]


def add_broker(connection: Connection, broker: Broker) -> Broker | None:
    """Insert a broker; None when there is one at this address and port."""
    if any((known.address, known.port) == (broker.address, broker.port) for known in list_brokers(connection)):
        return None
    identity = identities.new_id(connection, insert(BROKER).values(**_broker_values(broker)))
    return Broker(id=identity, address=broker.address, port=broker.port, secure=broker.secure)


def change_broker(connection: Connection, identity: int, broker: Broker) -> Broker | None:
    """Set a broker's columns; None when there is none with this id."""
    connection.execute(update(BROKER).where(BROKER.c.id == identity).values(**_broker_values(broker)))
    return next((known for known in list_brokers(connection) if known.id == identity), None)


def delete_broker(connection: Connection, identity: int) -> bool:
    """Whether there was one."""
    return connection.execute(delete(BROKER).where(BROKER.c.id == identity)).rowcount > 0


def _broker_values(broker: Broker) -> dict[str, str | int]:
    return {"address": broker.address, "port": broker.port, "is_secure": identities.yes_no(broker.secure)}
