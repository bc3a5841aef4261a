"""Every number in a run's KPIs, by its path."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def paths_of_numbers(kpis: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """`hops.broker.p99_ms` and all the others."""
    for name, value in kpis.items():
        if isinstance(value, Mapping):
            yield from paths_of_numbers(value, f"{path}{name}.")
        elif isinstance(value, int | float):
            yield path + name
