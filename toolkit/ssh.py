"""The one way into hosts: checked host keys, one connection per host and process, every host reported.

Fabric makes the connections, through jump hosts too, and paramiko talks over them; both are imported with the first
connection, since that alone takes 0.4 s.
Ansible and people use OpenSSH; `ssh_config` writes the same access down for it.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import http.client
import io
import logging
import os
import shlex
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from toolkit import paths
from toolkit.errors import ToolkitError, UnreachableError
from toolkit.parallel import on_each
from toolkit.state import Host, SshAccess

if TYPE_CHECKING:
    import fabric
    import paramiko

T = TypeVar("T")

CONNECT_TIMEOUT_S = 10.0
LOGIN_TIMEOUT_S = 30.0
"""For the greeting and the key's check: a Pi 1 or an emulated machine under load needs more than 10 s for them."""
EMULATED_PATIENCE = 5
"""How many times longer a machine whose processor is emulated may be silent."""
MAX_THREADS = 32
SOCKET_PATH_LIMIT = 104
"""Bytes in a unix socket's path (macOS; Linux takes 108)."""
SOCKET_DRAFT_SUFFIX = 18
"""OpenSSH first binds its control socket under the name with 17 more characters, then links it."""
LEASH = """\
exec 3<&0 </dev/null
( (trap '' TERM; read -r _ <&3; kill -0 $$ && kill 0 && sleep 5 && kill -9 0) >/dev/null 2>&1 & )
exec 3<&-
"""
"""For a shell before its command, to end that with the connection: a process that is no child of the shell waits for
the end of the input and, where the shell (or what took its place) is still there, ends the process group. sshd makes
one for every command."""


class RemoteCommandError(ToolkitError):
    """A command ran on a host and failed; `completed` has its output."""

    exit_code = UnreachableError.exit_code

    def __init__(self, message: str, completed: Completed) -> None:
        super().__init__(message)
        self.completed = completed


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """A command that ended on a host."""

    status: int
    stdout: str
    stderr: str


# -- connections ------------------------------------------------------------------------------------------------------


class _Connections:
    """The open connection of each access; threads that want the same one wait for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._locks: dict[SshAccess, threading.Lock] = {}
        self._open: dict[SshAccess, fabric.Connection] = {}

    def transport(self, node: str, access: SshAccess) -> paramiko.Transport:
        with self._lock:
            lock = self._locks.setdefault(access, threading.Lock())
        with lock:
            if access in self._open and not self._open[access].is_connected:
                self.forget(access)
            if access not in self._open:
                self._open[access] = _connect(node, access)
            transport: paramiko.Transport = self._open[access].transport
            return transport

    def forget(self, access: SshAccess) -> None:
        if connection := self._open.pop(access, None):
            _close(connection)

    def forget_all(self) -> None:
        for access in list(self._open):
            self.forget(access)


logging.getLogger("paramiko").addHandler(logging.NullHandler())  # its tracebacks come again as our errors
_connections = _Connections()
atexit.register(_connections.forget_all)


def disconnect(host: Host | None = None) -> None:
    """Close the connection to a host (None: all); the next use opens it again."""
    if host is None:
        _connections.forget_all()
    else:
        _connections.forget(host.ssh)


def transport(host: Host) -> paramiko.Transport:
    """The authenticated connection to a host, opened at the first use; raises UnreachableError."""
    return _connections.transport(host.node, host.ssh)


def _connect(node: str, access: SshAccess) -> fabric.Connection:
    """A connection to the host, by way of its jump host where there is one."""
    if access.jump is None:
        return _open(node, access, None)
    jump = _open(f"{node}'s jump host", jump_access(access), None)
    try:
        return _open(node, access, jump)
    except BaseException:
        _close(jump)
        raise


def _close(connection: fabric.Connection) -> None:
    """Of a connection and that to its jump host."""
    connection.close()
    if connection.gateway:
        connection.gateway.close()


def jump_access(access: SshAccess) -> SshAccess:
    """How to enter the jump host `user@host[:port]`: the same key, the same known hosts."""
    user, _, place = (access.jump or "").rpartition("@")
    address, _, port = place.partition(":")
    return SshAccess(
        address=address,
        port=int(port or 22),
        user=user or access.user,
        identity_file=access.identity_file,
        known_hosts=access.known_hosts,
    )


def _open(node: str, access: SshAccess, jump: fabric.Connection | None) -> fabric.Connection:
    import fabric
    import paramiko

    place = f"{access.address}:{access.port}"
    connection = fabric.Connection(
        access.address,
        user=access.user,
        port=access.port,
        gateway=jump,
        connect_timeout=int(CONNECT_TIMEOUT_S),
        config=fabric.Config(lazy=True, ssh_config=paramiko.SSHConfig()),  # nothing of the operator's own files
        connect_kwargs={
            "key_filename": access.identity_file or [],
            "allow_agent": access.identity_file is None,
            "look_for_keys": False,
            "banner_timeout": LOGIN_TIMEOUT_S,
            "auth_timeout": LOGIN_TIMEOUT_S,
        },
    )
    connection.client.set_missing_host_key_policy(paramiko.RejectPolicy())
    try:
        connection.client.load_host_keys(access.known_hosts)
        connection.open()
    except paramiko.ChannelException as error:  # of the jump host: a host opens none while it is entered
        raise UnreachableError(
            f"node {node}: the jump host {access.jump} does not get through to {place} ({error})"
        ) from error
    except (OSError, EOFError, paramiko.SSHException) as error:
        connection.close()
        raise UnreachableError(f"node {node}: {_why(error, access, place)}") from error
    connection.transport.set_keepalive(15)
    connection.transport.channel_timeout = CONNECT_TIMEOUT_S
    return connection


def _why(error: Exception, access: SshAccess, place: str) -> str:  # noqa: PLR0911 - a table of causes
    """What went wrong with a connection, and what to try."""
    import paramiko

    by_hand = f"try: ssh -p {access.port} {access.user}@{access.address}"
    known = shlex.quote(access.known_hosts)
    entry = access.address if access.port == paramiko.config.SSH_PORT else f"[{access.address}]:{access.port}"
    if isinstance(error, paramiko.BadHostKeyException):
        return (
            f"the host key of {place} has changed: expected {error.expected_key.fingerprint}, "
            f"got {error.key.fingerprint}. Somebody may be listening in. If the machine was installed anew: "
            f"ssh-keygen -f {known} -R {shlex.quote(entry)}, then trust the new key"
        )
    if isinstance(error, paramiko.AuthenticationException):
        offered = f"key {access.identity_file}" if access.identity_file else "the agent's keys"
        return f"{place} takes neither {offered} nor anything else for user {access.user}; {by_hand}"
    if "No authentication methods" in str(error):
        return f"there is no key for {place}: the SSH agent holds none; ssh-add one, or name it as `identity_file`"
    if isinstance(error, FileNotFoundError):
        ours = Path(str(error.filename)).is_relative_to(paths.workspace())
        again = "; try: toolkit deploy, which makes it anew" if ours else ""
        return f"there is no file {error.filename}, which is needed to enter {place}{again}"
    if isinstance(error, ConnectionRefusedError) or "Unable to connect to port" in str(error):
        return f"{place} refuses SSH; is sshd running there, on this port? {by_hand}"
    if isinstance(error, TimeoutError):
        return f"{place} does not answer within {CONNECT_TIMEOUT_S:g} s; is it on, and on this network? {by_hand}"
    if isinstance(error, socket.gaierror):
        return f"the name {access.address} is not known here ({error.strerror}); write the address, or see DNS"
    if "not found in known_hosts" in str(error):
        return (
            f"the host key of {place} is not known yet. Compare and trust it: "
            f"ssh-keyscan -p {access.port} {access.address} >> {known}"
        )
    if isinstance(error, OSError):
        return f"{place} cannot be reached ({error.strerror or error}); {by_hand}"
    return f"{place} ends the SSH connection ({error or type(error).__name__}); {by_hand}"


# -- commands ---------------------------------------------------------------------------------------------------------


def run(
    host: Host,
    command: str | Sequence[str],
    *,
    stdin: str | bytes | None = None,
    timeout_s: float | None = 60.0,
    as_root: bool = False,
    leashed: bool = False,
    check: bool = True,
) -> Completed:
    """Run a command on a host (a list is quoted, a string goes to the login shell) and wait for its end.

    `timeout_s` is the longest silence, longer on an emulated machine. `as_root` goes through `sudo -n` where the
    host's access says `become`. A command that is `leashed` ends with the connection, and takes no `stdin`.
    Raises UnreachableError, and RemoteCommandError for a status other than 0 unless `check` is False.
    """
    if timeout_s is not None and host.facts.get("accelerator") == "tcg":
        timeout_s *= EMULATED_PATIENCE
    with _channel(host, command, as_root=as_root, leashed=leashed, timeout_s=timeout_s) as channel:
        errors: list[bytes] = []
        reader = threading.Thread(target=_drain, args=(channel.recv_stderr, errors), daemon=True)
        reader.start()
        if not leashed:
            _give(channel, stdin)
        try:
            output = b"".join(_chunks(channel.recv))
        except TimeoutError as error:
            raise UnreachableError(
                f"node {host.node}: nothing came from `{_shown(command)}` for {timeout_s:g} s; "
                f"is the machine overloaded, or its network cut?"
            ) from error
        status = channel.recv_exit_status()
        reader.join()
    completed = Completed(
        status=status,
        stdout=output.decode(errors="replace"),
        stderr=b"".join(errors).decode(errors="replace"),
    )
    if status != 0 and as_root and completed.stderr.startswith("sudo:"):
        raise _no_sudo(host, completed.stderr.strip())
    if status != 0 and check:
        raise _failed(host, command, completed)
    return completed


def _no_sudo(host: Host, said: str) -> UnreachableError:
    user = host.ssh.user
    return UnreachableError(
        f"node {host.node}: user {user} may not use sudo without a password ({said}); on the node, as root: "
        f'echo "{user} ALL=(ALL) NOPASSWD: ALL" > /etc/sudoers.d/{user}'
    )


def _failed(host: Host, command: str | Sequence[str], completed: Completed) -> RemoteCommandError:
    said = (completed.stderr.strip() or completed.stdout.strip()).splitlines()[-1:] or ["no output"]
    return RemoteCommandError(
        f"node {host.node}: `{_shown(command)}` ended with status {completed.status}: {said[0]}", completed
    )


def stream(host: Host, command: str | Sequence[str], *, as_root: bool = False) -> Iterator[str]:
    """Lines of a command's output as they come, until it ends or the caller stops, which ends it; with its stderr."""
    with _channel(host, command, as_root=as_root, leashed=True, timeout_s=None) as channel:
        channel.set_combine_stderr(True)
        with channel.makefile("rb") as lines:
            for line in lines:
                yield bytes(line).decode(errors="replace").rstrip("\n")


@contextlib.contextmanager
def _channel(
    host: Host, command: str | Sequence[str], *, as_root: bool, leashed: bool, timeout_s: float | None
) -> Iterator[paramiko.Channel]:
    import paramiko

    line = command if isinstance(command, str) else shlex.join(command)
    leash = LEASH if leashed else ""
    if as_root and host.ssh.become:
        line = f"sudo -n -- sh -c {shlex.quote(leash + line)}"
    elif leashed:
        line = shlex.join(["sh", "-c", leash + 'exec "${SHELL:-sh}" -c "$0"', line])
    try:
        channel = transport(host).open_session(timeout=CONNECT_TIMEOUT_S)
        channel.settimeout(timeout_s)
        channel.exec_command(line)
    except (paramiko.SSHException, EOFError, OSError) as error:
        raise UnreachableError(
            f"node {host.node}: {host.ssh.address}:{host.ssh.port} opens no session ({error}); it allows "
            "sshd's MaxSessions at a time"
        ) from error
    with channel:
        yield channel


def _chunks(receive: Callable[[int], bytes]) -> Iterator[bytes]:
    while chunk := receive(65536):
        yield chunk


def _drain(receive: Callable[[int], bytes], into: list[bytes]) -> None:
    with contextlib.suppress(OSError):  # silence is told by whoever reads the output
        into.extend(_chunks(receive))


def _give(channel: paramiko.Channel, stdin: str | bytes | None) -> None:
    """The command's input, beside the reading of its output; its end at once where there is none."""
    if stdin is None:
        channel.shutdown_write()
        return
    data = stdin.encode() if isinstance(stdin, str) else stdin
    threading.Thread(target=_feed, args=(channel, data), daemon=True).start()


def _feed(channel: paramiko.Channel, data: bytes) -> None:
    with contextlib.suppress(OSError):  # the command may end before it has read everything
        channel.sendall(data)
        channel.shutdown_write()


def _shown(command: str | Sequence[str]) -> str:
    line = command if isinstance(command, str) else shlex.join(command)
    return line if len(line) <= 80 else line[:77] + "..."  # noqa: PLR2004 - a line of a terminal


# -- many hosts -------------------------------------------------------------------------------------------------------


def on_every(
    hosts: Mapping[str, Host] | Iterable[Host], action: Callable[[Host], T], *, threads: int = MAX_THREADS
) -> dict[str, T | ToolkitError]:
    """Do something on every host at the same time: node -> its result, or the error that stopped it there."""
    chosen = list(hosts.values() if isinstance(hosts, Mapping) else hosts)

    def attempt(host: Host) -> T | ToolkitError:
        try:
            return action(host)
        except ToolkitError as error:
            return error

    return dict(zip([host.node for host in chosen], on_each(chosen, attempt, at_once=threads), strict=True))


# -- files and ports --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def sftp(host: Host) -> Iterator[paramiko.SFTPClient]:
    """A file transfer session with a host; raises UnreachableError where the host offers none."""
    import paramiko

    try:
        client = paramiko.SFTPClient.from_transport(transport(host))
    except (paramiko.SSHException, EOFError) as error:
        raise UnreachableError(
            f"node {host.node}: no file transfer ({error}); sshd_config there needs `Subsystem sftp internal-sftp`"
        ) from error
    assert client is not None  # noqa: S101
    with client:
        yield client


class _ForwardedConnection(http.client.HTTPConnection):
    """HTTP to a port on the host's own loopback, through its SSH connection."""

    def __init__(self, host: Host, port: int, timeout_s: float) -> None:
        super().__init__("127.0.0.1", port, timeout=timeout_s)
        self._through = host
        self._timeout_s = timeout_s

    def connect(self) -> None:
        self.sock: Any = _Line(forwarded_channel(self._through, self.port, timeout_s=self._timeout_s))


class _Line:
    """A channel with a socket's manners: it stays open until the last file made of it is closed.

    http.client closes a connection that ends with its answer before that answer is read.
    """

    def __init__(self, channel: paramiko.Channel) -> None:
        self.channel = channel
        self._holders = 1
        self.sendall = channel.sendall
        self.settimeout = channel.settimeout

    def makefile(self, _mode: str) -> io.BufferedReader:
        self._holders += 1
        return io.BufferedReader(_LineReader(self))

    def close(self) -> None:
        self._holders -= 1
        if self._holders == 0:
            self.channel.close()


class _LineReader(io.RawIOBase):
    def __init__(self, line: _Line) -> None:
        self._line = line

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._line.channel.recv(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._line.close()


def forwarded(host: Host, port: int, *, timeout_s: float = 10.0) -> http.client.HTTPConnection:
    """HTTP to 127.0.0.1:port on the host; connecting raises UnreachableError if nothing listens there."""
    return _ForwardedConnection(host, port, timeout_s)


def forwarded_channel(host: Host, port: int, *, timeout_s: float = 10.0) -> paramiko.Channel:
    """A byte stream to 127.0.0.1:port on the host; raises UnreachableError if nothing listens there."""
    import paramiko

    try:
        channel = transport(host).open_channel("direct-tcpip", ("127.0.0.1", port), ("127.0.0.1", 0), timeout=timeout_s)
    except (paramiko.SSHException, EOFError, OSError) as error:
        raise UnreachableError(f"node {host.node}: nothing answers on 127.0.0.1:{port} there ({error})") from error
    channel.settimeout(timeout_s)
    return channel


# -- OpenSSH ----------------------------------------------------------------------------------------------------------


def ssh_config(hosts: Mapping[str, Host] | Iterable[Host], file: Path, *, persist_s: int = 120) -> Path:
    """Write an OpenSSH client configuration that knows each host by its node's name; returns `file`.

    Connections are shared and stay open for `persist_s` after their last use, under sockets in `socket_dir(file)`.
    """
    chosen = list(hosts.values() if isinstance(hosts, Mapping) else hosts)
    sockets = socket_dir(file)
    sockets.mkdir(parents=True, exist_ok=True, mode=0o700)
    jumps = {host.ssh.jump: jump_access(host.ssh) for host in chosen if host.ssh.jump}
    names = {jump: f"toolkit-jump-{number}" for number, jump in enumerate(jumps, 1)}
    blocks = ["# Rendered by toolkit from the hosts of this testbed; written anew by each deploy."]
    blocks += [_block(names[jump], access, sockets, None) for jump, access in jumps.items()]
    blocks += [_block(host.node, host.ssh, sockets, names[host.ssh.jump] if host.ssh.jump else None) for host in chosen]
    blocks.append(
        "Host *\n"
        "  StrictHostKeyChecking yes\n"
        "  UpdateHostKeys no\n"
        "  GlobalKnownHostsFile /dev/null\n"
        "  PasswordAuthentication no\n"
        "  KbdInteractiveAuthentication no\n"
        f"  ConnectTimeout {CONNECT_TIMEOUT_S:.0f}\n"
        "  ServerAliveInterval 5\n"
        "  ServerAliveCountMax 3\n"
        "  ControlMaster auto\n"
        f"  ControlPersist {persist_s}\n"
        "  LogLevel ERROR\n"
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(file.name + ".new")
    draft.write_text("\n".join(blocks))
    draft.replace(file)
    return file


def _block(name: str, access: SshAccess, sockets: Path, jump: str | None) -> str:
    lines = [
        f"Host {name}",
        f"  HostName {access.address}",
        f"  Port {access.port}",
        f"  User {access.user}",
        f"  HostKeyAlias {access.address if access.port == 22 else f'[{access.address}]:{access.port}'}",  # noqa: PLR2004
        f"  UserKnownHostsFile {_path(access.known_hosts)}",
        f"  ControlPath {_path(sockets / _socket_name(access))}",
    ]
    if access.identity_file:
        lines += [f"  IdentityFile {_path(access.identity_file)}", "  IdentitiesOnly yes", "  IdentityAgent none"]
    if jump:
        lines.append(f"  ProxyJump {jump}")
    return "\n".join(lines) + "\n"


def _path(path: str | Path) -> str:
    """Quoted, with OpenSSH's percent tokens kept from happening."""
    return '"' + str(path).replace("%", "%%") + '"'


def _socket_name(access: SshAccess) -> str:
    text = repr((access.user, access.address, access.port, access.jump, access.identity_file, access.known_hosts))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def socket_dir(file: Path) -> Path:
    """Where the connections of a configuration have their sockets: beside it, or in /tmp where that is too long."""
    beside = file.parent.absolute() / "ssh"
    if len(os.fsencode(beside)) + 1 + 12 + SOCKET_DRAFT_SUFFIX < SOCKET_PATH_LIMIT:
        return beside
    short = hashlib.sha256(os.fsencode(beside)).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"toolkit-{os.getuid()}" / short


def close_shared(file: Path, *, last: bool = False) -> None:
    """End the shared OpenSSH connections of a configuration; `last` (before hosts are released): there will be no more.

    Until then the folder of their sockets stays, so that `ssh -F` with the configuration goes on working.
    """
    sockets = socket_dir(file)
    for control in sockets.glob("*") if sockets.is_dir() else ():
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(
                ["ssh", "-F", "none", "-o", f"ControlPath={control}", "-O", "exit", "-q", "toolkit"],
                check=False,
                capture_output=True,
                timeout=5,
            )
    deadline = time.monotonic() + 2
    while sockets.is_dir() and any(sockets.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.02)
    for left in sockets.glob("*") if sockets.is_dir() else ():
        left.unlink(missing_ok=True)
    if last:
        with contextlib.suppress(OSError):
            sockets.rmdir()
