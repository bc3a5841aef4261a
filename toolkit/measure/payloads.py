"""How many bytes of payload a run delivered, where sizes differ from message to message."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from toolkit.contract.payloads import Payload, salt_of
from toolkit.measure.tables import read_column


def delivered_bytes(samples: Path, payload: Payload, payload_bytes: int) -> int:
    """Payload bytes of every delivery that was not late."""
    streams = read_column(samples, "stream", "NOT late")
    if not payload.sizes:
        return len(streams) * payload_bytes
    return int(sizes_of(payload, streams, read_column(samples, "seq", "NOT late")).sum())


def sizes_of(payload: Payload, streams: NDArray[np.int64], seqs: NDArray[np.int64]) -> NDArray[np.int64]:
    """What `contract.payloads.size_of` tells of one message, of many: shape (messages,)."""
    own = streams.astype(np.uint64) & np.uint64(0xFFFF)
    drawn = _mixed(np.uint64(salt_of(payload)) ^ own << np.uint64(48) ^ seqs.astype(np.uint64))
    if not payload.weights:
        low, high = payload.sizes[0], payload.sizes[-1]
        return (drawn % np.uint64(high - low + 1)).astype(np.int64) + low
    sums = np.cumsum(payload.weights)
    at = np.searchsorted(sums, drawn.astype(np.float64) * (sums[-1] / 2.0**64), side="right")
    sizes: NDArray[np.int64] = np.asarray(payload.sizes, dtype=np.int64)[np.minimum(at, len(payload.sizes) - 1)]
    return sizes


def _mixed(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    value = (value ^ value >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ value >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return value ^ value >> np.uint64(31)
