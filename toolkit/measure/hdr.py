"""HDR histograms of a run's delays, in the log format that HdrHistogram's own tools read.

`histograms.hlog`: one line per hop (`Tag=publish`), values in ns, three significant digits, 1 ns to an hour; negative
delays, which such a histogram cannot hold, are mirrored under a tag of their own (`Tag=publish.negative`).
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

FILE = "histograms.hlog"
DIGITS = 3
HIGHEST_NS = 3_600_000_000_000
_HALF_BITS = 10
"""Each power of two is divided into 1,024 cells: three significant digits."""
_HALF = 1 << _HALF_BITS
_ENCODED, _COMPRESSED = 0x1C849313, 0x1C849314
"""Cookies of the second version of the format."""


def log_head(start_s: float) -> list[str]:
    """What the log begins with."""
    return [
        "#[Histogram log format version 1.3]",
        f"#[StartTime: {start_s:.3f} (seconds since epoch)]",
        '"StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"',
    ]


def log_lines(name: str, delays: NDArray[np.int64], *, lasted_s: float) -> list[str]:
    """The log's lines on one hop's delays in ns."""
    signs = ((name, delays[delays >= 0]), (f"{name}.negative", -delays[delays < 0]))
    return [
        f"Tag={tag},0.000,{lasted_s:.3f},{values.max() / 1e6:.3f},{encode(count(values))}"
        for tag, values in signs
        if len(values)
    ]


def count(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many values fall into each cell, shape (highest cell + 1,); what is longer than an hour counts as that."""
    held = np.minimum(values, HIGHEST_NS)
    _, bits = np.frexp((held | (2 * _HALF - 1)).astype(np.float64))  # exact: an hour has 42 bits
    bucket = bits.astype(np.int64) - (_HALF_BITS + 1)
    cell = ((bucket + 1) << _HALF_BITS) + (held >> bucket) - _HALF
    return np.bincount(cell).astype(np.int64)


def encode(counts: NDArray[np.int64]) -> str:
    """Counts as a compressed V2 histogram in base64."""
    body = b"".join(_varints(counts))
    header = struct.pack(">iiiiqqd", _ENCODED, len(body), 0, DIGITS, 1, HIGHEST_NS, 1.0)
    packed = zlib.compress(header + body)
    return base64.b64encode(struct.pack(">ii", _COMPRESSED, len(packed)) + packed).decode()


def _varints(counts: NDArray[np.int64]) -> Iterator[bytes]:
    """Zigzag LEB128: a count is positive, a stretch of empty cells the negative of its length."""
    last = -1
    for cell in np.flatnonzero(counts).tolist():
        if empty := cell - last - 1:
            yield _varint(-empty if empty > 1 else 0)
        yield _varint(int(counts[cell]))
        last = cell


def _varint(value: int) -> bytes:
    rest = value << 1 if value >= 0 else (-value << 1) - 1
    out = bytearray()
    while rest > 0x7F:  # noqa: PLR2004  seven bits a byte
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)
