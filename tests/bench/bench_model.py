"""What solving costs: the figures that docs/models.md quotes, and the growth with tokens as a plot.

Run: python tests/bench/bench_model.py [--plot growth.svg] [--quick]
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

from toolkit.model.analyse import Effort, solve
from toolkit.model.netfile import load_net
from toolkit.model.simulate import simulate

MODELS = Path(__file__).parents[2] / "examples" / "models"


def row(name: str, method: str, seconds: float, detail: str) -> None:
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{name:<28} {method:<12} {seconds:8.3f} s  {memory:6.0f} MB  {detail}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    for name in ("intracloud", "intercloud", "event-handler"):
        net = load_net(MODELS / f"{name}.yml")
        started = time.perf_counter()
        solution = solve(net)
        row(name, solution.method, time.perf_counter() - started, f"error {solution.error_bound:.1e}")
    growth: dict[str, list[tuple[int, float]]] = {"phases": [], "simulation": []}
    for tokens in (2, 4, 8) if options.quick else (2, 4, 8, 16, 32, 64):
        net = load_net(MODELS / "event-handler.yml", tokens=tokens)
        started = time.perf_counter()
        solution = solve(net, method="phases", effort=Effort(order=None if tokens <= 8 else 3))
        seconds = time.perf_counter() - started
        growth["phases"].append((tokens, seconds))
        found = f"{solution.states:,} states, error {solution.error_bound:.1e}"
        row(f"event-handler, {tokens} tokens", "phases", seconds, found)
    for tokens in (4, 16) if options.quick else (4, 16, 64, 200):
        net = load_net(MODELS / "event-handler.yml", tokens=tokens)
        started = time.perf_counter()
        outcome = simulate(net, at=(), least=8192, most=8192)
        seconds = time.perf_counter() - started
        growth["simulation"].append((tokens, seconds))
        speed = outcome.firings / outcome.seconds / 1e6
        found = f"8192 replications, {speed:.2f} M timed firings/s"
        row(f"event-handler, {tokens} tokens", "simulation", seconds, found)
    if not options.quick:
        net = load_net(MODELS / "event-handler.yml", tokens=200)
        started = time.perf_counter()
        solution = solve(net)
        seconds = time.perf_counter() - started
        row("event-handler, 200 tokens", solution.method, seconds, f"half-width {solution.error_bound:.2%}")
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
