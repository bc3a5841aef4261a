"""The story of an experiment: its points in seeded order, each deployed if it must be, played and written down."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from toolkit.controller.control import Control
from toolkit.controller.feasible import check_workload
from toolkit.controller.play import play
from toolkit.controller.points import Point, experiment_key, make_points, run_key
from toolkit.controller.stage import Limits
from toolkit.errors import UsageError, WorkloadError
from toolkit.events import Emit, Event
from toolkit.measure.collect import Collector
from toolkit.measure.experiments import ExperimentFolder, open_experiment
from toolkit.measure.kpis import broken_asserts
from toolkit.measure.resources import Watch
from toolkit.measure.store import RunFolder, list_runs
from toolkit.spec.experiment import Experiment
from toolkit.spec.testbed import Testbed
from toolkit.state import Deployment


class Redeploy(Protocol):
    """Brings a testbed to other values of places in its file."""

    def check(self, overrides: Mapping[str, str]) -> Testbed:
        """What the testbed is with them; raises FileInvalidError or UsageError where that is no testbed."""
        ...

    def apply(self, overrides: Mapping[str, str]) -> tuple[Testbed, Deployment]:
        """Deploy it so; only what differs is touched."""
        ...


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What an experiment came to."""

    runs: list[RunFolder] = field(default_factory=list)
    """In the order of its points; those that were there already among them."""
    folder: ExperimentFolder | None = None
    """None for a single run of a single workload."""
    broken: list[str] = field(default_factory=list)
    """Assertions that do not hold, each with its run."""

    @property
    def told(self) -> dict[str, Any]:
        """What is told of it where it is followed: message, runs, and the folder of an experiment of several."""
        return {
            "message": f"{len(self.runs)} run{'s' * (len(self.runs) > 1)} measured and saved",
            "runs": [run.name for run in self.runs],
            **({"experiment": self.folder.name} if self.folder else {}),
        }

    def check(self) -> None:
        """Raises WorkloadError with every assertion that does not hold."""
        if self.broken:
            raise WorkloadError("assertions do not hold:\n" + "\n".join(self.broken))


def run_experiment(
    testbed: Testbed,
    deployment: Deployment,
    experiment: Experiment,
    *,
    control: Callable[[Deployment], Control],
    collector: Callable[[Deployment], Collector],
    watch: Callable[[Deployment], Watch | None] = lambda _: None,
    emit: Emit,
    redeploy: Redeploy | None = None,
    resume: bool = False,
    limits: Limits | None = None,
) -> Outcome:
    """Play every point of an experiment; with `resume` those that already have a complete run are left out.

    Whether its assertions hold, the outcome tells. An interrupt goes on up once the run is saved.
    """
    points = make_points(experiment)
    testbeds = check_points(testbed, experiment, redeploy)
    outcome = Outcome()
    if len(points) > 1:
        key = experiment_key(testbed, experiment)
        outcome.folder = open_experiment(testbed, experiment, key=key, resume=resume)
    done = played(testbed.name, outcome.folder) if resume else {}
    there: Mapping[str, str] = {}
    try:
        for number, point in enumerate(points, 1):
            asked = testbeds[point.cell.name]
            key = run_key(asked, point)
            said = f"{number}/{len(points)} {point}"
            if key in done:
                emit(Event(stage="run", message=f"{said} is there: {done[key].name}"))
                _note(outcome, point, done[key])
                continue
            if len(points) > 1:
                emit(Event(stage="run", message=said))
            if redeploy is not None and point.cell.overrides != there:
                there = point.cell.overrides
                asked, deployment = redeploy.apply(there)
            run = play(
                asked,
                deployment,
                point,
                key=key,
                experiment=experiment.name if outcome.folder else "",
                control=control(deployment),
                collector=collector(deployment),
                watch=watch(deployment),
                emit=emit,
                limits=limits or Limits(),
            )
            _note(outcome, point, run)
    finally:
        if redeploy is not None and there:
            redeploy.apply({})  # as the file says, whatever was varied
    outcome.broken = broken(outcome, points)
    return outcome


def played(testbed: str, folder: ExperimentFolder | None) -> dict[str, RunFolder]:
    """Keys of the complete runs of an experiment, or of a testbed where there is no experiment."""
    runs = [run for _, _, run in folder.runs()] if folder else list_runs(testbed)
    manifests = ((run, run.manifest()) for run in runs)
    return {manifest["key"]: run for run, manifest in manifests if manifest["status"] == "complete"}


def _note(outcome: Outcome, point: Point, run: RunFolder) -> None:
    outcome.runs.append(run)
    if outcome.folder:
        outcome.folder.add(run, cell=point.cell.name, repetition=point.repetition)


def check_points(testbed: Testbed, experiment: Experiment, redeploy: Redeploy | None) -> dict[str, Testbed]:
    """Name of each cell -> the testbed it is played on; everything that is wrong is found before the first run."""
    found = {}
    for cell in experiment.cells:
        if cell.overrides and redeploy is None:
            raise UsageError(
                f"experiment {experiment.name} varies {', '.join(cell.overrides)}, which needs a deploy between runs; "
                "run it with `toolkit run`, which can"
            )
        found[cell.name] = redeploy.check(cell.overrides) if redeploy and cell.overrides else testbed
        check_workload(found[cell.name], cell.workload)
    if len(found) < len(experiment.cells):
        raise UsageError(f"experiment {experiment.name} has two points of one name; give them different labels")
    return found


def broken(outcome: Outcome, points: list[Point]) -> list[str]:
    """Every assertion that does not hold."""
    return [
        f"{run.name}: {words}"
        for run, point in zip(outcome.runs, points, strict=True)
        for words in broken_asserts(run.kpis(), point.workload.asserts)
    ]
