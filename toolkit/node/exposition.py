"""The text of a /metrics page, made from the contract's metrics; standard library only, cheap enough for a Pi 1."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence

from toolkit.contract.metrics import BUCKETS_S, Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Histogram:
    """Counts per bucket; `observe` is the only thing done per message."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float] = BUCKETS_S) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        """Not cumulative; the last one counts what is above every bound."""
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one value (a bucket's upper bound belongs to the bucket)."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    @property
    def count(self) -> int:
        """How many values were observed."""
        return sum(self.counts)


Value = float | Histogram
Samples = Mapping[tuple[str, ...], Value]
"""Label values, in the order of the metric's labels -> value."""


Reading = tuple[Metric, tuple[str, ...], Value]
"""(metric, label values, value): one sample, where it is easier to list samples than to gather families."""


def expose(readings: Iterable[Reading]) -> bytes:
    """The page for some samples, in any order, as it goes to the socket."""
    families: dict[Metric, dict[tuple[str, ...], Value]] = {}
    for metric, values, value in readings:
        families.setdefault(metric, {})[values] = value
    return metrics_page(families).encode()


def metrics_page(families: Mapping[Metric, Samples | Value]) -> str:
    """The page for some families; a metric without labels may be given as its bare value."""
    lines: list[str] = []
    for metric, samples in families.items():
        lines.append(f"# HELP {metric.name} {_escape(metric.help, quotes=False)}")
        lines.append(f"# TYPE {metric.name} {metric.kind}")
        labelled: Samples = samples if isinstance(samples, Mapping) else {(): samples}
        for values, value in labelled.items():
            labels = ",".join(f'{name}="{_escape(text)}"' for name, text in zip(metric.labels, values, strict=True))
            if isinstance(value, Histogram):
                lines.extend(_histogram_lines(metric.name, labels, value))
            else:
                lines.append(f"{metric.name}{_braces(labels)} {_number(value)}")
    return "\n".join(lines) + "\n"


def _histogram_lines(name: str, labels: str, histogram: Histogram) -> list[str]:
    lines = []
    cumulative = 0
    for bound, count in zip((*map(_number, histogram.bounds), "+Inf"), histogram.counts, strict=True):
        cumulative += count
        le = f'le="{bound}"'
        lines.append(f"{name}_bucket{_braces(f'{labels},{le}' if labels else le)} {cumulative}")
    lines.append(f"{name}_sum{_braces(labels)} {_number(histogram.total)}")
    lines.append(f"{name}_count{_braces(labels)} {cumulative}")
    return lines


def _braces(labels: str) -> str:
    return f"{{{labels}}}" if labels else ""


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(float(value))  # noqa: PLR2004


def _escape(text: str, *, quotes: bool = True) -> str:
    text = text.replace("\\", r"\\").replace("\n", r"\n")
    return text.replace('"', r"\"") if quotes else text
