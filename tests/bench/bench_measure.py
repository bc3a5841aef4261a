"""How long joining and summarising takes, and how much memory.

Run: .venv/bin/python tests/bench/bench_measure.py [--samples 10000000] [--subscribers 1]

A made-up run of one publisher with four streams; 1 in 1,000 deliveries is lost, 1 in 1,000 comes twice. The goal is
10 million samples in 60 s and 1 GB. Memory is this process' high-water mark, its imports included.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[2]))

from toolkit.contract.orders import Arrivals
from toolkit.contract.samples import STAMP_DTYPE, Point, StampsInfo
from toolkit.measure.compute import compute
from toolkit.measure.store import RunFolder
from toolkit.spec.workload import Workload

DTYPE = np.dtype(STAMP_DTYPE)
STREAMS = 4
START_NS = 1_800_000_000_000_000_000
INTERVAL_NS = 10_000
LOST, TWICE = 0.001, 0.001


def stamps(point: Point, seq: NDArray[np.int64], at: NDArray[np.int64], peer: int = 0) -> NDArray[np.void]:
    """Stamps of messages numbered over all streams."""
    out = np.zeros(len(seq), dtype=DTYPE)
    out["point"], out["peer"] = point, peer
    out["stream"], out["seq"] = seq % STREAMS, seq // STREAMS
    out["at_ns"], out["aux_ns"] = at, np.where(point == Point.SENT, at, 0)
    return out


def make_run(folder: Path, samples: int, subscribers: int) -> RunFolder:
    """Write the raw files of a run, in blocks, as processes would."""
    rng = np.random.default_rng(1)
    messages = samples // subscribers
    names = ["pub/publisher-0", "eh/broker-0", *(f"sub-{i}/subscriber-0" for i in range(subscribers))]
    files = {}
    for name in names:
        path = folder / "raw" / f"{name}.stamps"
        path.parent.mkdir(parents=True)
        files[name] = path.open("wb")
    for first in range(0, messages, 100_000):
        seq = np.arange(first, min(first + 100_000, messages))
        t1 = START_NS + seq * INTERVAL_NS
        t2 = t1 + rng.integers(100_000, 400_000, len(seq))
        stamps(Point.SENT, seq, t1).tofile(files["pub/publisher-0"])
        stamps(Point.BROKER_RECEIVED, seq, t2, peer=1000).tofile(files["eh/broker-0"])
        for i in range(subscribers):
            t3 = t2 + rng.integers(10_000, 2_000_000, len(seq))
            stamps(Point.BROKER_SENT, seq, t3, peer=i).tofile(files["eh/broker-0"])
            got = rng.random(len(seq)) >= LOST
            copies = np.where(rng.random(len(seq)) < TWICE, 2, 1) * got
            t4 = np.repeat(t3 + rng.integers(100_000, 400_000, len(seq)), copies)
            stamps(Point.RECEIVED, np.repeat(seq, copies), t4).tofile(files[f"sub-{i}/subscriber-0"])
    for name, file in files.items():
        file.close()
        node, _, process = name.partition("/")
        flows = {"0": [f"10.77.0.{10 + int(node[4:])}", 1]} if node.startswith("sub") else {}
        if node == "eh":
            flows = {str(i): [f"10.77.0.{10 + i}", 1] for i in range(subscribers)}
        info = StampsInfo(
            run="bench", testbed="bench", node=node, service=process[:-2], role=process[:-2], instance=0, stamps=0,
            counts={}, flows=flows, clock={"resolution_ns": 40}, facts={},
        )  # fmt: skip
        (folder / "raw" / f"{name}.json").write_text(json.dumps(dataclasses.asdict(info)))
    run = RunFolder(folder)
    workload = Workload(name="bench", messages=messages, arrivals=Arrivals(kind="rate", rate_per_s=1e9 / INTERVAL_NS))
    run.write(
        "manifest.json",
        {
            "run": "bench", "status": "complete", "testbed": {"name": "bench", "twin": False},
            "workload": dataclasses.asdict(workload),
            "nodes": {name.partition("/")[0]: {"shared_clock": True} for name in names},
            "streams": [{"stream": s, "topic": str(s), "process": names[0]} for s in range(STREAMS)],
            "subscribers": [
                {"name": name, "process": name, "connection": 0, "topics": [str(s) for s in range(STREAMS)]}
                for name in names[2:]
            ],
        },
    )  # fmt: skip
    return run


def main() -> int:
    """Make a run, measure, print one line of JSON."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--samples", type=int, default=10_000_000)
    arguments.add_argument("--subscribers", type=int, default=1)
    given = arguments.parse_args()
    samples, subscribers = given.samples, given.subscribers
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        run = make_run(Path(name), samples, subscribers)
        raw_bytes = sum(file.stat().st_size for file in run.raw.rglob("*.stamps"))
        before_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        started, cpu = time.monotonic(), time.process_time()
        kpis = compute(run)
        seconds, cpu_s = time.monotonic() - started, time.process_time() - cpu
        whole = kpis["ledger"]["total"]
        line = {
            "samples": whole["delivered"], "subscribers": subscribers, "closes": kpis["ledger"]["closes"],
            "dropped": whole["dropped"], "duplicates": whole["duplicates"], "seconds": round(seconds, 1),
            "cpu_s": round(cpu_s, 1), "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
            "peak_before_mb": round(before_mb), "raw_mb": round(raw_bytes / 1e6),
            "samples_parquet_mb": round(run.samples.stat().st_size / 1e6),
        }  # fmt: skip
    print(json.dumps(line))
    return 0 if line["seconds"] <= 60 and line["peak_mb"] <= 1000 else 1


if __name__ == "__main__":
    sys.exit(main())
