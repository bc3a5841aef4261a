"""The folder of an experiment: what was asked for and which runs belong to it; the runs stay where runs are.

Entries: `experiment.json` (testbed, definition, points, runs), and what `toolkit report` makes of them: `table.md`,
`table.csv`, `table.tex`, `plot.svg`, `report.html`.
"""

from __future__ import annotations

import dataclasses
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit import paths
from toolkit.measure.store import RunFolder, folder_of_now
from toolkit.spec.experiment import Experiment
from toolkit.spec.testbed import Testbed

FILE = "experiment.json"
SCHEMA = 1


@dataclass(frozen=True, slots=True)
class ExperimentFolder:
    """One experiment on one testbed, on disk."""

    path: Path

    @property
    def name(self) -> str:
        """The experiment's name and the beginning of its key."""
        return self.path.name

    def document(self) -> dict[str, Any]:
        """What was asked for and which runs there are."""
        document: dict[str, Any] = json.loads((self.path / FILE).read_text())
        return document

    def runs(self) -> list[tuple[str, int, RunFolder]]:
        """(cell, repetition, run) of every run that is still there, in the order they were played."""
        home = self.path.parent.parent / "runs"
        listed = [(e["cell"], e["repetition"], RunFolder(home / e["run"])) for e in self.document()["runs"]]
        return [entry for entry in listed if (entry[2].path / "kpis.json").is_file()]

    def add(self, run: RunFolder, *, cell: str, repetition: int) -> None:
        """Note a run; a later one of the same point stands for the earlier one."""
        document = self.document()
        others = [e for e in document["runs"] if (e["cell"], e["repetition"]) != (cell, repetition)]
        document["runs"] = [*others, {"cell": cell, "repetition": repetition, "run": run.name}]
        self.write(document)

    def write(self, document: dict[str, Any]) -> None:
        """Write the document; the old or the new one is there, never half of one."""
        draft = self.path / f"{FILE}.new"
        draft.write_text(json.dumps({"schema": SCHEMA, **document}, indent=1, default=str) + "\n")
        draft.replace(self.path / FILE)


def experiments_dir(testbed: str) -> Path:
    """Where the experiments of a testbed are."""
    return paths.testbed_dir(testbed) / "experiments"


def open_experiment(testbed: Testbed, experiment: Experiment, *, key: str, resume: bool) -> ExperimentFolder:
    """A new folder; with `resume` the newest one of the same key, so that its runs count."""
    same = [folder for folder in list_experiments(testbed.name) if folder.document()["key"] == key] if resume else []
    runs = same[-1].document()["runs"] if same else []
    folder = same[-1] if same else ExperimentFolder(folder_of_now(experiments_dir(testbed.name), experiment.name))
    folder.write(
        {
            "experiment": experiment.name,
            "description": experiment.description,
            "key": key,
            "testbed": testbed.name,
            "twin": testbed.twin,
            "scale": testbed.scale,
            "started_at": time.time(),
            "order": experiment.order,
            "seed": experiment.seed,
            "repeat": experiment.repeat,
            "varied": list(experiment.parameters),
            "points": [
                {
                    "name": cell.name,
                    "workload": cell.workload.name,
                    "parameters": dict(cell.parameters),
                    "reference": [dataclasses.asdict(reference) for reference in cell.reference],
                }
                for cell in experiment.cells
            ],
            "runs": runs,
        }
    )
    return folder


def list_experiments(testbed: str) -> list[ExperimentFolder]:
    """Experiments of a testbed, oldest first."""
    home = experiments_dir(testbed)
    return [ExperimentFolder(f) for f in sorted(home.iterdir()) if (f / FILE).is_file()] if home.is_dir() else []


def find_experiment(name: str, testbed: str | None = None) -> ExperimentFolder | None:
    """An experiment by its folder, its id, or its name, which means the newest; None where there is none."""
    if (Path(name) / FILE).is_file():
        return ExperimentFolder(Path(name).resolve())
    home = paths.workspace()
    names = [testbed] if testbed else sorted(f.name for f in home.iterdir() if f.is_dir()) if home.is_dir() else []
    every = [folder for each in names for folder in list_experiments(each)]
    found = [f for f in every if f.name == name] or [f for f in every if f.document()["experiment"] == name]
    return max(found, key=lambda folder: folder.document()["started_at"], default=None)
