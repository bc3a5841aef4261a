"""Asking the processes of a run: HTTP to their control ports, through SSH or on this machine."""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from toolkit import ssh
from toolkit.contract.orders import RunOrder, RunStatus, status_from_json, to_json
from toolkit.errors import UnreachableError, WorkloadError
from toolkit.state import Host


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One process that takes orders."""

    node: str
    service: str
    instance: int
    role: str
    control_port: int

    @property
    def name(self) -> str:
        """`node/service-instance`, as in every table."""
        return f"{self.node}/{self.service}-{self.instance}"


class Control(Protocol):
    """What the story of a run needs of its processes. Raises UnreachableError where one does not answer."""

    def prepare(self, process: Process, order: RunOrder) -> RunStatus:
        """Hand over an order."""

    def start(self, process: Process, at_ns: int) -> RunStatus:
        """Begin at a wall clock instant of that node."""

    def stop(self, process: Process) -> RunStatus:
        """End the run and save."""

    def status(self, process: Process) -> RunStatus:
        """How far it is."""

    def now_ns(self, node: str) -> int:
        """That node's wall clock, as well as can be told from here."""

    def act(self, node: str, command: Sequence[str]) -> None:
        """Do something to a container of that node: the arguments of `docker`."""

    def relay_began(self, node: str) -> str:
        """When the relay in that node's link was started last, by the node's own count."""

    def close_books(self, exporter: Process, books: Mapping[str, Any]) -> None:
        """Tell the hop exporter what a run came to."""


Connect = Callable[[Process], http.client.HTTPConnection]
_RELAY_BEGAN = ("systemctl", "show", "--value", "--property=ExecMainStartTimestampMonotonic", "toolkit-cable")


class HttpControl:
    """`contract.orders` over HTTP/1.1, one short connection a question."""

    def __init__(
        self,
        connect: Connect,
        now_ns: Callable[[str], int],
        act: Callable[[str, Sequence[str]], object] = lambda *_: None,
        relay_began: Callable[[str], str] = lambda _: "",
    ) -> None:
        self._connect = connect
        self._now_ns = now_ns
        self._act = act
        self._relay_began = relay_began

    def prepare(self, process: Process, order: RunOrder) -> RunStatus:
        """Hand over an order."""
        return self._ask(process, "PUT", "/run", to_json(order))

    def start(self, process: Process, at_ns: int) -> RunStatus:
        """Begin at a wall clock instant of that node."""
        return self._ask(process, "POST", "/run/start", json.dumps({"at_ns": at_ns}))

    def stop(self, process: Process) -> RunStatus:
        """End the run and save."""
        return self._ask(process, "POST", "/run/stop", "{}")

    def status(self, process: Process) -> RunStatus:
        """How far it is."""
        return self._ask(process, "GET", "/run", None)

    def now_ns(self, node: str) -> int:
        """That node's wall clock."""
        return self._now_ns(node)

    def act(self, node: str, command: Sequence[str]) -> None:
        """Do something to a container of that node."""
        self._act(node, command)

    def relay_began(self, node: str) -> str:
        """When the relay in that node's link was started last."""
        return self._relay_began(node)

    def close_books(self, exporter: Process, books: Mapping[str, Any]) -> None:
        """Tell the hop exporter what a run came to."""
        self._ask(exporter, "PUT", "/books", json.dumps(books))

    def _ask(self, process: Process, method: str, path: str, body: str | None) -> RunStatus:
        try:
            with contextlib.closing(self._connect(process)) as connection:
                connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
                answer = connection.getresponse()
                text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise UnreachableError(
                f"{process.name} does not answer on its control port {process.control_port} "
                f"({error or type(error).__name__}); "
                f"try: toolkit logs {process.service}"
            ) from error
        if answer.status != http.client.OK:
            raise WorkloadError(f"{process.name} refuses {method} {path}: {_reason(text)}")
        return status_from_json(text)


def _reason(text: bytes) -> str:
    try:
        return str(json.loads(text)["error"])
    except (ValueError, KeyError, TypeError):
        return text.decode(errors="replace")[:300] or "no reason given"


def ssh_control(hosts: Mapping[str, Host]) -> HttpControl:
    """Control over each host's SSH connection; control ports listen on the nodes' loopback only."""

    def node_now_ns(node: str) -> int:
        return int(ssh.run(hosts[node], ["date", "+%s%N"]).stdout)

    return HttpControl(
        lambda process: ssh.forwarded(hosts[process.node], process.control_port),
        node_now_ns,
        lambda node, command: ssh.run(hosts[node], ["docker", *command], as_root=True),
        lambda node: ssh.run(hosts[node], _RELAY_BEGAN).stdout.strip(),
    )
