"""Fetch what a run left on its nodes: stamps, their documents and clock logs, every node at the same time."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Protocol

from toolkit import ssh
from toolkit.contract.settings import node_root
from toolkit.errors import ToolkitError
from toolkit.state import Host

CLOCK_LOGS = ("clock.1.jsonl", "clock.jsonl")
"""Older half, newer half; written by the clock process of a node."""


class Collector(Protocol):
    """Where the files of a run come from."""

    def fetch(self, run: str, nodes: Iterable[str], raw: Path) -> dict[str, str]:
        """Copy each node's files of a run into `raw/<node>/`; node -> what went wrong, for those that failed."""

    def forget(self, run: str, nodes: Iterable[str]) -> None:
        """Delete a run's files on the nodes, once they are safe here; failures are of no consequence."""


class SshCollector:
    """Over SFTP."""

    def __init__(self, testbed: str, hosts: Mapping[str, Host]) -> None:
        self._samples = f"{node_root(testbed)}/samples"
        self._hosts = hosts

    def fetch(self, run: str, nodes: Iterable[str], raw: Path) -> dict[str, str]:
        """Copy each node's files of a run into `raw/<node>/`."""
        return self._on_nodes(nodes, lambda host: self._fetch(host, run, raw / host.node))

    def forget(self, run: str, nodes: Iterable[str]) -> None:
        """Delete a run's files on the nodes."""
        folder = f"{self._samples}/{run}"
        self._on_nodes(nodes, lambda host: ssh.run(host, ["rm", "-rf", "--", folder], as_root=True))

    def _on_nodes(self, nodes: Iterable[str], action: Callable[[Host], object]) -> dict[str, str]:
        results = ssh.on_every([self._hosts[node] for node in dict.fromkeys(nodes)], action)
        return {node: str(result) for node, result in results.items() if isinstance(result, ToolkitError)}

    def _fetch(self, host: Host, run: str, into: Path) -> None:
        into.mkdir(parents=True, exist_ok=True)
        try:
            with ssh.sftp(host) as files:
                remote = f"{self._samples}/{run}"
                for name in _listed(files.listdir, remote):
                    files.get(f"{remote}/{name}", str(into / name))
                for name in _listed(files.listdir, self._samples):
                    if name in CLOCK_LOGS:
                        files.get(f"{self._samples}/{name}", str(into / name))
        except OSError as error:
            raise ToolkitError(f"node {host.node}: {self._samples}/{run}: {error.strerror or error}") from error


def _listed(list_folder: Callable[[str], list[str]], folder: str) -> list[str]:
    try:
        return list_folder(folder)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return []
        raise
