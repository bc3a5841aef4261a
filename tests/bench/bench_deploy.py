"""Deploy, again, teardown: the quickstart, scenario E and a large testbed; what `validate` and `plan` take; memory.

Usage: bench_deploy.py [--nodes 30] [--repeat 1]     The first deploy builds what is missing and is not counted.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GOALS = {"quickstart": (45, 5, 8), "scenario-e": (75, 8, 12), "large": (240, None, None)}


def main() -> None:
    """Print one line per figure, with its goal and n."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--nodes", type=int, default=30)
    parser.add_argument("--repeat", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder)
        files = {
            "quickstart": copied(workspace, ROOT / "examples/quickstart/testbed.yml", "test-bench-quickstart"),
            "scenario-e": copied(
                workspace, ROOT / "examples/arrowhead/event-handler/scenario-e/testbed.yml", "test-bench-e"
            ),
            "large": large(workspace, arguments.nodes),
        }
        files_only(workspace, files["large"], arguments.repeat)
        for name, file in files.items():
            cycle(workspace, name, file, arguments.repeat)
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"largest process of all of these (controller, ansible-playbook or test helper): {memory:.0f} MB")


def copied(workspace: Path, source: Path, name: str) -> Path:
    """The example under a name of the benchmark's own, for virtual nodes."""
    text = source.read_text()
    lines = [f"name: {name}" if line.startswith("name:") else line for line in text.splitlines()]
    file = workspace / f"{name}.yml"
    file.write_text("\n".join(lines) + "\n")
    return file


def large(workspace: Path, nodes: int) -> Path:
    """A broker, a publisher, a monitor with the clock, and subscribers."""
    file = workspace / "test-bench-large.yml"
    file.write_text(
        f"""name: test-bench-large
nodes:
  base: {{kind: vm}}
  eh: {{kind: pi3}}
  pub: {{kind: vm}}
  sub: {{kind: pi1, count: {nodes - 3}}}
services:
  ntp: {{on: base}}
  monitor: {{on: base}}
  broker: {{on: eh}}
  publisher: {{on: pub}}
  subscriber: {{on: sub}}
"""
    )
    return file


def toolkit(workspace: Path, *arguments: str) -> float:
    """Wall seconds of one command; raises where it fails."""
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "toolkit", *arguments],
        cwd=workspace,
        env={**os.environ, "TOOLKIT_HOME": str(workspace / ".toolkit")},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"toolkit {' '.join(arguments)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
    return time.monotonic() - started


def files_only(workspace: Path, file: Path, repeat: int) -> None:
    """What the file alone costs; `version` is the floor of any command."""
    floor = min(toolkit(workspace, "version") for _ in range(max(3, repeat)))
    for command, goal in (("validate", 0.3), ("plan", 3.0)):
        best = min(toolkit(workspace, command, str(file)) for _ in range(max(3, repeat)))
        print(f"{command:<10} {best:6.2f} s (goal {goal} s; `toolkit version` alone {floor:.2f} s; best of 3)")


def cycle(workspace: Path, name: str, file: Path, repeat: int) -> None:
    """Deploy, again, teardown; the images are built before."""
    provider = ("--provider", "container")
    toolkit(workspace, "deploy", str(file), *provider)
    toolkit(workspace, "teardown", str(file))
    for _ in range(repeat):
        times = (
            toolkit(workspace, "deploy", str(file), *provider),
            toolkit(workspace, "deploy", str(file), *provider),
            toolkit(workspace, "teardown", str(file)),
        )
        for what, seconds, goal in zip(("deploy", "again", "teardown"), times, GOALS[name], strict=True):
            print(f"{name:<12} {what:<9} {seconds:6.1f} s" + (f"   (goal {goal} s)" if goal else ""), flush=True)


if __name__ == "__main__":
    main()
