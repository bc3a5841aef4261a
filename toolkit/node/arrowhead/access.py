"""Who may call what in secure mode, read from the common name of the client's certificate.

A system is `<systemName>.<cloudName>.<operator>.arrowhead.eu`, a cloud the same without its first part. Names are
compared without regard to case.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

SYSTEM_PARTS = 5
CLOUD_PARTS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """The client of a request, and the cloud of the server it calls."""

    common_name: str
    server_cloud: str

    @property
    def name(self) -> str:
        """The first part."""
        return self.common_name.partition(".")[0].lower()

    @property
    def is_local(self) -> bool:
        """A system of the server's own cloud."""
        cloud = self.common_name.partition(".")[2]
        return is_system_name(self.common_name) and cloud.lower() == self.server_cloud.lower()

    @property
    def is_cloud(self) -> bool:
        """Another cloud, or the own one."""
        return is_cloud_name(self.common_name)

    def is_named(self, system_name: str) -> bool:
        """Local, and of this system name; underscores may be left out of the certificate."""
        return self.is_local and self.name in {system_name.lower(), system_name.replace("_", "").lower()}


Access = Callable[[Caller, Any], bool]
"""Whether a caller may send this body; None where there is no body."""


def is_system_name(common_name: str) -> bool:
    """Five parts, of which the last two are ours."""
    return _has_parts(common_name, SYSTEM_PARTS)


def is_cloud_name(common_name: str) -> bool:
    """Four parts, of which the last two are ours."""
    return _has_parts(common_name, CLOUD_PARTS)


def _has_parts(common_name: str, count: int) -> bool:
    parts = common_name.lower().split(".")
    return len(parts) == count and parts[-2:] == ["arrowhead", "eu"] and all(parts)


def common_name_of(certificate: Mapping[str, Any] | None) -> str:
    """The common name in what `getpeercert` gave; empty when there is none."""
    for group in (certificate or {}).get("subject", ()):
        for key, value in group:
            if key == "commonName":
                return str(value)
    return ""


def nobody(_caller: Caller, _body: object) -> bool:
    """Not even liveness."""
    return False


def anyone_local(caller: Caller, _body: object) -> bool:
    """Every system of the cloud."""
    return caller.is_local


def operator(caller: Caller, _body: object) -> bool:
    """The system operator of the cloud."""
    return caller.is_local and caller.name == "sysop"


def only(*names: str) -> Access:
    """These core systems of the cloud."""
    allowed = {variant for name in names for variant in (name.lower(), name.replace("_", "").lower())}

    def check(caller: Caller, _body: object) -> bool:
        return caller.is_local and caller.name in allowed

    return check


def any_cloud(caller: Caller, _body: object) -> bool:
    """A Gatekeeper that shows the certificate of its cloud."""
    return caller.is_cloud


def either(*rules: Access) -> Access:
    """One of the rules is enough."""

    def check(caller: Caller, body: object) -> bool:
        return any(rule(caller, body) for rule in rules)

    return check
