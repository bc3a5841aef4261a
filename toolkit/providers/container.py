"""Virtual nodes: containers that run systemd, sshd and a Docker engine of their own, on one bridge per testbed."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import platform
import socket
import tarfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit import engine
from toolkit.errors import ToolkitError, UnreachableError
from toolkit.events import Emit, Event
from toolkit.parallel import on_each
from toolkit.providers import engine_store, keys, subnets
from toolkit.providers.base import Acquired, NodeImage, Request, Resource
from toolkit.providers.links import WORDS, imposer, link_settings
from toolkit.spec.testbed import Node, ProviderSettings, architecture_of
from toolkit.state import LABEL, Host, SshAccess

if TYPE_CHECKING:
    from docker.api import APIClient


NODE = "org.toolkit.node"
NODE_HASH = "org.toolkit.node-hash"
HOST_KEY = "org.toolkit.host-key"
IMAGES = "org.toolkit.images"
"""Content hashes of the images that the node's engine was born with."""

CPU_PERIOD_US = 20_000
"""Shorter than the kernel's usual 100 ms: a node that used up its share stands still for at most this long."""
READY_WITHIN_S = 90.0
PARALLEL = 16
LOG_TAIL = 25
SSH_PORT = 22
ENGINE_DIR = "/var/lib/docker"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Machine:
    """Everything about one node's container that is settled before it is made."""

    node: Node
    name: str
    address: IPv4Address
    hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ground:
    """What all machines of one `acquire` stand on."""

    request: Request
    network: str
    operator: keys.KeyPair
    store: engine_store.Store | None
    found: Mapping[str, Mapping[str, Any]]
    """node -> its container, as the engine lists it."""
    cpus: float
    memory_bytes: int
    architecture: str


class ContainerProvider:
    """Machines on the operator's own engine, there in a second; they share its kernel and so its clock."""

    def __init__(self, settings: ProviderSettings) -> None:
        self.settings = settings

    def check(self, testbed: str, subnet: IPv4Network, nodes: Sequence[Node]) -> list[str]:
        """A subnet that somebody else has, links that the kernel cannot make; an engine that is silent is raised."""
        problems = [self._taken(testbed, subnet, self._api.networks()), self._impossible_links(nodes)]
        return [problem for problem in problems if problem]

    def acquire(self, request: Request, emit: Emit) -> Acquired:
        """Make or find every machine, in parallel; raises UnreachableError where engine or subnet cannot be had."""
        api = self._api
        info = api.info()
        found = {c["Labels"][NODE]: c for c in self._containers(request.testbed)}
        operator = keys.identity(request.directory)
        machines = [self._machine(request, node, address, operator) for node, address in _addresses(request, found)]
        self._check_image(request.node_image)
        network = self._network(request, machines)
        new = [m for m in machines if not _kept(found.get(m.node.name), m)]
        images = sorted({image for m in new for image in request.images.get(m.node.name, ())}, key=_content)
        with engine_store.prepared(api, images, request.node_image, emit) as store:
            ground = _Ground(
                request=request,
                network=network,
                operator=operator,
                store=store,
                found=found,
                cpus=float(info["NCPU"]),
                memory_bytes=int(info["MemTotal"]),
                architecture=architecture_of(info["Architecture"]),
            )
            outcomes = on_each(machines, lambda machine: self._acquire(machine, ground, emit), at_once=PARALLEL)
        hosts = {m.node.name: o for m, o in zip(machines, outcomes, strict=True) if isinstance(o, Host)}
        failed = {m.node.name: o for m, o in zip(machines, outcomes, strict=True) if isinstance(o, str)}
        return Acquired(hosts=hosts, failed=failed, created=frozenset(m.node.name for m in new) & hosts.keys())

    def release(self, testbed: str, nodes: Sequence[str] | None, directory: Path, emit: Emit) -> list[Resource]:
        """Kill and remove: nothing in a virtual node is worth a slow goodbye."""
        containers = [c for c in self._containers(testbed) if nodes is None or c["Labels"][NODE] in nodes]

        def remove(container: Mapping[str, Any]) -> str:
            node = container["Labels"][NODE]
            started = time.monotonic()
            self._remove(container["Id"])
            emit(
                Event(
                    stage="teardown",
                    node=node,
                    state="done",
                    changed=True,
                    message="removed the virtual node",
                    duration_s=time.monotonic() - started,
                )
            )
            return _address_of(container)

        volumes = [v for v in self._volumes(testbed) if nodes is None or v["Labels"].get(NODE) in nodes]
        forgotten = frozenset(on_each(containers, remove, at_once=PARALLEL))
        removed = [
            Resource(kind="container", name=c["Names"][0].removeprefix("/"), node=c["Labels"][NODE]) for c in containers
        ]
        on_each(volumes, lambda volume: self._remove_volume(volume["Name"]), at_once=PARALLEL)
        removed += [Resource(kind="volume", name=v["Name"], node=v["Labels"].get(NODE, "")) for v in volumes]
        if (directory / keys.KNOWN_HOSTS).is_file():
            keys.know_hosts(directory, {}, forget=forgotten)
        if nodes is None:
            from docker.errors import APIError

            for network in self._networks(testbed):
                with contextlib.suppress(APIError):  # somebody's container is still on it: the look afterwards tells
                    self._api.remove_network(network["Id"])
                    removed.append(Resource(kind="network", name=network["Name"]))
            removed += [Resource(kind="key", name=str(file)) for file in keys.remove_identity(directory)]
        return removed

    def resources(self, testbed: str) -> list[Resource]:
        """Containers, volumes and networks that carry the testbed's label."""
        return [
            *(
                Resource(kind="container", name=c["Names"][0].removeprefix("/"), node=c["Labels"][NODE])
                for c in self._containers(testbed)
            ),
            *(Resource(kind="volume", name=v["Name"], node=v["Labels"].get(NODE, "")) for v in self._volumes(testbed)),
            *(
                Resource(kind="network", name=n["Name"], held_by=self._strangers(testbed, n))
                for n in self._networks(testbed)
            ),
        ]

    def testbeds(self) -> frozenset[str]:
        """Names on the labels of what there is, in any state."""
        found = [
            *self._api.containers(all=True, filters={"label": [LABEL, NODE]}),
            *(self._api.volumes(filters={"label": [LABEL]})["Volumes"] or []),
            *self._api.networks(filters={"label": [LABEL]}),
        ]
        return frozenset(thing["Labels"][LABEL] for thing in found)

    # -- what is there -------------------------------------------------------------------------------------------------

    @cached_property
    def _api(self) -> APIClient:
        return engine.connect(self.settings.docker_host).api

    def _containers(self, testbed: str) -> list[dict[str, Any]]:
        """The testbed's nodes in any state; containers of services on the operator's machine have no node label."""
        found: list[dict[str, Any]] = self._api.containers(all=True, filters={"label": [f"{LABEL}={testbed}", NODE]})
        return found

    def _volumes(self, testbed: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._api.volumes(filters={"label": [f"{LABEL}={testbed}"]})["Volumes"] or []
        return found

    def _networks(self, testbed: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._api.networks(filters={"label": [f"{LABEL}={testbed}"]})
        return found

    def _strangers(self, testbed: str, network: Mapping[str, Any]) -> str:
        """Containers on our network that are not ours."""
        on_it = self._api.containers(all=True, filters={"network": network["Id"]})
        names = [c["Names"][0].removeprefix("/") for c in on_it if (c["Labels"] or {}).get(LABEL) != testbed]
        return f"used by container {', '.join(sorted(names))}" if names else ""

    def _check_image(self, reference: str) -> None:
        if not (reference and engine.inspect_image(reference, self.settings.docker_host)):
            raise UnreachableError(
                f"provider {self.settings.name}: the engine has no node image {reference!r}; "
                'build it with "toolkit images build node"'
            )

    # -- the network ---------------------------------------------------------------------------------------------------

    def _network(self, request: Request, machines: Sequence[_Machine]) -> str:
        """The testbed's bridge: found, or made on a subnet that nobody else has."""
        name = _network_name(request.testbed)
        networks: list[dict[str, Any]] = self._api.networks()
        ours = next((n for n in networks if n["Name"] == name), None)
        if ours and _subnets(ours) != [request.subnet]:
            self._drop_network(ours, request)
            networks.remove(ours)
            ours = None
        if ours:
            return name
        if taken := self._taken(request.testbed, request.subnet, networks):
            raise UnreachableError(f"testbed {request.testbed}: {taken}")
        self._make_network(name, request, frozenset(m.address for m in machines))
        return name

    def _taken(self, testbed: str, subnet: IPv4Network, networks: Sequence[Mapping[str, Any]]) -> str | None:
        """Who has the subnet, and one to take instead; None where it is free, or the testbed's own."""
        ours = {s for n in networks if n["Name"] == _network_name(testbed) for s in _subnets(n)}
        if subnet in ours:
            return None
        taken = {s: f'Docker network "{n["Name"]}"' for n in networks for s in _subnets(n) if s not in ours}
        if self._is_local:
            routes = {r: f"route on {device}" for r, device in subnets.host_routes().items()}
            taken = {r: owner for r, owner in routes.items() if r not in ours} | taken
        return subnets.advice(subnet, taken)

    def _make_network(self, name: str, request: Request, used: frozenset[IPv4Address]) -> None:
        from docker.errors import APIError
        from docker.types import IPAMConfig, IPAMPool

        gateway = next(a for a in (request.subnet[1], request.subnet[-2], *request.subnet.hosts()) if a not in used)
        try:
            self._api.create_network(
                name,
                driver="bridge",
                ipam=IPAMConfig(pool_configs=[IPAMPool(subnet=str(request.subnet), gateway=str(gateway))]),
                labels={LABEL: request.testbed},
                check_duplicate=True,
            )
        except APIError as error:
            raise UnreachableError(
                f"testbed {request.testbed}: the engine refuses network {name} on {request.subnet} "
                f"({error.explanation}); choose another subnet in the file"
            ) from error

    def _drop_network(self, network: Mapping[str, Any], request: Request) -> None:
        """The file's subnet has changed; with nodes still on the old one that needs a teardown first."""
        on_it = self._api.containers(all=True, filters={"network": network["Id"]})
        if on_it or (network.get("Labels") or {}).get(LABEL) != request.testbed:
            names = ", ".join(c["Names"][0].removeprefix("/") for c in on_it) or "no container, but it is not ours"
            raise UnreachableError(
                f"testbed {request.testbed}: network {network['Name']} exists with another subnet than "
                f'{request.subnet} (on it: {names}); run "toolkit teardown" first'
            )
        self._api.remove_network(network["Id"])

    def _impossible_links(self, nodes: Sequence[Node]) -> str | None:
        """Which nodes want of their links what the kernel is known to lack."""
        impaired = [node.name for node in nodes if node.link.impaired]
        if not impaired or imposer() != "neither" or self._api.info()["KernelVersion"] != platform.release():
            return None
        return (
            f"delay, jitter and loss of the links of {', '.join(impaired)} are {WORDS['neither']} "
            f"({platform.release()}); take them out of `link:`, or use another kernel"
        )

    @property
    def _is_local(self) -> bool:
        """Routes say something only about the machine that this process runs on."""
        return self._api.base_url.startswith(("http+docker", "unix"))

    # -- one node ------------------------------------------------------------------------------------------------------

    def _machine(self, request: Request, node: Node, address: IPv4Address, operator: keys.KeyPair) -> _Machine:
        asked = [
            node.kind, node.architecture, node.cpus, node.memory_bytes, dataclasses.astuple(node.link),
            str(address), str(request.subnet), operator.public,
        ]  # fmt: skip
        return _Machine(
            node=node,
            name=f"toolkit-{request.testbed}-{node.name}",
            address=address,
            hash=hashlib.sha256(json.dumps(asked, default=str).encode()).hexdigest()[:16],
        )

    def _acquire(self, machine: _Machine, ground: _Ground, emit: Emit) -> Host | str:
        """The machine's host, or what went wrong with it."""
        from docker.errors import APIError

        started = time.monotonic()
        node = machine.node.name
        try:
            host, change = self._ready_host(machine, ground)
        except (APIError, ToolkitError) as error:
            why = str(error.explanation if isinstance(error, APIError) else error)
            emit(Event(stage="acquire", node=node, state="failed", level="error", message=why))
            return why
        emit(
            Event(
                stage="acquire",
                node=node,
                state="done",
                changed=bool(change),
                message=f"{change or 'found'} virtual node at {machine.address}{_told(host)}",
                duration_s=time.monotonic() - started,
            )
        )
        return host

    def _ready_host(self, machine: _Machine, ground: _Ground) -> tuple[Host, str]:
        """The host and what had to be done for it: created, replaced, started, or nothing."""
        found = ground.found.get(machine.node.name)
        change = ""
        if found and _kept(found, machine):
            container, labels = found["Id"], found["Labels"]
            if found["State"] != "running":
                change = "started"
                self._start(container, found["State"])
        else:
            change = "replaced" if found else "created"
            if found:
                self._remove(found["Id"])
            container, labels = self._create(machine, ground)
            self._api.start(container)
        keys_file = self._know(ground.request.directory, str(machine.address), labels[HOST_KEY])
        facts = self._await_ready(container, machine)
        request = ground.request
        images = _split(labels.get(IMAGES))
        wanted = {image.content for image in request.images.get(machine.node.name, ())}
        if not wanted <= set(images):
            images = self._images_in(container)
        return Host(
            node=machine.node.name,
            provider=self.settings.name,
            type="container",
            address=str(machine.address),
            ssh=SshAccess(
                address=str(machine.address),
                user="root",
                identity_file=str(request.directory / keys.IDENTITY),
                known_hosts=str(keys_file),
            ),
            architecture=ground.architecture,
            facts={
                "model": "virtual node",
                **facts,
                "cpus": min(machine.node.cpus or ground.cpus, ground.cpus),
                "memory_bytes": min(machine.node.memory_bytes or ground.memory_bytes, ground.memory_bytes),
                "shared_clock": True,
                "has_engine": True,
                "images": sorted(images),
            },
        ), change

    def _create(self, machine: _Machine, ground: _Ground) -> tuple[str, dict[str, str]]:
        """A container that has its keys before its first boot, so that the first contact is already a checked one."""
        api, request = self._api, ground.request
        host_key = keys.make_key()
        ours = {LABEL: request.testbed, NODE: machine.node.name}
        labels = ours | {NODE_HASH: machine.hash, HOST_KEY: host_key.public}
        store = ground.store if request.images.get(machine.node.name) else None
        if store:
            labels |= {IMAGES: ",".join(sorted(store.contents)), engine_store.LABEL: store.key}
        self._remove_volume(machine.name)  # left behind where an earlier acquire was cut off
        endpoint = api.create_endpoint_config(ipv4_address=str(machine.address), aliases=[machine.node.name])
        container: str = api.create_container(
            request.node_image,
            name=machine.name,
            hostname=machine.node.name,
            tty=True,  # systemd and the nodes' ready message write to the console, which is the container's log
            labels=labels,
            environment=link_settings(machine.node.link),
            host_config=self._host_config(machine, ground, store, ours),
            networking_config={"EndpointsConfig": {ground.network: endpoint}},
        )["Id"]
        files = {
            "etc/ssh/ssh_host_ed25519_key": (host_key.private, 0o600),
            "etc/ssh/ssh_host_ed25519_key.pub": (host_key.public.encode() + b"\n", 0o644),
            "etc/ssh/authorized_keys.d/operator": (ground.operator.public.encode() + b"\n", 0o644),
        }
        api.put_archive(container, "/", _archive(files))
        return container, labels

    def _host_config(
        self, machine: _Machine, ground: _Ground, store: engine_store.Store | None, labels: dict[str, str]
    ) -> dict[str, Any]:
        """A machine's powers within the limits of its kind."""
        from docker.types import LogConfig, Mount

        node = machine.node
        mounts = [Mount(ENGINE_DIR, machine.name, type="volume", no_copy=True, labels=labels)]
        if store:
            mounts.append(Mount("/store", store.volume, type="volume", no_copy=True, read_only=True))
        config: dict[str, Any] = self._api.create_host_config(
            **engine.machine_powers(self._api),
            device_cgroup_rules=["a *:* rwm"],
            network_mode=ground.network,
            tmpfs={"/run": "exec,mode=755", "/run/lock": "", "/tmp": "exec,mode=1777"},  # noqa: S108 - inside the node
            mounts=mounts,
            log_config=LogConfig(type="json-file", config={"max-size": "1m", "max-file": "1"}),
            **_limits(node, ground.cpus),
        )
        config |= {"MaskedPaths": [], "ReadonlyPaths": []}  # what the command line calls systempaths=unconfined
        return config

    def _start(self, container: str, state: str) -> None:
        if state == "paused":
            self._api.unpause(container)
        else:
            self._api.start(container)

    def _know(self, directory: Path, address: str, host_key: str) -> Path:
        with _KNOWN_HOSTS_LOCK:
            return keys.know_hosts(directory, {address: host_key})

    def _await_ready(self, container: str, machine: _Machine) -> dict[str, Any]:
        """What the node says of itself once sshd answers, which it does only after its engine; raises with its log."""
        deadline = time.monotonic() + READY_WITHIN_S
        next_look = time.monotonic() + 1.0
        while not _answers(str(machine.address)):
            if time.monotonic() > next_look:
                state = self._api.inspect_container(container)["State"]
                if not state["Running"]:
                    raise UnreachableError(
                        f"node {machine.node.name}: its container {machine.name} ended with code {state['ExitCode']}; "
                        f"its log ends:\n{self._log(container)}"
                    )
                if time.monotonic() > deadline:
                    raise UnreachableError(
                        f"node {machine.node.name} does not answer SSH at {machine.address}:{SSH_PORT} within "
                        f'{READY_WITHIN_S:.0f} s; try "docker exec -it {machine.name} bash"; '
                        f"its log ends:\n{self._log(container)}"
                    )
                next_look = time.monotonic() + 1.0
            time.sleep(0.05)
        return self._self_report(container, machine)

    def _self_report(self, container: str, machine: _Machine) -> dict[str, Any]:
        """The last message of the node's ready service, which comes before sshd but may be on its way to the log."""
        log = ""
        for _ in range(20):
            log = self._log(container, lines=200)
            for line in reversed(log.splitlines()):
                word, _, rest = line.partition(" ")
                if word == "toolkit-ready":
                    facts: dict[str, Any] = json.loads(rest)
                    return facts
                if word == "toolkit-failed":
                    raise UnreachableError(
                        f"node {machine.node.name}: its Docker engine does not start ({rest}); "
                        f'try "docker exec {machine.name} journalctl -u docker"; its log ends:\n'
                        + "\n".join(log.splitlines()[-LOG_TAIL:])
                    )
            time.sleep(0.1)
        raise UnreachableError(f"node {machine.node.name}: nothing of its engine in its log, which ends:\n{log}")

    def _log(self, container: str, lines: int = LOG_TAIL) -> str:
        text: bytes = self._api.logs(container, tail=lines)
        return text.decode(errors="replace").replace("\r", "").strip()

    def _images_in(self, container: str) -> list[str]:
        """Content hashes of what the node's engine holds by now, asked of the engine itself."""
        template = '{{index .Config.Labels "org.toolkit.content"}}'
        images = "docker images --quiet --filter label=org.toolkit.content"
        command = ["sh", "-c", f"{images} | sort -u | xargs --no-run-if-empty docker inspect --format '{template}'"]
        run = self._api.exec_create(container, command, stderr=False)
        output: bytes = self._api.exec_start(run["Id"])
        return output.decode().split()

    def _remove(self, container: str) -> None:
        """The container and its own volume; one that has gone meanwhile is as good."""
        from docker.errors import NotFound

        with contextlib.suppress(NotFound):
            volume = self._api.inspect_container(container)["Name"].removeprefix("/")
            self._api.remove_container(container, v=True, force=True)
            self._remove_volume(volume)

    def _remove_volume(self, name: str) -> None:
        from docker.errors import NotFound

        with contextlib.suppress(NotFound):
            self._api.remove_volume(name)


_KNOWN_HOSTS_LOCK = threading.Lock()


def _addresses(request: Request, found: Mapping[str, Mapping[str, Any]]) -> list[tuple[Node, IPv4Address]]:
    """Every node with its address: the file's, else the one it has, else the highest that is free."""
    held = {name: _address_of(container) for name, container in found.items()}
    given = {name: IPv4Address(address) for name, address in held.items() if address}
    given = {name: address for name, address in given.items() if address in request.subnet}
    given |= {node.name: IPv4Address(node.address) for node in request.nodes if node.address}
    reserved = {request.subnet[1], request.subnet[-2], *given.values()}
    free = (a for a in sorted(request.subnet.hosts(), reverse=True) if a not in reserved)
    return [(node, given.get(node.name) or next(free)) for node in request.nodes]


def _kept(container: Mapping[str, Any] | None, machine: _Machine) -> bool:
    """Is this container the machine that is asked for? One that was never started may lack its keys."""
    return (
        container is not None
        and container["Labels"].get(NODE_HASH) == machine.hash
        and container["State"] in ("running", "exited", "paused")
    )


def _address_of(container: Mapping[str, Any]) -> str:
    networks = container["NetworkSettings"]["Networks"].values()
    return next(((n.get("IPAMConfig") or {}).get("IPv4Address") or n.get("IPAddress") or "" for n in networks), "")


def _network_name(testbed: str) -> str:
    return f"toolkit-{testbed}"


def _subnets(network: Mapping[str, Any]) -> list[IPv4Network]:
    pools = (network.get("IPAM") or {}).get("Config") or []
    return [IPv4Network(p["Subnet"]) for p in pools if ":" not in p.get("Subnet", ":")]


def _limits(node: Node, cores: float) -> dict[str, Any]:
    limits: dict[str, Any] = {}
    if node.cpus is not None and node.cpus < cores:
        limits |= {"cpu_period": CPU_PERIOD_US, "cpu_quota": int(node.cpus * CPU_PERIOD_US)}
    if node.memory_bytes is not None:
        limits |= {"mem_limit": node.memory_bytes, "memswap_limit": node.memory_bytes}
    return limits


def _answers(address: str) -> bool:
    """Whether sshd sends its greeting."""
    try:
        with socket.create_connection((address, SSH_PORT), timeout=2.0) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def _archive(files: Mapping[str, tuple[bytes, int]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, (content, mode) in files.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(content), mode
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _told(host: Host) -> str:
    """By what its link is impaired, where it is."""
    by = host.facts.get("link")
    return f" (link: {by})" if by else ""


def _split(text: str | None) -> list[str]:
    return text.split(",") if text else []


def _content(image: NodeImage) -> str:
    return image.content
