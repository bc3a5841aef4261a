"""The story of a run against processes that are made up: order of phases, faults, resume."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from toolkit.contract.orders import RunOrder, RunStatus
from toolkit.contract.samples import STAMP, Point, StampsInfo
from toolkit.controller.control import Process
from toolkit.controller.experiment import run_experiment
from toolkit.controller.points import make_points
from toolkit.controller.stage import Limits
from toolkit.errors import UnreachableError, UsageError, WorkloadError
from toolkit.events import Event
from toolkit.measure.experiments import list_experiments
from toolkit.measure.store import RunFolder, list_runs, prune
from toolkit.report.html import write_experiment, write_experiment_figures
from toolkit.report.sweep import sweep_document, sweep_rows
from toolkit.report.table import run_document
from toolkit.spec.experiment import Cell, Experiment, plain_experiment
from toolkit.spec.testbed import Image, Link, Node, Service, Testbed
from toolkit.spec.workload import Reference, Stop, Workload
from toolkit.state import Deployment, Host, SshAccess

FAST = Limits(
    ready_s=1.0, start_ahead_s=0.0, poll_s=0.001, stall_s=0.3, over_s=0.3, save_s=0.3, dead_after=2, drain_s=0.3
)
NODES = ("eh", "pub", "sub-1", "sub-2")


def make_testbed(tmp_path: Path, **workloads: Workload) -> Testbed:
    def service(name: str, image: str, *nodes: str) -> Service:
        return Service(name=name, role=name, image=Image(name=image), nodes=nodes)

    return Testbed(
        name="fake",
        file=tmp_path / "testbed.yml",
        nodes=tuple(
            Node(name=n, kind="pi3", provider="container", architecture=None, cpus=1.0, memory_bytes=None, link=Link())
            for n in NODES
        ),
        services=(
            service("broker", "event-handler", "eh"),
            service("publisher", "client", "pub"),
            service("subscriber", "client", "sub-1", "sub-2"),
        ),
        workloads=workloads,
    )


def make_deployment() -> Deployment:
    hosts = {
        node: Host(
            node=node, provider="container", type="container", address=f"10.77.0.{i}", architecture="amd64",
            ssh=SshAccess(address=f"10.77.0.{i}", known_hosts="/dev/null"), facts={"shared_clock": True},
        )
        for i, node in enumerate(NODES, 2)
    }  # fmt: skip
    return Deployment(name="fake", file="testbed.yml", stage="deployed", hosts=hosts)


class FakeNodes:
    """Processes and their files: every poll of the publisher sends `step` messages; 1 ms a hop."""

    def __init__(self, step: int = 10) -> None:
        self.step = step
        self.orders: dict[str, RunOrder] = {}
        self.phases: dict[str, str] = {}
        self.sent = 0
        self.start_ns = 0
        self.asked: list[tuple[str, str]] = []
        self.silent_after: dict[str, int] = {}
        """Process -> messages sent at which it stops answering."""
        self.fail_to_prepare: str | None = None
        self.interrupt_at: int | None = None
        self.lose: frozenset[int] = frozenset()
        self.dead_received: dict[str, int] = {}
        self.forgotten: list[str] = []
        self.steps: list[list[int]] = []
        self.step_at: int | None = None
        """Message at which the clock of sub-1 jumps by 3 ms."""
        self.relay_ends_at = 1 << 60
        """Message at which the relay of sub-1 ends and is started again."""

    def _answer(self, process: Process) -> RunStatus:
        name = process.name
        if self.sent >= self.silent_after.get(name, 1 << 60):
            self.dead_received.setdefault(name, self.sent)
            raise UnreachableError(f"{name} does not answer")
        received = self.sent - sum(seq < self.sent for seq in self.lose)
        return RunStatus(
            phase=self.phases[name], run=self.orders[name].run,
            error="broken" if self.phases[name] == "failed" else None,
            sent=self.sent if process.role == "publisher" else 0,
            received=received if process.role == "subscriber" else 0,
            last_ns=self.start_ns + self.sent * 1_000_000,
        )  # fmt: skip

    def prepare(self, process: Process, order: RunOrder) -> RunStatus:
        if self.phases.get(process.name) in {"running", "draining"}:  # as processes on nodes do
            raise WorkloadError(f"{process.name} refuses PUT /run")
        self.asked.append(("prepare", process.role))
        self.orders[process.name] = order
        self.sent = 0
        self.phases[process.name] = "failed" if process.name == self.fail_to_prepare else "ready"
        return self._answer(process)

    def start(self, process: Process, at_ns: int) -> RunStatus:
        self.asked.append(("start", process.role))
        self.start_ns = at_ns
        self.phases[process.name] = "running"
        return self._answer(process)

    def stop(self, process: Process) -> RunStatus:
        self.asked.append(("stop", process.role))
        answer = self._answer(process)
        self.phases[process.name] = "done"
        return answer

    def status(self, process: Process) -> RunStatus:
        if process.name not in self.phases:
            return RunStatus()
        if process.role == "publisher" and self.phases[process.name] == "running":
            if self.interrupt_at is not None and self.sent >= self.interrupt_at:
                raise KeyboardInterrupt
            if process.name not in self.silent_after or self.sent < self.silent_after[process.name]:
                self.sent = min(self.sent + self.step, self.orders[process.name].messages or 0)
            if self.sent == self.orders[process.name].messages:
                self.phases[process.name] = "done"
        return self._answer(process)

    def relay_began(self, node: str) -> str:
        if node != "sub-1":
            raise UnreachableError(f"{node} does not answer")
        return str(self.sent >= self.relay_ends_at)

    def now_ns(self, node: str) -> int:
        raise UnreachableError("nobody knows")

    def fetch(self, run: str, nodes: Iterable[str], raw: Path) -> dict[str, str]:
        stream = next(order for order in self.orders.values() if order.role == "publisher").streams[0]
        t1 = [self.start_ns + seq * 1_000_000 for seq in range(self.sent)]
        stamps = [STAMP.pack(Point.SENT, 0, 0, stream, seq, t, t) for seq, t in enumerate(t1)]
        self._file(raw, run, "pub", "publisher", stamps, {})
        broker = []
        for seq, t in enumerate(t1):
            broker.append(STAMP.pack(Point.BROKER_RECEIVED, 0, 9, stream, seq, t + 1_000_000, 0))
            broker += [STAMP.pack(Point.BROKER_SENT, 0, p, stream, seq, t + 2_000_000, 0) for p in (0, 1)]
        self._file(raw, run, "eh", "broker", broker, {"0": ["10.77.0.4", 1], "1": ["10.77.0.5", 1]})
        for i, node in enumerate(("sub-1", "sub-2")):
            until = self.dead_received.get(f"{node}/subscriber-0", self.sent)
            got = [(seq, t) for seq, t in enumerate(t1) if seq not in self.lose and seq < until]
            stepped = self.step_at if node == "sub-1" and self.step_at else 1 << 60
            stamps = [
                STAMP.pack(Point.RECEIVED, 0, 0, stream, seq, t + 3_000_000 + 3_000_000 * (seq >= stepped), 0)
                for seq, t in got
            ]
            if stepped < self.sent:
                wall = self.start_ns + stepped * 1_000_000
                self.steps = [[1, 3_000_000, wall], [1, 9_000_000, wall - 3600 * 10**9]]
            else:
                self.steps = []
            self._file(raw, run, node, "subscriber", stamps, {"0": [f"10.77.0.{4 + i}", 1]})
        return {}

    def _file(
        self, raw: Path, run: str, node: str, service: str, stamps: list[bytes], flows: Mapping[str, Any]
    ) -> None:
        (raw / node).mkdir(parents=True, exist_ok=True)
        (raw / node / f"{service}-0.stamps").write_bytes(b"".join(stamps))
        info = StampsInfo(run=run, testbed="fake", node=node, service=service, role=service, instance=0,
                          stamps=len(stamps), counts={}, flows=flows,
                          clock={"resolution_ns": 100, "steps": self.steps}, facts={})  # fmt: skip
        if f"{node}/{service}-0" not in self.dead_received:
            (raw / node / f"{service}-0.json").write_text(json.dumps(dataclasses.asdict(info)))

    def forget(self, run: str, nodes: Iterable[str]) -> None:
        self.forgotten.append(run)


@pytest.fixture(autouse=True)
def _workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLKIT_HOME", str(tmp_path / ".toolkit"))


HELLO = Workload(name="hello", messages=100, drain_s=0.02)


def experiment(
    tmp_path: Path,
    nodes: FakeNodes,
    workload: Workload | Experiment = HELLO,
    *,
    deployment: Deployment | None = None,
    **more: Any,
) -> list[RunFolder]:
    events: list[Event] = []
    given = {"limits": FAST, "emit": events.append} | more
    asked = workload if isinstance(workload, Experiment) else plain_experiment(workload)
    outcome = run_experiment(
        make_testbed(tmp_path),
        deployment or make_deployment(),
        asked,
        control=lambda _: nodes,
        collector=lambda _: nodes,
        **given,
    )
    outcome.check()
    return outcome.runs


def test_a_run_goes_through_its_phases_and_is_saved(tmp_path: Path):
    nodes = FakeNodes()
    [run] = experiment(tmp_path, nodes)
    assert [role for what, role in nodes.asked if what == "prepare"] == [
        "broker",
        "subscriber",
        "subscriber",
        "publisher",
    ]
    stops = [role for what, role in nodes.asked if what == "stop"]
    assert stops == ["publisher", "subscriber", "subscriber", "broker"]
    kpis, manifest = run.kpis(), run.manifest()
    assert manifest["status"] == "complete"
    assert kpis["valid"], kpis["faults"]
    assert kpis["ledger"]["total"]["delivered"] == kpis["ledger"]["total"]["expected"] == 200
    assert {name: (hop["count"], hop["p50_ms"]) for name, hop in kpis["hops"].items()} == {
        "publish": (100, 1.0), "broker": (200, 1.0), "deliver": (200, 1.0), "end_to_end": (200, 3.0),
    }  # fmt: skip
    assert kpis["hops"]["deliver"]["clock_bound_ms"] == 0.0001
    assert run.verify() == []
    assert nodes.forgotten == [run.name]
    orders = manifest["orders"]
    assert orders["pub/publisher-0"]["broker"] == "10.77.0.2:8454"
    assert orders["sub-1/subscriber-0"]["streams"] == orders["pub/publisher-0"]["streams"]


def test_what_nodes_spent_is_kept_with_the_run(tmp_path: Path):
    asked: list[float] = []

    def watch(first_s: float, last_s: float) -> dict[str, Any]:
        asked.extend((first_s, last_s))
        return {"seconds": [0.0], "nodes": {"eh": {"cpu_cores": [1.5]}}}

    [run] = experiment(tmp_path, FakeNodes(), watch=lambda _: watch)
    assert asked[0] * 1e9 == pytest.approx(run.manifest()["start_ns"])
    assert asked[1] >= asked[0]
    assert run_document(run)["resources"] == {"eh": {"cpu_cores_mean": 1.5, "cpu_cores_max": 1.5}}
    assert "resources.json" in (run.path / "SHA256SUMS").read_text()
    assert "histograms.hlog" in (run.path / "SHA256SUMS").read_text()


@pytest.mark.parametrize("at", [50, 1 << 60])
def test_a_relay_that_ends_in_the_middle_makes_the_run_invalid(tmp_path: Path, at: int):
    nodes, deployment = FakeNodes(), make_deployment()
    nodes.relay_ends_at = at
    hosts = {node: dataclasses.replace(host, facts={**host.facts, "link": "relay"})
             for node, host in deployment.hosts.items()}  # fmt: skip
    [run] = experiment(tmp_path, nodes, deployment=dataclasses.replace(deployment, hosts=hosts))
    told = "the relay in the link of sub-1 ended during the run and was started again; meanwhile the link was cut"
    assert run.kpis()["faults"] == ([told] if at == 50 else [])


def test_a_clock_step_in_the_middle_makes_the_run_invalid_and_says_when(tmp_path: Path):
    nodes = FakeNodes()
    nodes.step_at = 60
    [run] = experiment(tmp_path, nodes)
    assert (
        "the clock of sub-1 stepped by 3.000 ms during the run, 0.1 s after the first message" in run.kpis()["faults"]
    )
    assert not run.kpis()["valid"]
    assert len(run.kpis()["clocks"]["sub-1"]["steps"]) == 1  # the one of an hour ago is none of this run
    assert run.kpis()["ledger"]["total"]["delivered"] == 200


def test_lost_messages_break_an_assertion(tmp_path: Path):
    nodes = FakeNodes()
    nodes.lose = frozenset({3, 50})
    workload = dataclasses.replace(HELLO, asserts={"lost": "== 0", "end_to_end.p50_ms": "< 4 ms"})
    with pytest.raises(WorkloadError, match=r"lost is 4; wanted == 0"):
        experiment(tmp_path, nodes, workload)
    [run] = list_runs("fake")
    assert run.kpis()["ledger"]["total"]["lost_after_broker"] == 4
    assert run.kpis()["hops"]["deliver"]["lost"] == 4


def test_an_interrupt_saves_what_was_measured_and_goes_on_up(tmp_path: Path):
    nodes = FakeNodes()
    nodes.interrupt_at = 50
    with pytest.raises(KeyboardInterrupt):
        experiment(tmp_path, nodes)
    [run] = list_runs("fake")
    assert run.manifest()["status"] == "interrupted"
    assert run.kpis()["faults"] == ["the run is interrupted"]
    assert run.kpis()["counters"]["messages"] == 50
    assert run.kpis()["ledger"]["closes"]


def test_a_run_that_was_cut_off_is_ended_before_the_next_begins(tmp_path: Path):
    nodes, events = FakeNodes(), list[Event]()
    [former] = experiment(tmp_path, nodes)
    nodes.phases |= {"eh/broker-0": "running", "sub-1/subscriber-0": "draining"}
    nodes.asked.clear()
    [run] = experiment(tmp_path, nodes, emit=events.append)
    assert nodes.asked[:2] == [("stop", "broker"), ("stop", "subscriber")]
    assert run.kpis()["valid"], run.kpis()["faults"]
    assert [event.message for event in events if event.level == "warning"] == [
        f"{former.name} was cut off and still goes on; it is ended"
    ]


def test_a_killed_subscriber_is_named_and_the_run_closes(tmp_path: Path):
    nodes = FakeNodes()
    nodes.silent_after = {"sub-2/subscriber-0": 40}
    [run] = experiment(tmp_path, nodes)
    faults = run.kpis()["faults"]
    assert "sub-2/subscriber-0 stopped answering during the run; the run went on without it" in faults
    assert "sub-2/subscriber-0 was killed: its last stamps may be missing" in faults
    alive, dead = (run.kpis()["ledger"]["subscribers"][f"sub-{i}/subscriber-0"] for i in (1, 2))
    assert alive["delivered"] == 100
    assert 0 < dead["delivered"] < 100
    assert dead["delivered"] + dead["in_flight"] + dead["dropped"] == 100
    assert dead["in_flight"] > 50


def test_a_killed_publisher_ends_the_run_early(tmp_path: Path):
    nodes = FakeNodes()
    nodes.silent_after = {"pub/publisher-0": 40}
    [run] = experiment(tmp_path, nodes)
    assert any("pub/publisher-0 stopped answering" in fault for fault in run.kpis()["faults"])
    assert run.kpis()["ledger"]["total"]["delivered"] == 80


def test_a_run_that_stands_still_is_stopped(tmp_path: Path):
    nodes = FakeNodes(step=0)
    [run] = experiment(tmp_path, nodes)
    assert "nothing was sent or received for 0.3 s; the run was stopped" in run.kpis()["faults"]


@pytest.mark.parametrize(
    ("stop", "words"),
    [
        (Stop(backlog=50), "was stopped with 60 deliveries waiting; its workload allows 50"),
        (Stop(after_s=0.05), "was stopped after 0.05 s, as its workload wants"),
    ],
)
def test_a_stop_condition_ends_a_run_and_is_named(tmp_path: Path, stop: Stop, words: str):
    nodes = FakeNodes(step=10 if stop.backlog else 0)
    nodes.lose = frozenset(range(100))
    [run] = experiment(tmp_path, nodes, dataclasses.replace(HELLO, stop=stop))
    assert any(words in fault for fault in run.kpis()["faults"])
    assert run.kpis()["ledger"]["closes"]
    assert not run.kpis()["valid"]


def test_all_start_at_one_instant_of_their_own_clocks(tmp_path: Path):
    nodes = FakeNodes()
    instants: list[int] = []
    start = nodes.start
    nodes.now_ns = lambda node: time.time_ns() + 5_000_000_000  # type: ignore[method-assign]
    nodes.start = lambda process, at_ns: (instants.append(at_ns), start(process, at_ns))[1]  # type: ignore[method-assign]
    before = time.time_ns()
    [run] = experiment(tmp_path, nodes)
    assert len(instants) == 4
    assert len(set(instants)) == 1
    assert 4.9e9 < instants[0] - before < 6e9
    assert run.manifest()["start_ns"] == instants[0]


def test_a_process_that_cannot_take_part_stops_the_others(tmp_path: Path):
    nodes = FakeNodes()
    nodes.fail_to_prepare = "sub-2/subscriber-0"
    with pytest.raises(WorkloadError, match="sub-2/subscriber-0 cannot take part: broken"):
        experiment(tmp_path, nodes)
    assert ("stop", "broker") in nodes.asked
    [run] = list_runs("fake")
    assert run.manifest()["status"] == "failed"


def sweep(*cells: Cell, **more: Any) -> Experiment:
    return Experiment(**({"name": "sweep", "workload": "hello", "repeat": 2, "cells": cells} | more))


def with_payload(size: int, **more: Any) -> Cell:
    workload = dataclasses.replace(HELLO, payload_bytes=size)
    return Cell(parameters={"payload": f"{size}B"}, workload=workload, **more)


def test_rounds_are_shuffled_by_the_seed_and_each_has_every_point():
    experiment = sweep(*map(with_payload, range(64, 76)))
    points = make_points(experiment)
    assert points == make_points(experiment)
    first, second = points[:12], points[12:]
    assert [p.cell.name for p in first] != [p.cell.name for p in second]
    assert {p.cell.name for p in first} == {p.cell.name for p in second}
    assert {p.repetition for p in first} == {1}
    assert points != make_points(dataclasses.replace(experiment, seed=2))
    listed = make_points(dataclasses.replace(experiment, order="listed"))
    assert [p.cell for p in listed[:12]] == list(experiment.cells)
    assert first[0].workload.seed != second[0].workload.seed


def test_an_experiment_goes_on_where_it_stopped(tmp_path: Path):
    experiment_ = sweep(with_payload(64), with_payload(128))
    nodes = FakeNodes(step=100)
    first = experiment(tmp_path, nodes, experiment_)
    assert [run.manifest()["parameters"] for run in first] == [
        dict(p.cell.parameters) for p in make_points(experiment_)
    ]
    assert len(first) == 4
    gone = first.pop(3)
    gone.write("manifest.json", gone.manifest() | {"status": "interrupted"})
    again = experiment(tmp_path, nodes, experiment_, resume=True)
    assert [run.path for run in again[:3]] == [run.path for run in first]
    assert again[3].path != gone.path
    [folder] = list_experiments("fake")
    assert [run.name for _, _, run in folder.runs()] == [run.name for run in again]
    more = experiment(tmp_path, nodes, dataclasses.replace(experiment_, repeat=3), resume=True)
    assert [run.path for run in more[:4]] == [run.path for run in again]
    assert len(more) == 6
    assert len(experiment(tmp_path, nodes, experiment_)) == 4
    assert len(list_experiments("fake")) == 2  # without --resume it begins anew


def test_runs_of_another_testbed_are_not_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    nodes, experiment_ = FakeNodes(step=100), sweep(with_payload(64), with_payload(128))
    first = experiment(tmp_path, nodes, experiment_)
    other = make_testbed(tmp_path)
    faster = tuple(dataclasses.replace(node, cpus=4.0) for node in other.nodes)
    monkeypatch.setitem(globals(), "make_testbed", lambda _: dataclasses.replace(other, nodes=faster))
    second = experiment(tmp_path, nodes, experiment_, resume=True)
    assert not {run.name for run in first} & {run.name for run in second}
    assert len(list_experiments("fake")) == 2


class FakeRedeploy:
    def __init__(self, testbed: Testbed) -> None:
        self.testbed = testbed
        self.applied: list[Mapping[str, str]] = []
        self.refuse: str | None = None

    def check(self, overrides: Mapping[str, str]) -> Testbed:
        if self.refuse in overrides.values():
            raise UsageError("no testbed")
        return self.testbed

    def apply(self, overrides: Mapping[str, str]) -> tuple[Testbed, Deployment]:
        self.applied.append(overrides)
        return self.testbed, make_deployment()


POOL = "services.broker.settings.thread_pool_size"


def with_pool(size: int) -> Cell:
    return Cell(parameters={POOL: size}, overrides={POOL: str(size)}, workload=HELLO)


def test_settings_are_deployed_before_their_runs_and_taken_back_at_the_end(tmp_path: Path):
    with pytest.raises(UsageError, match=f"varies {POOL}, which needs a deploy between runs"):
        experiment(tmp_path, FakeNodes(), sweep(with_pool(4)))
    redeploy = FakeRedeploy(make_testbed(tmp_path))
    asked = sweep(with_pool(4), with_pool(8), order="listed", repeat=1)
    runs = experiment(tmp_path, FakeNodes(), asked, redeploy=redeploy)
    assert redeploy.applied == [{POOL: "4"}, {POOL: "8"}, {}]  # at the end as the file says
    assert [run.manifest()["parameters"] for run in runs] == [{POOL: 4}, {POOL: 8}]
    assert runs[0].manifest()["overrides"] == {POOL: "4"}


def test_nothing_is_played_if_one_point_is_no_testbed(tmp_path: Path):
    nodes, redeploy = FakeNodes(), FakeRedeploy(make_testbed(tmp_path))
    redeploy.refuse = "8"
    with pytest.raises(UsageError, match="no testbed"):
        experiment(tmp_path, nodes, sweep(with_pool(4), with_pool(8)), redeploy=redeploy)
    assert not nodes.asked
    assert not redeploy.applied


def test_an_interrupt_in_the_middle_leaves_the_testbed_as_the_file_says(tmp_path: Path):
    nodes, redeploy = FakeNodes(), FakeRedeploy(make_testbed(tmp_path))
    nodes.interrupt_at = 50
    with pytest.raises(KeyboardInterrupt):
        experiment(tmp_path, nodes, sweep(with_pool(4), with_pool(8)), redeploy=redeploy)
    assert redeploy.applied[1:] == [{}]
    [folder] = list_experiments("fake")
    assert folder.runs() == []
    [run] = list_runs("fake")
    assert run.manifest()["status"] == "interrupted"


def test_the_result_stands_beside_what_was_published(tmp_path: Path):
    published = Reference(source="thesis", figures={"mean": 3.5, "max": (4.0, 6.0)})
    nodes = FakeNodes(step=100)
    nodes.lose = frozenset({7})
    experiment(tmp_path, nodes, sweep(with_payload(64, reference=(published,)), with_payload(128), repeat=3))
    [folder] = list_experiments("fake")
    document = sweep_document(folder)
    small, large = document["points"]
    assert (small["name"], large["name"]) == ("payload=64B", "payload=128B")
    assert small["hops"]["end_to_end"]["mean_ms"] == {"value": 3.0, "low": 3.0, "high": 3.0}
    assert small["loss"]["lost"] == 6
    assert small["loss"]["offered"] == 600
    rows = sweep_rows(document)
    assert rows[0][:2] == ["payload=64B", "3"]
    assert rows[0][4] == "6/600"
    assert rows[0][5:6] == ["3.000"]
    assert rows[1] == ["  thesis", "", "", "", "", "3.5", "", "", "", "4 to 6", ""]
    files = write_experiment(folder)
    names = ["table.md", "table.csv", "table.tex", "report.html", "end_to_end.svg", "drops-qos-0.svg"]
    assert [file.name for file in files] == names
    assert "| thesis |" in files[0].read_text()
    lines = list(csv.DictReader(io.StringIO(files[1].read_text())))
    assert [line["source"] for line in lines if line["hop"] == "end_to_end"] == ["measured", "thesis", "measured"]
    assert lines[0]["mean_ms"]
    page = files[3].read_text()
    assert "payload=128B" in page
    assert page.count("<svg") == 2, "delays and drops"
    assert "<h2>Drops</h2>" in page
    drawn = write_experiment_figures(folder, tmp_path / "figures", form="pdf")
    assert [file.name for file in drawn] == ["end_to_end.pdf", "drops-qos-0.pdf"]
    assert all(file.read_bytes().startswith(b"%PDF") for file in drawn)
    before = [file.read_bytes() for file in files]
    assert [file.read_bytes() for file in write_experiment(folder)] == before


def test_a_page_made_again_after_runs_were_deleted_says_so(tmp_path: Path):
    experiment(tmp_path, FakeNodes(step=100), sweep(with_payload(64), with_payload(128), repeat=3))
    [folder] = list_experiments("fake")
    prune("fake", keep=4)
    document = sweep_document(folder)
    assert document["deleted"] == 2
    assert sum(len(point["runs"]) for point in document["points"]) == 4
    files = {file.name: file.read_text() for file in write_experiment(folder)}
    for name in ("table.md", "table.tex", "report.html"):
        assert "without 2 runs that were deleted" in files[name]


def test_a_workload_without_its_services_says_what_there_is(tmp_path: Path):
    with pytest.raises(WorkloadError, match=r"needs a service 'gateway'; .* has broker \(broker\), publisher"):
        experiment(tmp_path, FakeNodes(), dataclasses.replace(HELLO, publishers="gateway"))
