"""Read what one process left of a run: its stamps, and the document that says who wrote them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from toolkit.contract.samples import STAMP_BYTES, STAMP_DTYPE, StampsInfo

Stamps: TypeAlias = NDArray[np.void]
"""Records of `STAMP_DTYPE`, in the order in which they were written."""
DTYPE = np.dtype(STAMP_DTYPE)
BLOCK = 1 << 18
"""Records read at once (8 MB): whole files of long runs do not fit the memory set for a join."""
_INFO_FIELDS = {field.name for field in dataclasses.fields(StampsInfo)}


@dataclass(frozen=True, slots=True, kw_only=True)
class StampsFile:
    """The stamps of one process, and what it said when it closed them."""

    path: Path
    node: str
    service: str
    instance: int
    role: str
    info: StampsInfo | None
    """None: the process was killed before it could close its books."""

    @property
    def process(self) -> str:
        """The process' name in every table: `node/service-instance`."""
        return f"{self.node}/{self.service}-{self.instance}"

    @property
    def counts(self) -> dict[str, int]:
        """Its own counters; empty where it was killed."""
        return self.info.counts if self.info else {}

    @property
    def clock(self) -> dict[str, Any]:
        """What it found out of its clock; empty where it was killed."""
        return self.info.clock if self.info else {}

    @property
    def is_cut_short(self) -> bool:
        """Whether a subscriber received more than it could save, as on a disk that filled up."""
        return self.info is not None and self.info.error is not None and self.counts.get("received", 0) > len(self)

    def first_ns(self) -> int:
        """Instant of the first stamp, on the node's clock; 0 without one."""
        return next((int(block["at_ns"][0]) for block in self.blocks()), 0)

    def last_ns(self) -> int:
        """Instant of the last stamp that was saved, on the node's clock; 0 without one."""
        last = 0
        for block in self.blocks():
            last = int(block["at_ns"][-1])
        return last

    def __len__(self) -> int:
        return self.path.stat().st_size // STAMP_BYTES if self.path.is_file() else 0

    def blocks(self) -> Iterator[Stamps]:
        """The stamps, some at a time, in writing order; half a record that a killed process left is skipped."""
        left = len(self)
        if not left:
            return
        with self.path.open("rb") as file:
            while left > 0:
                block = np.fromfile(file, dtype=DTYPE, count=min(BLOCK, left))
                left -= len(block)
                yield block

    def flow(self, peer: int) -> tuple[str, int] | None:
        """Address and port of a flow, written alike on both of its ends."""
        end = self.info.flows.get(str(peer)) if self.info else None
        return (plain_address(str(end[0])), int(end[1])) if end else None


def plain_address(address: str) -> str:
    """An address as IPv4 where it is one in IPv6 clothes (`::ffff:10.77.0.3`), so that both ends write it alike."""
    return address.removeprefix("::ffff:")


def read_files(raw: Path, roles: Mapping[str, str] | None = None) -> list[StampsFile]:
    """Every process that left something in `raw/<node>/`, sorted by name; `roles` (by process) of those killed."""
    stems = {file.with_suffix("") for suffix in ("stamps", "json") for file in raw.glob(f"*/*-*.{suffix}")}
    return [_read(stem, roles or {}) for stem in sorted(stems)]


def _read(stem: Path, roles: Mapping[str, str]) -> StampsFile:
    service, _, instance = stem.name.rpartition("-")
    info = _read_info(stem.parent / f"{stem.name}.json")
    return StampsFile(
        path=stem.parent / f"{stem.name}.stamps",
        node=stem.parent.name,
        service=service,
        instance=int(instance) if instance.isdigit() else 0,
        role=info.role if info else roles.get(f"{stem.parent.name}/{stem.name}", ""),
        info=info,
    )


def _read_info(file: Path) -> StampsInfo | None:
    try:
        raw = json.loads(file.read_text())
        return StampsInfo(**{name: value for name, value in raw.items() if name in _INFO_FIELDS})
    except (OSError, ValueError, TypeError):
        return None
