"""Machines that exist: entered over SSH, looked at, and given back as they were."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import hashlib
import os
import re
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from toolkit import ssh
from toolkit.errors import ToolkitError, UnreachableError
from toolkit.events import Emit, Event
from toolkit.providers.base import Acquired, Request, Resource
from toolkit.providers.keys import KNOWN_HOSTS, know_hosts
from toolkit.spec.testbed import Architecture, Node, ProviderSettings, architecture_of
from toolkit.state import Host, SshAccess

SYSTEMS = ("debian", "raspbian", "ubuntu")
SSH_PORT = 22
MIN_FREE_BYTES = 1 << 30
MIN_PYTHON = (3, 8)

PREFLIGHT = """
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
. /etc/os-release 2>/dev/null
# Version 2 lists what there is in one line; version 1 a row for each, the last number of which says whether it is on.
LIMITS='$1 == "memory" && $4 == 1 {found = 1} !/^#/ && NF && $2 !~ /^[0-9]/ && / ?memory( |$)/ {found = 1}
END {print found ? "memory" : "none"}'
echo "machine=$(uname -m)"
echo "bits=$(getconf LONG_BIT 2>/dev/null)"
echo "kernel=$(uname -r)"
echo "congestion=$(cat /proc/sys/net/ipv4/tcp_congestion_control 2>/dev/null)"
echo "link=$(cat /run/toolkit/link 2>/dev/null)"
echo "os_id=$ID"
echo "os_version=$VERSION_ID"
echo "os=$PRETTY_NAME"
echo "cpus=$(getconf _NPROCESSORS_ONLN)"
echo "memory_kib=$(awk '/^MemTotal/ {print $2}' /proc/meminfo)"
echo "free_kib=$(df -Pk /var/lib | awk 'NR==2 {print $4}')"
echo "model=$(tr -d '\\0' < /proc/device-tree/model 2>/dev/null)"
echo "python=$(command -v python3)"
echo "python_version=$(python3 -c 'import platform; print(platform.python_version())' 2>/dev/null)"
echo "engine=$(command -v dockerd)"
echo "snap=$([ -e /snap/docker/current ] && echo docker)"
echo "booting=$([ -e /run/cloud-init/enabled ] && [ ! -e /run/cloud-init/result.json ] && echo cloud-init)"
echo "engine_running=$([ -S /var/run/docker.sock ] && echo yes)"
echo "inside=$(systemd-detect-virt --container 2>/dev/null)"
echo "limits=$(cat /sys/fs/cgroup/cgroup.controllers /proc/cgroups 2>/dev/null | awk "$LIMITS")"
echo "init=$(cat /proc/1/comm 2>/dev/null)"
if [ "$(id -u)" = 0 ]; then sudo=root; elif said=$(sudo -n sh -c : 2>&1); then sudo=yes; else sudo=no; fi
echo "sudo=$sudo"
echo "sudo_said=$(printf %s "$said" | tr '\\n' ' ')"
"""
"""One shell script, since a bare machine may have no Python yet. Where dockerd is, only root's PATH says."""
ANSWERS = tuple(dict.fromkeys(re.findall(r"echo \"?(\w+)=", PREFLIGHT)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrance:
    """Where and as whom a machine is entered."""

    address: str
    port: int = SSH_PORT
    user: str
    network_address: str = ""
    """On the testbed's network, where that is another one."""
    jump: str | None = None
    """A bastion on the way, `user@host:port`; the provider's own goes before it."""


class SshProvider:
    """Machines of somebody's own: Raspberry Pi OS, Debian, Ubuntu."""

    def __init__(self, settings: ProviderSettings) -> None:
        self.settings = settings
        self._known_hosts = threading.Lock()
        self._jump = threading.Lock()

    def check(self, testbed: str, subnet: IPv4Network, nodes: Sequence[Node]) -> list[str]:
        """Files that are named and not there."""
        del testbed, subnet, nodes
        named = {key: _expanded(getattr(self.settings, key)) for key in ("identity_file", "known_hosts")}
        return [
            f"there is no file {path} (`{key}`)" for key, path in named.items() if path and not Path(path).is_file()
        ]

    def acquire(self, request: Request, emit: Emit) -> Acquired:
        """Enter every machine and look at it; nothing on it is changed."""
        settings = self.settings
        entrances = {
            node.name: Entrance(address=node.address or "", port=settings.port, user=settings.user)
            for node in request.nodes
        }
        return self.enter(request, entrances, emit)

    def enter(self, request: Request, entrances: Mapping[str, Entrance], emit: Emit) -> Acquired:
        """The same for entrances that were found elsewhere: node -> entrance."""
        candidates = {node.name: self._host(request, node, entrances[node.name]) for node in request.nodes}
        by_name = {node.name: node for node in request.nodes}

        def look(host: Host) -> Host:
            started = time.monotonic()
            emit(Event(stage="acquire", node=host.node, message="entering", state="started"))
            self._trust(request.directory, host, emit)
            found = look_at(host, by_name[host.node])
            emit(
                Event(
                    stage="acquire",
                    node=host.node,
                    message=f"{found.facts['model'] or found.architecture}, {found.facts['os']}",
                    state="done",
                    duration_s=time.monotonic() - started,
                )
            )
            return found

        results = ssh.on_every(candidates, look)
        failed = {node: str(error) for node, error in results.items() if isinstance(error, ToolkitError)}
        for node, why in failed.items():
            emit(Event(stage="acquire", node=node, message=why, state="failed", level="error"))
        return Acquired(hosts={node: host for node, host in results.items() if isinstance(host, Host)}, failed=failed)

    def release(self, testbed: str, nodes: Sequence[str] | None, directory: Path, emit: Emit) -> list[Resource]:
        """Nothing: these machines stay. What was done to them, teardown undoes on them."""
        del testbed, nodes, directory, emit
        return []

    def resources(self, testbed: str) -> list[Resource]:
        """Nothing of ours can be seen without entering the machines, which teardown does."""
        del testbed
        return []

    def testbeds(self) -> frozenset[str]:
        """None that could be seen from here."""
        return frozenset()

    def _host(self, request: Request, node: Node, entrance: Entrance) -> Host:
        settings = self.settings
        return Host(
            node=node.name,
            provider=settings.name,
            type="ssh",
            address=node.address or entrance.network_address or entrance.address,
            ssh=SshAccess(
                address=entrance.address,
                port=entrance.port,
                user=entrance.user,
                identity_file=_expanded(settings.identity_file),
                known_hosts=_expanded(settings.known_hosts) or str(request.directory / KNOWN_HOSTS),
                jump=settings.jump or entrance.jump,
                become=settings.become and entrance.user != "root",
            ),
            architecture=str(node.architecture or ""),
        )

    def _trust(self, directory: Path, host: Host, emit: Emit) -> None:
        """Keep the host key seen at the first contact, where the file asks for that; never a second one."""
        known = Path(host.ssh.known_hosts)
        if self.settings.known_hosts or not self.settings.trust_on_first_use:
            if not known.is_file():
                raise UnreachableError(
                    f"node {host.node}: there are no known host keys for {_entry(host.ssh)} ({known}); name a file "
                    "with `known_hosts:` in the provider, or say `trust_on_first_use: true` there"
                )
            return
        if host.ssh.jump:
            with self._jump:  # many machines stand behind one jump host: it is met once
                self._meet(directory, _jump_host(host), emit)
        self._meet(directory, host, emit)

    def _meet(self, directory: Path, host: Host, emit: Emit) -> None:
        known, entry = Path(host.ssh.known_hosts), _entry(host.ssh)
        if known.is_file() and any(line.split(" ", 1)[0] == entry for line in known.read_text().splitlines()):
            return
        key = _host_key(host)
        with self._known_hosts:
            know_hosts(directory, {entry: key})
        emit(
            Event(
                stage="acquire",
                node=host.node,
                message=f"trusting the host key of {entry} from now on: {_fingerprint(key)}",
                level="warning",
            )
        )


def _entry(access: SshAccess) -> str:
    """The name of a machine in known_hosts."""
    return access.address if access.port == SSH_PORT else f"[{access.address}]:{access.port}"


def _jump_host(host: Host) -> Host:
    access = ssh.jump_access(host.ssh)
    return dataclasses.replace(host, node=f"{host.node}'s jump host", address=access.address, ssh=access)


def _expanded(path: str | None) -> str | None:
    return os.path.expanduser(path) if path else None  # noqa: PTH111 - stays a string in the state


def _host_key(host: Host) -> str:
    """The key a machine shows, as `ssh-ed25519 AAAA…`; the jump host has to be known already."""
    import paramiko

    place = f"{host.ssh.address}:{host.ssh.port}"
    transport: paramiko.Transport | None = None
    try:
        if host.ssh.jump:
            line: Any = ssh.transport(_jump_host(host)).open_channel(
                "direct-tcpip", (host.ssh.address, host.ssh.port), ("127.0.0.1", 0), timeout=ssh.CONNECT_TIMEOUT_S
            )
        else:
            line = socket.create_connection((host.ssh.address, host.ssh.port), ssh.CONNECT_TIMEOUT_S)
        transport = paramiko.Transport(line)
        transport.start_client(timeout=ssh.CONNECT_TIMEOUT_S)
        key = transport.get_remote_server_key()
    except (OSError, EOFError, paramiko.SSHException) as error:
        raise UnreachableError(
            f"node {host.node}: {place} does not answer as an SSH server ({error}); is it on, is the address right? "
            f"try: ssh -p {host.ssh.port} {host.ssh.user}@{host.ssh.address}"
        ) from error
    finally:
        if transport is not None:
            with contextlib.suppress(OSError):
                transport.close()
    return f"{key.get_name()} {key.get_base64()}"


def _fingerprint(key: str) -> str:
    digest = hashlib.sha256(base64.b64decode(key.split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def look_at(host: Host, node: Node) -> Host:
    """The host with what it says of itself; raises UnreachableError naming everything that does not fit."""
    return _facts(host, node, ssh.run(host, ["sh", "-c", PREFLIGHT]).stdout)


def _facts(host: Host, node: Node, answer: str) -> Host:
    said = dict(line.split("=", 1) for line in answer.splitlines() if "=" in line)
    if lacking := [word for word in ANSWERS if word not in said]:
        raise UnreachableError(
            f"node {host.node} ({host.ssh.address}): its shell does not say {', '.join(lacking)}; is it Linux? "
            f"try: ssh -p {host.ssh.port} {host.ssh.user}@{host.ssh.address} uname -a"
        )
    architecture = architecture_of(said["machine"])
    if said["bits"] == "32":  # a 32-bit system under a 64-bit kernel, as Raspberry Pi OS has it on a Pi 3
        architecture = {"arm64": "arm/v7", "amd64": "i386"}.get(architecture, architecture)
    problems = [*_of_system(said), *_of_architecture(architecture, node)]
    if said["sudo"] == "no":
        problems.insert(0, _of_sudo(said, host.ssh.user))
    if problems:
        raise UnreachableError(f"node {host.node} ({host.ssh.address}): " + "; ".join(problems))
    facts = {
        "os": said["os"],
        "os_id": said["os_id"],
        "os_version": said["os_version"],
        "kernel": said["kernel"],
        "congestion": said["congestion"],
        "link": said["link"],
        "model": said["model"],
        "cpus": int(said["cpus"]),
        "memory_bytes": int(said["memory_kib"]) * 1024,
        "python": said["python"],
        "python_version": said["python_version"],
        "has_engine": bool(said["engine"] and said["engine_running"] and said["python"]),
        "shared_clock": said["inside"] not in {"", "none"},
        "memory_limits": said["limits"] == "memory",
    }
    return dataclasses.replace(host, architecture=architecture, facts=facts)


def _of_sudo(said: Mapping[str, str], user: str) -> str:
    if said["booting"]:
        return f"{said['booting']} is still setting it up, and user {user} may not use sudo yet; try again in a minute"
    install = "apt-get install sudo; " if "not found" in said["sudo_said"] else ""
    return (
        f"user {user} may not use sudo without a password ({said['sudo_said']}); on the machine, as root: "
        f"{install}echo '{user} ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/010_toolkit"
    )


def _of_architecture(architecture: str, node: Node) -> Iterator[str]:
    if node.architecture is not None and architecture != str(node.architecture):
        yield (
            f"its architecture is {architecture}, the file says {node.architecture}; "
            f"write `architecture: {architecture}` at node {node.name}"
        )
    if architecture not in set(Architecture):
        yield f"its architecture {architecture} is not one that toolkit has images for"


def _of_system(said: Mapping[str, str]) -> Iterator[str]:
    if said["os_id"] not in SYSTEMS and not said["engine"]:
        yield f"{said['os'] or 'its system'} is not Debian, Raspberry Pi OS or Ubuntu, and it has no engine"
    if said["snap"] and not said["engine"]:
        yield "its engine is a snap, which sees nothing of /var/lib/toolkit; on the machine: sudo snap remove docker"
    if said["python_version"] and tuple(map(int, said["python_version"].split(".")[:2])) < MIN_PYTHON:
        yield f"its Python {said['python_version']} is older than 3.8; write its card anew (docs/nodes.md)"
    if int(said["free_kib"] or 0) * 1024 < MIN_FREE_BYTES:
        yield f"only {int(said['free_kib'] or 0) // 1024} MiB are free below /var/lib; 1024 are needed"
