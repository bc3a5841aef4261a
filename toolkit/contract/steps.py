"""How one orchestration request is followed through every system: the header, the records, the steps made of them.

A request carries `x-toolkit-request: [<run>:]<request>/<call path>`; a system that calls another adds its own number
to the path, so `run1:7/2/1` is the first call made while serving the second call made while serving request 7 of run1.
Clients and servers that do not know the header ignore it. Each process writes one JSON line per record to
`<samples>/<run>/<service>-<instance>.steps.jsonl` (without the folder where there is no run); `steps_of` joins the
lines of all processes.
"""

from __future__ import annotations

import dataclasses
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

HEADER = "x-toolkit-request"
WRITTEN_WITHIN_S = 0.5
"""What a system has seen is in its file after this long."""


def request_id(run: str, stream: int, seq: int) -> str:
    """How a consumer names a request of a run; streams are unique in it."""
    return f"{run}:{stream}.{seq}"


def request_number(request: str) -> tuple[str, int, int] | None:
    """Run, stream and seq of a request that a consumer named; None for others."""
    run, colon, number = request.partition(":")
    stream, dot, seq = number.partition(".")
    return (run, int(stream), int(seq)) if colon and dot and stream.isdigit() and seq.isdigit() else None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """What one process saw: a call it made, a call it served, or a database query within one it served."""

    request: str
    call: str
    """Call path; that of the served call for a query."""
    kind: Literal["call", "serve", "query"]
    system: str
    cloud: str
    operation: str
    start_ns: int
    end_ns: int

    def to_json(self) -> str:
        """One line, without its end."""
        return json.dumps(dataclasses.asdict(self), separators=(",", ":"))


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Step:
    """One stretch of a request's way: a message, a query, or time spent inside a system; instants on local clocks."""

    request: str
    start_ns: int
    end_ns: int
    step: str
    """`consumer -> orchestrator: orchestration`, `service_registry query: query`, `orchestrator inside: …`."""


def read_records(lines: Iterable[str]) -> list[StepRecord]:
    """Parse the lines of one or many files; raises TypeError or ValueError on a line that is no record."""
    return [StepRecord(**json.loads(line)) for line in lines if line.strip()]


def steps_of(records: Iterable[StepRecord]) -> list[Step]:
    """Join the records of all processes, by request and in time.

    A call whose other side wrote nothing (a system that is not ours) becomes one step, `A -> ?: operation`.
    """
    by_call: dict[tuple[str, str], dict[str, StepRecord]] = defaultdict(dict)
    within: dict[tuple[str, str], list[StepRecord]] = defaultdict(list)
    for record in records:
        key = (record.request, record.call)
        if record.kind == "query":
            within[key].append(record)
        else:
            by_call[key][record.kind] = record
        if record.kind == "call" and "/" in record.call:
            within[(record.request, record.call.rpartition("/")[0])].append(record)
    steps = []
    for key, sides in by_call.items():
        steps += _messages(sides.get("call"), sides.get("serve"))
        if served := sides.get("serve"):
            steps += _inside(served, within[key])
    return sorted(steps)


def label(record: StepRecord) -> str:
    """How steps name the system that wrote a record: `orchestrator@b`, without the cloud where it has none."""
    return f"{record.system}@{record.cloud}" if record.cloud else record.system


def _step(record: StepRecord, start_ns: int, end_ns: int, name: str) -> Step:
    return Step(request=record.request, start_ns=start_ns, end_ns=end_ns, step=f"{name}: {record.operation}")


def _messages(call: StepRecord | None, served: StepRecord | None) -> list[Step]:
    if call is None:
        return []
    if served is None:
        return [_step(call, call.start_ns, call.end_ns, f"{label(call)} -> ?")]
    there = f"{label(call)} -> {label(served)}"
    back = f"{label(served)} -> {label(call)}"
    return [
        _step(served, call.start_ns, served.start_ns, there),
        _step(served, served.end_ns, call.end_ns, back),
    ]


def _inside(served: StepRecord, parts: Sequence[StepRecord]) -> list[Step]:
    steps = [_step(part, part.start_ns, part.end_ns, f"{label(part)} query") for part in parts if part.kind == "query"]
    reached = served.start_ns
    for part in sorted(parts, key=lambda part: part.start_ns):
        if part.start_ns > reached:
            steps.append(_step(served, reached, part.start_ns, f"{label(served)} inside"))
        reached = max(reached, part.end_ns)
    if served.end_ns > reached:
        steps.append(_step(served, reached, served.end_ns, f"{label(served)} inside"))
    return steps
