"""The console on the monitor's node: its pages, drawn by deploy, and the token that lets people in."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

from toolkit.contract.watching import TOKEN
from toolkit.provisioning.dashboards import dashboards, pages
from toolkit.provisioning.kept import kept_password
from toolkit.provisioning.pages import text_of
from toolkit.provisioning.topology import draw
from toolkit.spec.services import CONSOLE_PORT
from toolkit.spec.testbed import Testbed
from toolkit.state import Host

REFUSALS = {
    401: ("Come in by the link", "Open the link that `toolkit deploy` and `toolkit status` print; it lets you in."),
    403: ("Forbidden", "This link is not, or no longer, valid; `toolkit status` prints the one that is."),
    404: (
        "Not here",
        "This console shows what the testbed does now; `toolkit console` on the operator's machine shows the rest.",
    ),
}
"""Status -> title and what to do."""


def console_node(testbed: Testbed, hosts: Mapping[str, Host]) -> Host | None:
    """Where the console runs; None where none is wanted or its machine is not there."""
    nodes = [node for service in testbed.service_of_role("monitor") for node in service.nodes if node in hosts]
    return hosts[nodes[0]] if testbed.monitoring.console and nodes else None


def console_files(testbed: Testbed, hosts: Mapping[str, Host]) -> dict[str, str]:
    """File name -> content; the same testbed on the same hosts gives the same pages, and nothing secret is in them."""
    boards = pages()
    titles = [(board.name, board.title.removeprefix("toolkit: ")) for board in boards]
    shown: dict[str, Any] = {"on_monitor": True, "may_act": False, "path": f"/testbeds/{testbed.name}"}
    picture = draw(testbed, hosts)
    files = {"testbed.html": text_of("monitor", testbed=testbed, picture=picture, boards=titles, **shown)}
    for board in boards:
        files[f"{board.name}.html"] = text_of(
            "dashboard",
            entry=testbed,
            board=board,
            boards=titles,
            scrape_interval_s=testbed.monitoring.scrape_interval_s,
            **shown,
        )
    for status, (title, message) in REFUSALS.items():
        files[f"{status}.html"] = text_of(
            "refused", title=title, message=message, back="", is_in=status == HTTPStatus.NOT_FOUND, **shown
        )
    return files | dashboards(testbed)


def console_link(testbed: Testbed, hosts: Mapping[str, Host], folder: Path) -> str | None:
    """The link that lets people in: for the terminal of who deployed, never for logs or states."""
    host = console_node(testbed, hosts)
    return f"http://{host.address}:{CONSOLE_PORT}/enter?token={kept_password(folder, 'console')}" if host else None


def console_secrets(testbed: Testbed, hosts: Mapping[str, Host], folder: Path) -> dict[str, dict[str, str]]:
    """Container's service -> variable -> value."""
    return {"console": {TOKEN: kept_password(folder, "console")}} if console_node(testbed, hosts) else {}
