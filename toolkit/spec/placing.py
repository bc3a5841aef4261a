"""The services of a file: what each runs, with which settings, on which nodes."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic_core import ValidationError

from toolkit.spec import quantities
from toolkit.spec.clouds import cloud_of, joined_cloud
from toolkit.spec.findings import Findings
from toolkit.spec.names import did_you_mean
from toolkit.spec.schema import compiled, validator
from toolkit.spec.secrets import LOOKS_SECRET
from toolkit.spec.selectors import Choice, pick
from toolkit.spec.services import (
    AFTER,
    DEFAULT_IMAGE,
    EVERYWHERE,
    IMAGES,
    ROLES,
    BuiltinImage,
    listens_on,
    settings_name,
    system_ports,
)
from toolkit.spec.testbed import Architecture, Cloud, Health, Image, Login, Node, Secret, Service
from toolkit.spec.wording import explain
from toolkit.spec.yaml import Path

_UNKNOWN = Image(name="", platforms=EVERYWHERE)


def resolve_services(
    file: Mapping[str, Any],
    nodes: tuple[Node, ...],
    secrets: Mapping[str, Secret],
    clouds: Mapping[str, Cloud],
    findings: Findings,
) -> tuple[Service, ...]:
    """Every service of the file, in its order."""
    images = _images(file, findings)
    entries = file.get("services", {})
    roles = {name: _role(name, entry, findings) for name, entry in entries.items()}
    placed = {name: _image(name, roles[name], entry, images, findings) for name, entry in entries.items()}
    cloud = {name: _cloud(name, entry, placed[name], clouds, findings) for name, entry in entries.items()}
    registered = {cloud[name] for name, role in roles.items() if role == "service-registry"}
    for name, entry in entries.items():
        if (known := IMAGES.get(placed[name].name)) and known.joins_cloud:
            cloud[name] = joined_cloud(name, entry, clouds, registered, findings)
    choice = Choice(nodes=nodes)
    services = []
    for name, entry in entries.items():
        here: Path = ("services", name)
        image = placed[name]
        known = IMAGES.get(image.name)
        _check_secrets(here, entry, secrets, findings)
        settings = _settings(here, entry.get("settings"), image, roles[name], findings)
        tls, login = _access(here, entry, secrets, known, findings)
        listens = listens_on(image.name, settings, tls=tls)
        if known and known.in_cloud:
            secure = cloud[name] in clouds and clouds[cloud[name] or ""].secure
            listens = system_ports(roles[name], settings, secure=secure)
        services.append(
            Service(
                name=name,
                role=roles[name],
                image=image,
                nodes=_nodes(here, entry, choice, findings),
                replicas=entry.get("replicas", 1),
                settings=settings,
                environment={key: _text(value) for key, value in entry.get("environment", {}).items()},
                command=_command(entry.get("command", [])),
                ports=tuple(entry.get("ports", listens)),
                capabilities=_union(known.capabilities if known else (), entry.get("capabilities", ())),
                cpus=entry.get("cpus"),
                memory_bytes=quantities.size_bytes(entry["memory"]) if "memory" in entry else None,
                after=_after(name, entry, roles, cloud, findings),
                health=_health(entry.get("health"), known),
                secrets=entry.get("secrets", {}),
                tls=tls,
                login=login,
                cloud=cloud[name],
                line=findings.line(here),
            )
        )
    return tuple(services)


def _images(file: Mapping[str, Any], findings: Findings) -> dict[str, Image]:
    """Images of toolkit's own and of the file's."""
    images = {name: Image(name=name, build=name, platforms=image.platforms) for name, image in IMAGES.items()}
    for name, entry in file.get("images", {}).items():
        here: Path = ("images", name)
        if name in IMAGES:
            findings.add(here, f"{name!r} is an image of toolkit's own; give yours another name", at_key=True)
            continue
        if ("reference" in entry) == ("build" in entry):
            findings.add(here, "an image has either a `reference` or a folder to `build`", at_key=True)
        platforms = EVERYWHERE
        if "platforms" in entry:
            platforms = frozenset(Architecture(text.removeprefix("linux/")) for text in entry["platforms"])
        elif "reference" in entry:
            message = f"image {name!r} needs `platforms`, what it has variants for, such as [linux/amd64, linux/arm/v7]"
            findings.lacking(here, "platforms", message)
        build = None
        if "build" in entry:
            folder = findings.document.folder / entry["build"]
            build = str(folder)
            if not (folder / "Dockerfile").is_file():
                findings.add((*here, "build"), f"there is no Dockerfile in {entry['build']}")
        images[name] = Image(name=name, build=build, reference=entry.get("reference"), platforms=platforms)
    return images


def _role(name: str, entry: Mapping[str, Any], findings: Findings) -> str:
    if "role" in entry:
        return str(entry["role"])
    if name in ROLES:
        return name
    if (image := IMAGES.get(entry.get("image", ""))) and image.roles:
        if image.in_cloud:
            message = f"service {name!r} names no `role`; image {image.name!r} is for {', '.join(image.roles)}"
            findings.lacking(("services", name), "role", message)
        return image.roles[0]
    if "image" not in entry:
        hint = did_you_mean(name, ROLES)
        message = f"service {name!r} is no known role and names neither `role` nor `image`{hint}"
        findings.add(("services", name), message, at_key=True)
    return name


def _image(name: str, role: str, entry: Mapping[str, Any], images: Mapping[str, Image], findings: Findings) -> Image:
    if "image" in entry:
        image = images.get(entry["image"])
        if image is None:
            hint = did_you_mean(entry["image"], images)
            findings.add(("services", name, "image"), f"undefined image {entry['image']!r}{hint}")
            return _UNKNOWN
        known = IMAGES.get(image.name)
        if known and role in ROLES and known.roles and role not in known.roles:
            message = f"image {image.name!r} cannot play role {role!r}; it is for {', '.join(known.roles)}"
            findings.add(("services", name, "image"), message)
        return image
    if role in DEFAULT_IMAGE:
        return images[DEFAULT_IMAGE[role]]
    if role in ROLES or "role" in entry:
        place: Path = ("services", name, "role") if "role" in entry else ("services", name)
        hint = "" if role in ROLES else did_you_mean(role, ROLES)
        findings.add(
            place, f"role {role!r} has no image of its own; name one with `image`{hint}", at_key="role" not in entry
        )
    return _UNKNOWN


def _nodes(here: Path, entry: Mapping[str, Any], choice: Choice, findings: Findings) -> tuple[str, ...]:
    if "on" not in entry:
        return ()
    written = entry["on"]
    selectors = [written] if isinstance(written, str) else written
    place = (*here, "on")
    for selector in selectors:
        if any(word in selector for word in ("role:", "service:", "@")):
            findings.add(
                place,
                f"`on` places services and so cannot use {selector!r}; pick by name, kind, group, label or provider",
            )
            return ()
    try:
        picked = pick(selectors, choice)
    except ValueError as error:
        findings.add(place, f"selector {', '.join(selectors)!r} matches nothing: {error}")
        return ()
    if not picked:
        findings.add(place, f"selector {', '.join(selectors)!r} matches nothing: what it picks it takes away again")
    return picked


def _cloud(
    name: str, entry: Mapping[str, Any], image: Image, clouds: Mapping[str, Cloud], findings: Findings
) -> str | None:
    known = IMAGES.get(image.name)
    if image is _UNKNOWN:
        return None  # reported already
    if known and known.joins_cloud:
        return None  # settled when it is known who registers where
    return cloud_of(name, entry, clouds, findings, in_cloud=bool(known and known.in_cloud))


def _settings(
    here: Path, written: Mapping[str, Any] | None, image: Image, role: str, findings: Findings
) -> dict[str, Any]:
    """All settings of the image, defaults included."""
    place = (*here, "settings")
    name = settings_name(image.name, role)
    if name not in compiled():
        if written and image is not _UNKNOWN:
            own = image.name in IMAGES
            advice = "takes no settings" if own else "is not toolkit's own; use `environment` or `command`"
            findings.add(place, f"image {image.name!r} {advice}", at_key=True)
        return {}
    given = dict(written or {})
    try:
        checked: dict[str, Any] = validator(name).validate_python(given)
    except ValidationError as error:
        findings.extend(explain(error, compiled()[name], given, findings.document, place))
        checked = validator(name).validate_python({})
    return checked


def _check_secrets(here: Path, entry: Mapping[str, Any], secrets: Mapping[str, Secret], findings: Findings) -> None:
    for variable, secret in entry.get("secrets", {}).items():
        if secret not in secrets:
            hint = did_you_mean(secret, secrets) or "; add it to `secrets`"
            findings.add((*here, "secrets", variable), f"undefined secret {secret!r}{hint}")
        if variable in entry.get("environment", {}):
            findings.add(
                (*here, "environment", variable),
                f"{variable} is in `environment` and in `secrets`; keep one",
                at_key=True,
            )
    for section in ("environment", "settings"):
        for key, value in entry.get(section, {}).items():
            if isinstance(value, str) and value and LOOKS_SECRET.search(key):
                advice = "put it into the file's `secrets` and name it in the service's `secrets`"
                findings.add((*here, section, key), f"{key} looks like a secret in plain text; {advice}")


def _access(
    here: Path,
    entry: Mapping[str, Any],
    secrets: Mapping[str, Secret],
    known: BuiltinImage | None,
    findings: Findings,
) -> tuple[bool, Login | None]:
    """How a broker is entered."""
    tls, written = bool(entry.get("tls", False)), entry.get("login")
    for key in ("tls", "login"):
        if entry.get(key) and not (known and key in known.guards):
            able = ", ".join(sorted(image.name for image in IMAGES.values() if key in image.guards))
            who = f"image {known.name!r}" if known else "an image that is not toolkit's own"
            findings.add((*here, key), f"{who} has no `{key}`; these have: {able}", at_key=True)
    if written is None:
        return tls, None
    if written["password"] not in secrets:
        hint = did_you_mean(written["password"], secrets) or "; add it to `secrets`"
        findings.add((*here, "login", "password"), f"undefined secret {written['password']!r}{hint}")
    return tls, Login(user=written["user"], secret=written["password"])


def _after(
    name: str,
    entry: Mapping[str, Any],
    roles: Mapping[str, str],
    clouds: Mapping[str, str | None],
    findings: Findings,
) -> tuple[str, ...]:
    if "after" not in entry:
        first = AFTER.get(roles[name], ())
        return tuple(
            other
            for other, role in roles.items()
            if role in first and other != name and clouds[other] in (None, clouds[name])
        )
    for index, other in enumerate(entry["after"]):
        if other not in roles:
            findings.add(
                (*("services", name), "after", index), f"undefined service {other!r}{did_you_mean(other, roles)}"
            )
    return tuple(other for other in entry["after"] if other in roles)


def _health(entry: Mapping[str, Any] | None, known: BuiltinImage | None) -> Health | None:
    built_in = known.health if known else ()
    if entry is None:
        return Health(command=built_in) if built_in else None
    written = entry.get("command")
    command = ("sh", "-c", written) if isinstance(written, str) else tuple(written or built_in)
    given = {f"{key}_s": quantities.duration_s(entry[key]) for key in ("interval", "within") if key in entry}
    return Health(command=command, **given)


def _command(written: str | list[str]) -> tuple[str, ...]:
    return tuple(shlex.split(written) if isinstance(written, str) else written)


def _union(first: Iterable[str], second: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*first, *second)))


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
