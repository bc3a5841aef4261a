"""The Arrowhead local clouds of a file: what each is, and what must hold between it, its systems and its neighbours."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from toolkit.contract.arrowhead import PORTS
from toolkit.spec.databases import check_server, is_elsewhere
from toolkit.spec.findings import Findings
from toolkit.spec.names import did_you_mean
from toolkit.spec.services import CORE_ROLES, IMAGES, system_name
from toolkit.spec.testbed import Cloud, Secret, Service, Testbed
from toolkit.spec.yaml import Path

DEFAULT_CLOUD = "local"
HANDLER_CERTIFICATE = "TOOLKIT_EVENT_HANDLER_TLS_CERTIFICATE_FILE"
"""Secret of an Event Handler that brings a certificate of somebody else's cloud."""
_AS_THEY_ARE = ("operator", "address", "port", "secure", "database", "database_password", "version", "filler_entries")
_LISTS = ("neighbours", "systems", "entries", "intracloud", "intercloud", "store")
_OURS_ALONE = {"database", "database_password", "version", "filler_entries", "definitions", *_LISTS}
_NEEDS: Mapping[str, tuple[str, ...]] = {
    "authorization": ("service-registry",),
    "orchestrator": ("service-registry", "authorization"),
    "gatekeeper": ("service-registry", "authorization", "orchestrator"),
    "consumer": ("orchestrator",),
    "provider": ("service-registry",),
    "broker": ("service-registry",),
}
"""Role -> roles that its cloud must have too."""
_LONGEST_COMMON_NAME = 64
_IN_CERTIFICATES = re.compile(r"[A-Za-z0-9_-]+")


def resolve_clouds(file: Mapping[str, Any], secrets: Mapping[str, Secret], findings: Findings) -> dict[str, Cloud]:
    """Every cloud of the file, in its order."""
    entries = {name: entry or {} for name, entry in file.get("clouds", {}).items()}
    return {name: _cloud(name, entry, entries, secrets, findings) for name, entry in entries.items()}


def _cloud(
    name: str,
    entry: Mapping[str, Any],
    entries: Mapping[str, Mapping[str, Any]],
    secrets: Mapping[str, Secret],
    findings: Findings,
) -> Cloud:
    here: Path = ("clouds", name)
    theirs = "address" in entry
    for key in entry:
        if theirs and key in _OURS_ALONE:
            findings.add((*here, key), f"cloud {name!r} is somebody else's, since it has an `address`", at_key=True)
        if key == "port" and not theirs:
            message = "`port` is that of somebody else's cloud; the port of ours is a setting of its gatekeeper"
            findings.add((*here, key), message, at_key=True)
    secret = entry.get("database_password")
    if secret is not None and secret not in secrets:
        hint = did_you_mean(secret, secrets) or "; add it to `secrets`"
        findings.add((*here, "database_password"), f"undefined secret {secret!r}{hint}")
    given: dict[str, Any] = {key: entry[key] for key in _AS_THEY_ARE if key in entry}
    given |= {key: tuple(entry[key]) for key in _LISTS if key in entry}
    given["definitions"] = entry.get("definitions", {})
    if theirs:
        given.setdefault("port", PORTS["gatekeeper"][entry.get("secure", False)])
    else:
        given["neighbours"] = _neighbours(name, entries, findings)
    return Cloud(**(given | {"name": name}))


def _neighbours(name: str, entries: Mapping[str, Mapping[str, Any]], findings: Findings) -> tuple[str, ...]:
    mode = entries[name].get("secure", False)
    if "neighbours" not in entries[name]:
        return tuple(other for other in entries if other != name and entries[other].get("secure", False) == mode)
    good = []
    for index, other in enumerate(entries[name]["neighbours"]):
        place: Path = ("clouds", name, "neighbours", index)
        if other not in entries:
            findings.add(place, f"undefined cloud {other!r}{did_you_mean(other, set(entries) - {name})}")
        elif other == name:
            findings.add(place, f"cloud {name!r} cannot be a neighbour of its own")
        elif entries[other].get("secure", False) != mode:
            one, two = ("secure", "not") if mode else ("not secure", "is")
            findings.add(place, f"cloud {name!r} is {one} and {other!r} {two}: they cannot talk to each other")
        else:
            good.append(other)
    return tuple(good)


def cloud_of(
    name: str, entry: Mapping[str, Any], clouds: Mapping[str, Cloud], findings: Findings, *, in_cloud: bool
) -> str | None:
    """The cloud that a service is a system of."""
    here: Path = ("services", name)
    ours = [cloud.name for cloud in clouds.values() if cloud.address is None]
    if not in_cloud:
        if "cloud" in entry:
            message = (
                "only the systems of Arrowhead local clouds have a `cloud`; they run 'arrowhead' or 'event-handler'"
            )
            findings.add((*here, "cloud"), message, at_key=True)
        return None
    if "cloud" in entry:
        asked: str = entry["cloud"]
        if not clouds and asked == DEFAULT_CLOUD:
            return asked
        if asked not in clouds:
            hint = did_you_mean(asked, ours) or "; add it to `clouds`"
            findings.add((*here, "cloud"), f"undefined cloud {asked!r}{hint}")
        elif asked not in ours:
            findings.add((*here, "cloud"), f"cloud {asked!r} is somebody else's, since it has an `address`")
        else:
            return asked
        return None
    if clouds and len(ours) != 1:
        message = f"service {name!r} is a system of a local cloud; say which with `cloud` ({', '.join(ours) or 'none'})"
        findings.lacking(here, "cloud", message)
        return None
    return ours[0] if ours else DEFAULT_CLOUD


def joined_cloud(
    name: str,
    entry: Mapping[str, Any],
    clouds: Mapping[str, Cloud],
    registered: Collection[str | None],
    findings: Findings,
) -> str | None:
    """The cloud that an Event Handler is a system of: the one it names, or the only one of its mode with a registry.

    `registered`: clouds that have a Service Registry.
    """
    own_certificate = HANDLER_CERTIFICATE in entry.get("secrets", {})
    secure = bool(entry.get("tls", False)) or own_certificate

    def is_secure(cloud: str) -> bool:
        return cloud in clouds and clouds[cloud].secure

    if "cloud" not in entry:
        fitting = [] if own_certificate else [each for each in registered if each and is_secure(each) == secure]
        return fitting[0] if len(fitting) == 1 else None
    cloud = cloud_of(name, entry, clouds, findings, in_cloud=True)
    if cloud is not None and is_secure(cloud) != secure:
        message = (
            f"cloud {cloud!r} is secure; give {name!r} `tls: true`, with mode direct or original"
            if is_secure(cloud)
            else f"cloud {cloud!r} is not secure and {name!r} is: they cannot talk to each other"
        )
        findings.add(("services", name, "cloud"), message)
    return cloud


# -- what must hold ---------------------------------------------------------------------------------------------------


def local_clouds(testbed: Testbed, _: Mapping[str, Any], findings: Findings) -> None:
    """Every cloud of ours has the systems it needs, one of each, with stores that all of them reach."""
    for cloud in testbed.clouds.values():
        if cloud.address is not None:
            continue
        members = [service for service in testbed.services if service.cloud == cloud.name]
        if not members:
            message = (
                f"cloud {cloud.name!r} has no systems; add a service with role service-registry and "
                f"`cloud: {cloud.name}`, or its `address` if it is somebody else's"
            )
            findings.add(("clouds", cloud.name), message, at_key=True)
            continue
        _check_members(cloud, members, findings)
        _check_database(testbed, cloud, members, findings)
        _check_entries(testbed, cloud, findings)
        if cloud.secure:
            _check_certificates(cloud, members, findings)
    _check_handlers(testbed, findings)


def _check_members(cloud: Cloud, members: list[Service], findings: Findings) -> None:
    roles = {service.role: service for service in reversed(members)}
    for service in members:
        if service.role in CORE_ROLES:
            many = len(service.nodes) * service.replicas
            if roles[service.role] is not service or many > 1:
                message = f"cloud {cloud.name!r} has one {service.role}; this would be another"
                findings.add(("services", service.name), message, at_key=True)
        for needed in _NEEDS.get(service.role, ()):
            if needed not in roles:
                message = f"{service.role} {service.name!r} needs a service with role {needed} in cloud {cloud.name!r}"
                findings.add(("services", service.name), message, at_key=True)


def _check_database(testbed: Testbed, cloud: Cloud, members: list[Service], findings: Findings) -> None:
    here: Path = ("clouds", cloud.name, "database")
    nodes = dict.fromkeys(node for s in members if s.role in CORE_ROLES for node in s.nodes)
    written = cloud.database
    if written == "sqlite":
        if len(nodes) > 1:
            message = (
                f"cloud {cloud.name!r} keeps its stores in SQLite, a file on one node, but its core systems are on "
                f"{', '.join(nodes)}; place them on one node or name a `database`"
            )
            place: Path = ("clouds", cloud.name)
            if place not in findings.document.keys:
                place = ("services", next(s.name for s in members if s.role in CORE_ROLES))
            findings.add(place, message, at_key=True)
    else:
        advice = "put it into `secrets` and name it as `database_password`"
        check_server(testbed.services, written, here, findings, others=("sqlite",), password=advice)
    if cloud.database_password is not None and not is_elsewhere(written):
        message = "`database_password` goes with a URL; toolkit makes the password of a database that it runs"
        findings.add(("clouds", cloud.name, "database_password"), message, at_key=True)


def _check_certificates(cloud: Cloud, members: list[Service], findings: Findings) -> None:
    for service in members:
        system = system_name(service)
        name = f"{system}.{cloud.name}.{cloud.operator}.arrowhead.eu"
        place: Path = ("services", service.name, "settings", "system")
        if not _IN_CERTIFICATES.fullmatch(system):
            findings.add(place, f"{system!r} cannot stand in a certificate; use letters, digits, '-' and '_'")
        elif len(name) > _LONGEST_COMMON_NAME:
            message = f"{name} is too long for a certificate: {len(name)} of {_LONGEST_COMMON_NAME} characters"
            findings.add(("services", service.name), f"{message}; shorten the names", at_key=True)


def _check_handlers(testbed: Testbed, findings: Findings) -> None:
    """Clients of Event Handlers have one certificate."""
    knowing = {image.name for image in IMAGES.values() if image.knows_clients}
    handlers = [service for service in testbed.services if service.tls and service.image.name in knowing]
    for service in handlers[1:]:
        if service.cloud != handlers[0].cloud:
            first, other = (f"{each.name!r} is of {each.cloud or 'none'}" for each in (handlers[0], service))
            message = f"clients have one certificate, so Event Handlers with `tls` have one cloud; {first}, {other}"
            findings.add(("services", service.name), message, at_key=True)


def _check_entries(testbed: Testbed, cloud: Cloud, findings: Findings) -> None:
    placed = {s.name for s in testbed.services if s.cloud and s.role in {"consumer", "provider"}}
    for path, reference in _references(cloud):
        if isinstance(reference, str) and reference not in placed:
            hint = did_you_mean(reference, placed) or "; or write it out as {name, address, port}"
            message = f"there is no consumer or provider {reference!r} among the services{hint}"
            findings.add(("clouds", cloud.name, *path), message)
    for index, rule in enumerate(cloud.intercloud or ()):
        _check_other(cloud, rule["cloud"], ("intercloud", index, "cloud"), findings)
    for index, entry in enumerate(cloud.store):
        if "cloud" in entry:
            _check_other(cloud, entry["cloud"], ("store", index, "cloud"), findings)
            if entry.get("default"):
                message = "a default entry of the store cannot have a `cloud`"
                findings.add(("clouds", cloud.name, "store", index, "cloud"), message, at_key=True)


def _check_other(cloud: Cloud, other: str, path: Path, findings: Findings) -> None:
    if other not in cloud.neighbours:
        hint = did_you_mean(other, cloud.neighbours)
        findings.add(("clouds", cloud.name, *path), f"{other!r} is no neighbour of cloud {cloud.name!r}{hint}")


def _references(cloud: Cloud) -> Iterator[tuple[Path, Any]]:
    """Every place of the cloud's entry that names a system."""
    for index, entry in enumerate(cloud.entries):
        yield ("entries", index, "provider"), entry["provider"]
    for index, rule in enumerate(cloud.intracloud or ()):
        yield ("intracloud", index, "consumer"), rule["consumer"]
        for number, provider in enumerate(rule["providers"]):
            yield ("intracloud", index, "providers", number), provider
    for index, entry in enumerate(cloud.store):
        yield ("store", index, "consumer"), entry["consumer"]
        yield ("store", index, "provider"), entry["provider"]


def written_cloud(cloud: Cloud) -> dict[str, Any]:
    """What reads back as the same cloud; the neighbours are always written out."""
    plain = Cloud(name=cloud.name)
    entry: dict[str, Any] = {
        key: getattr(cloud, key) for key in _AS_THEY_ARE if getattr(cloud, key) != getattr(plain, key)
    }
    entry |= {
        key: list(getattr(cloud, key))
        for key in _LISTS
        if getattr(cloud, key) is not None and getattr(cloud, key) != ()
    }
    if cloud.definitions:
        entry["definitions"] = dict(cloud.definitions)
    for key in ("intracloud", "intercloud"):
        if getattr(cloud, key) == ():
            entry[key] = []  # nobody may; without the key everybody may
    if cloud.address is None:
        entry["neighbours"] = list(cloud.neighbours)
    return entry
