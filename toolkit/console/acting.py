"""The process of one action: `python -m toolkit.console.acting FOLDER LOCK` plays the story that `order.json` names."""

from __future__ import annotations

import dataclasses
import json
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

from toolkit.console.actions import INTERRUPTS, Order, Verb, read_json, release, write_json
from toolkit.controller.asked import as_deployed
from toolkit.errors import ToolkitError, UsageError
from toolkit.events import Emit, Event
from toolkit.spec.load import Asked
from toolkit.state import load_deployment

INTERRUPTED = 130


def act(folder: Path, lock: int) -> int:
    """Play the story, journal its events, write down how it ended; returns the command line's exit code for it.

    `lock`: the descriptor of the testbed's busy file, held by whoever started this process.
    """
    written = read_json(folder / "order.json")
    if written is None:
        raise UsageError(f"{folder} holds no order")
    order = Order(**written["order"])
    with (folder / "events.jsonl").open("a") as journal:
        emit = _journalled(journal)
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, INTERRUPTS)
            ended = {"state": "done", "exit_code": 0, **STORIES[order.verb](order, emit)}
        except ToolkitError as error:
            ended = {"state": "failed", "exit_code": error.exit_code, "message": str(error)}
        except KeyboardInterrupt:
            words = "interrupted; the state is saved: deploy again to go on, or tear down"
            ended = {"state": "interrupted", "exit_code": INTERRUPTED, "message": words}
        except Exception:  # noqa: BLE001 - a bug: its traceback goes to the log, the last line to the page
            traceback.print_exc()
            last = traceback.format_exc().strip().splitlines()[-1]
            words = f"internal error: {last}\nThis is a bug in toolkit; the traceback is in {folder / 'log'}"
            ended = {"state": "failed", "exit_code": 1, "message": words}
    write_json(folder / "outcome.json", {**ended, "ended_at": time.time()})
    release(lock)
    return int(ended["exit_code"])


def _journalled(journal: TextIO) -> Emit:
    lock = threading.Lock()

    def emit(event: Event) -> None:
        with lock:
            journal.write(json.dumps(dataclasses.asdict(event)) + "\n")
            journal.flush()

    return emit


def _deploy(order: Order, emit: Emit) -> dict[str, Any]:
    from toolkit.controller.deploy import deploy

    return _deployed(deploy(_asked(order), emit))


def _redeploy(order: Order, emit: Emit) -> dict[str, Any]:
    from toolkit.controller.deploy import redeploy

    return _deployed(redeploy(_asked(order), emit))


def _asked(order: Order) -> Asked:
    """What is deployed already stays what it is: a twin, scaled, with what was set."""
    deployment = load_deployment(order.testbed)
    return as_deployed(deployment) if deployment else Asked(file=Path(order.file), provider=order.provider)


def _deployed(outcome: Any) -> dict[str, Any]:
    deployment = outcome.deployment
    what = "is up" if outcome.changed else "is up already; nothing changed"
    message = f"testbed {deployment.name} {what}: {len(deployment.hosts)} nodes, {outcome.seconds:.1f} s"
    return {"message": message, "notes": list(deployment.notes.values())}


def _teardown(order: Order, emit: Emit) -> dict[str, Any]:
    from toolkit.controller.teardown import teardown

    removal = teardown(order.testbed, emit=emit)
    things = f"{len(removal.removed)} things removed, nothing is left, {removal.seconds:.1f} s"
    return {"message": f"testbed {order.testbed} is gone: {things}"}


def _run(order: Order, emit: Emit) -> dict[str, Any]:
    from toolkit.controller.run import find_experiment, play_experiment
    from toolkit.report.html import write_experiment
    from toolkit.spec.scale import scale_traffic

    deployment = load_deployment(order.testbed)
    if deployment is None:
        raise UsageError(f"testbed {order.testbed} is not deployed")
    testbed = scale_traffic(as_deployed(deployment).load(), deployment.scale)
    outcome = play_experiment(testbed, deployment, find_experiment(testbed, order.workload), emit=emit)
    if outcome.folder is not None:
        write_experiment(outcome.folder)
    runs = [folder.name for folder in outcome.runs]
    return {"message": f"{len(runs)} run{'s' * (len(runs) > 1)} measured and saved", "runs": runs}


STORIES: Mapping[Verb, Callable[[Order, Emit], dict[str, Any]]] = {
    "deploy": _deploy,
    "redeploy": _redeploy,
    "teardown": _teardown,
    "run": _run,
}

if __name__ == "__main__":
    for each in INTERRUPTS:
        signal.signal(each, signal.default_int_handler)  # a shell may have told its children to ignore it
    sys.exit(act(Path(sys.argv[1]), int(sys.argv[2])))
