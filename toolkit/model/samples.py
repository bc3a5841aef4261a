"""The measured delays of a run folder, hop by hop, as arrays in milliseconds: all that models know of a run."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.errors import ModelError
from toolkit.model.distributions import FloatArray

HOPS = {"publish": ("t1_ns", "t2_ns"), "broker": ("t2_ns", "t3_ns"), "deliver": ("t3_ns", "t4_ns")}
"""Hop -> the instants that it lies between; a message's hops follow each other."""
END_TO_END = ("t1_ns", "t4_ns")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSamples:
    """Delays of one run. Rows of all hops and of `end_to_end` belong together: one delivered message each."""

    folder: Path
    manifest: dict[str, Any]
    hops: dict[str, FloatArray]
    """ms by hop, in the order of sending; only hops whose two instants were stamped."""
    end_to_end: FloatArray
    sent_ms: FloatArray
    """When each was sent, after the first."""
    steps: dict[str, FloatArray] = field(default_factory=dict)
    """ms by step, in the order in which steps happen; the time between two steps is a step of its own."""
    first_sent_ms: FloatArray = field(default_factory=lambda: np.zeros(0))
    """Broker's receiving to its first sending, once for each message."""
    gaps_ms: FloatArray = field(default_factory=lambda: np.zeros(0))
    """Between the broker's sendings of one message to one subscriber and the next."""
    in_broker: int = 0
    """How many messages were in the broker at once (99th percentile at arrival)."""
    left_out: int = 0
    """Rows without all instants."""

    def setting(self, *names: str) -> float | None:
        """The first number found under any of these names, anywhere in the manifest."""
        for name in names:
            found = _find(self.manifest, name)
            if found is not None:
                return found
        return None


def _find(document: Any, name: str) -> float | None:
    if isinstance(document, dict):
        value = document.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        if isinstance(value, str) and value.replace(".", "", 1).isdigit():
            return float(value)
    children = document.values() if isinstance(document, dict) else document if isinstance(document, list) else ()
    return next((found for child in children if (found := _find(child, name)) is not None), None)


def read_run(folder: Path) -> RunSamples:
    """The delays in a run folder (`samples.parquet`, `steps.parquet`); ModelError if there is nothing to model."""
    samples, steps = folder / "samples.parquet", folder / "steps.parquet"
    if not samples.is_file() and not steps.is_file():
        raise ModelError(f"{folder}: has neither samples.parquet nor steps.parquet; is this a run folder?")
    manifest: dict[str, Any] = {}
    if (folder / "manifest.json").is_file():
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    steps_ms, order_ms = _steps(steps) if steps.is_file() else ({}, np.zeros(0))
    if not samples.is_file():
        return RunSamples(
            folder=folder, manifest=manifest, hops={}, end_to_end=order_ms, sent_ms=np.zeros(0), steps=steps_ms
        )
    columns = _columns(samples)
    stamps: list[str] = [c for c in ("t1_ns", "t2_ns", "t3_ns", "t4_ns") if c in columns]
    where = "WHERE NOT late" if "late" in columns else ""
    extra = [c for c in ("stream", "seq", "subscriber") if c in columns]
    order = ", ".join(["t1_ns", *extra])
    # Column names are ours, the path is a parameter.
    sql = f"SELECT {', '.join(stamps)} FROM read_parquet(?) {where} ORDER BY {order}"  # noqa: S608
    table = _query(sql, samples)
    times = {name: np.asarray(table[name], dtype=np.int64) for name in stamps}
    # A broker that nothing stamped leaves zeros: then there is only the way as a whole.
    used = [name for name in stamps if not (times[name] == 0).all()]
    complete = np.logical_and.reduce([times[name] != 0 for name in used])
    if "t1_ns" not in used or "t4_ns" not in used or not complete.any():
        raise ModelError(f"{samples}: no delivered message has both its sending and its arrival stamped")
    kept = {name: times[name][complete] for name in used}
    hops = {hop: (kept[b] - kept[a]) / 1e6 for hop, (a, b) in HOPS.items() if a in kept and b in kept}
    first_sent, gaps, crowd = _fan_out(kept) if len(hops) == len(HOPS) else (np.zeros(0), np.zeros(0), 0)
    return RunSamples(
        folder=folder,
        manifest=manifest,
        hops=hops,
        first_sent_ms=first_sent,
        gaps_ms=gaps,
        in_broker=crowd,
        end_to_end=(kept["t4_ns"] - kept["t1_ns"]) / 1e6,
        sent_ms=(kept["t1_ns"] - kept["t1_ns"].min()) / 1e6,
        steps=steps_ms,
        left_out=int((~complete).sum()),
    )


def _fan_out(times: dict[str, Any]) -> tuple[FloatArray, FloatArray, int]:
    """Per message: receiving to first sending, gaps between sendings; and how many messages the broker held at once."""
    received, sent = times["t2_ns"], times["t3_ns"]
    order = np.lexsort((sent, times["t1_ns"], received))
    received, sent = received[order], sent[order]
    is_first = np.concatenate([[True], np.diff(received) != 0])
    gaps = np.diff(sent)[~is_first[1:]] / 1e6
    starts, ends = received[is_first], np.sort(np.maximum.reduceat(sent, np.flatnonzero(is_first)))
    held = np.arange(1, len(starts) + 1) - np.searchsorted(ends, np.sort(starts))
    return (sent[is_first] - starts) / 1e6, gaps, int(np.quantile(held, 0.99))


def _query(sql: str, file: Path) -> dict[str, Any]:
    import duckdb

    try:
        with duckdb.connect() as connection:
            found: dict[str, Any] = connection.execute(sql, [str(file)]).fetchnumpy()
    except duckdb.Error as error:
        raise ModelError(f"{file}: {str(error).splitlines()[0]}") from error
    return {name: np.ma.filled(values, 0) for name, values in found.items()}


def _columns(file: Path) -> list[str]:
    return [
        str(name)
        for name in _query("SELECT column_name FROM (DESCRIBE SELECT * FROM read_parquet(?))", file)["column_name"]
    ]


def _steps(file: Path) -> tuple[dict[str, FloatArray], FloatArray]:
    """Each step of the request most alike, and the time inside systems between steps (`after_<step>`)."""
    table = _query("SELECT request, step, start_ns, end_ns FROM read_parquet(?) ORDER BY request, start_ns", file)
    requests: dict[Any, list[tuple[str, int, int]]] = {}
    rows = zip(
        table["request"].tolist(),
        table["step"].tolist(),
        table["start_ns"].tolist(),
        table["end_ns"].tolist(),
        strict=True,
    )
    for request, step, start, end in rows:
        requests.setdefault(request, []).append((str(step), int(start), int(end)))
    ways: dict[tuple[str, ...], int] = {}
    for steps in requests.values():
        way = tuple(s for s, _, _ in steps)
        ways[way] = ways.get(way, 0) + 1
    if not ways:
        raise ModelError(f"{file}: has no steps")
    common = max(ways, key=lambda w: ways[w])
    delays: dict[str, list[float]] = {}
    totals = []
    for steps in requests.values():
        if tuple(s for s, _, _ in steps) != common:
            continue
        seen: dict[str, int] = {}
        before: int | None = None
        last = ""
        for step, start, end in steps:
            seen[step] = seen.get(step, 0) + 1
            name = step if seen[step] == 1 else f"{step}_{seen[step]}"
            if before is not None:
                delays.setdefault(f"after_{last}", []).append((start - before) / 1e6)
            delays.setdefault(name, []).append((end - start) / 1e6)
            before, last = end, name
        totals.append((steps[-1][2] - steps[0][1]) / 1e6)
    return {name: np.array(values) for name, values in delays.items()}, np.array(totals)
