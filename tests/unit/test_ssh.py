"""SSH against a server in this process: what comes back, and what each way of failing says."""

from __future__ import annotations

import contextlib
import http.server
import os
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import paramiko
import pytest

from tests.waiting import until
from toolkit import ssh
from toolkit.errors import ToolkitError, UnreachableError
from toolkit.state import Host, SshAccess


class Server(paramiko.ServerInterface):
    """Takes one key and runs commands here, through /bin/sh."""

    def __init__(self, key: paramiko.PKey) -> None:
        self._key = key
        self._sockets: dict[int, socket.socket] = {}

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        right = username == "me" and key.asbytes() == self._key.asbytes()
        return paramiko.AUTH_SUCCESSFUL if right else paramiko.AUTH_FAILED

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        threading.Thread(target=self._execute, args=(channel, command.decode()), daemon=True).start()
        return True

    def check_channel_direct_tcpip_request(
        self, chanid: int, origin: tuple[str, int], destination: tuple[str, int]
    ) -> int:
        try:
            self._sockets[chanid] = socket.create_connection(destination, timeout=5)
        except OSError:
            return paramiko.OPEN_FAILED_CONNECT_FAILED
        return paramiko.OPEN_SUCCEEDED

    def relay(self, channel: paramiko.Channel) -> None:
        line = self._sockets.get(channel.get_id())
        with contextlib.suppress(OSError, EOFError):  # paramiko's word for a connection that has ended
            while line is not None and self._pass_on(line, channel):
                pass

    def _pass_on(self, line: socket.socket, channel: paramiko.Channel) -> bool:
        ready, _, _ = select.select([line, channel], [], [], 10)
        for source, sink in ((line, channel), (channel, line)):
            if source in ready:
                data = source.recv(65536)
                if not data:
                    line.close()
                    channel.close()
                    return False
                sink.sendall(data)
        return True

    def _execute(self, channel: paramiko.Channel, command: str) -> None:
        process = subprocess.Popen(
            ["/bin/sh", "-c", command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # as sshd does
        )

        def feed() -> None:
            assert process.stdin
            with contextlib.suppress(OSError):
                while data := channel.recv(65536):
                    process.stdin.write(data)
                process.stdin.close()

        threading.Thread(target=feed, daemon=True).start()
        assert process.stdout
        assert process.stderr
        out, err = process.stdout.read(), process.stderr.read()
        with contextlib.suppress(OSError, paramiko.SSHException):
            channel.sendall(out)
            channel.sendall_stderr(err)
            channel.send_exit_status(process.wait() & 0xFF)  # negative where a signal ended it
        process.stdout.close()
        process.stderr.close()
        channel.close()


@dataclass
class Place:
    """A server and the host that is entered there."""

    host: Host
    directory: Path
    logins: list[str]

    def with_access(self, node: str = "n1", **values: object) -> Host:
        return replace(self.host, node=node, ssh=replace(self.host.ssh, **values))


def _key(file: Path) -> paramiko.PKey:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", file], check=True)
    return paramiko.Ed25519Key.from_private_key_file(str(file))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    user_key, host_key = _key(tmp_path / "id"), _key(tmp_path / "host")
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    logins: list[str] = []
    transports: list[paramiko.Transport] = []

    def serve(line: socket.socket) -> None:
        transport = paramiko.Transport(line)
        transports.append(transport)
        transport.add_server_key(host_key)
        server = Server(user_key)
        try:
            transport.start_server(server=server)
        except (paramiko.SSHException, EOFError, OSError):
            return
        while transport.is_active():
            channel = transport.accept(0.2)
            if channel is not None:
                logins.append("channel")
                threading.Thread(target=server.relay, args=(channel,), daemon=True).start()

    def listen() -> None:
        while True:
            try:
                line, _ = listener.accept()
            except OSError:
                return
            logins.append("login")
            threading.Thread(target=serve, args=(line,), daemon=True).start()

    threading.Thread(target=listen, daemon=True).start()
    known = tmp_path / "known_hosts"
    known.write_text(f"[127.0.0.1]:{port} {host_key.get_name()} {host_key.get_base64()}\n")
    access = SshAccess(
        address="127.0.0.1", port=port, user="me", identity_file=str(tmp_path / "id"), known_hosts=str(known)
    )
    host = Host(node="n1", provider="p", type="ssh", address="127.0.0.1", ssh=access, architecture="amd64")
    yield Place(host=host, directory=tmp_path, logins=logins)
    ssh.disconnect()
    listener.close()
    for transport in transports:
        transport.close()


def test_commands_share_one_login(place: Place) -> None:
    assert ssh.run(place.host, ["printf", "%s|", "a b", "$HOME"]).stdout == "a b|$HOME|"
    done = ssh.run(place.host, "cat; echo oops >&2; exit 3", stdin="x" * 300_000, check=False)
    assert (done.status, len(done.stdout), done.stderr) == (3, 300_000, "oops\n")
    with pytest.raises(ssh.RemoteCommandError, match="node n1: `false` ended with status 1: no output"):
        ssh.run(place.host, ["false"])
    assert place.logins.count("login") == 1
    ssh.disconnect(place.host)
    assert ssh.run(place.host, "echo again").stdout == "again\n"
    assert place.logins.count("login") == 2


def test_silence_ends(place: Place) -> None:
    with pytest.raises(UnreachableError, match=r"nothing came from `sleep 5` for 0\.2 s"):
        ssh.run(place.host, "sleep 5", timeout_s=0.2)


def test_a_leashed_command_ends_with_the_connection(place: Place) -> None:
    noted = place.directory / "noted"
    line = f"sleep 60 & echo $$ $! > {noted}; wait"
    asked = {"leashed": True, "check": False}
    threading.Thread(target=ssh.run, args=(place.host, line), kwargs=asked, daemon=True).start()
    shell, child = until(lambda: noted.read_text().split())
    assert is_running(shell)
    assert is_running(child)
    ssh.disconnect(place.host)
    until(lambda: not is_running(shell) and not is_running(child))


def test_a_leash_changes_nothing_else(place: Place) -> None:
    done = ssh.run(place.host, "cat; echo 'a  b'; echo oops >&2; : & wait; exit 3", leashed=True, check=False)
    assert (done.status, done.stdout, done.stderr) == (3, "a  b\n", "oops\n")
    left = ssh.run(place.host, ["sh", "-c", "sleep 60 >/dev/null 2>&1 & echo $!"], leashed=True).stdout.strip()
    ssh.disconnect(place.host)
    time.sleep(0.3)
    assert is_running(left), "what a command leaves behind on purpose goes on"
    os.kill(int(left), signal.SIGKILL)


def is_running(process: str) -> bool:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path("/proc", process, "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def test_every_host_is_reported(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    closed = socket.create_server(("127.0.0.1", 0))
    port = closed.getsockname()[1]
    closed.close()
    stranger = _key(place.directory / "stranger")
    changed = place.directory / "changed"
    changed.write_text(f"[127.0.0.1]:{place.host.ssh.port} {stranger.get_name()} {stranger.get_base64()}\n")
    empty = place.directory / "empty"
    empty.touch()
    hosts = [
        place.host,
        place.with_access("refused", port=port),
        place.with_access("stranger", identity_file=str(place.directory / "stranger")),
        place.with_access("nokey", identity_file=str(place.directory / "nothing")),
        place.with_access("changed", known_hosts=str(changed)),
        place.with_access("unknown", known_hosts=str(empty)),
        place.with_access("nobody", address="nobody.invalid"),
        place.with_access("jump", jump=f"me@127.0.0.1:{place.host.ssh.port}"),
        place.with_access("nojump", jump=f"me@127.0.0.1:{port}"),
        place.with_access("deadend", port=port, jump=f"me@127.0.0.1:{place.host.ssh.port}"),
        place.with_access("agent", identity_file=None),
    ]
    results = ssh.on_every(hosts, lambda host: ssh.run(host, "echo here").stdout)
    assert list(results) == [host.node for host in hosts]
    assert {node for node, result in results.items() if result == "here\n"} == {"n1", "jump"}
    for node, words in {
        "refused": "refuses SSH",
        "stranger": "takes neither key",
        "nokey": "there is no file",
        "changed": "has changed: expected SHA256:",
        "unknown": "is not known yet. Compare and trust it: ssh-keyscan -p",
        "nobody": "nobody.invalid is not known here",
        "nojump": "refuses SSH",
        "deadend": f"the jump host me@127.0.0.1:{place.host.ssh.port} does not get through to 127.0.0.1:{port}",
        "agent": "the SSH agent holds none; ssh-add one",
    }.items():
        assert isinstance(results[node], UnreachableError)
        assert words in str(results[node])
        assert f"node {node}" in str(results[node])


def test_sudo_that_asks_for_a_password(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    sudo = place.directory / "sudo"
    sudo.write_text("#!/bin/sh\necho 'sudo: a password is required' >&2; exit 1\n")
    sudo.chmod(0o755)
    monkeypatch.setenv("PATH", f"{place.directory}:{os.environ['PATH']}")
    with pytest.raises(UnreachableError, match="user me may not use sudo without a password"):
        ssh.run(place.with_access(become=True), "id", as_root=True)


def test_http_to_a_port_of_the_host(place: Place) -> None:
    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            time.sleep(0.2)  # http.client has let go of the connection by now
            self.wfile.write(self.path.encode())

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        connection = ssh.forwarded(place.host, server.server_port)
        connection.request("GET", "/clock")
        assert connection.getresponse().read() == b"/clock"
        connection.close()
        thread.join()
    gone = ssh.forwarded(place.host, server.server_port)
    with pytest.raises(UnreachableError, match=rf"nothing answers on 127\.0\.0\.1:{server.server_port} there"):
        gone.request("GET", "/")


def test_openssh_reads_the_same_access(place: Place) -> None:
    hosts = [
        place.host,
        place.with_access("far away", jump="me@10.0.0.1:2222"),
        place.with_access("odd", known_hosts="/a b/100%"),
    ]
    file = ssh.ssh_config(hosts, place.directory / "testbed" / "ssh_config")

    def says(node: str) -> dict[str, str]:
        text = subprocess.run(["ssh", "-G", "-F", file, node], check=True, capture_output=True, text=True).stdout
        return dict(line.split(" ", 1) for line in text.splitlines() if " " in line)

    read = says("n1")
    assert read["hostname"] == "127.0.0.1"
    assert read["port"] == str(place.host.ssh.port)
    assert read["stricthostkeychecking"] in {"true", "yes"}
    assert read["userknownhostsfile"] == place.host.ssh.known_hosts
    assert read["controlpath"].startswith(str(ssh.socket_dir(file)))
    assert says("odd")["userknownhostsfile"].replace("%%", "%") == "/a b/100%"


def test_sockets_have_short_paths(tmp_path: Path) -> None:
    assert ssh.socket_dir(Path("/tmp/t/ssh_config")) == Path("/tmp/t/ssh")
    deep = ssh.socket_dir(tmp_path / ("d" * 90) / "ssh_config")
    assert len(str(deep)) + 1 + 12 + ssh.SOCKET_DRAFT_SUFFIX < ssh.SOCKET_PATH_LIMIT
    assert deep != ssh.socket_dir(tmp_path / ("e" * 90) / "ssh_config")


def test_the_folder_of_sockets_stays_until_the_last_connection(tmp_path: Path) -> None:
    sockets = ssh.socket_dir(tmp_path / "ssh_config")
    sockets.mkdir(parents=True)
    (sockets / "stale").touch()
    ssh.close_shared(tmp_path / "ssh_config")
    assert list(sockets.iterdir()) == []
    ssh.close_shared(tmp_path / "ssh_config", last=True)
    assert not sockets.exists()


def test_a_bug_is_not_taken_for_a_host(place: Place) -> None:
    def broken(_: Host) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ssh.on_every([place.host], broken)
    assert not issubclass(ZeroDivisionError, ToolkitError)
