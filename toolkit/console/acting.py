"""The process of one action: `python -m toolkit.console.acting FOLDER LOCK` plays the story that `order.json` names."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.console.actions import INTERRUPTS, Order, Verb, release
from toolkit.console.journal import INTERRUPTED, journal, read_json
from toolkit.controller.asked import as_deployed
from toolkit.errors import ToolkitError, UsageError
from toolkit.events import Emit, counted
from toolkit.spec.load import Asked
from toolkit.state import load_deployment

if TYPE_CHECKING:
    from toolkit.controller.deploy import Outcome


def act(folder: Path, lock: int) -> int:
    """Play the story, journal its events, write down how it ended; returns the command line's exit code for it.

    `lock`: the descriptor of the testbed's busy file, held by whoever started this process.
    """
    document = read_json(folder / "order.json")
    if document is None:
        raise UsageError(f"{folder} holds no order")
    order = Order(**document["order"])
    try:
        with journal(folder) as written:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, INTERRUPTS)
            written.outcome |= STORIES[order.verb](order, written.emit)
    except ToolkitError as error:
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception:  # noqa: BLE001 - a bug, and the journal tells of it
        return 1
    finally:
        release(lock)
    return 0


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


def _deployed(outcome: Outcome) -> dict[str, Any]:
    return {"message": outcome.in_short, "notes": list(outcome.deployment.notes.values())}


def _teardown(order: Order, emit: Emit) -> dict[str, Any]:
    from toolkit.controller.teardown import teardown

    removal = teardown(order.testbed, emit=emit)
    things = f"{counted(len(removal.removed), 'thing')} removed, nothing is left, {removal.seconds:.1f} s"
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
    outcome.check()
    return outcome.told


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
