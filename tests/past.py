"""A past for a Prometheus that has just started: samples as if it had scraped for hours, through remote write."""

from __future__ import annotations

import json
import struct
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

SLICE_S = 60
"""Every series is given this much before the next minute begins, since all of the head moves on together."""
TOGETHER = 500
"""Series in one request."""
_LITERAL = 63 << 2
"""Snappy's tag for bytes that are not packed at all, their number in the next four."""

Labels = Mapping[str, str]


def known_series(address: str) -> list[Labels]:
    """Every series that this Prometheus has now."""
    query = urllib.parse.urlencode({"match[]": '{__name__=~".+"}'})
    with urllib.request.urlopen(f"http://{address}/api/v1/series?{query}", timeout=60) as answer:
        return list(json.load(answer)["data"])


def fill(address: str, series: Sequence[Labels], intervals_s: Mapping[str, float], begin_s: int, end_s: int) -> int:
    """Write samples of [begin, end); a job has an interval, else it is 1 s. Returns how many were written."""
    noise = np.random.default_rng(1)
    groups: dict[float, list[bytes]] = {}
    for labels in series:
        groups.setdefault(intervals_s.get(labels.get("job", ""), 1.0), []).append(_labels(labels))
    written = 0
    for slice_s in range(begin_s, end_s, SLICE_S):
        for interval_s, members in groups.items():
            until_s = min(slice_s + SLICE_S, end_s)
            times_ms = (np.arange(slice_s, until_s, interval_s) * 1000).astype(np.int64)
            for first in range(0, len(members), TOGETHER):
                batch = members[first : first + TOGETHER]
                steps = noise.integers(5, 15, (len(batch), len(times_ms))).cumsum(axis=1)
                _post(address, b"".join(_timeseries(batch, _samples(times_ms, 10.0 * (slice_s - begin_s) + steps))))
                written += steps.size
    return written


def _samples(times_ms: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Protobuf of `Sample{value, timestamp}` in `TimeSeries.samples`: 18 bytes each; shape (series, 18 x times)."""
    rows = np.zeros((*values.shape, 18), dtype=np.uint8)
    rows[..., 0:3] = (0x12, 16, 0x09)
    rows[..., 3:11] = values.astype("<f8")[..., np.newaxis].view(np.uint8)
    rows[..., 11] = 0x10
    for place in range(6):  # a varint of 41 bits: the time now in milliseconds
        rows[..., 12 + place] = (times_ms >> (7 * place)) & 0x7F | (0x80 if place < 5 else 0)
    return rows.reshape(len(values), -1)


def _timeseries(batch: Sequence[bytes], samples: np.ndarray) -> Iterator[bytes]:
    for labels, row in zip(batch, samples, strict=True):
        body = labels + row.tobytes()
        yield b"\x0a" + _varint(len(body)) + body


def _labels(labels: Labels) -> bytes:
    """`TimeSeries.labels`, in the order that Prometheus asks for."""
    parts = []
    for name, value in sorted(labels.items()):
        pair = b"".join(
            bytes((tag,)) + _varint(len(text.encode())) + text.encode() for tag, text in ((0x0A, name), (0x12, value))
        )
        parts.append(b"\x0a" + _varint(len(pair)) + pair)
    return b"".join(parts)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*out, number))


def _post(address: str, body: bytes) -> None:
    packed = _varint(len(body)) + bytes((_LITERAL,)) + struct.pack("<I", len(body) - 1) + body
    headers = {
        "Content-Type": "application/x-protobuf", "Content-Encoding": "snappy",
        "X-Prometheus-Remote-Write-Version": "0.1.0",
    }  # fmt: skip
    urllib.request.urlopen(
        urllib.request.Request(f"http://{address}/api/v1/write", packed, headers), timeout=60
    ).close()
