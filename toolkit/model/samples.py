"""The measured delays of run folders, hop by hop, as arrays in milliseconds: all that models know of a run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.errors import ModelError
from toolkit.model import cables
from toolkit.model.cables import Cables, Freed
from toolkit.model.distributions import FloatArray
from toolkit.model.steps import delays_of_steps

FULL = 0.93
"""Load of a cable from which on queues grow long."""
_FEW = 20
HOPS = {"publish": ("t1_ns", "t2_ns"), "broker": ("t2_ns", "t3_ns"), "deliver": ("t3_ns", "t4_ns")}
"""Hop -> the instants that it lies between; a message's hops follow each other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSamples:
    """Delays of one run, or of several taken together. Rows of all hops and of `end_to_end` belong together."""

    folder: Path
    """Of the first run."""
    manifest: dict[str, Any]
    """Of the first run."""
    names: tuple[str, ...]
    hops: dict[str, FloatArray]
    """ms by hop, a value for each delivery in the order of sending; only hops whose two instants were stamped."""
    end_to_end: FloatArray
    """From the publisher's write (T1) to the subscriber's read (T4): the KPI `transport`; or a request's steps."""
    parts: tuple[FloatArray, ...]
    """`end_to_end` of each run."""
    part_subscribers: tuple[int, ...] = (0,)
    """Deliveries of a message in each run."""
    rate_per_s: float = 1.0
    """Messages a second."""
    steps: dict[str, FloatArray] = field(default_factory=dict)
    """ms by step, in the order in which steps happen, a row for each request; gaps between two are steps too."""
    messages: dict[str, FloatArray] = field(default_factory=dict)
    """ms, a value for each message: publish, and broker (to the first sending)."""
    arrivals: FloatArray = field(default_factory=lambda: np.zeros((0, 1)))
    """Shape (messages, subscribers): from a message's first sending to the arrival at the subscriber that was sent to
    first, second, ...; NaN where there is none."""
    freed: Freed | None = None
    """The hops of messages without the cables; there is one where `messages` are known."""
    in_broker: int = 0
    """How many messages were in the broker at once (99th percentile at arrival)."""
    left_out: int = 0
    """Rows without all instants, requests that took another way."""
    schedule_ms: float = 0.0
    """Mean of T1 - T0: how late the publisher was; no part of any hop."""

    @property
    def name(self) -> str:
        """The run's name, or the names of all."""
        return "+".join(self.names)

    @property
    def subscribers(self) -> int:
        """Deliveries of a message."""
        return int(self.arrivals.shape[1])

    @property
    def cable_load(self) -> float:
        """The share of its time for which the cable to the subscribers is busy; 0 where its rate is not known."""
        if self.freed is None:
            return 0.0
        copies = float(np.mean(np.sum(~np.isnan(self.arrivals), axis=1)))
        return self.rate_per_s * copies * self.freed.cables.out_ms / 1000

    @property
    def is_cable_full(self) -> bool:
        """Whether copies pile up before the cable to the subscribers."""
        return self.cable_load >= FULL

    @property
    def is_rest_hidden(self) -> bool:
        """Whether what is left of the way cannot be seen behind a full cable.

        That is so where connections took uneven turns on it, and where no message found it empty.
        """
        if self.freed is None or not self.is_cable_full:
            return False
        return self.freed.cables.is_paced or int(self.freed.is_idle.sum()) < _FEW

    def setting(self, *names: str) -> float | None:
        """The first number found under any of these names, anywhere in the manifest."""
        for name in names:
            found = _find(self.manifest, name)
            if found is not None:
                return found
        return None

    @property
    def window(self) -> int | None:
        """Messages that may be without an answer in a closed loop; None for an open one."""
        workload = self.manifest.get("workload") or {}
        if (workload.get("arrivals") or {}).get("kind") != "closed":
            return None
        processes = {stream.get("process") for stream in self.manifest.get("streams") or ()}
        return max(len(processes), 1) * int(workload.get("connections") or 1)


def _find(document: Any, name: str) -> float | None:
    if isinstance(document, dict):
        value = document.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        if isinstance(value, str) and value.replace(".", "", 1).isdigit():
            return float(value)
    children = document.values() if isinstance(document, dict) else document if isinstance(document, list) else ()
    return next((found for child in children if (found := _find(child, name)) is not None), None)


def read_runs(folders: Sequence[Path]) -> RunSamples:
    """The delays of one run, or of several that are to be taken as one (repetitions of a point)."""
    return pool([read_run(folder) for folder in folders])


def pool(runs: Sequence[RunSamples]) -> RunSamples:
    """Several runs as one; what only some of them have is left out."""
    if len(runs) == 1:
        return runs[0]
    width = max(run.subscribers for run in runs)
    freed = [run.freed for run in runs if run.freed is not None]
    widened = [np.pad(run.arrivals, ((0, 0), (0, width - run.subscribers)), constant_values=np.nan) for run in runs]
    return RunSamples(
        folder=runs[0].folder,
        manifest=runs[0].manifest,
        names=tuple(name for run in runs for name in run.names),
        hops=_joined([run.hops for run in runs]),
        end_to_end=np.concatenate([run.end_to_end for run in runs]),
        parts=tuple(part for run in runs for part in run.parts),
        part_subscribers=tuple(count for run in runs for count in run.part_subscribers),
        rate_per_s=float(np.mean([run.rate_per_s for run in runs])),
        steps=_joined([run.steps for run in runs]),
        messages=_joined([run.messages for run in runs]),
        arrivals=np.concatenate(widened),
        freed=cables.pool(freed) if len(freed) == len(runs) else None,
        in_broker=max(run.in_broker for run in runs),
        left_out=sum(run.left_out for run in runs),
        schedule_ms=float(np.mean([run.schedule_ms for run in runs])),
    )


def _joined(parts: Sequence[dict[str, FloatArray]]) -> dict[str, FloatArray]:
    names = [name for name in parts[0] if all(name in part for part in parts)]
    return {name: np.concatenate([part[name] for part in parts]) for name in names}


def read_run(folder: Path) -> RunSamples:
    """The delays in a run folder (`samples.parquet`, `steps.parquet`); ModelError if there is nothing to model."""
    samples, steps = folder / "samples.parquet", folder / "steps.parquet"
    if not samples.is_file() and not steps.is_file():
        raise ModelError(f"{folder}: has neither samples.parquet nor steps.parquet; is this a run folder?")
    manifest: dict[str, Any] = {}
    if (folder / "manifest.json").is_file():
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    if steps.is_file():
        sql = "SELECT request, step, start_ns, end_ns FROM read_parquet(?) ORDER BY request, start_ns, end_ns"
        steps_ms, whole, others = delays_of_steps(_query(sql, steps), str(steps))
        return RunSamples(
            folder=folder, manifest=manifest, names=(folder.name,), hops={}, end_to_end=whole, parts=(whole,),
            steps=steps_ms, left_out=others,
        )  # fmt: skip
    return _deliveries(folder, manifest, samples)


def _deliveries(folder: Path, manifest: dict[str, Any], samples: Path) -> RunSamples:
    columns = _columns(samples)
    stamps: list[str] = [c for c in ("t0_ns", "t1_ns", "t2_ns", "t3_ns", "t4_ns") if c in columns]
    keys = [c for c in ("stream", "seq") if c in columns]
    order = ["t1_ns", *keys, *(c for c in ("t3_ns", "t4_ns") if c in columns)]
    where = "WHERE NOT late" if "late" in columns else ""
    # Column names are ours, the path is a parameter.
    sql = f"SELECT {', '.join([*stamps, *keys])} FROM read_parquet(?) {where} ORDER BY {', '.join(order)}"  # noqa: S608
    table = _query(sql, samples)
    times = {name: np.asarray(table[name], dtype=np.int64) for name in [*stamps, *keys]}
    # A broker that nothing stamped leaves zeros: then there is only the way as a whole.
    used = [name for name in stamps if name != "t0_ns" and not (times[name] == 0).all()]
    complete = np.logical_and.reduce([times[name] != 0 for name in used])
    if "t1_ns" not in used or "t4_ns" not in used or not complete.any():
        raise ModelError(f"{samples}: no delivered message has both its sending and its arrival stamped")
    kept = {name: values[complete] for name, values in times.items()}
    hops = {hop: (kept[b] - kept[a]) / 1e6 for hop, (a, b) in HOPS.items() if a in used and b in used}
    whole = (kept["t4_ns"] - kept["t1_ns"]) / 1e6
    first = _first_of_message(kept, list(map(str, keys)))
    parted = {}
    if len(hops) == len(HOPS):
        parted = _by_message(kept, first, _answered(folder, kept, first), cables.cables_of(manifest))
    return RunSamples(
        folder=folder,
        manifest=manifest,
        names=(folder.name,),
        hops=hops,
        end_to_end=whole,
        parts=(whole,),
        rate_per_s=_rate(kept["t1_ns"][first], samples),
        left_out=int((~complete).sum()),
        schedule_ms=float(np.mean(kept["t1_ns"] - kept["t0_ns"]) / 1e6) if "t0_ns" in kept else 0.0,
        part_subscribers=(parted["arrivals"].shape[1],) if parted else (0,),
        **parted,
    )


def _first_of_message(times: dict[str, Any], keys: Sequence[str]) -> Any:
    """Which rows begin a message: deliveries of one follow each other, in the order of sending."""
    changed = np.logical_or.reduce([np.diff(times[key]) != 0 for key in [*keys, "t1_ns"]])
    return np.concatenate([[True], changed])


def _answered(folder: Path, times: dict[str, Any], first: Any) -> FloatArray:
    """How long each message's answer took from its sending, ms; NaN where there was none."""
    sent = times["t1_ns"][first]
    file = folder / "messages.parquet"
    if len(sent) < 2 or not file.is_file() or "t5_ns" not in _columns(file):
        return np.full(len(sent), np.nan)
    table = _query("SELECT t1_ns, t5_ns FROM read_parquet(?) WHERE t5_ns > 0 ORDER BY t1_ns", file)
    begun, ended = (np.asarray(table[name], dtype=np.int64) for name in ("t1_ns", "t5_ns"))
    if not len(begun):
        return np.full(len(sent), np.nan)
    at = np.minimum(np.searchsorted(begun, sent), len(begun) - 1)
    return np.where(begun[at] == sent, (ended[at] - sent) / 1e6, np.nan)


def _by_message(times: dict[str, Any], first: Any, answered: FloatArray, known: Cables) -> dict[str, Any]:
    """Hops up to a message's first sending, its arrivals from there, and how full the broker was."""
    starts = np.flatnonzero(first)
    counts = np.diff(np.append(starts, len(first)))
    received, sent = times["t2_ns"][starts], times["t3_ns"][starts]
    last_sent = times["t3_ns"][starts + counts - 1]
    rank = np.arange(len(first)) - np.repeat(starts, counts)
    arrivals = np.full((len(starts), int(counts.max())), np.nan)
    arrivals[np.cumsum(first) - 1, rank] = (times["t4_ns"] - np.repeat(sent, counts)) / 1e6
    held = np.arange(1, len(starts) + 1) - np.searchsorted(np.sort(last_sent), np.sort(received))
    begin = int(times["t1_ns"][starts[0]])
    out, arrived = (np.full(arrivals.shape, np.nan) for _ in range(2))
    for instants, name in ((out, "t3_ns"), (arrived, "t4_ns")):
        instants[np.cumsum(first) - 1, rank] = (times[name] - begin) / 1e6
    sent_ms, received_ms = ((times[name][starts] - begin) / 1e6 for name in ("t1_ns", "t2_ns"))
    return {
        "messages": {"publish": (received - times["t1_ns"][starts]) / 1e6, "broker": (sent - received) / 1e6},
        "arrivals": arrivals,
        "freed": cables.freed(
            known, sent=sent_ms, received=received_ms, out=out, arrived=arrived, answered=sent_ms + answered
        ),
        "in_broker": int(np.quantile(held, 0.99)),
    }


def _rate(sent_ns: Any, samples: Path) -> float:
    if len(sent_ns) < 2:
        return 1.0
    span = float(sent_ns.max() - sent_ns.min())
    if span <= 0:
        raise ModelError(f"{samples}: all messages have the same sending instant")
    return float(f"{(len(sent_ns) - 1) / span * 1e9:.6g}")


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
