"""Orchestration on virtual nodes, from the examples' files: delays, steps and memory beside goals and published means.

`processor_ms` is what a request costs each system, with all it does between two requests: unlike a delay, it does
not grow on a busy machine.

`python tests/bench/bench_local_clouds.py [EXAMPLE]... [--requests 100]`: intracloud, intercloud, intracloud-mariadb,
intercloud-mariadb; the default is the first two. Testbeds are called bench-NAME and are torn down at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.integration.lab import Lab, docker
from toolkit.report.table import database_share

EXAMPLES = Path(__file__).parents[2] / "examples" / "arrowhead"
GOAL_MS = {"intracloud": 10.0, "intercloud": 30.0}
GOAL_RESIDENT_MB = 80.0
MODULES = "toolkit.node.arrowhead."


def bench(example: str, requests: int, folder: Path) -> dict[str, Any]:
    lab = Lab(folder=folder, name=f"bench-{example}")
    text = (EXAMPLES / example / "testbed.yml").read_text()
    lab.write(text.replace(f"name: {example}\n", "name: NAME\n"))
    try:
        lab.run("deploy", within_s=900)
        lab.run("run", "--messages", "5", "--json", expect=None)  # connections and caches as in the middle of a run
        load_before, before = os.getloadavg()[0], spent(lab)
        document = lab.run("run", "--messages", str(requests), "--json", within_s=requests * 2 + 300).document
        after = spent(lab)
        return {
            "example": example,
            **figures(document),
            "load": [round(load_before, 1), round(os.getloadavg()[0], 1)],
            "goal_ms": GOAL_MS[example.removesuffix("-mariadb")],
            "processor_ms": {name: round((ms - before[name][1]) / requests, 2) for name, (_, ms) in after.items()},
            "resident_mb": {name: round(mb, 1) for name, (mb, _) in after.items()},
            "goal_resident_mb": GOAL_RESIDENT_MB,
        }
    finally:
        lab.run("teardown")


def figures(document: dict[str, Any]) -> dict[str, Any]:
    whole = document["hops"]["end_to_end"]
    published = next((r["figures"] for r in document["reference"] if r["hop"] == "end_to_end"), {})
    return {
        "n": whole["count"],
        **{name: round(whole[name], 3) for name in ("mean_ms", "sd_ms", "p50_ms", "p90_ms", "max_ms")},
        "published_mean_ms": published.get("mean"),
        "faults": document["faults"],
        "databases": database_share(document),
        "query_mean_ms": {
            step["name"]: round(step["mean_ms"], 3) for step in document["sequence"] if step["kind"] == "query"
        },
    }


def spent(lab: Lab) -> dict[str, tuple[float, float]]:
    """Of each system, by its node's /proc: resident MB, and ms of processor time so far."""
    found = {}
    script = (
        'for p in /proc/[0-9]*; do echo "$(grep VmRSS $p/status) $(sed "s/.*) //" $p/stat)'
        ' $(tr "\\0" " " <$p/cmdline)"; done 2>/dev/null'
    )
    for node in lab.status():
        for line in docker("exec", lab.node(node), "sh", "-c", script).splitlines():
            words = line.split()
            module = next((word for word in words if word.startswith(MODULES)), None)
            if module and words[0] == "VmRSS:":
                ticks = int(words[3 + 11]) + int(words[3 + 12])
                name = f"{node}/{module.removeprefix(MODULES)}"
                found[name] = (int(words[1]) / 1024, ticks * 1000 / os.sysconf("SC_CLK_TCK"))
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("examples", nargs="*", default=["intracloud", "intercloud"])
    parser.add_argument("--requests", type=int, default=100)
    given = parser.parse_args()
    for name in given.examples:
        with tempfile.TemporaryDirectory(prefix="toolkit-bench-") as scratch:
            print(json.dumps(bench(name, given.requests, Path(scratch)), indent=2), flush=True)
