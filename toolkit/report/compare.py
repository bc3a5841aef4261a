"""Compare two sets of runs: differences with bootstrap intervals and effect sizes, and whether they may be compared.

Messages sent after one another share queues and so are not independent: whole blocks of neighbouring messages are
drawn (moving-block bootstrap), and runs first where there are several on a side.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import UsageError
from toolkit.measure.kpis import hops_of
from toolkit.measure.orchestration import read_delays
from toolkit.measure.store import RunFolder
from toolkit.measure.tables import read_column
from toolkit.report.table import hop_title, in_ms

if TYPE_CHECKING:
    from rich.table import Table

Floats: TypeAlias = NDArray[np.float64]

STATISTICS = ("mean", "p50", "p90", "p99")
DRAWS = 1000
MOST_SAMPLES = 20_000
"""Of each run, taken at even distances in sending order: more does not narrow what blocks of neighbours leave open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One statistic of one hop, B against A."""

    hop: str
    statistic: str
    a_ms: float
    b_ms: float
    difference_ms: float
    """B minus A."""
    low_ms: float
    high_ms: float
    """95 % bootstrap interval of the difference."""
    ratio: float | None
    """B over A."""
    clear: bool
    """The interval leaves out zero, and the difference is larger than the clocks' bound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Everything that is said of B against A."""

    a: tuple[str, ...]
    b: tuple[str, ...]
    differences: tuple[Difference, ...]
    cliffs_delta: dict[str, float]
    """Hop -> P(b > a) - P(b < a) of single messages: -1 all of B is faster, 0 no difference, +1 all of B is slower."""
    loss: tuple[list[float], list[float]]
    """Loss ratio of A and of B: [ratio, low, high], 95 % Wilson."""
    cautions: tuple[str, ...]
    """Why these runs can hardly be compared; empty: nothing speaks against it."""


def compare(a: Sequence[RunFolder], b: Sequence[RunFolder], *, seed: int = 1, draws: int = DRAWS) -> Comparison:
    """Compare two sets of runs; equal seeds give equal intervals. Raises UsageError without samples on a side."""
    rng = np.random.default_rng(seed)
    kpis_a, kpis_b = [run.kpis() for run in a], [run.kpis() for run in b]
    differences, deltas = [], {}
    ways = [delays_of(run, k) for run, k in zip((*a, *b), (*kpis_a, *kpis_b), strict=True)]
    for hop in ways[0]:
        if not all(hop in way for way in ways):
            continue
        side_a, side_b = [way[hop]() for way in ways[: len(a)]], [way[hop]() for way in ways[len(a) :]]
        side_a, side_b = [d for d in side_a if len(d)], [d for d in side_b if len(d)]
        if not side_a or not side_b:
            continue
        bound = max((k["hops"][hop]["clock_bound_ms"] or 0.0) for k in (*kpis_a, *kpis_b) if hop in k["hops"])
        differences += _differences(hop, side_a, side_b, bound_ms=bound, rng=rng, draws=draws)
        deltas[hop] = cliffs_delta(np.concatenate(side_a), np.concatenate(side_b))
    if not differences:
        raise UsageError("there is nothing to compare: one side has no delivered message")
    return Comparison(
        a=tuple(run.name for run in a),
        b=tuple(run.name for run in b),
        differences=tuple(differences),
        cliffs_delta=deltas,
        loss=(_loss(kpis_a), _loss(kpis_b)),
        cautions=tuple(find_cautions(kpis_a, kpis_b)),
    )


def delays_of(run: RunFolder, kpis: Mapping[str, Any]) -> dict[str, Callable[[], Floats]]:
    """Hop -> how to read its delays; the hops of orchestration requests are their steps."""
    if run.requests.is_file():
        return {hop: functools.partial(_thinned, run, hop) for hop in kpis["hops"]}
    return {hop: functools.partial(_delays_ms, run, *how) for hop, how in hops_of(kpis.get("way", {})).items()}


def _thinned(run: RunFolder, hop: str) -> Floats:
    delays = read_delays(run, hop)
    return delays[:: max(1, -(-len(delays) // MOST_SAMPLES))] / 1e6


def _delays_ms(run: RunFolder, table: str, delay: str, rows: str) -> Floats:
    """Delays in sending order, thinned evenly."""
    delays = read_column(run.messages if table == "messages" else run.samples, delay, rows)
    return delays[:: max(1, -(-len(delays) // MOST_SAMPLES))] / 1e6


def _differences(
    hop: str, a: Sequence[Floats], b: Sequence[Floats], *, bound_ms: float, rng: np.random.Generator, draws: int
) -> list[Difference]:
    drawn = np.array([_statistics(resample(b, rng)) - _statistics(resample(a, rng)) for _ in range(draws)])
    low, high = np.quantile(drawn, (0.025, 0.975), axis=0)
    of_a, of_b = _statistics(np.concatenate(a)), _statistics(np.concatenate(b))
    return [
        Difference(
            hop=hop,
            statistic=name,
            a_ms=float(of_a[i]),
            b_ms=float(of_b[i]),
            difference_ms=float(of_b[i] - of_a[i]),
            low_ms=float(low[i]),
            high_ms=float(high[i]),
            ratio=float(of_b[i] / of_a[i]) if of_a[i] > 0 else None,
            clear=bool((low[i] > 0 or high[i] < 0) and abs(of_b[i] - of_a[i]) > bound_ms),
        )
        for i, name in enumerate(STATISTICS)
    ]


def resample(runs: Sequence[Floats], rng: np.random.Generator) -> Floats:
    """As many runs as there are, drawn with replacement; of each, as many blocks of neighbours as fill it."""
    picked = [runs[i] for i in rng.integers(len(runs), size=len(runs))] if len(runs) > 1 else runs
    parts = []
    for delays in picked:
        n = len(delays)
        block = max(1, round(n ** (1 / 3)))
        starts = rng.integers(n - block + 1, size=-(-n // block))
        parts.append(delays[(starts[:, None] + np.arange(block)).ravel()[:n]])
    return np.concatenate(parts)


def _statistics(delays: Floats) -> Floats:
    n = len(delays)
    ranks = [max(int(np.ceil(round(q * n, 9))), 1) - 1 for q in (0.5, 0.9, 0.99)]
    return np.array([delays.mean(), *np.partition(delays, ranks)[ranks]])


def cliffs_delta(a: Floats, b: Floats) -> float:
    """P(b > a) - P(b < a) for values drawn from both sides; from ranks, not from pairs."""
    ordered = np.sort(a)
    below = np.searchsorted(ordered, b, side="left").sum(dtype=np.float64)
    above = len(b) * len(a) - np.searchsorted(ordered, b, side="right").sum(dtype=np.float64)
    return float((below - above) / (len(a) * len(b)))


def _loss(kpis: Sequence[dict[str, Any]]) -> list[float]:
    from toolkit.measure.kpis import wilson

    books = [k["ledger"]["total"] for k in kpis]
    lost, offered = sum(w["lost"] for w in books), sum(w["expected"] - w["refused"] for w in books)
    return [lost / offered if offered else 0.0, *wilson(lost, offered)]


def find_cautions(a: Sequence[dict[str, Any]], b: Sequence[dict[str, Any]]) -> list[str]:
    """What makes the comparison doubtful."""
    cautions = [f"{k['run']}: {fault}" for k in (*a, *b) for fault in k["faults"]]
    for what, words in (("testbed", "testbeds"), ("twin", "kinds of testbed (twin and real)"), ("pacing", "loops")):
        values = {str(k[what]) for k in (*a, *b)}
        if len(values) > 1:
            cautions.append(f"the runs are of different {words}: {', '.join(sorted(values))}")
    for k in (*a, *b):
        unresolved = [hop_title(hop) for hop, summary in k["hops"].items() if summary["resolved"] is False]
        if unresolved:
            cautions.append(f"{k['run']}: the clocks do not resolve {', '.join(unresolved)}")
    if len(a) == 1 and len(b) == 1:
        cautions.append("one run on each side: the interval knows nothing of the spread between runs; repeat both")
    return cautions


def comparison_table(comparison: Comparison) -> Table:
    """One row per hop and statistic; * marks differences that are clear."""
    from rich import box
    from rich.table import Table

    table = Table(
        title=f"A: {', '.join(comparison.a)}\nB: {', '.join(comparison.b)}",
        caption="ms; * the 95 % interval leaves out zero and the difference exceeds the clock bound",
        box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left", caption_justify="left",
    )  # fmt: skip
    for name in ("hop", "statistic", "A", "B", "B - A", "95 % interval", "B / A", "Cliff's delta"):
        table.add_column(name, justify="left" if name in {"hop", "statistic"} else "right", no_wrap=True)
    for row in comparison_rows(comparison):
        table.add_row(*row)
    return table


def comparison_rows(comparison: Comparison) -> list[list[str]]:
    """The table's cells as text."""
    return [
        [
            hop_title(d.hop) if d.statistic == STATISTICS[0] else "",
            d.statistic,
            in_ms(d.a_ms),
            in_ms(d.b_ms),
            in_ms(d.difference_ms) + (" *" if d.clear else ""),
            f"{in_ms(d.low_ms)} to {in_ms(d.high_ms)}",
            "-" if d.ratio is None else f"{d.ratio:.3f}",
            f"{comparison.cliffs_delta[d.hop]:+.2f}" if d.statistic == STATISTICS[0] else "",
        ]
        for d in comparison.differences
    ]
