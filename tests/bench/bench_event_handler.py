"""Every form of the Event Handler beside Mosquitto at QoS 1, in turns on virtual nodes; ratios of mean and p99.

Usage: bench_event_handler.py [--repeat 5] [--only one-to-one,ten-to-ten]
Deploys examples/arrowhead/event-handler/forms/testbed.yml under a name of its own and removes it again.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "examples/arrowhead/event-handler/forms/testbed.yml"
NAME = "test-bench-forms"
WANTED = {
    ("one-to-one", "direct"): "at most 1 x mosquitto",
    ("one-to-one", "enhanced"): "at most 3 x direct",
    ("ten-to-ten", "direct"): "p99 at most 5 x p50",
}


def toolkit(workspace: Path, *arguments: str) -> None:
    """One command; its output is shown only where it fails. A run that lost messages (7) is shown as such."""
    done = subprocess.run(
        [sys.executable, "-m", "toolkit", *arguments],
        cwd=workspace,
        env={**os.environ, "TOOLKIT_HOME": str(workspace / ".toolkit")},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in (0, 7):
        raise SystemExit(f"toolkit {' '.join(arguments)} ended with {done.returncode}: {done.stdout}{done.stderr}")


def end_to_end(workspace: Path, experiment: str) -> dict[str, dict[str, float]]:
    """Point -> figures in ms, means over the runs of the newest experiment of that name."""
    folder = max((workspace / ".toolkit" / NAME / "experiments").glob(f"*-{experiment}"))
    with (folder / "table.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if (row["hop"], row["source"]) == ("end_to_end", "measured")]
    return {
        row["point"]: {name: float(row[f"{name}_ms"]) for name in ("mean", "p50", "p99", "max")}
        | {"lost": float(row["lost"]), "runs": float(row["runs"])}
        for row in rows
    }


def show(experiment: str, found: dict[str, dict[str, float]]) -> None:
    """One line per form, with its ratios."""
    beside = {"direct": "mosquitto"}
    for form, figures in found.items():
        other = found.get(beside.get(form, "direct"), figures)
        ratios = ", ".join(f"{name} {figures[name] / other[name]:.2f}" for name in ("mean", "p99"))
        print(
            f"{experiment} {form:9} n={figures['runs']:.0f} runs: mean {figures['mean']:9.3f} "
            f"p50 {figures['p50']:9.3f} p99 {figures['p99']:9.3f} ms, lost {figures['lost']:.0f}; "
            f"{beside.get(form, 'direct')} x {ratios}; p99/p50 {figures['p99'] / figures['p50']:.1f}"
            + (f" ({WANTED[experiment, form]})" if (experiment, form) in WANTED else "")
        )


def main() -> None:
    """Deploy, play, show, remove."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--only", default="one-to-one,ten-to-ten")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder)
        text = FILE.read_text().replace("name: forms", f"name: {NAME}")
        (workspace / "testbed.yml").write_text(text.replace("repeat: 5", f"repeat: {given.repeat}"))
        toolkit(workspace, "deploy", "testbed.yml", "--provider", "container")
        try:
            for experiment in given.only.split(","):
                toolkit(workspace, "run", experiment)
                show(experiment, end_to_end(workspace, experiment))
        finally:
            toolkit(workspace, "teardown", NAME)


if __name__ == "__main__":
    main()
