"""What a shell offers to complete: testbeds, nodes, services, workloads and runs of this workspace."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import typer

from toolkit import paths

if TYPE_CHECKING:
    from toolkit.spec.testbed import Testbed


def testbeds(incomplete: str) -> list[str]:
    """Those deployed here; where none fits the shell completes files."""
    from toolkit.state import deployed_names

    return _beginning(incomplete, deployed_names())


def nodes(context: typer.Context, incomplete: str) -> list[str]:
    """Names of nodes."""
    return _of_testbed(context, incomplete, lambda testbed: [node.name for node in testbed.nodes])


def selectors(context: typer.Context, incomplete: str) -> list[str]:
    """Nodes, and what they have in common; of several parts the last one."""

    def offered(testbed: Testbed) -> list[str]:
        names = [node.name for node in testbed.nodes]
        roles = [f"role:{service.role}" for service in testbed.services]
        return ["all", "@failed", *names, *(f"kind:{node.kind}" for node in testbed.nodes), *roles]

    before, comma, last = incomplete.rpartition(",")
    negated = "!" * last.startswith("!")
    found = _of_testbed(context, last.removeprefix("!"), offered)
    return [f"{before}{comma}{negated}{part}" for part in found]


def services(context: typer.Context, incomplete: str) -> list[str]:
    """Names of services."""
    return _of_testbed(context, incomplete, lambda testbed: [service.name for service in testbed.services])


def workloads(context: typer.Context, incomplete: str) -> list[str]:
    """Names of workloads and experiments."""
    return _of_testbed(context, incomplete, lambda testbed: [*testbed.workloads, *testbed.experiments])


def runs(incomplete: str) -> list[str]:
    """Ids of runs, newest first, and `latest`."""
    manifests = paths.workspace().glob("*/runs/*/manifest.json")
    return _beginning(incomplete, ["latest", *sorted((file.parent.name for file in manifests), reverse=True)])


def _of_testbed(context: typer.Context, incomplete: str, offered: Callable[[Testbed], Iterable[str]]) -> list[str]:
    """Nothing where it cannot be told which testbed is meant: who completes is not to read about that."""
    from toolkit.cli.target import testbed_file
    from toolkit.errors import ToolkitError
    from toolkit.spec.load import load_testbed

    try:
        testbed = load_testbed(testbed_file(context.params.get("testbed")))
    except (ToolkitError, OSError):
        return []
    return _beginning(incomplete, offered(testbed))


def _beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    return [name for name in dict.fromkeys(names) if name.startswith(incomplete)]
