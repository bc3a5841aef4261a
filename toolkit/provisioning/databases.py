"""The databases of a testbed: which server has which, its address, and where its password comes from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toolkit.contract.arrowhead import ENVIRONMENT
from toolkit.provisioning.templates import render_template
from toolkit.spec.databases import event_database, is_elsewhere
from toolkit.spec.quantities import in_base_units
from toolkit.spec.services import CORE_ROLES
from toolkit.spec.testbed import Cloud, Service, Testbed
from toolkit.state import Host

DATA_DIR = "/var/lib/toolkit/data"
"""Where the containers of one node share their cloud's SQLite file, and an Event Handler keeps its own."""
USER = "arrowhead"
SERVER_PASSWORD = "MARIADB_PASSWORD_FILE"  # noqa: S105 - a variable's name
"""The database server's variable; a secret of the file's by this name goes before the one that toolkit makes."""
_CLOUD_PASSWORD = f"{ENVIRONMENT}DATABASE_PASSWORD_FILE"
_EVENTS_PASSWORD = "TOOLKIT_EVENT_HANDLER_DATABASE_PASSWORD_FILE"  # noqa: S105 - a variable's name
_EVENTS_URL = "TOOLKIT_EVENT_HANDLER_DATABASE_URL"


def of_cloud(cloud: str) -> str:
    """Name of the database of a cloud's stores on a server of the testbed's."""
    return f"arrowhead_{cloud.replace('-', '_')}"


def of_events(service: str) -> str:
    """Name of the database of an Event Handler on a server of the testbed's."""
    return f"events_{service.replace('-', '_')}"


def databases_on(testbed: Testbed, server: Service) -> tuple[str, ...]:
    """Names of the databases that a server of the testbed's is to have."""
    return (
        *(of_cloud(cloud.name) for cloud in testbed.clouds.values() if cloud.database == server.name),
        *(of_events(service.name) for service in testbed.services if event_database(service) == server.name),
    )


def cloud_url(testbed: Testbed, hosts: Mapping[str, Host], cloud: Cloud) -> str:
    """Where a cloud's stores are, without a password."""
    if not cloud.has_server:
        return f"sqlite:///{DATA_DIR}/{cloud.name}.sqlite"
    return _url(testbed, hosts, cloud.database, of_cloud(cloud.name))


def events_environment(testbed: Testbed, hosts: Mapping[str, Host], service: Service) -> dict[str, str]:
    """What an Event Handler is told of a database on a server."""
    written = event_database(service)
    return {} if written is None else {_EVENTS_URL: _url(testbed, hosts, written, of_events(service.name))}


def _url(testbed: Testbed, hosts: Mapping[str, Host], written: str, name: str) -> str:
    if is_elsewhere(written):
        return written
    server = _server(testbed, written)
    host = hosts[server.nodes[0]].address if server.nodes[0] in hosts else "0.0.0.0"  # noqa: S104 - not there yet
    return f"mariadb://{USER}@{host}:{server.settings['port']}/{name}"


def _server(testbed: Testbed, name: str) -> Service:
    return next(service for service in testbed.services if service.name == name)


def mariadb_config(settings: Mapping[str, Any]) -> str:
    """server.cnf: every address, host names not looked up, with these settings."""
    words = {name: in_base_units(value) for name, value in settings.items()}
    return render_template("mariadb/server.cnf.j2", settings=words)


# -- passwords --------------------------------------------------------------------------------------------------------


def password_variable(testbed: Testbed, service: Service) -> str | None:
    """The variable in which a service finds the file with a database password that toolkit hands it; None: none."""
    if service.image.name == "mariadb":
        return None if SERVER_PASSWORD in service.secrets else SERVER_PASSWORD
    written = event_database(service)
    if written is not None:
        return None if is_elsewhere(written) or _EVENTS_PASSWORD in service.secrets else _EVENTS_PASSWORD
    if service.cloud is None or service.role not in CORE_ROLES:
        return None
    cloud = testbed.clouds[service.cloud]
    has_one = cloud.has_server and (not is_elsewhere(cloud.database) or cloud.database_password)
    return _CLOUD_PASSWORD if has_one else None


def password_source(testbed: Testbed, service: Service) -> tuple[str, str | None] | None:
    """(server of the testbed's, or "", name of the file's secret) behind a service's password; None: it has none."""
    if service.image.name == "mariadb":
        return service.name, service.secrets.get(SERVER_PASSWORD)
    if password_variable(testbed, service) is None:
        return None
    written = event_database(service)
    if written is None:
        cloud = testbed.clouds[service.cloud or ""]
        written = cloud.database
        if is_elsewhere(written):
            return "", cloud.database_password
    return written, _server(testbed, written).secrets.get(SERVER_PASSWORD)
