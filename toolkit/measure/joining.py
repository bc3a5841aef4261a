"""Subscribers that came in after the start: from which instant on messages were due to them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from toolkit.measure.clocks import NodeClock, path_bound_ns
from toolkit.measure.stamps import StampsFile

NEVER_NS = (1 << 63) - 1


def joined_at_ns(
    manifest: Mapping[str, Any], files: Sequence[StampsFile], clocks: Mapping[str, NodeClock]
) -> dict[str, int]:
    """Late subscriber -> when the broker had confirmed its subscription, on the reference's clock.

    The clock bound of its way from the publishers is added, so that no loss is charged for what may have been sent
    before. One that was killed has told nothing: its first message counts. NEVER_NS: it never came in.
    """
    of_process = {file.process: file for file in files}
    publishers = {file.node for file in files if file.role == "publisher"} & set(clocks)
    found = {}
    for name, process, connection in _late(manifest):
        file = of_process.get(process)
        at_ns = _confirmed_ns(file, connection) if file else 0
        if not file or not at_ns:
            found[name] = NEVER_NS
            continue
        clock = clocks.get(file.node)
        bounds = [path_bound_ns(clock, clocks[node], at_ns, at_ns) or 0 for node in publishers] if clock else []
        found[name] = at_ns - (int(clock.offset_at_ns(np.array([at_ns]))[0]) if clock else 0) + max(bounds, default=0)
    return found


def joining_notes(manifest: Mapping[str, Any], joined_ns: Mapping[str, int]) -> list[str]:
    """When each came in, in words."""
    start_ns = int(manifest.get("start_ns", 0))
    return [
        f"{name} came in {(at_ns - start_ns) / 1e9:.3f} s after the start: what was sent before was not due to it"
        for name, at_ns in joined_ns.items()
        if at_ns != NEVER_NS
    ]


def joining_faults(joined_ns: Mapping[str, int]) -> list[str]:
    """Those that were to come in and did not."""
    return [
        f"{name} never came in: its subscription was not confirmed before the run ended"
        for name, at_ns in joined_ns.items()
        if at_ns == NEVER_NS
    ]


def _late(manifest: Mapping[str, Any]) -> Iterator[tuple[str, str, int]]:
    orders = manifest.get("orders", {})
    for each in manifest.get("subscribers", ()):
        if "join_after_s" in orders.get(each["process"], {}).get("options", {}):
            yield each["name"], each["process"], int(each["connection"])


def _confirmed_ns(file: StampsFile, connection: int) -> int:
    if file.info is not None:
        return int(file.info.facts.get("joined_ns", {}).get(str(connection), 0))
    return file.first_ns()
