"""Orchestration requests of a run: every request with its outcome, every step of its way, and what each step took.

Tables: `requests.parquet` (a row per request) and `steps.parquet` (a row per step of an answered request, `step` as
the systems name it, `name` with the number of its turn where a request takes a step again).
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.contract.samples import Flag, Point
from toolkit.contract.steps import Step, StepRecord, label, read_records, request_number, steps_of
from toolkit.errors import MeasurementError
from toolkit.measure.boards import board_faults
from toolkit.measure.clocks import NodeClock, path_bound_ns
from toolkit.measure.compute import base_document, clock_faults, pace_faults, read_clocks, told_faults
from toolkit.measure.kpis import HopSummary, summarise, throughput
from toolkit.measure.layout import UNKNOWN_NS
from toolkit.measure.ledger import Joined, Ledger
from toolkit.measure.stamps import StampsFile, read_files
from toolkit.measure.store import RunFolder
from toolkit.measure.tables import Column, read_column, read_sums, write_table

WHOLE = "end_to_end"
"""From a request's sending to its answer, T5 - T1."""
_STEP = re.compile(r"(?P<sender>\S+) (?:-> (?P<receiver>\S+)|(?P<kind>query|inside)): (?P<operation>.*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """What consumers stamped, without warm-up; columns of one length, instants on the reference's clock.

    0 is none, UNKNOWN_NS one that a clock stamped which had stepped.
    """

    process: list[str]
    stream: Column
    seq: Column
    t0_ns: Column
    t1_ns: Column
    t5_ns: Column

    @property
    def answered(self) -> Column:
        """Which of them got an answer that could be used."""
        return np.not_equal(self.t5_ns, 0)

    @property
    def untimed(self) -> Column:
        """Which of the answered ones took nobody knows how long."""
        unknown: Column = (self.t1_ns == UNKNOWN_NS) | (self.t5_ns == UNKNOWN_NS)
        return np.logical_and(self.answered, unknown)


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedStep:
    """A step with the name under which it is summed up."""

    step: Step
    name: str
    untimed: bool = False
    """A clock had stepped before one of its ends."""


def compute_requests(run: RunFolder) -> dict[str, Any]:
    """Write both tables and `kpis.json`, and return what is in it."""
    manifest = run.manifest()
    files = read_files(run.raw, {process: order["role"] for process, order in manifest.get("orders", {}).items()})
    clocks = read_clocks(run, files, manifest)
    requests = read_requests(files, clocks)
    steps = name_steps(*read_steps(run, clocks, requests))
    write_tables(run, requests, steps)
    joined = books(files, requests)
    document = _document(
        manifest, files, clocks, joined, requests, steps,
        beside=board_faults(run.raw, clocks, joined.first_ns, joined.last_ns),
    )  # fmt: skip
    run.write("kpis.json", document)
    return document


def read_requests(files: Sequence[StampsFile], clocks: Mapping[str, NodeClock]) -> Requests:
    """The requests of every consumer; raises MeasurementError if stamps contradict themselves."""
    columns: dict[str, list[Any]] = defaultdict(list)
    for file in files:
        if file.role != "consumer":
            continue
        blocks = [block[(block["flags"] & Flag.WARMUP) == 0] for block in file.blocks()]
        if not blocks:
            continue
        stamps = np.concatenate(blocks)
        clock = clocks.get(file.node)
        at, due = (_instants(stamps[name], clock) for name in ("at_ns", "aux_ns"))
        sent, acked = stamps["point"] == Point.SENT, stamps["point"] == Point.ACKED
        answers = dict(zip(stamps["seq"][acked].tolist(), at[acked].tolist(), strict=True))
        seqs = stamps["seq"][sent]
        if len(np.unique(seqs)) != len(seqs) or set(answers) - set(seqs.tolist()):
            raise MeasurementError(f"{file.process}: its stamps are damaged: a request was sent twice, or never")
        columns["process"] += [file.process] * len(seqs)
        columns["stream"].append(stamps["stream"][sent].astype(np.int64))
        columns["seq"].append(seqs.astype(np.int64))
        columns["t0_ns"].append(due[sent])
        columns["t1_ns"].append(at[sent])
        columns["t5_ns"].append(np.array([answers.get(seq, 0) for seq in seqs.tolist()], dtype=np.int64))
    process = columns.pop("process", [])
    names = ("stream", "seq", "t0_ns", "t1_ns", "t5_ns")
    empty = [np.zeros(0, dtype=np.int64)]
    return Requests(process=process, **{name: np.concatenate(columns.get(name) or empty) for name in names})


def _instants(stamped_ns: Column, clock: NodeClock | None) -> Column:
    """On the reference's clock; UNKNOWN_NS what a clock stamped that had stepped."""
    if clock is None:
        return stamped_ns
    at_ns = stamped_ns - clock.offset_at_ns(stamped_ns)
    return at_ns if clock.until_ns is None else np.where(stamped_ns >= clock.until_ns, UNKNOWN_NS, at_ns)


def read_steps(
    run: RunFolder, clocks: Mapping[str, NodeClock], requests: Requests
) -> tuple[list[Step], set[tuple[str, str]]]:
    """The steps of all answered requests of this run, instants on the reference's clock.

    Beside them, (request, system): what that system recorded of it by a clock that had stepped.
    """
    answered = set(
        zip(requests.stream[requests.answered].tolist(), requests.seq[requests.answered].tolist(), strict=True)
    )
    records: list[StepRecord] = []
    untimed: set[tuple[str, str]] = set()
    for file in sorted(run.raw.glob("*/*.steps.jsonl")):
        found = [
            r for r in _records(file) if (n := request_number(r.request)) and n[0] == run.name and n[1:] in answered
        ]
        clock = clocks.get(file.parent.name)
        if clock is not None and clock.until_ns is not None:
            untimed |= {(r.request, label(r)) for r in found if max(r.start_ns, r.end_ns) >= clock.until_ns}
        records += _on_reference(found, clock)
    return steps_of(records), untimed


def _records(file: Path) -> list[StepRecord]:
    """Whole lines only: a killed process may leave half of one."""
    text = file.read_text(errors="replace")
    try:
        return read_records(text[: text.rfind("\n") + 1].splitlines())
    except (TypeError, ValueError) as error:
        raise MeasurementError(f"{file}: a line is no step record: {error}") from None


def _on_reference(records: list[StepRecord], clock: NodeClock | None) -> Iterable[StepRecord]:
    if clock is None or not records or not any(clock.offsets_ns):
        return records
    starts = clock.offset_at_ns(np.array([record.start_ns for record in records], dtype=np.int64)).tolist()
    ends = clock.offset_at_ns(np.array([record.end_ns for record in records], dtype=np.int64)).tolist()
    return [
        dataclasses.replace(record, start_ns=record.start_ns - start, end_ns=record.end_ns - end)
        for record, start, end in zip(records, starts, ends, strict=True)
    ]


def name_steps(steps: Iterable[Step], untimed: Collection[tuple[str, str]] = ()) -> list[NamedStep]:
    """Number the turns of what a request does again; the pieces of time inside one system stay under one name.

    `untimed`: (request, system) whose clock had stepped.
    """
    turns: Counter[tuple[str, str]] = Counter()
    named = []
    for step in sorted(steps):
        turn = 1
        if " inside: " not in step.step:
            turns[step.request, step.step] += 1
            turn = turns[step.request, step.step]
        name = step.step if turn == 1 else f"{step.step} ({turn})"
        spoilt = bool(untimed) and any((step.request, end) in untimed for end in ends_of(step.step)[:2])
        named.append(NamedStep(step=step, name=name, untimed=spoilt))
    return named


def ends_of(step: str) -> tuple[str, str, str, str]:
    """Sender, receiver (the same for what happens inside a system), kind and operation of a step by its name."""
    parts = _STEP.match(step)
    if parts is None:
        return "?", "?", "message", step
    return parts["sender"], parts["receiver"] or parts["sender"], parts["kind"] or "message", parts["operation"]


def write_tables(run: RunFolder, requests: Requests, steps: Sequence[NamedStep]) -> None:
    """`requests.parquet` and `steps.parquet`."""
    write_table(
        run.requests,
        {
            "process": requests.process,
            "stream": requests.stream,
            "seq": requests.seq,
            "t0_ns": requests.t0_ns,
            "t1_ns": requests.t1_ns,
            "t5_ns": requests.t5_ns,
        },
    )
    write_table(
        run.steps,
        {
            "request": [each.step.request for each in steps],
            "step": [each.step.step for each in steps],
            "name": [each.name for each in steps],
            "start_ns": np.array([0 if each.untimed else each.step.start_ns for each in steps], dtype=np.int64),
            "end_ns": np.array([0 if each.untimed else each.step.end_ns for each in steps], dtype=np.int64),
        },
    )


def read_delays(run: RunFolder, hop: str) -> Column:
    """Delays of the whole request or of a step of that name, ns, one for each request, in the order of sending."""
    if hop == WHOLE:
        return read_column(run.requests, "t5_ns - t1_ns")
    step = hop.replace("'", "''")
    return read_sums(run.steps, "end_ns - start_ns", f"name = '{step}'", by="request")


def books(files: Sequence[StampsFile], requests: Requests) -> Joined:
    """Where every request ended: answered, refused (not found too), or without an answer (dropped)."""
    joined = Joined(ledgers={})
    process = np.array(requests.process, dtype=object)
    for file in files:
        own = process == file.process
        if not own.any():
            continue
        outcomes = file.info.facts.get("outcomes", {}) if file.info else {}
        expected, answered = int(own.sum()), int((own & requests.answered).sum())
        refused = int(outcomes.get("refused", 0)) + int(outcomes.get("not_found", 0))
        told = answered + refused + int(outcomes.get("no_answer", 0))
        joined.ledgers[file.process] = Ledger(
            expected=expected,
            delivered=answered,
            refused=refused,
            dropped=int(outcomes.get("no_answer", 0)),
            in_flight=max(0, expected - told),
        )
    joined.messages = len(requests.seq)
    joined.acknowledged = int(requests.answered.sum())
    joined.refused = joined.total.refused
    instants = {"offered": requests.t0_ns, "sent": requests.t1_ns, "delivered": requests.t5_ns[requests.answered]}
    for name, values in instants.items():
        seconds, counts = np.unique(values // 1_000_000_000, return_counts=True)
        joined.bins[name] = dict(zip(seconds.tolist(), counts.tolist(), strict=True))
    known = np.concatenate([requests.t1_ns, requests.t5_ns])
    known = known[(known != 0) & (known != UNKNOWN_NS)]
    if len(known):
        joined.first_ns, joined.last_ns = int(known.min()), int(known.max())
    if requests.untimed.any():
        joined.stepped[WHOLE] = int(requests.untimed.sum())
    return joined


def summarise_steps(
    steps: Sequence[NamedStep], clocks: Mapping[str, NodeClock], places: Mapping[str, str], joined: Joined
) -> tuple[dict[str, HopSummary], list[dict[str, Any]]]:
    """Name -> summary, and the sequence: both in the order in which the steps begin on average.

    `places`: a system as steps name it -> its node.
    """
    taken: dict[str, Counter[str]] = defaultdict(Counter)
    untimed: dict[str, set[str]] = defaultdict(set)
    begun: dict[str, dict[str, int]] = defaultdict(dict)
    first: dict[str, int] = {}
    labels = {each.name: each.step.step for each in steps}
    spoilt = {each.step.request for each in steps if each.untimed}
    for each in steps:
        step = each.step
        if each.untimed:
            untimed[each.name].add(step.request)
            continue
        taken[each.name][step.request] += step.end_ns - step.start_ns
        if step.request not in spoilt:
            begun[each.name].setdefault(step.request, step.start_ns)
            first[step.request] = min(first.get(step.request, step.start_ns), step.start_ns)
    offset_ms = {
        name: float(np.mean([start - first[request] for request, start in starts.items()])) / 1e6
        for name, starts in begun.items()
    }
    summaries, sequence = {}, []
    for name in sorted(labels, key=lambda name: offset_ms.get(name, inf)):
        sender, receiver, kind, operation = ends_of(labels[name])
        one, other = clocks.get(places.get(sender, "")), clocks.get(places.get(receiver, ""))
        bound = path_bound_ns(one, other, joined.first_ns, joined.last_ns) if one and other else None
        delays = np.fromiter(taken[name].values(), dtype=np.int64)
        summaries[name] = summarise(delays, lost=0, bound_ns=bound, stepped=len(untimed[name]))
        if len(delays):
            sequence.append(
                {
                    "name": name, "kind": kind, "from": sender, "to": receiver, "operation": operation,
                    "requests": len(delays), "start_ms": offset_ms.get(name), "mean_ms": summaries[name].mean_ms,
                }
            )  # fmt: skip
    return summaries, sequence


def _places(run_manifest: Mapping[str, Any]) -> dict[str, str]:
    """`system@cloud` -> node, by the services of the run; a system that runs on several nodes is left out."""
    found: dict[str, set[str]] = defaultdict(set)
    for service in run_manifest.get("services", ()):
        if service.get("cloud"):
            found[f"{service['role'].replace('-', '_')}@{service['cloud']}"] |= set(service["nodes"])
    return {system: next(iter(nodes)) for system, nodes in found.items() if len(nodes) == 1}


def _document(
    manifest: Mapping[str, Any],
    files: Sequence[StampsFile],
    clocks: Mapping[str, NodeClock],
    joined: Joined,
    requests: Requests,
    steps: Sequence[NamedStep],
    *,
    beside: Sequence[str],
) -> dict[str, Any]:
    """`kpis.json`, with the keys of every run; the hops are the whole request and the steps of its way.

    `beside`: faults that stamps and counters do not show.
    """
    timed = requests.answered & ~requests.untimed
    nodes = {file.node for file in files if file.role == "consumer"}
    resolution = max((clocks[node].resolution_ns for node in nodes if node in clocks), default=None)
    whole = summarise(
        requests.t5_ns[timed] - requests.t1_ns[timed],
        lost=joined.total.dropped, bound_ns=resolution, stepped=int(requests.untimed.sum()),
    )  # fmt: skip
    known = (requests.t0_ns != UNKNOWN_NS) & (requests.t1_ns != UNKNOWN_NS)
    schedule = summarise(
        (requests.t1_ns - requests.t0_ns)[known], bound_ns=resolution, stepped=int(np.count_nonzero(~known))
    )
    summaries, sequence = summarise_steps(steps, clocks, _places(manifest), joined)
    hops = {WHOLE: whole, **summaries}
    faults = [
        *told_faults(manifest, files),
        *clock_faults(clocks, hops, joined),
        *pace_faults(manifest, schedule, role="consumer"),
        *_gaps(requests, steps),
    ]
    if not joined.messages:
        faults.append("no request was sent")
    faults += beside
    sizes = {
        int(file.info.facts["request_bytes"]) for file in files if file.info and "request_bytes" in file.info.facts
    }
    return base_document(manifest, files, clocks, joined, faults=faults) | {
        "hops": {hop: dataclasses.asdict(summary) for hop, summary in hops.items()},
        "delays": {"schedule": dataclasses.asdict(schedule)},
        "sequence": sequence,
        "request_bytes": max(sizes, default=None),
        "throughput": throughput(joined, max(sizes, default=0)),
        "counters": {"messages": joined.messages, "refused": joined.refused, "acknowledged": joined.acknowledged},
    }


def _gaps(requests: Requests, steps: Sequence[NamedStep]) -> list[str]:
    """What the systems did not record of answered requests."""
    answered = int(requests.answered.sum())
    seen = {each.step.request for each in steps}
    silent = Counter(each.name for each in steps if " -> ?: " in each.name)
    faults = [f"{count} times nobody recorded the other end of {name}" for name, count in silent.items()]
    if len(seen) < answered:
        faults.append(f"{answered - len(seen)} of {answered} answered requests have no step on record")
    return faults
