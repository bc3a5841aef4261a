"""Who may use what: the rules of the Authorization system."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import and_, bindparam, delete, insert, select
from sqlalchemy.engine import Connection, RowMapping
from sqlalchemy.sql.expression import Select

from toolkit.node.arrowhead.messages import (
    ArrowheadCloud,
    ArrowheadService,
    ArrowheadSystem,
    InterCloudAuthorization,
    InterCloudAuthRequest,
    IntraCloudAuthorization,
    IntraCloudAuthRequest,
)
from toolkit.node.arrowhead.schema import CLOUD, INTER_CLOUD, INTRA_CLOUD, SERVICE, SYSTEM
from toolkit.node.arrowhead.stores import identities

_CONSUMER = SYSTEM.alias("consumer")
_PROVIDER = SYSTEM.alias("provider")
_INTRA = (
    select(
        INTRA_CLOUD.c.id,
        SERVICE.c.id.label("service_id"),
        SERVICE.c.service_definition,
        *identities.system_columns(_CONSUMER, "consumer_"),
        *identities.system_columns(_PROVIDER, "provider_"),
    )
    .select_from(
        INTRA_CLOUD.join(SERVICE, SERVICE.c.id == INTRA_CLOUD.c.arrowhead_service_id)
        .join(_CONSUMER, _CONSUMER.c.id == INTRA_CLOUD.c.consumer_system_id)
        .join(_PROVIDER, _PROVIDER.c.id == INTRA_CLOUD.c.provider_system_id)
    )
    .order_by(INTRA_CLOUD.c.id)
)
_INTER = (
    select(
        INTER_CLOUD.c.id.label("rule_id"),
        SERVICE.c.id.label("service_id"),
        SERVICE.c.service_definition,
        *identities.cloud_columns(CLOUD, "cloud_"),
    )
    .select_from(INTER_CLOUD.join(SERVICE).join(CLOUD))
    .order_by(INTER_CLOUD.c.id)
)
# The look-ups of the hot path: all that a decision needs in one statement, built once.
_ALLOWED = (
    select(_CONSUMER.c.id, _PROVIDER.c.system_name, _PROVIDER.c.address, _PROVIDER.c.port)
    .select_from(
        _CONSUMER.outerjoin(
            INTRA_CLOUD.join(SERVICE, SERVICE.c.id == INTRA_CLOUD.c.arrowhead_service_id).join(
                _PROVIDER, _PROVIDER.c.id == INTRA_CLOUD.c.provider_system_id
            ),
            and_(
                INTRA_CLOUD.c.consumer_system_id == _CONSUMER.c.id,
                SERVICE.c.service_definition == bindparam("definition"),
            ),
        )
    )
    .where(
        and_(
            _CONSUMER.c.system_name == bindparam("name"),
            _CONSUMER.c.address == bindparam("address"),
            _CONSUMER.c.port == bindparam("port"),
        )
    )
)
"""No row: the consumer is unknown. One without a provider: it may use none."""
_CLOUD_ALLOWED = (
    select(CLOUD.c.id, INTER_CLOUD.c.id)
    .select_from(
        CLOUD.outerjoin(
            INTER_CLOUD.join(SERVICE, SERVICE.c.id == INTER_CLOUD.c.arrowhead_service_id),
            and_(
                INTER_CLOUD.c.consumer_cloud_id == CLOUD.c.id,
                SERVICE.c.service_definition == bindparam("definition"),
            ),
        )
    )
    .where(and_(CLOUD.c.operator == bindparam("operator"), CLOUD.c.cloud_name == bindparam("cloud_name")))
)
"""The same for a cloud."""
_FIND_INTER = select(INTER_CLOUD.c.id).where(
    and_(
        INTER_CLOUD.c.consumer_cloud_id == bindparam("cloud"),
        INTER_CLOUD.c.arrowhead_service_id == bindparam("service"),
    )
)


def allowed_providers(connection: Connection, request: IntraCloudAuthRequest) -> list[bool] | None:
    """For each provider of the request, whether it may be used; None when the consumer is unknown."""
    consumer, definition = request.consumer, request.service.service_definition
    values = {"name": consumer.system_name, "address": consumer.address, "port": consumer.port}
    rows = connection.execute(_ALLOWED, values | {"definition": definition}).all()
    if not rows:
        return None
    allowed = {tuple(row)[1:] for row in rows}
    return [provider.key in allowed for provider in request.providers]


def is_cloud_allowed(connection: Connection, request: InterCloudAuthRequest) -> bool | None:
    """Whether the cloud may use the service; None when the cloud is unknown."""
    values = {"operator": request.cloud.operator, "cloud_name": request.cloud.cloud_name}
    row = connection.execute(_CLOUD_ALLOWED, values | {"definition": request.service.service_definition}).first()
    return None if row is None else row[1] is not None


def allow_intra(
    connection: Connection,
    consumer: ArrowheadSystem,
    providers: Sequence[ArrowheadSystem],
    services: Sequence[ArrowheadService],
) -> list[IntraCloudAuthorization]:
    """Make the rules that do not exist yet, and what they name; returns the new ones."""
    made = [allow_one(connection, consumer, provider, service) for provider in providers for service in services]
    new = {rule for rule in made if rule is not None}
    return [rule for rule in list_intra(connection) if rule.id in new] if new else []


def allow_one(
    connection: Connection, consumer: ArrowheadSystem, provider: ArrowheadSystem, service: ArrowheadService
) -> int | None:
    """Make one rule and what it names; returns its id, None when it was there."""
    row = {
        "consumer_system_id": identities.keep_system(connection, consumer),
        "provider_system_id": identities.keep_system(connection, provider),
        "arrowhead_service_id": identities.keep_service(connection, service),
    }
    same = and_(*(INTRA_CLOUD.c[name] == value for name, value in row.items()))
    if connection.execute(select(INTRA_CLOUD.c.id).where(same)).scalar() is not None:
        return None
    return identities.new_id(connection, insert(INTRA_CLOUD).values(**row))


def allow_inter(
    connection: Connection, cloud: ArrowheadCloud, services: Sequence[ArrowheadService]
) -> list[InterCloudAuthorization]:
    """Make the rules that do not exist yet, and what they name; returns the new ones."""
    cloud_id = identities.keep_cloud(connection, cloud)
    made = []
    for service in services:
        service_id = identities.keep_service(connection, service)
        if _find_inter(connection, cloud_id, service_id) is None:
            row = {"consumer_cloud_id": cloud_id, "arrowhead_service_id": service_id}
            made.append(identities.new_id(connection, insert(INTER_CLOUD).values(**row)))
    return [rule for rule in list_inter(connection) if rule.id in made] if made else []


def _find_inter(connection: Connection, cloud: int, service: int) -> int | None:
    return connection.execute(_FIND_INTER, {"cloud": cloud, "service": service}).scalar()


def list_intra(connection: Connection, **equal: Any) -> list[IntraCloudAuthorization]:
    """The rules whose columns have these values."""
    query: Select[Any] = _INTRA.where(*(INTRA_CLOUD.c[name] == value for name, value in equal.items()))
    rows = connection.execute(query).mappings().all()
    interfaces = identities.interfaces_of(connection, [row["service_id"] for row in rows])
    return [
        IntraCloudAuthorization(
            id=row["id"],
            consumer=identities.system_from(row, "consumer_"),
            provider=identities.system_from(row, "provider_"),
            service=_service(row, interfaces),
        )
        for row in rows
    ]


def list_inter(connection: Connection, **equal: Any) -> list[InterCloudAuthorization]:
    """The rules whose columns have these values."""
    query: Select[Any] = _INTER.where(*(INTER_CLOUD.c[name] == value for name, value in equal.items()))
    rows = connection.execute(query).mappings().all()
    interfaces = identities.interfaces_of(connection, [row["service_id"] for row in rows])
    return [
        InterCloudAuthorization(
            id=row["rule_id"], cloud=identities.cloud_from(row, "cloud_"), service=_service(row, interfaces)
        )
        for row in rows
    ]


def _service(row: RowMapping, interfaces: dict[int, tuple[str, ...]]) -> ArrowheadService:
    return ArrowheadService(
        id=row["service_id"],
        service_definition=row["service_definition"],
        interfaces=interfaces.get(row["service_id"], ()),
    )


def delete_intra(connection: Connection, **equal: Any) -> int:
    """Delete the rules whose columns have these values; returns how many there were."""
    statement = delete(INTRA_CLOUD).where(*(INTRA_CLOUD.c[name] == value for name, value in equal.items()))
    return connection.execute(statement).rowcount


def delete_inter(connection: Connection, **equal: Any) -> int:
    """Delete the rules whose columns have these values; returns how many there were."""
    statement = delete(INTER_CLOUD).where(*(INTER_CLOUD.c[name] == value for name, value in equal.items()))
    return connection.execute(statement).rowcount
