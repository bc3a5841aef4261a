"""Machines of a Fed4FIRE testbed: a manifest RSpec says where they are, the rest is SSH."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Network
from pathlib import Path

from toolkit.errors import FileInvalidError, Problem
from toolkit.events import Emit
from toolkit.providers.base import Acquired, Request
from toolkit.providers.ssh import Entrance, SshProvider
from toolkit.spec.names import did_you_mean
from toolkit.spec.testbed import Node

NAMESPACE = "{http://www.geni.net/resources/rspec/3}"
"""GENI RSpec version 3, which Fed4FIRE's aggregate managers speak."""
PROXY = "{http://jfed.iminds.be/proxy/1.0}"
"""Extension of it: the SSH proxy of a login, where the node's address is private."""
SSH_PORT = 22


class RspecProvider(SshProvider):
    """imec's Virtual Wall and City of Things, and other sites that answer with a manifest RSpec."""

    def check(self, testbed: str, subnet: IPv4Network, nodes: Sequence[Node]) -> list[str]:
        """A manifest that is none is raised; nodes that it lacks, files that are not there."""
        lacking = self._lacking(nodes, self._logins())
        return [*super().check(testbed, subnet, nodes), *lacking.values()]

    def acquire(self, request: Request, emit: Emit) -> Acquired:
        """Find every node in the manifest by its client_id (the node's name), then enter it."""
        logins = self._logins()
        failed = self._lacking(request.nodes, logins)
        found = Request(
            testbed=request.testbed,
            subnet=request.subnet,
            nodes=[node for node in request.nodes if node.name not in failed],
            images=request.images,
            directory=request.directory,
        )
        got = self.enter(found, {name: login for name, login in logins.items() if login}, emit)
        return Acquired(hosts=got.hosts, failed={**failed, **got.failed})

    @property
    def _manifest(self) -> Path:
        return Path(self.settings.manifest or "")

    def _logins(self) -> dict[str, Entrance | None]:
        return read_manifest(self._manifest, self.settings.user)

    def _lacking(self, nodes: Sequence[Node], logins: Mapping[str, Entrance | None]) -> dict[str, str]:
        """Node -> why it cannot be entered."""
        return {
            node.name: f"{self._manifest}: node {node.name} has no SSH login yet; is it ready? (in jFed: green)"
            if node.name in logins
            else f"{self._manifest} has no node with client_id {node.name!r}{did_you_mean(node.name, logins)}"
            for node in nodes
            if logins.get(node.name) is None
        }


def read_manifest(file: Path, user: str) -> dict[str, Entrance | None]:
    """client_id -> entrance of every node in a manifest RSpec, None where it has no login. Raises FileInvalidError.

    Of several logins that of `user` is taken, else the first; `user` also stands where a login names nobody.
    """

    def invalid(message: str, line: int = 1) -> FileInvalidError:
        return FileInvalidError([Problem(file=str(file), line=line, column=1, message=message)])

    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise invalid(
            f"cannot be read ({error.strerror}); save the manifest there, in jFed: Export, Manifest RSpec"
        ) from None
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise invalid("has a document type or entities, which a manifest RSpec does not need; they are not read")
    try:
        root = ET.fromstring(text)  # noqa: S314
    except ET.ParseError as error:
        raise invalid(f"is not XML ({error})", error.position[0]) from None
    if root.tag != f"{NAMESPACE}rspec" or root.get("type") != "manifest":
        kind = root.get("type") or root.tag
        raise invalid(f"is no manifest RSpec but {kind!r}; a request has to be allocated first (in jFed: Run)")
    logins: dict[str, Entrance | None] = {}
    for node in root.iter(f"{NAMESPACE}node"):
        name = node.get("client_id", "")
        try:
            entrance = _entrance(node, user)
        except ValueError:
            raise invalid(f"node {name}: the port of its SSH login is not a number") from None
        if entrance or name not in logins:  # a manifest of several sites has each node from each of them
            logins[name] = entrance
    if not any(logins.values()):
        raise invalid("names no node with an SSH login; are the nodes ready? (in jFed: green)")
    return logins


def _entrance(node: ET.Element, user: str) -> Entrance | None:
    """The login of one node, with the proxy that its site wants logins to go through."""
    services = node.findall(f"{NAMESPACE}services")
    usable = [
        login
        for service in services
        for login in service.findall(f"{NAMESPACE}login")
        if login.get("authentication") == "ssh-keys" and login.get("hostname")
    ]
    if not usable:
        return None
    login = next((login for login in usable if login.get("username") == user), usable[0])
    hostname, port = login.get("hostname", ""), int(login.get("port") or SSH_PORT)
    name = login.get("username") or user
    proxies = {p.get("for", ""): p.get("proxy") for service in services for p in service.findall(f"{PROXY}proxy")}
    address = node.find(f"{NAMESPACE}interface/{NAMESPACE}ip")
    return Entrance(
        address=hostname,
        port=port,
        user=name,
        network_address=address.get("address", "") if address is not None else "",
        jump=proxies.get(f"{name}@{hostname}:{port}"),
    )
