"""A testbed's Prometheus, asked for reading only, through the same SSH connection that all else goes through."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable
from urllib.parse import urlencode

from toolkit import ssh
from toolkit.errors import ToolkitError, UnreachableError
from toolkit.provisioning.render import PROMETHEUS_PORT
from toolkit.spec.testbed import Testbed
from toolkit.state import Deployment, Host

TIMEOUT_S = 10.0
IDLE = 4
"""Connections kept open for each Prometheus."""

Connect = Callable[[], http.client.HTTPConnection]


def through_ssh(host: Host) -> http.client.HTTPConnection:
    """To the server on this host, whatever lies between: where SSH gets, figures get."""
    return ssh.forwarded(host, PROMETHEUS_PORT, timeout_s=TIMEOUT_S)


class Prometheus:
    """One server; calls from several threads each take a connection of their own."""

    def __init__(self, connect: Connect, where: str) -> None:
        self._connect = connect
        self._where = where
        self._idle: list[http.client.HTTPConnection] = []
        self._lock = threading.Lock()

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body; raises UnreachableError. A kept connection that was closed meanwhile is opened anew once."""
        with self._lock:
            kept = self._idle.pop() if self._idle else None
        if kept is not None:
            try:
                return self._ask(kept, path)
            except (OSError, http.client.HTTPException):
                kept.close()
        fresh = self._connect()
        try:
            return self._ask(fresh, path)
        except (OSError, http.client.HTTPException) as error:
            fresh.close()
            raise UnreachableError(
                f"Prometheus on {self._where} does not answer ({error or type(error).__name__})"
            ) from error
        except ToolkitError:
            fresh.close()
            raise

    def _ask(self, connection: http.client.HTTPConnection, path: str) -> tuple[int, bytes]:
        connection.request("GET", path, headers={"Accept-Encoding": "identity"})
        answer = connection.getresponse()
        status, body = answer.status, answer.read()
        with self._lock:
            if len(self._idle) < IDLE:
                self._idle.append(connection)
                return status, body
        connection.close()
        return status, body

    def vector(self, query: str) -> list[tuple[dict[str, str], float]]:
        """An instant query's series: labels and value; raises UnreachableError."""
        status, body = self.get(f"/api/v1/query?{urlencode({'query': query})}")
        document = json.loads(body) if body.startswith(b"{") else {}
        if document.get("status") != "success":
            raise UnreachableError(f"Prometheus on {self._where}: {document.get('error', f'status {status}')}")
        return [(row["metric"], float(row["value"][1])) for row in document["data"]["result"]]

    def close(self) -> None:
        """Give the connections back."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()


class Servers:
    """The Prometheus of each deployed testbed, connected to at its first use."""

    def __init__(self, connect: Callable[[Host], http.client.HTTPConnection] = through_ssh) -> None:
        self._connect = connect
        self._known: dict[tuple[str, str, float], Prometheus] = {}

    def of(self, testbed: Testbed, deployment: Deployment) -> Prometheus:
        """The testbed's server; raises UnreachableError where it has none."""
        nodes = [n for s in testbed.service_of_role("monitor") for n in s.nodes if n in deployment.hosts]
        if not nodes:
            raise UnreachableError(
                f"testbed {testbed.name} has no monitor, so there are no figures; "
                "add `monitor: {on: NODE}` to its services"
            )
        host = deployment.hosts[nodes[0]]
        key = (testbed.name, host.address, deployment.deployed_at)
        if key not in self._known:
            for old in [known for known in self._known if known[0] == testbed.name]:
                self._known.pop(old).close()
            self._known[key] = Prometheus(lambda: self._connect(host), f"node {host.node}")
        return self._known[key]

    def close(self) -> None:
        """Give every connection back."""
        while self._known:
            self._known.popitem()[1].close()
