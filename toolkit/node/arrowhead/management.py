"""The operator's access to services, systems and clouds, the same on every system with a database."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from sqlalchemy.engine import Connection

from toolkit.node.arrowhead.access import operator
from toolkit.node.arrowhead.messages import ArrowheadCloud, ArrowheadService, ArrowheadSystem
from toolkit.node.arrowhead.process import Core
from toolkit.node.arrowhead.refusals import not_found
from toolkit.node.arrowhead.routes import Branch, Call, Reply, Route
from toolkit.node.arrowhead.stores import identities

T = TypeVar("T")


def created(made: Sequence[object]) -> Reply:
    """201 with what is new, 204 when nothing is."""
    return Reply(status=201, value=made) if made else Reply(status=204)


def found(value: T | None, message: str) -> T:
    """The value; raises Refusal 404 when there is none."""
    if value is None:
        raise not_found(message)
    return value


def some(values: list[T], message: str) -> list[T]:
    """The values; raises Refusal 404 when there are none."""
    if not values:
        raise not_found(message)
    return values


class _Kind(Generic[T]):
    """How one kind of row is listed, found, added, changed and deleted."""

    def __init__(
        self,
        noun: str,
        message: type[T],
        *,
        filters: dict[str, str],
        list_rows: Callable[..., list[T]],
        find: Callable[[Connection, T], int | None],
        add: Callable[[Connection, T], int],
        change: Callable[[Connection, int, T], None],
        delete: Callable[[Connection, int], bool],
    ) -> None:
        self.noun = noun
        self.message = message
        self.filters = filters
        """Query parameter -> column."""
        self.list_rows = list_rows
        self.find = find
        self.add = add
        self.change = change
        self.delete = delete

    def routes(self, core: Core, path: str) -> list[Route]:
        """The operations under `path`."""
        storage = core.storage
        missing = f"There is no {self.message.__name__} with the id %d"

        async def list_all(call: Call) -> Reply:
            equal = {column: call.query[name] for name, column in self.filters.items() if name in call.query}
            rows = await storage.read_all(lambda connection: self.list_rows(connection, **equal), operation=self.noun)
            return Reply(value=some(rows, f"There are no such {self.noun} in the database"))

        async def get_one(call: Call) -> Reply:
            identity = call.number("id")
            rows = await storage.read(lambda connection: self.list_rows(connection, id=identity), operation=self.noun)
            return Reply(value=some(rows, missing % identity)[0])

        async def add_some(call: Call) -> Reply:
            def work(connection: Connection) -> list[T]:
                made = [self.add(connection, one) for one in call.body if self.find(connection, one) is None]
                return [self.list_rows(connection, id=identity)[0] for identity in made]

            return created(await storage.write(work, operation=self.noun))

        async def change_same(call: Call) -> Reply:
            def work(connection: Connection) -> T | None:
                identity = self.find(connection, call.body)
                return None if identity is None else self._changed(connection, identity, call.body)

            changed = await storage.write(work, operation=self.noun)
            return Reply(status=204) if changed is None else Reply(status=202, value=changed)

        async def change_one(call: Call) -> Reply:
            identity = call.number("id")
            changed = await storage.write(
                lambda connection: self._changed(connection, identity, call.body), operation=self.noun
            )
            return Reply(status=202, value=found(changed, missing % identity))

        async def delete_one(call: Call) -> Reply:
            identity = call.number("id")
            if not await storage.write(lambda connection: self.delete(connection, identity), operation=self.noun):
                raise not_found(missing % identity)
            return Reply()

        one, many, branch = self.message, list[self.message], Branch(path, operator)  # type: ignore[name-defined]
        return [
            branch.route("GET", "", list_all, f"List {self.noun}", answers=many),
            branch.route("POST", "", add_some, f"Add {self.noun}", accepts=many, answers=many, statuses=(201, 204)),
            branch.route(
                "PUT", "", change_same, f"Change one of the {self.noun}", accepts=one, answers=one, statuses=(202, 204)
            ),
            branch.route("GET", "/{id}", get_one, "Get one", answers=one),
            branch.route("PUT", "/{id}", change_one, "Change one", accepts=one, answers=one, statuses=(202,)),
            branch.route("DELETE", "/{id}", delete_one, "Delete one"),
        ]

    def _changed(self, connection: Connection, identity: int, value: T) -> T | None:
        if not self.list_rows(connection, id=identity):
            return None
        self.change(connection, identity, value)
        return self.list_rows(connection, id=identity)[0]


def _change_service(connection: Connection, identity: int, service: ArrowheadService) -> None:
    identities.rename_service(connection, identity, service.service_definition)
    identities.replace_interfaces(connection, identity, service.interfaces)


def _change_system(connection: Connection, identity: int, system: ArrowheadSystem) -> None:
    identities.update_system(
        connection,
        identity,
        system_name=system.system_name,
        address=system.address,
        port=system.port,
        authentication_info=system.authentication_info,
    )


def _change_cloud(connection: Connection, identity: int, cloud: ArrowheadCloud) -> None:
    identities.update_cloud(connection, identity, **identities.cloud_values(cloud))


_SERVICES = _Kind(
    "services",
    ArrowheadService,
    filters={"definition": "service_definition"},
    list_rows=identities.list_services,
    find=lambda connection, service: identities.find_service(connection, service.service_definition),
    add=identities.add_service,
    change=_change_service,
    delete=identities.delete_service,
)
_SYSTEMS = _Kind(
    "systems",
    ArrowheadSystem,
    filters={"name": "system_name", "address": "address"},
    list_rows=identities.list_systems,
    find=identities.find_system,
    add=identities.add_system,
    change=_change_system,
    delete=identities.delete_system,
)
_CLOUDS = _Kind(
    "clouds",
    ArrowheadCloud,
    filters={"operator": "operator", "cloudName": "cloud_name"},
    list_rows=identities.list_clouds,
    find=lambda connection, cloud: identities.find_cloud(connection, cloud.operator, cloud.cloud_name),
    add=identities.add_cloud,
    change=_change_cloud,
    delete=identities.delete_cloud,
)


def management_routes(core: Core, base: str) -> list[Route]:
    """`/mgmt/services`, `/mgmt/systems`, `/mgmt/clouds`, and the same below the system's own base path."""
    return [
        route
        for prefix in ("", base)
        for kind in (_SERVICES, _SYSTEMS, _CLOUDS)
        for route in kind.routes(core, f"{prefix}/mgmt/{kind.noun}")
    ]
