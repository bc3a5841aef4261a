"""Virtual machines on the operator's machine: QEMU, each with a kernel and a clock of its own, one bridge per testbed.

Processes, taps and bridges carry the testbed in names and command lines, so that they are found with no saved state.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import io
import itertools
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from toolkit import paths
from toolkit.errors import ToolkitError, UnreachableError
from toolkit.events import Emit, Event
from toolkit.parallel import on_each
from toolkit.providers import firewall, keys, subnets
from toolkit.providers.base import Acquired, Request, Resource
from toolkit.providers.links import link_settings
from toolkit.providers.ssh import look_at
from toolkit.providers.vm_disks import GoldenDisk, prepared
from toolkit.spec.testbed import Node, ProviderSettings, operator_architecture
from toolkit.state import Host, SshAccess

PROGRAMS = {"x86_64": "qemu-system-x86_64", "aarch64": "qemu-system-aarch64"}
MACHINES = {"x86_64": "q35", "aarch64": "virt"}
CONSOLES = {"x86_64": "ttyS0", "aarch64": "ttyAMA0"}
READY_WITHIN_S = {"kvm": 60.0, "tcg": 300.0}
ENDS_WITHIN_S = 10.0
PROBE_S = 8.0
MARK = "toolkit-vm"
"""Begins the `-name` of every machine: `toolkit-vm,TESTBED,NODE`."""
ALIAS = "org.toolkit.testbed="
"""Begins the alias of every bridge and tap."""
KERNEL_OPTIONS = "quiet net.ifnames=0 systemd.show_status=no apparmor=0"
"""Where AppArmor is on, the engine wants its parser, and starts no container without it."""
EMULATED_LINK = {"TOOLKIT_LINK_BURST": "16000"}
"""With 3028 bytes, an emulated processor's timers let 8 of 10 Mbit/s through on a busy machine, with these 9.7."""
TUN = Path("/dev/net/tun")
LOG_TAIL = 25
_KNOWN_HOSTS_LOCK = threading.Lock()


class VmProvider:
    """QEMU with KVM where it really boots, and TCG elsewhere."""

    def __init__(self, settings: ProviderSettings) -> None:
        self.settings = settings

    # -- the contract -------------------------------------------------------------------------------------------------

    def check(self, testbed: str, subnet: IPv4Network, nodes: Sequence[Node]) -> list[str]:
        """A subnet that somebody else has; what this machine lacks is raised."""
        del nodes
        _check_host()
        if any(link.name == _interface(testbed) for link in _links(testbed)):
            return []
        taken = subnets.advice(subnet, subnets.host_routes())
        return [taken] if taken else []

    def acquire(self, request: Request, emit: Emit) -> Acquired:
        """Boot every machine that does not run yet; those that do are left alone."""
        _check_host()
        if not request.node_image:
            raise UnreachableError(f"provider {self.settings.name}: there is no image `vm`; toolkit images build vm")
        with prepared(request.node_image, emit) as disk:
            return self._acquire(request, disk, emit)

    def _acquire(self, request: Request, disk: GoldenDisk, emit: Emit) -> Acquired:
        accelerator = self._accelerator(disk)
        bridge = _bridge(request)
        operator = keys.identity(request.directory)
        names = {node.name: str(node.address) for node in request.nodes}
        hosts: dict[str, Host] = {}
        failed: dict[str, str] = {}
        created: set[str] = set()
        running = {machine.node: machine for machine in _machines(request.testbed)}

        def one(node: Node) -> None:
            started = time.monotonic()
            try:
                verb = "found"
                _check_address(request, node)
                if node.name not in running:
                    emit(Event(stage="acquire", node=node.name, message=f"booting ({accelerator})", state="started"))
                    verb = self._boot(request, node, disk, bridge, operator, accelerator, names)
                if verb == "booted":
                    created.add(node.name)
                with _KNOWN_HOSTS_LOCK:
                    host_key = keys.identity(request.directory / "vm" / node.name)
                    keys.know_hosts(request.directory, {str(node.address): host_key.public})
                self._await(request, node, accelerator)
                hosts[node.name] = self._host(request, node, accelerator)
            except ToolkitError as error:
                failed[node.name] = str(error)
                emit(Event(stage="acquire", node=node.name, message=str(error), state="failed", level="error"))
                return
            emit(
                Event(
                    stage="acquire",
                    node=node.name,
                    message=f"{verb} virtual machine at {node.address} ({accelerator})",
                    state="done",
                    changed=verb != "found",
                    duration_s=time.monotonic() - started,
                )
            )

        on_each(request.nodes, one, at_once=len(request.nodes))
        return Acquired(hosts=hosts, failed=failed, created=frozenset(created))

    def release(self, testbed: str, nodes: Sequence[str] | None, directory: Path, emit: Emit) -> list[Resource]:
        """End the machines, remove their taps and disks; with the last of them the bridge."""
        removed: list[Resource] = []
        for machine in _machines(testbed):
            if nodes is None or machine.node in nodes:
                started = time.monotonic()
                _end(machine)
                removed.append(Resource(kind="virtual machine", name=machine.name, node=machine.node))
                emit(
                    Event(
                        stage="teardown",
                        node=machine.node,
                        message="ended the virtual machine",
                        state="done",
                        changed=True,
                        duration_s=time.monotonic() - started,
                    )
                )
        for link in _links(testbed):
            if link.node and (nodes is None or link.node in nodes):
                _ip("link", "delete", "dev", link.name)
                removed.append(Resource(kind="tap", name=link.name, node=link.node))
        for folder in (directory / "vm").glob("*") if (directory / "vm").is_dir() else ():
            if nodes is None or folder.name in nodes:
                shutil.rmtree(folder)
                removed.append(Resource(kind="disk", name=str(folder), node=folder.name))
        with contextlib.suppress(OSError):
            (directory / "vm").rmdir()
        if nodes is None or not any(link.node for link in _links(testbed)):
            removed += _remove_bridge(testbed)
        if nodes is None:
            removed += [Resource(kind="key", name=str(file)) for file in keys.remove_identity(directory)]
        return removed

    def resources(self, testbed: str) -> list[Resource]:
        """Machines by their command lines, taps and bridges by their aliases."""
        return [
            *(Resource(kind="virtual machine", name=m.name, node=m.node) for m in _machines(testbed)),
            *(Resource(kind="tap" if k.node else "bridge", name=k.name, node=k.node) for k in _links(testbed)),
            *(Resource(kind="firewall rule", name=bridge) for bridge in firewall.passed_bridges(testbed)),
        ]

    def testbeds(self) -> frozenset[str]:
        """Names on command lines and aliases, in any state."""
        return frozenset({m.testbed for m in _machines(None)} | {link.testbed for link in _links(None)})

    # -- steps --------------------------------------------------------------------------------------------------------

    def _accelerator(self, disk: GoldenDisk) -> str:
        asked = self.settings.accelerator
        if asked != "auto":
            return asked
        return "kvm" if _kvm_boots(disk.kernel) else "tcg"

    def _boot(
        self,
        request: Request,
        node: Node,
        disk: GoldenDisk,
        bridge: str,
        operator: keys.KeyPair,
        accelerator: str,
        names: Mapping[str, str],
    ) -> str:
        """Start the machine: `booted` with a new disk, or `started` with the one it had when it stopped."""
        folder = request.directory / "vm" / node.name
        folder.mkdir(parents=True, exist_ok=True)
        host_key = keys.identity(folder)
        link = link_settings(node.link) | (EMULATED_LINK if accelerator == "tcg" else {})
        (folder / "settings.tar").write_bytes(_settings(request, node, operator, host_key, names, link))
        (folder / "settings.tar").chmod(0o600)
        overlay = folder / "disk.qcow2"
        kept = disk.lies_under(overlay)
        if not kept:
            overlay.unlink(missing_ok=True)
            _program(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(disk.image), str(overlay)])
        disk.add_user(overlay)
        tap = _tap(request, node, bridge)
        machine = platform.machine()
        cores = max(1, min(round(node.cpus or 1), os.cpu_count() or 1))
        memory = (node.memory_bytes or 1 << 30) >> 20
        mac = "52:54:00:" + ":".join(f"{byte:02x}" for byte in IPv4Address(node.address or "").packed[1:])
        _program(
            [
                PROGRAMS[machine],
                "-name", f"{MARK},,{request.testbed},,{node.name}",
                "-machine", MACHINES[machine], "-accel", "kvm" if accelerator == "kvm" else "tcg,thread=multi",
                "-cpu", "host" if accelerator == "kvm" else "max",
                "-smp", str(cores), "-m", f"{memory}M",
                "-kernel", str(disk.kernel), "-initrd", str(disk.ram_disk),
                "-append", f"root=/dev/vda rw console={CONSOLES[machine]} {KERNEL_OPTIONS}",
                "-drive", f"file={overlay},if=virtio,format=qcow2,cache=unsafe",
                "-drive", f"file={folder / 'settings.tar'},if=virtio,format=raw,readonly=on",
                "-netdev", f"tap,id=net0,ifname={tap},script=no,downscript=no",
                "-device", f"virtio-net-pci,netdev=net0,mac={mac}",
                "-device", "virtio-rng-pci",
                "-display", "none", "-monitor", "none", "-serial", f"file:{folder / 'serial.log'}",
                "-pidfile", str(folder / "pid"), "-daemonize", "-no-reboot",
            ],
            as_root=True,
        )  # fmt: skip
        return "started" if kept else "booted"

    def _host(self, request: Request, node: Node, accelerator: str) -> Host:
        host = Host(
            node=node.name,
            provider=self.settings.name,
            type="vm",
            address=str(node.address),
            ssh=SshAccess(
                address=str(node.address),
                user="root",
                identity_file=str(request.directory / keys.IDENTITY),
                known_hosts=str(request.directory / keys.KNOWN_HOSTS),
            ),
            architecture=str(operator_architecture()),
            facts={"accelerator": accelerator},
        )
        # Any kind may be asked for; what boots is of the operator's architecture.
        found = look_at(host, dataclasses.replace(node, architecture=None))
        return dataclasses.replace(
            found,
            facts={**found.facts, "model": "virtual machine", "accelerator": accelerator, "images": []},
        )

    def _await(self, request: Request, node: Node, accelerator: str) -> None:
        """Until sshd answers; a machine that ends or never answers is reported with the end of its console."""
        serial = request.directory / "vm" / node.name / "serial.log"
        deadline = time.monotonic() + READY_WITHIN_S[accelerator]
        while time.monotonic() < deadline:
            if _answers(str(node.address)):
                return
            if node.name not in {machine.node for machine in _machines(request.testbed)}:
                raise UnreachableError(f"node {node.name}: the virtual machine ended while booting:\n{_tail(serial)}")
            time.sleep(0.5)
        raise UnreachableError(
            f"node {node.name}: no SSH within {READY_WITHIN_S[accelerator]:g} s ({accelerator}); its console ends:\n"
            f"{_tail(serial)}"
        )


# -- machines ---------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Machine:
    """A QEMU process of ours."""

    pid: int
    testbed: str
    node: str
    kernel: Path

    @property
    def name(self) -> str:
        return f"{self.testbed}/{self.node} (process {self.pid})"


def _machines(testbed: str | None) -> list[_Machine]:
    """QEMU processes that carry our mark, of one testbed or of all."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            arguments = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"-name" not in arguments or b"qemu-system" not in arguments[0]:
            continue
        options = dict(itertools.pairwise(os.fsdecode(argument) for argument in arguments))
        mark, *rest = options["-name"].split(",,")
        if mark == MARK and len(rest) == 2 and testbed in {None, rest[0]}:  # noqa: PLR2004 - testbed, node
            kernel = Path(options.get("-kernel", ""))
            found.append(_Machine(pid=int(entry.name), testbed=rest[0], node=rest[1], kernel=kernel))
    return sorted(found, key=lambda machine: (machine.testbed, machine.node))


def kernels_in_use() -> frozenset[Path]:
    """What machines of ours, of any workspace, were booted from; its folder has the disk that they lie over."""
    return frozenset(machine.kernel for machine in _machines(None))


def _end(machine: _Machine) -> None:
    for ending, within_s in ((signal.SIGTERM, ENDS_WITHIN_S), (signal.SIGKILL, ENDS_WITHIN_S)):
        _signal(machine.pid, ending)
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            if machine not in _machines(machine.testbed):
                return
            time.sleep(0.05)


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        try:
            os.kill(pid, number)
        except PermissionError:
            _program(["kill", f"-{int(number)}", str(pid)], as_root=True)


def _settings(
    request: Request,
    node: Node,
    operator: keys.KeyPair,
    host_key: keys.KeyPair,
    names: Mapping[str, str],
    link: Mapping[str, str],
) -> bytes:
    """The tar archive that the machine takes its name, address, keys and link from."""
    hosts = "".join(f"{address} {name}\n" for name, address in sorted(names.items()))
    subnet = request.subnet
    network = (
        f"Address={node.address}/{subnet.prefixlen}\nGateway={subnet.network_address + 1}\nLinkLocalAddressing=no\n"
    )
    files = {
        "etc/hostname": (f"{node.name}\n", 0o644),
        "etc/hosts": (f"127.0.0.1 localhost\n{hosts}", 0o644),
        "etc/systemd/network/10-toolkit.network": (f"[Match]\nName=eth0\n\n[Network]\n{network}", 0o644),
        "etc/toolkit/link": ("".join(f"{name}='{value}'\n" for name, value in link.items()), 0o644),
        "etc/ssh/ssh_host_ed25519_key": (host_key.private.decode(), 0o600),
        "etc/ssh/ssh_host_ed25519_key.pub": (f"{host_key.public}\n", 0o644),
        "etc/ssh/authorized_keys.d/operator": (f"{operator.public}\n", 0o644),
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, (content, mode) in files.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode, entry.mtime = len(content.encode()), mode, int(time.time())
            archive.addfile(entry, io.BytesIO(content.encode()))
    return buffer.getvalue()


def _check_address(request: Request, node: Node) -> None:
    if IPv4Address(node.address or "0.0.0.0") not in request.subnet:  # noqa: S104 - stands for none
        raise UnreachableError(
            f"node {node.name}: its address {node.address} is not in the testbed's subnet {request.subnet}, "
            "where virtual machines are; write another one, or none"
        )


def _answers(address: str) -> bool:
    try:
        with socket.create_connection((address, 22), 2) as connection:
            connection.settimeout(5)
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def _tail(serial: Path) -> str:
    lines = serial.read_text(errors="replace").splitlines() if serial.is_file() else ["(nothing)"]
    return "\n".join(f"    {line}" for line in lines[-LOG_TAIL:])


# -- network ----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Link:
    """A bridge (`node` empty) or a tap of ours."""

    name: str
    testbed: str
    node: str


def _interface(*parts: str) -> str:
    """At most 15 characters, the kernel's limit; the same for the same parts."""
    return "tk" + hashlib.sha256("/".join(parts).encode()).hexdigest()[:10]


def _links(testbed: str | None) -> list[_Link]:
    """Bridges and taps with our alias, taps first."""
    answer = subprocess.run(["ip", "-json", "link", "show"], capture_output=True, text=True, check=True).stdout
    found = []
    for link in json.loads(answer):
        alias = link.get("ifalias", "")
        if alias.startswith(ALIAS):
            name, _, node = alias.removeprefix(ALIAS).partition("/")
            if testbed in {None, name}:
                found.append(_Link(name=link["ifname"], testbed=name, node=node))
    return sorted(found, key=lambda link: (not link.node, link.name))


def _bridge(request: Request) -> str:
    """The testbed's bridge, made after its subnet was found to be free."""
    name = _interface(request.testbed)
    if any(link.name == name for link in _links(request.testbed)):
        firewall.pass_within(name, request.testbed)
        return name
    if taken := subnets.advice(request.subnet, subnets.host_routes()):
        raise UnreachableError(f"testbed {request.testbed}: {taken}")
    _ip("link", "add", "name", name, "type", "bridge")
    _ip("link", "set", "dev", name, "alias", f"{ALIAS}{request.testbed}")
    _ip("address", "add", f"{request.subnet.network_address + 1}/{request.subnet.prefixlen}", "dev", name)
    _ip("link", "set", "dev", name, "up")
    firewall.pass_within(name, request.testbed)
    return name


def _remove_bridge(testbed: str) -> Iterator[Resource]:
    for link in _links(testbed):
        _ip("link", "delete", "dev", link.name)
        yield Resource(kind="bridge", name=link.name)
    for bridge in firewall.passed_bridges(testbed):
        firewall.remove_rule(bridge, testbed)
        yield Resource(kind="firewall rule", name=bridge)


def _tap(request: Request, node: Node, bridge: str) -> str:
    name = _interface(request.testbed, node.name)
    if any(link.name == name for link in _links(request.testbed)):
        _ip("link", "delete", "dev", name)
    _ip("tuntap", "add", "dev", name, "mode", "tap", "user", str(os.getuid()))
    _ip("link", "set", "dev", name, "alias", f"{ALIAS}{request.testbed}/{node.name}")
    _ip("link", "set", "dev", name, "master", bridge, "up")
    return name


def _ip(*arguments: str) -> None:
    _program(["ip", *arguments], as_root=True)


# -- programs ---------------------------------------------------------------------------------------------------------


def _check_host() -> None:
    wanted = {PROGRAMS.get(platform.machine(), ""): "qemu-system", "qemu-img": "qemu-utils", "ip": "iproute2"}
    lacking = sorted(package for program, package in wanted.items() if not shutil.which(program))
    if lacking:
        raise UnreachableError(
            f"virtual machines need {', '.join(lacking)}; try: sudo apt-get install {' '.join(lacking)}"
        )
    if not TUN.exists():
        raise UnreachableError(
            f"virtual machines need {TUN} for their links, and it is not there; try: sudo modprobe tun"
        )


def _program(command: list[str], *, as_root: bool = False) -> None:
    if as_root and os.geteuid() != 0:
        command = ["sudo", "-n", *command]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        words = (done.stderr or done.stdout).strip().splitlines()[-3:]
        raise UnreachableError(f"`{' '.join(command)[:120]}` ended with status {done.returncode}: {' / '.join(words)}")


@functools.cache
def _kvm_boots(kernel: Path) -> bool:
    """Whether a kernel says its first words under KVM; /dev/kvm alone does not tell. Asked once per boot of ours."""
    note = paths.cache() / "vm" / "kvm"
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    with contextlib.suppress(OSError, ValueError):
        known, answer = note.read_text().split()
        if known == boot:
            return answer == "yes"
    boots = os.access("/dev/kvm", os.R_OK | os.W_OK) and _first_words(kernel)
    note.write_text(f"{boot} {'yes' if boots else 'no'}\n")
    return boots


def _first_words(kernel: Path) -> bool:
    machine = platform.machine()
    command = [PROGRAMS[machine], "-machine", MACHINES[machine], "-accel", "kvm", "-cpu", "host", "-m", "256M"]
    command += ["-kernel", str(kernel), "-append", f"console={CONSOLES[machine]} panic=-1"]
    command += ["-display", "none", "-monitor", "none", "-serial", "stdio", "-no-reboot"]
    with _started(command) as process:
        assert process.stdout is not None  # noqa: S101
        os.set_blocking(process.stdout.fileno(), False)
        said, deadline = b"", time.monotonic() + PROBE_S
        while time.monotonic() < deadline and process.poll() is None:
            said += process.stdout.read() or b""
            if b"Linux version" in said:
                return True
            time.sleep(0.1)
    return False


@contextlib.contextmanager
def _started(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()
