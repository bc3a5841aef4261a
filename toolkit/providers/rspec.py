"""Machines of a Fed4FIRE testbed: a manifest RSpec says where they are, the rest is SSH."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

from toolkit.errors import FileInvalidError, Problem
from toolkit.events import Emit
from toolkit.providers.base import Acquired, Request
from toolkit.providers.ssh import Entrance, SshProvider
from toolkit.spec.names import did_you_mean

NAMESPACE = "{http://www.geni.net/resources/rspec/3}"
"""GENI RSpec version 3, which Fed4FIRE's aggregate managers speak."""
SSH_PORT = 22


class RspecProvider(SshProvider):
    """imec's Virtual Wall and City of Things, and other sites that answer with a manifest RSpec."""

    def acquire(self, request: Request, emit: Emit) -> Acquired:
        """Find every node in the manifest by its client_id (the node's name), then enter it."""
        manifest = Path(self.settings.manifest or "")
        logins = read_manifest(manifest, self.settings.user)
        failed = {
            node.name: f"{manifest} has no node with client_id {node.name!r}{did_you_mean(node.name, logins)}"
            for node in request.nodes
            if node.name not in logins
        }
        found = Request(
            testbed=request.testbed,
            subnet=request.subnet,
            nodes=[node for node in request.nodes if node.name in logins],
            images=request.images,
            directory=request.directory,
        )
        got = self.enter(found, logins, emit)
        return Acquired(hosts=got.hosts, failed={**failed, **got.failed})


def read_manifest(file: Path, user: str) -> dict[str, Entrance]:
    """client_id -> entrance of every node in a manifest RSpec; `user` where it names none. Raises FileInvalidError."""

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
    logins: dict[str, Entrance] = {}
    for node in root.iter(f"{NAMESPACE}node"):
        name = node.get("client_id", "")
        entries = node.findall(f"{NAMESPACE}services/{NAMESPACE}login")
        usable = [e for e in entries if e.get("authentication") == "ssh-keys" and e.get("hostname")]
        if not usable:
            continue
        address = node.find(f"{NAMESPACE}interface/{NAMESPACE}ip")
        login = usable[0]
        logins[name] = Entrance(
            address=login.get("hostname", ""),
            port=int(login.get("port", SSH_PORT)),
            user=login.get("username") or user,
            network_address=address.get("address", "") if address is not None else "",
        )
    if not logins:
        raise invalid("names no node with an SSH login; are the nodes ready? (in jFed: green)")
    return logins
