"""The story of an experiment: a workload's points in seeded order, each played, collected and computed."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from toolkit.contract.orders import Arrivals
from toolkit.controller.cast import make_cast
from toolkit.controller.control import Control
from toolkit.controller.manifest import make_manifest, plain
from toolkit.controller.stage import Limits, Stage
from toolkit.errors import MeasurementError, ToolkitError, UsageError, WorkloadError
from toolkit.events import Emit, Event
from toolkit.measure.collect import Collector
from toolkit.measure.compute import compute
from toolkit.measure.kpis import broken_asserts
from toolkit.measure.store import RunFolder, list_runs, new_run
from toolkit.spec.testbed import Testbed
from toolkit.spec.workload import Workload
from toolkit.state import Deployment

ApplySettings: TypeAlias = Callable[[Testbed, Mapping[str, Any]], tuple[Testbed, Deployment]]
"""Deploy a testbed with other service settings (`services.NAME.settings.KEY` -> value); returns what is there then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One cell of an experiment: what is varied, and which repetition."""

    parameters: Mapping[str, Any] = field(default_factory=dict)
    repetition: int = 1

    @property
    def settings(self) -> dict[str, Any]:
        """The parameters that change deployed services."""
        return {name: value for name, value in self.parameters.items() if name.startswith("services.")}


def run_experiment(
    testbed: Testbed,
    deployment: Deployment,
    workload: Workload,
    *,
    control: Control,
    collector: Collector,
    emit: Emit,
    apply_settings: ApplySettings | None = None,
    resume: bool = False,
    limits: Limits | None = None,
) -> list[RunFolder]:
    """Play every point of a workload; with `resume` those that already have a complete run are left out.

    Raises WorkloadError after the last run if assertions do not hold; an interrupt goes on up once the run is saved.
    """
    points = make_points(workload)
    check_points(workload, points, can_apply=apply_settings is not None)
    done = played_points(testbed, workload) if resume else {}
    runs: list[RunFolder] = []
    asked, changed = testbed, False
    try:
        for number, point in enumerate(points, 1):
            key = experiment_key(asked, workload, point)
            if key in done:
                emit(Event(stage="run", message=f"{number}/{len(points)} {_shown(point)} is there: {done[key].name}"))
                runs.append(done[key])
                continue
            if len(points) > 1:
                emit(Event(stage="run", message=f"{number}/{len(points)} {_shown(point)}"))
            if apply_settings is not None and point.settings:
                changed = True
                testbed, deployment = apply_settings(testbed, point.settings)
            folder = play(
                testbed,
                deployment,
                with_parameters(workload, point.parameters),
                point=point,
                key=key,
                control=control,
                collector=collector,
                emit=emit,
                limits=limits or Limits(),
            )
            runs.append(folder)
    finally:
        if changed and apply_settings is not None:
            apply_settings(asked, {})  # as the file says, whatever was varied
    broken = [f"{run.name}: {words}" for run in runs for words in broken_asserts(run.kpis(), workload.asserts)]
    if broken:
        raise WorkloadError("assertions do not hold:\n" + "\n".join(broken))
    return runs


# -- points -----------------------------------------------------------------------------------------------------------


def make_points(workload: Workload) -> list[Point]:
    """Every cell of the matrix, `repeat` times, in the workload's order: seeded, so that it can be gone on with."""
    keys = list(workload.matrix)
    cells = [dict(zip(keys, values, strict=True)) for values in itertools.product(*workload.matrix.values())]
    points = [Point(parameters=cell, repetition=r) for r in range(1, workload.repeat + 1) for cell in cells]
    if workload.order == "shuffled":
        random.Random(workload.seed).shuffle(points)  # noqa: S311  reproducible, not secret
    return points


def check_points(workload: Workload, points: Sequence[Point], *, can_apply: bool) -> None:
    """Raises UsageError where a matrix names what cannot be varied."""
    if any(point.settings for point in points) and not can_apply:
        names = sorted({name for point in points for name in point.settings})
        raise UsageError(
            f"workload {workload.name} varies {', '.join(names)}, which needs a deploy between runs; "
            "run it with `toolkit run`, which can"
        )
    for point in points[:1]:
        with_parameters(workload, point.parameters)


def with_parameters(workload: Workload, parameters: Mapping[str, Any]) -> Workload:
    """The workload with some of its fields replaced; `arrivals.rate_per_s` and `options.x` reach inside."""
    change: dict[str, Any]
    for name, value in parameters.items():
        if name.startswith("services."):
            continue
        first, _, rest = name.partition(".")
        known = {item.name for item in dataclasses.fields(Workload)} - {"name", "matrix", "repeat", "asserts"}
        if first not in known:
            raise UsageError(f"workload {workload.name}: the matrix varies {name!r}, which is no field of a workload")
        inner = getattr(workload, first)
        if not rest:
            change = {first: value}
        elif isinstance(inner, Mapping):
            change = {first: {**inner, rest: value}}
        elif isinstance(inner, Arrivals) and rest in {item.name for item in dataclasses.fields(inner)}:
            inside: dict[str, Any] = {rest: value}
            change = {first: dataclasses.replace(inner, **inside)}
        else:
            raise UsageError(f"workload {workload.name}: the matrix varies {name!r}; {first} has no {rest!r}")
        workload = dataclasses.replace(workload, **change)
    return workload


def experiment_key(testbed: Testbed, workload: Workload, point: Point) -> str:
    """What must be equal for two runs to be repetitions of one another: testbed, workload, point."""
    asked = {
        "testbed": [testbed.name, testbed.twin, plain(testbed.nodes), plain(testbed.services)],
        "workload": {
            name: value for name, value in plain(workload).items() if name not in {"repeat", "asserts", "reference"}
        },
        "point": plain(point),
    }
    return hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()[:16]


def played_points(testbed: Testbed, workload: Workload) -> dict[str, RunFolder]:
    """Keys of the complete runs there are."""
    runs = ((run, run.manifest()) for run in list_runs(testbed.name, workload=workload.name))
    return {manifest["key"]: run for run, manifest in runs if manifest["status"] == "complete"}


def _shown(point: Point) -> str:
    cell = ", ".join(f"{name}={value}" for name, value in point.parameters.items())
    return f"{cell or 'one point'}, repetition {point.repetition}"


# -- one run ----------------------------------------------------------------------------------------------------------


def play(
    testbed: Testbed,
    deployment: Deployment,
    workload: Workload,
    *,
    point: Point,
    key: str,
    control: Control,
    collector: Collector,
    emit: Emit,
    limits: Limits,
) -> RunFolder:
    """One run from orders to KPIs. What was measured is saved whatever happens."""
    run = new_run(testbed.name, workload.name)
    cast = make_cast(testbed, deployment, workload, run.name)
    manifest = make_manifest(
        testbed, deployment, workload, cast, parameters=point.parameters, repetition=point.repetition, key=key
    )
    run.write("manifest.json", manifest)
    stage = Stage(cast, control, emit, limits, workload)
    interrupted = False
    try:
        stage.prepare()
        manifest["start_ns"] = stage.start()
        stage.watch()
        stage.drain()
        manifest["status"] = "complete"
    except KeyboardInterrupt:
        interrupted = True
        manifest["status"] = "interrupted"
    except ToolkitError as error:
        manifest["status"] = "failed"
        manifest["problems"].append(str(error))
        if not stage.started:
            stage.stop()
            _save(run, manifest, stage)
            raise
    stage.stop()
    _save(run, manifest, stage)
    emit(Event(stage="collect", message="fetching samples", state="started"))
    failed = collector.fetch(run.name, [process.node for process in cast.processes], run.raw)
    manifest["problems"] += list(failed.values())
    _save(run, manifest, stage)
    kpis = _compute(run, manifest, emit)
    run.seal()
    if not failed:
        collector.forget(run.name, [process.node for process in cast.processes])
    for fault in kpis.get("faults", ()):
        emit(Event(stage="run", message=fault, level="warning"))
    emit(Event(stage="run", message=f"saved {run.path}", state="done"))
    if interrupted:
        raise KeyboardInterrupt
    return run


def _save(run: RunFolder, manifest: dict[str, Any], stage: Stage) -> None:
    manifest["problems"] = list(dict.fromkeys([*manifest["problems"], *stage.problems]))
    manifest["watched_until_ns"] = stage.watched_until_ns
    manifest["ended_at"] = time.time()
    run.write("manifest.json", manifest)


def _compute(run: RunFolder, manifest: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """KPIs; samples that cannot be joined stay in `raw/` and the run says why."""
    try:
        return compute(run)
    except MeasurementError as error:
        manifest["status"] = "failed"
        manifest["problems"].append(str(error))
        run.write("manifest.json", manifest)
        run.seal()
        emit(Event(stage="run", message=str(error), level="error", state="failed"))
        raise
