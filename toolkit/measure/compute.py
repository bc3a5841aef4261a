"""From a run's raw files to its tables and KPIs; needs nothing but the folder, so anybody can do it again."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from toolkit.contract.payloads import Payload
from toolkit.measure import hdr
from toolkit.measure.boards import board_faults
from toolkit.measure.clocks import SHARED, ClockStep, NodeClock, node_clock, path_bound_ns, read_log
from toolkit.measure.collect import CLOCK_LOGS
from toolkit.measure.join import join
from toolkit.measure.joining import joined_at_ns, joining_faults, joining_notes
from toolkit.measure.kpis import (
    DELAYS,
    HopSummary,
    counter_problems,
    hops_of,
    ledger_document,
    summarise,
    throughput,
)
from toolkit.measure.layout import Stream, Subscriber, Terms
from toolkit.measure.ledger import Joined
from toolkit.measure.links import link_notes
from toolkit.measure.payloads import delivered_bytes
from toolkit.measure.probes import PROBED_HOPS, blind_spots, missed_some
from toolkit.measure.promises import granted_qos, judge
from toolkit.measure.stamps import StampsFile, read_files
from toolkit.measure.store import RunFolder
from toolkit.measure.tables import read_column
from toolkit.spec.services import built_in

LOSS_TIMEOUT_S = 30.0
"""Unless the workload's option `loss_timeout_s` says otherwise."""
AROUND_NS = 2_000_000_000
"""A step so long before the first message or after the last belongs to the run: clocks are read once a second."""
FETCH_S = 1.0
"""A clock's log may go on for so long after the run's end was noted."""
SCHEDULE_LIMIT_MS = 10.0
"""An open-loop publisher whose p99 is later than this did not offer the load that was asked for."""


def compute(run: RunFolder) -> dict[str, Any]:
    """Join the raw files, write both tables and `kpis.json`, and return what is in it."""
    manifest = run.manifest()
    if manifest["workload"].get("consumers"):
        from toolkit.measure.orchestration import compute_requests

        return compute_requests(run)
    files = read_files(run.raw, {process: order["role"] for process, order in manifest.get("orders", {}).items()})
    clocks = read_clocks(run, files, manifest)
    joined_ns = joined_at_ns(manifest, files, clocks)
    joined = join(
        files,
        [Stream(**stream) for stream in manifest["streams"]],
        [Subscriber.of(each) for each in manifest["subscribers"]],
        clocks=clocks,
        terms=replace(terms_of(manifest, files), joined_ns=joined_ns),
        folder=run.path,
    )
    summaries = summarise_hops(run, joined, files, clocks)
    workload = manifest["workload"]
    payload = Payload(**workload.get("payload", {}))
    carried = delivered_bytes(run.samples, replace(payload, seed=workload["seed"]), int(workload["payload_bytes"]))
    document = kpi_document(
        manifest, files, clocks, joined, summaries, carried_bytes=carried, joined_ns=joined_ns,
        beside=[*joining_faults(joined_ns), *board_faults(run.raw, clocks, joined.first_ns, joined.last_ns)],
    )  # fmt: skip
    run.write("kpis.json", document)
    return document


def terms_of(manifest: Mapping[str, Any], files: Sequence[StampsFile] = ()) -> Terms:
    """What decides between delivered, late, dropped and in flight in this run.

    A subscriber whose stamps could not all be saved was watched until the last one that was: what it may have received
    after that is not lost.
    """
    workload = manifest["workload"]
    cut_short = {file.process: file.last_ns() for file in files if file.role == "subscriber" and file.is_cut_short}
    return Terms(
        qos=int(workload["qos"]),
        loss_timeout_ns=round(float(workload["options"].get("loss_timeout_s", LOSS_TIMEOUT_S)) * 1e9),
        settle_ns=round(float(workload["drain_s"]) * 1e9),
        watched_until_ns={**cut_short, **manifest.get("watched_until_ns", {})},
    )


def read_clocks(run: RunFolder, files: Sequence[StampsFile], manifest: Mapping[str, Any]) -> dict[str, NodeClock]:
    """The clock of every node that took part; a step of one that several share is a step of each."""
    nodes = manifest.get("nodes", {})
    took_s = manifest.get("ended_at", 0.0) - manifest.get("started_at", 0.0)
    clocks = {
        node: node_clock(
            node,
            [reading for log in CLOCK_LOGS for reading in read_log(run.raw / node / log)],
            shared=bool(nodes.get(node, {}).get("shared_clock")),
            processes=[file.clock for file in files if file.node == node],
            since_ns=int(manifest.get("start_ns", 0)),
            lasted_ns=round((took_s + FETCH_S) * 1e9) if took_s > 0 else None,
        )
        for node in sorted({file.node for file in files} | set(nodes))
    }
    shared = [clock.until_ns for clock in clocks.values() if clock.domain == SHARED and clock.until_ns is not None]
    return {
        node: replace(clock, until_ns=min(shared)) if shared and clock.domain == SHARED else clock
        for node, clock in clocks.items()
    }


def summarise_hops(
    run: RunFolder, joined: Joined, files: Sequence[StampsFile], clocks: Mapping[str, NodeClock]
) -> dict[str, HopSummary]:
    """Every hop and delay, and their histograms; one column at a time, so that long runs need little memory."""
    way = way_of(files)
    nodes = {
        **{role: {file.node for file in files if file.role == role} for role in ("publisher", "gateway", "hub")},
        "broker": {file.node for file in files if file.role in {"broker", "probe"} and len(file)},
        "subscriber": {subscriber.node for subscriber in files if subscriber.role == "subscriber"},
    }
    ends = {
        **({"broker": ("broker", "broker")} if _is_clustered(run.manifest()) else {}),
        "uplink": ("publisher", "gateway"),
        "publish": ("gateway" if way["gateway"] else "publisher", "broker"),
        "deliver": ("broker", "hub" if way["hub"] else "subscriber"),
        "downlink": ("hub", "subscriber"),
        "end_to_end": ("publisher", "subscriber"),
        "transport": ("publisher", "subscriber"),
    }

    def bound(hop: str) -> int | None:
        if hop not in ends:
            same = nodes.get(hop, nodes["publisher"])
            return max((clocks[node].resolution_ns for node in same), default=None)
        one, other = ends[hop]
        bounds = [
            path_bound_ns(clocks[a], clocks[b], joined.first_ns, joined.last_ns)
            for a in nodes[one]
            for b in nodes[other]
        ]
        known = [value for value in bounds if value is not None]
        return max(known) if known and len(known) == len(bounds) else None

    whole = joined.total
    end_to_end_lost = whole.dropped + whole.late
    lost = {**joined.lost, "end_to_end": end_to_end_lost, "transport": end_to_end_lost}
    if any(file.role == "probe" and missed_some(file.counts) for file in files):
        lost |= dict.fromkeys(PROBED_HOPS)
    tables = {"messages": run.messages, "samples": run.samples}
    summaries, log = {}, hdr.log_head(joined.first_ns / 1e9)
    for hop, (table, delay, rows) in {**hops_of(way), **DELAYS}.items():
        delays = read_column(tables[table], delay, rows)
        log += hdr.log_lines(hop, delays, lasted_s=(joined.last_ns - joined.first_ns) / 1e9)
        summaries[hop] = summarise(delays, lost=lost.get(hop), bound_ns=bound(hop), stepped=joined.stepped.get(hop, 0))
    (run.path / hdr.FILE).write_text("\n".join(log) + "\n")
    return summaries


def _is_clustered(manifest: Mapping[str, Any]) -> bool:
    """Whether a message may come to the broker on one node and leave it on another."""
    known = [built_in(service["image"]) for service in manifest.get("services", ()) if len(service["nodes"]) > 1]
    return any(image is not None and image.clusters for image in known)


def way_of(files: Sequence[StampsFile]) -> dict[str, bool]:
    """Whether messages pass a gateway and a hub."""
    roles = {file.role for file in files}
    return {"gateway": "gateway" in roles, "hub": "hub" in roles}


def base_document(
    manifest: Mapping[str, Any],
    files: Sequence[StampsFile],
    clocks: Mapping[str, NodeClock],
    joined: Joined,
    *,
    faults: Sequence[str],
) -> dict[str, Any]:
    """The keys of `kpis.json` that every run has, whether of messages or of requests."""
    workload = manifest["workload"]
    return {
        "run": manifest["run"],
        "testbed": manifest["testbed"]["name"],
        "twin": manifest["testbed"]["twin"],
        "workload": workload["name"],
        "parameters": manifest.get("parameters", {}),
        "status": manifest["status"],
        "pacing": "closed" if workload["arrivals"]["kind"] == "closed" else "open",
        "valid": not faults,
        "faults": list(dict.fromkeys(faults)),
        "ledger": ledger_document(joined.ledgers, joined.total),
        "notes": link_notes(manifest),
        "clocks": {node: clock_document(clock, joined) for node, clock in clocks.items()},
        "processes": process_documents(files),
        "first_ns": joined.first_ns,
        "last_ns": joined.last_ns,
    }


def kpi_document(
    manifest: Mapping[str, Any],
    files: Sequence[StampsFile],
    clocks: Mapping[str, NodeClock],
    joined: Joined,
    summaries: Mapping[str, HopSummary],
    *,
    carried_bytes: int,
    joined_ns: Mapping[str, int],
    beside: Sequence[str],
) -> dict[str, Any]:
    """`kpis.json`; `beside`: faults that stamps and counters do not show."""
    faults = [*find_faults(manifest, files, clocks, joined, summaries), *beside]
    asked = int(manifest["workload"]["qos"])
    granted = granted_qos([file.info.facts for file in files if file.info], asked)
    document = base_document(manifest, files, clocks, joined, faults=faults)
    return document | {
        "qos": granted,
        "asked_qos": asked,
        "promises": judge(joined.total, asked=asked, granted=granted),
        "notes": [
            *document["notes"],
            *joining_notes(manifest, joined_ns),
            *rejections(files),
            *blind_spots([(file.process, file.role, file.counts) for file in files]),
        ],
        "way": way_of(files),
        "hops": {hop: dataclasses.asdict(summaries[hop]) for hop in hops_of(way_of(files))},
        "delays": {name: dataclasses.asdict(summaries[name]) for name in DELAYS},
        "throughput": throughput(joined, carried_bytes),
        "counters": {
            name: getattr(joined, name)
            for name in ("messages", "refused", "acknowledged", "gateway_received", "gateway_sent", "broker_received",
                         "broker_sent", "broker_lost", "hub_received", "hub_sent", "excluded", "foreign", "unrecorded",
                         "unmatched_flows")
        },
    }  # fmt: skip


def happened(step: ClockStep, joined: Joined) -> bool:
    """Whether a step fell into the run; a clock's log may begin long before it. One without an instant did."""
    around = abs(step.size_ns) + AROUND_NS
    return not joined.first_ns or not step.at_ns or joined.first_ns - around <= step.at_ns <= joined.last_ns + around


def _when(step: ClockStep, joined: Joined) -> str:
    if not step.at_ns:
        return ""
    if not joined.first_ns:
        return ", and nothing it stamped can be believed"
    into_s = (step.at_ns - step.size_ns - joined.first_ns) / 1e9
    return f", {into_s:.1f} s after the first message" if into_s >= 0 else ", before the first message"


def clock_document(clock: NodeClock, joined: Joined) -> dict[str, Any]:
    """What a report says of a node's clock."""
    return {
        "domain": clock.domain,
        "known": clock.known,
        "synchronised": clock.synchronised,
        "offset_ms": [round(offset / 1e6, 6) for offset in (*clock.offsets_ns[:1], *clock.offsets_ns[-1:])],
        "bound_ms": clock.bound_ns(joined.first_ns, joined.last_ns) / 1e6 if clock.known else None,
        "resolution_ns": clock.resolution_ns,
        "readings": clock.readings,
        "steps": [dataclasses.asdict(step) for step in clock.steps if happened(step, joined)],
    }


def find_faults(
    manifest: Mapping[str, Any],
    files: Sequence[StampsFile],
    clocks: Mapping[str, NodeClock],
    joined: Joined,
    summaries: Mapping[str, HopSummary],
) -> list[str]:
    """Why this run is not to be compared with others, in words; empty: nothing speaks against it."""
    faults = [
        *told_faults(manifest, files),
        *clock_faults(clocks, _well_seen(summaries, files), joined),
        *pace_faults(manifest, summaries["schedule"], role="publisher"),
    ]
    warm_up = int(manifest["workload"]["warmup_messages"]) * len(manifest["streams"])
    faults += counter_problems(joined, [(file.process, file.role, file.counts) for file in files], warm_up=warm_up)
    found = {
        "the books do not close": not all(ledger.closes for ledger in joined.ledgers.values()),
        f"{joined.unmatched_flows} sends of the broker went to flows that no subscriber calls its own": (
            joined.unmatched_flows
        ),
        f"{joined.unrecorded} messages were received that no publisher recorded to have sent": joined.unrecorded,
        f"{(again := _came_again(joined, files))} copies came that nobody had lost: does a message pass brokers in a "
        "circle (two bridges of one topic), or twice?": again,
    }
    return [*faults, *(words for words, holds in found.items() if holds)]


def told_faults(manifest: Mapping[str, Any], files: Sequence[StampsFile]) -> list[str]:
    """What the controller and the processes said of the run themselves."""
    ended = [] if manifest["status"] == "complete" else [f"the run is {manifest['status']}"]
    return [*map(str, manifest.get("problems", ())), *ended, *process_faults(files)]


def pace_faults(manifest: Mapping[str, Any], schedule: HopSummary, *, role: str) -> list[str]:
    """Whether clients of the role that sends kept to their schedule; a closed loop has none."""
    if manifest["workload"]["arrivals"]["kind"] == "closed" or (schedule.p99_ms or 0.0) <= SCHEDULE_LIMIT_MS:
        return []
    late = f"the {role} was late: p99 of actual minus intended sending is {schedule.p99_ms:.1f} ms"
    return [f"{late}; the load was not what was asked for"]


def _came_again(joined: Joined, files: Sequence[StampsFile]) -> int:
    """Duplicates that no protocol explains: the broker did not mark them, and no connection was lost."""
    if any(file.counts.get("reconnects") for file in files):
        return 0
    return joined.total.duplicates - joined.total.redelivered


def _well_seen(summaries: Mapping[str, HopSummary], files: Sequence[StampsFile]) -> dict[str, HopSummary]:
    """Hops whose delays tell of the clocks: where a probe missed packets, what it saw may have been a second try."""
    blurred = PROBED_HOPS if any(file.role == "probe" and missed_some(file.counts) for file in files) else ()
    return {hop: summary for hop, summary in summaries.items() if hop not in blurred}


def process_documents(files: Sequence[StampsFile]) -> list[dict[str, Any]]:
    """What every process said of itself when it ended."""
    return [
        {
            "process": file.process, "node": file.node, "role": file.role,
            "stamps": len(file), "counts": file.counts,
            "facts": file.info.facts if file.info else {}, "error": file.info.error if file.info else "killed",
        }
        for file in files
    ]  # fmt: skip


def process_faults(files: Sequence[StampsFile]) -> list[str]:
    """Processes that were killed, and those that failed."""
    killed = [f"{file.process} was killed: its last stamps may be missing" for file in files if file.info is None]
    weak = [
        f"{file.process}: the broker granted QoS {facts['granted_qos']} where {facts['requested_qos']} was asked"
        for file in files
        if file.info and (facts := file.info.facts).get("granted_qos", 0) < facts.get("requested_qos", 0)
    ]
    failed = [f"{file.process}: {file.info.error}" for file in files if file.info and file.info.error]
    cut = [_lost_connections(file) for file in files if file.counts.get("reconnects")]
    blocked = [
        f"{file.process} was told {_times(facts['blocked'])} by the broker to wait ({facts.get('last_blocked')}): what "
        "waited for that is in its delays"
        for file in files
        if file.info and (facts := file.info.facts).get("blocked")
    ]
    return [*killed, *weak, *failed, *cut, *blocked]


def rejections(files: Sequence[StampsFile]) -> list[str]:
    """Messages that brokers answered with a no: never delivered, and no promise broken."""
    return [
        f"{file.process}: the broker rejected {file.counts['rejected']} messages, the last because "
        f"{file.info.facts.get('last_rejection', 'of a reason it did not tell')}; they count as unconfirmed"
        for file in files
        if file.info and file.counts.get("rejected")
    ]


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _lost_connections(file: StampsFile) -> str:
    count, last = file.counts["reconnects"], (file.info.facts if file.info else {}).get("last_lost")
    return f"{file.process} lost its connection {_times(count)} during the run" + (f": {last}" if last else "")


def clock_faults(clocks: Mapping[str, NodeClock], summaries: Mapping[str, HopSummary], joined: Joined) -> list[str]:
    """Clocks that stepped, were not synchronised, or were worse than they said."""
    faults = [
        f"the clock of {step.node} stepped by {step.size_ns / 1e6:.3f} ms during the run{_when(step, joined)}"
        for clock in clocks.values()
        for step in clock.steps
        if happened(step, joined)
    ]
    faults += [
        f"the clock of {clock.node} was not synchronised all the time"
        for clock in clocks.values()
        if clock.domain == clock.node and clock.readings and not clock.synchronised
    ]
    return faults + [
        f"{summary.beyond_bound} delays of {hop} are below minus the clock bound: the clocks were worse than they said"
        for hop, summary in summaries.items()
        if summary.beyond_bound
    ]
