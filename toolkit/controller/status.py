"""What every node is and runs now, beside what was asked of it."""

from __future__ import annotations

from typing import Any

from toolkit.provisioning.observe import Observed
from toolkit.spec.testbed import Testbed
from toolkit.state import Deployment


def node_row(testbed: Testbed, deployment: Deployment, node: str, seen: Observed | Exception | None) -> dict[str, Any]:
    """A node as `toolkit status --json` and the console show it.

    `state`: absent (no machine), unreachable, empty (no containers), unwell, up.
    """
    asked = testbed.node(node)
    host = deployment.hosts.get(node)
    row: dict[str, Any] = {
        "node": node,
        "kind": asked.kind,
        "provider": asked.provider,
        "address": host.address if host else asked.address,
        "state": "absent" if host is None else "unreachable",
        "services": {},
        "clock": None,
        "error": deployment.failed.get(node),
    }
    if seen is None:
        return row
    if isinstance(seen, Exception):
        return {**row, "error": str(seen)}
    services = {c.name.removeprefix(f"toolkit-{testbed.name}-"): c for c in seen.containers.values()}
    well = bool(services) and all(c.well for c in services.values())
    return {
        **row,
        "state": "up" if well else "unwell" if services else "empty",
        "services": {
            name: {"state": c.state, "health": c.health, "image": c.image} for name, c in sorted(services.items())
        },
        "engine": seen.engine_version,
        "clock": seen.clock,
        "load": seen.load,
        "disk": {path: dict(sizes) for path, sizes in seen.disk.items()},
        "memory": dict(seen.memory),
    }
