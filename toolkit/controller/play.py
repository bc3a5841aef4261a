"""One run from orders to KPIs. What was measured is saved whatever happens."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from typing import Any

from toolkit.contract.steps import WRITTEN_WITHIN_S
from toolkit.controller.cast import Cast, make_cast
from toolkit.controller.control import Control, Process
from toolkit.controller.disturb import Disturber, acts_of
from toolkit.controller.manifest import make_manifest
from toolkit.controller.points import Point
from toolkit.controller.stage import Limits, Stage
from toolkit.errors import MeasurementError, ToolkitError
from toolkit.events import Emit, Event
from toolkit.measure import resources
from toolkit.measure.collect import Collector
from toolkit.measure.compute import compute
from toolkit.measure.resources import Watch
from toolkit.measure.store import RunFolder, new_run
from toolkit.parallel import on_each
from toolkit.provisioning.render import HOP_EXPORTER_PORT
from toolkit.spec.testbed import Testbed
from toolkit.ssh import MAX_THREADS
from toolkit.state import Deployment


def play(
    testbed: Testbed,
    deployment: Deployment,
    point: Point,
    *,
    key: str,
    experiment: str,
    control: Control,
    collector: Collector,
    watch: Watch | None,
    emit: Emit,
    limits: Limits,
) -> RunFolder:
    """Prepare, start, watch, drain, stop, collect, compute, seal; an interrupt goes on up once the run is saved."""
    workload = point.workload
    run = new_run(testbed.name, workload.name)
    cast = make_cast(testbed, deployment, workload, run.name)
    manifest = make_manifest(testbed, deployment, point, cast, key=key, experiment=experiment)
    run.write("manifest.json", manifest)
    disturber = Disturber(acts_of(testbed, workload), control, emit)
    stage = Stage(cast, control, emit, limits, workload, disturber)
    manifest["disturbed"] = disturber.done
    relays = _relays(control, deployment)
    interrupted = _perform(run, stage, manifest)
    manifest["problems"] += [
        f"the relay in the link of {node} ended during the run and was started again; meanwhile the link was cut"
        for node, began in _relays(control, deployment).items()
        if began != relays.get(node, began)
    ]
    emit(Event(stage="collect", message="fetching samples", state="started"))
    if cast.witnesses:
        time.sleep(WRITTEN_WITHIN_S)
    failed = collector.fetch(run.name, cast.nodes, run.raw)
    manifest["problems"] += list(failed.values())
    _save(run, manifest, stage)
    if watch is not None and stage.started:
        first_s = manifest["start_ns"] / 1e9
        run.write(resources.FILE, watch(first_s, max(first_s, _now_s(control, cast))))
    kpis = _compute(run, manifest, emit)
    _publish_books(testbed, deployment, control, kpis)
    run.seal()
    if not failed:
        collector.forget(run.name, cast.nodes)
    for fault in kpis.get("faults", ()):
        emit(Event(stage="run", message=fault, level="warning"))
    emit(Event(stage="run", message=f"saved {run.path}", state="done"))
    if interrupted:
        raise KeyboardInterrupt
    return run


def _perform(run: RunFolder, stage: Stage, manifest: dict[str, Any]) -> bool:
    """From orders to the last message, and everybody stopped; tells whether it was interrupted.

    Raises ToolkitError where the run did not even begin; later troubles are among the manifest's problems.
    """
    try:
        stage.prepare()
        manifest["start_ns"] = stage.start()
        stage.watch()
        stage.drain()
        manifest["status"] = "complete"
    except KeyboardInterrupt:
        manifest["status"] = "interrupted"
    except ToolkitError as error:
        manifest["status"] = "failed"
        manifest["problems"].append(str(error))
        if not stage.started:
            raise
    finally:
        stage.stop()
        _save(run, manifest, stage)
    return bool(manifest["status"] == "interrupted")


def _relays(control: Control, deployment: Deployment) -> dict[str, str]:
    """Node -> when the relay in its link was started last, where there is one and the node answers."""
    nodes = [node for node, host in deployment.hosts.items() if host.facts.get("link") == "relay"]

    def began(node: str) -> str:
        with contextlib.suppress(ToolkitError):
            return control.relay_began(node)
        return ""

    found = zip(nodes, on_each(nodes, began, at_once=MAX_THREADS), strict=True)
    return {node: at for node, at in found if at}


def _now_s(control: Control, cast: Cast) -> float:
    """The nodes' own time, as the start of the run is."""
    with contextlib.suppress(ToolkitError):
        return control.now_ns(cast.publishers[0][0].node) / 1e9
    return time.time()


def _publish_books(testbed: Testbed, deployment: Deployment, control: Control, kpis: Mapping[str, Any]) -> None:
    """Lost and expected deliveries as metrics, where there is a monitor; for watching, so that failing is no matter."""
    if "qos" not in kpis:  # requests, not deliveries
        return
    whole = kpis["ledger"]["total"]
    books = {"run": kpis["run"], "qos": kpis["qos"], "expected": whole["expected"], "lost": whole["lost"]}
    for node in [node for service in testbed.service_of_role("monitor") for node in service.nodes]:
        if node in deployment.hosts:
            exporter = Process(
                node=node, service="hop-exporter", instance=0, role="monitor", control_port=HOP_EXPORTER_PORT + 1
            )
            with contextlib.suppress(ToolkitError):
                control.close_books(exporter, books)


def _save(run: RunFolder, manifest: dict[str, Any], stage: Stage) -> None:
    manifest["problems"] = list(dict.fromkeys([*manifest["problems"], *stage.problems]))
    manifest["watched_until_ns"] = stage.watched_until_ns
    manifest["ended_at"] = time.time()
    run.write("manifest.json", manifest)


def _compute(run: RunFolder, manifest: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """KPIs; samples that cannot be joined stay in `raw/` and the run says why."""
    try:
        return compute(run)
    except MeasurementError as error:
        manifest["status"] = "failed"
        manifest["problems"].append(str(error))
        run.write("manifest.json", manifest)
        run.seal()
        emit(Event(stage="run", message=str(error), level="error", state="failed"))
        raise
