"""Where local clouds and Event Handlers keep what must last: in a file, on a server of the testbed's or another one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from toolkit.spec.findings import Findings
from toolkit.spec.names import did_you_mean
from toolkit.spec.services import built_in
from toolkit.spec.testbed import Service, Testbed
from toolkit.spec.yaml import Path

_SCHEMES = ("mariadb", "mysql", "postgresql")
_WITHOUT_SERVER = ("none", "sqlite")


def is_elsewhere(written: str) -> bool:
    """Whether a `database` is the URL of a server that is not the testbed's."""
    return "://" in written


def event_database(service: Service) -> str | None:
    """Where an Event Handler keeps its subscriptions, if on a server: a service's name or a URL."""
    known = built_in(service.image.name)
    if known is None or known.name != "event-handler" or service.settings.get("mode") != "original":
        return None
    written = str(service.settings["database"])
    return None if written in _WITHOUT_SERVER else written


def event_databases(testbed: Testbed, _: Mapping[str, Any], findings: Findings) -> None:
    """Every Event Handler's database is there."""
    for service in testbed.services:
        if (written := event_database(service)) is not None:
            here: Path = ("services", service.name, "settings", "database")
            advice = (
                "put it into `secrets` and name it in the service's: {TOOLKIT_EVENT_HANDLER_DATABASE_PASSWORD_FILE: …}"
            )
            check_server(testbed.services, written, here, findings, others=_WITHOUT_SERVER, password=advice)


def check_server(
    services: Iterable[Service], written: str, here: Path, findings: Findings, *, others: Iterable[str], password: str
) -> None:
    """A database that is no file: a URL that can be used, or a service that runs once.

    `others` may be written as well; `password` is the advice to who writes one into the URL.
    """
    if is_elsewhere(written):
        url = urlsplit(written)
        if url.scheme not in _SCHEMES or not url.hostname or not url.path.strip("/"):
            findings.add(
                here, f"{url.scheme}:// is no database; write for example postgresql://user@10.0.0.9/arrowhead"
            )
        if url.password:
            findings.add(here, f"a password in plain text; {password}")
        return
    servers = {service.name: service for service in services if service.role == "database"}
    if written not in servers:
        hint = did_you_mean(written, [*others, *servers])
        findings.add(here, f"there is no service {written!r} with role database{hint}")
    elif len(servers[written].nodes) * servers[written].replicas > 1:
        findings.add(here, f"database {written!r} runs more than once; what is kept there would be in one of them")
