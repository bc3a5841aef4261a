"""What messages are filled with and how large each is; both places can tell the size of any message from its numbers.

The size of a message is drawn from (seed, stream, seq) alone, so that the hop probe knows where a message ends, and a
reader how many bytes were carried, without a word about it on the wire.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Literal

_MASK = (1 << 64) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """Sizes and content of a run's messages; a size includes the 40-byte header."""

    kind: Literal["random", "text", "zeros"] = "random"
    """`random` cannot be compressed; `text` is JSON-like ASCII; `zeros` is nothing but zeros."""
    sizes: list[int] = field(default_factory=list)
    """Empty: all have `payload_bytes`; with `weights` these sizes, without them anything from the first to the last."""
    weights: list[float] = field(default_factory=list)
    seed: int = 0


def size_of(payload: Payload) -> Callable[[int, int], int]:
    """A function from (stream, seq) to the bytes of that message; for payloads whose size varies.

    The low 16 bits of a stream are its number in the run; the others differ from run to run and do not count.
    """
    low = payload.sizes[0]
    salt = salt_of(payload)
    if not payload.weights:
        span = payload.sizes[-1] - low + 1

        def uniform(stream: int, seq: int) -> int:
            return low + _mixed(salt ^ (stream & 0xFFFF) << 48 ^ seq) % span

        return uniform
    sums = list(accumulate(payload.weights))
    scale = sums[-1] / (1 << 64)
    sizes, last = payload.sizes, len(payload.sizes) - 1

    def empirical(stream: int, seq: int) -> int:
        drawn = _mixed(salt ^ (stream & 0xFFFF) << 48 ^ seq) * scale
        return sizes[min(bisect_right(sums, drawn), last)]

    return empirical


def salt_of(payload: Payload) -> int:
    """What makes the sizes of one seed others than those of the next."""
    return _mixed(payload.seed + 0x9E3779B97F4A7C15)


def _mixed(value: int) -> int:
    """64 bits that look random: the finaliser of splitmix64."""
    value &= _MASK
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    value = (value ^ value >> 27) * 0x94D049BB133111EB & _MASK
    return value ^ value >> 31


def fill(kind: str, size: int, seed: int) -> bytes:
    """What stands behind the header."""
    if kind == "zeros":
        return bytes(size)
    source = random.Random(seed)  # noqa: S311  reproducible, not secret
    if kind == "text":
        readings = (f'{{"sensor":"t{i:03d}","celsius":{source.gauss(21, 4):.2f}}},' for i in range(size // 30 + 2))
        return "".join(readings).encode()[:size]
    return source.randbytes(size)
