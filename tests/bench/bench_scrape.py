"""What being scraped costs a node: its processor time while Prometheus asks, less the same while Prometheus is paused.

Run: toolkit deploy tests/bench/scrape.yml
     PYTHONPATH=. .venv/bin/python tests/bench/bench_scrape.py [--testbed bench-scrape] [--node sub] [--seconds 60]
     toolkit teardown bench-scrape
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time

from toolkit import paths
from toolkit.spec.kinds import BUILT_IN

GOAL = 0.02
"""Of the node's share of processor time."""
USAGE = """\
for id in $(docker ps -q --no-trunc --filter name=toolkit-); do
  name=$(docker inspect -f '{{.Name}}' $id)
  for file in $(find /sys/fs/cgroup -path "*$id*" \\( -name cpuacct.usage -o -name cpu.stat \\) 2>/dev/null); do
    case $file in
      */cpuacct.usage) echo "$name $(($(cat $file) / 1000))"; break ;;
      *) used=$(sed -n 's/usage_usec //p' $file); [ -n "$used" ] && echo "$name $used" && break ;;
    esac
  done
done
"""
"""Name and microseconds of each container, of either version of cgroups."""


def main() -> None:
    """Print the shares, container by container."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--testbed", default="bench-scrape")
    parser.add_argument("--node", default="sub")
    parser.add_argument("--seconds", type=int, default=60)
    asked = parser.parse_args()
    state = json.loads((paths.testbed_dir(asked.testbed) / "state.json").read_text())
    machines = {node: _machine(host["address"]) for node, host in state["hosts"].items()}
    prometheus = f"toolkit-{asked.testbed}-prometheus"
    [monitor] = [m for m in machines.values() if prometheus in _run(m, "docker ps --format '{{.Names}}'").split()]
    cores = float(BUILT_IN["pi1"]["cpus"])
    scraped = _used_s(machines[asked.node], asked.testbed, asked.seconds)
    _run(monitor, f"docker pause {prometheus}")
    try:
        time.sleep(2)
        silent = _used_s(machines[asked.node], asked.testbed, asked.seconds)
    finally:
        _run(monitor, f"docker unpause {prometheus}")
    whole = 0.0
    for name, used_s in scraped.items():
        cost = (used_s - silent[name]) / asked.seconds
        whole += cost
        sys.stdout.write(
            f"{name:<16} {used_s / asked.seconds * 1e3:7.2f} ms/s scraped, {silent[name] / asked.seconds * 1e3:7.2f} "
            f"not: {cost * 1e3:6.2f} ms/s, {cost / cores:.2%} of {cores:g} cores\n"
        )
    sys.stdout.write(f"all containers: {whole * 1e3:.2f} ms/s, {whole / cores:.2%} of the node   goal < {GOAL:.0%}\n")


def _used_s(machine: str, testbed: str, seconds: int) -> dict[str, float]:
    """Container -> processor time it used in so many seconds."""
    before = _usage_us(machine, testbed)
    time.sleep(seconds)
    return {name: (used_us - before[name]) / 1e6 for name, used_us in _usage_us(machine, testbed).items()}


def _usage_us(machine: str, testbed: str) -> dict[str, int]:
    lines = [line.split() for line in _run(machine, USAGE).splitlines()]
    return {name.removeprefix(f"/toolkit-{testbed}-"): int(used_us) for name, used_us in lines}


def _machine(address: str) -> str:
    """The container of this machine that is a virtual node of that address."""
    ids = subprocess.run(["docker", "ps", "-q"], capture_output=True, text=True, check=True).stdout.split()
    for each in ids:
        found = subprocess.run(
            ["docker", "inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}", each],
            capture_output=True, text=True, check=True,
        ).stdout.split()  # fmt: skip
        if address in found:
            return each
    raise SystemExit(f"no virtual node has the address {address}; deploy tests/bench/scrape.yml first")


def _run(machine: str, script: str) -> str:
    done = subprocess.run(["docker", "exec", machine, "sh", "-c", script], capture_output=True, text=True, check=True)
    return done.stdout


if __name__ == "__main__":
    main()
