"""What solving costs: the figures that docs/models.md quotes, and the growth with tokens as a plot.

Run: python tests/bench/bench_model.py [--plot growth.svg] [--quick]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from toolkit.model.netfile import load_net
from toolkit.model.simulate import simulate

MODELS = Path(__file__).parents[2] / "examples" / "models"
SOLVE = (sys.executable, "-m", "toolkit", "model", "solve")
ROUNDS = 3


def command(name: str, *options: str) -> float:
    """Seconds that the command takes from start to end (the best of three where it is short), and what it says."""
    seconds, spent = [], []
    while len(seconds) < ROUNDS and sum(seconds) < 10:
        started = time.perf_counter()
        with subprocess.Popen(
            [*SOLVE, str(MODELS / f"{name}.yml"), *options, "--json"], stdout=subprocess.PIPE
        ) as child:
            assert child.stdout is not None
            document = json.loads(child.stdout.read())
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
        seconds.append(time.perf_counter() - started)
        spent.append(usage.ru_utime + usage.ru_stime)
    states = f"{document['states']:,} states, " if document["states"] else ""
    print(
        f"{' '.join([name, *options]):<28} {document['method']:<12} {min(seconds):7.2f} s {min(spent):7.2f} s CPU "
        f"{usage.ru_maxrss / 1024:6.0f} MB  {states}error {document['error_bound']:.1e}",
        flush=True,
    )
    return min(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    for name in ("intracloud", "intercloud", "event-handler"):
        command(name)
    growth: dict[str, list[tuple[int, float]]] = {"chain of phases": [], "simulation, 8192 replications": []}
    for tokens in (2, 4, 8) if options.quick else (2, 4, 8, 16, 24):
        growth["chain of phases"].append(
            (tokens, command("event-handler", "--tokens", str(tokens), "--method", "phases"))
        )
    for tokens in (4, 16) if options.quick else (4, 16, 64, 200):
        net = load_net(MODELS / "event-handler.yml", tokens=tokens)
        started = time.perf_counter()
        outcome = simulate(net, at=(), least=8192, most=8192)
        growth["simulation, 8192 replications"].append((tokens, time.perf_counter() - started))
        speed = outcome.firings / outcome.seconds / 1e6
        print(f"{tokens} tokens simulated: {outcome.seconds:.2f} s, {speed:.2f} M timed firings/s", flush=True)
    if not options.quick:
        command("event-handler", "--tokens", "200")
    if options.plot:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6, 4), layout="constrained")
        axis = figure.add_subplot()
        for method, points in growth.items():
            axis.loglog(*zip(*points, strict=True), marker="o", label=method)
        axis.set(xlabel="tokens", ylabel="seconds", title="Event Handler net: cost by tokens")
        axis.legend()
        figure.savefig(options.plot)


if __name__ == "__main__":
    main()
