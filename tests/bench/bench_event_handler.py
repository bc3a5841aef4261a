"""Every form of the Event Handler beside Mosquitto at QoS 1, in turns on virtual nodes; ratios of mean and p99.

Usage: bench_event_handler.py [--repeat 5] [--only one-to-one,ten-to-ten]
       [--steps deploy,measure,teardown] [--workspace FOLDER] [--name test-bench-forms]
Deploys examples/arrowhead/event-handler/forms/testbed.yml under a name of its own and removes it again. With a folder
of yours the steps can be taken one at a time: deploy, measure when the machine is quiet, tear down.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "examples/arrowhead/event-handler/forms/testbed.yml"
STEPS = "deploy,measure,teardown"
BESIDE = {"direct": "mosquitto", "enhanced": "direct", "original": "direct"}
WANTED = {
    ("one-to-one", "direct"): "mean and p99 at most 1 x mosquitto wanted",
    ("one-to-one", "enhanced"): "at most 3 x direct wanted",
    ("ten-to-ten", "direct"): "p99 at most 5 x p50 wanted",
}


def toolkit(workspace: Path, *arguments: str) -> None:
    """One command; its output is shown only where it fails. A run that lost messages (7) is shown as such."""
    done = subprocess.run(
        [sys.executable, "-m", "toolkit", *arguments],
        cwd=workspace,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TOOLKIT_HOME": str(workspace / ".toolkit")},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in (0, 7):
        raise SystemExit(f"toolkit {' '.join(arguments)} ended with {done.returncode}: {done.stdout}{done.stderr}")


def figures(kpis: dict[str, Any]) -> dict[str, float]:
    """Of one run, end to end in ms, with what was lost and reordered."""
    hop, total = kpis["hops"]["end_to_end"], kpis["ledger"]["total"]
    found = {name: float(hop[f"{name}_ms"]) for name in ("mean", "p50", "p99", "max")}
    return found | {
        "p99/p50": found["p99"] / found["p50"],
        "lost": total["lost"] + total["dropped"],
        "reordered": total["reordered"],
    }


def runs_of(home: Path, experiment: str) -> dict[str, list[dict[str, float]]]:
    """Form -> the figures of each of its runs in the newest experiment of that name."""
    folder = max((home / "experiments").glob(f"*-{experiment}"))
    found: dict[str, list[dict[str, float]]] = {}
    for run in json.loads((folder / "experiment.json").read_text())["runs"]:
        kpis = json.loads((home / "runs" / run["run"] / "kpis.json").read_text())
        found.setdefault(run["cell"], []).append(figures(kpis))
    return found


def show(experiment: str, found: dict[str, list[dict[str, float]]]) -> None:
    """One line per form: medians of its runs, and their ratios to another form's."""
    middle = {
        form: {name: statistics.median(run[name] for run in runs) for name in ("mean", "p50", "p99", "p99/p50")}
        for form, runs in found.items()
    }
    for form, runs in found.items():
        ours, other = middle[form], middle.get(BESIDE.get(form, form), middle[form])
        ratios = ", ".join(f"{name} {ours[name] / other[name]:.2f}" for name in ("mean", "p50", "p99"))
        lost, reordered = (sum(run[name] for run in runs) for name in ("lost", "reordered"))
        print(
            f"{experiment} {form:9} medians of {len(runs)} runs: mean {ours['mean']:9.3f} p50 {ours['p50']:9.3f} "
            f"p99 {ours['p99']:9.3f} ms, max {max(run['max'] for run in runs):.1f}, p99/p50 {ours['p99/p50']:.1f}; "
            f"lost {lost:.0f}, reordered {reordered:.0f}; {BESIDE.get(form, form)} x {ratios} "
            f"{WANTED.get((experiment, form), '')}"
        )


def main() -> None:
    """Deploy, play, show, remove."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--only", default="one-to-one,ten-to-ten")
    parser.add_argument("--steps", default=STEPS)
    parser.add_argument("--workspace", type=Path)
    parser.add_argument("--name", default="test-bench-forms")
    given = parser.parse_args()
    steps = given.steps.split(",")
    if given.workspace is None and steps != STEPS.split(","):
        raise SystemExit("single steps need a --workspace that stays")
    with tempfile.TemporaryDirectory() as folder:
        workspace = (given.workspace or Path(folder)).absolute()
        workspace.mkdir(parents=True, exist_ok=True)
        (workspace / "testbed.yml").write_text(FILE.read_text().replace("name: forms", f"name: {given.name}"))
        try:
            if "deploy" in steps:
                toolkit(workspace, "deploy", "testbed.yml", "--provider", "container")
            if "measure" in steps:
                for experiment in given.only.split(","):
                    toolkit(workspace, "run", experiment, "--repeat", str(given.repeat))
                    show(experiment, runs_of(workspace / ".toolkit" / given.name, experiment))
        finally:
            if "teardown" in steps:
                toolkit(workspace, "teardown", given.name)


if __name__ == "__main__":
    main()
