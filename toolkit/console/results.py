"""Runs and experiments with their reports, opened in place."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from toolkit.console.guard import REPORT_POLICY
from toolkit.console.held import console_of
from toolkit.console.pages import packed, page
from toolkit.errors import UsageError
from toolkit.measure.experiments import FILE, ExperimentFolder, experiments_dir, list_experiments
from toolkit.measure.store import RunFolder, list_runs, runs_dir
from toolkit.provisioning.pages import NOTHING
from toolkit.report.html import write_experiment, write_report
from toolkit.report.table import COLUMNS, hop_rows, ledger_line, remarks, run_document

F = TypeVar("F", RunFolder, ExperimentFolder)
MARGIN_S = 10.0
"""Shown before and after a run where a dashboard is opened on it."""
_SUMMARIES = threading.Lock()
"""Two browsers that ask for a summary at once do not draw it into each other."""


def index(request: Request) -> Response:
    """Runs of a testbed, or of all, newest first."""
    name = request.query_params.get("testbed", "")
    names = [name] if name else [entry.name for entry in console_of(request).catalogue.entries()]
    rows = _rows(names)
    experiments = [experiment_row(folder) for each in names for folder in list_experiments(each)]
    experiments.sort(key=lambda one: one["started_at"], reverse=True)
    parts = {(one["testbed"], run): one for one in experiments for run in one["runs"]}
    return page(request, "runs", rows=rows, experiments=experiments, parts=parts, testbed=name)


def _rows(names: list[str]) -> list[dict[str, Any]]:
    folders = [(each, file.parent) for each in names for file in runs_dir(each).glob("*/manifest.json")]
    rows = [row(each, folder, _changed(folder)) for each, folder in folders]
    for place, (one, (_, folder)) in enumerate(zip(rows, folders, strict=True)):
        if one["status"] == "running":  # whether somebody still plays it is not in its files
            rows[place] = one | {"status": RunFolder(folder).status}
    return sorted(rows, key=lambda one: one["started_at"] or 0.0, reverse=True)


def at(request: Request) -> Response:
    """Where a panel of a dashboard leads: to the run that was going at this instant, or was the last since another one.

    To all of the testbed's runs where there was none.
    """
    testbed = request.path_params["name"]
    console_of(request).catalogue.entry(testbed)
    at_s = _instant_s(request, "at", float("inf"))
    since_s = min(_instant_s(request, "since", at_s), at_s)
    apart = {
        one["run"]: max(begun - at_s, at_s - ended, 0.0)
        for one in _rows([testbed])
        for begun, ended in [(one["started_at"] or 0.0, one["ended_at"] or time.time())]
        if begun <= at_s + MARGIN_S and ended >= since_s - MARGIN_S
    }
    if apart:
        nearest = min(apart, key=apart.__getitem__)
        return RedirectResponse(f"/testbeds/{testbed}/runs/{nearest}", status_code=303)
    return RedirectResponse(f"/runs?testbed={testbed}", status_code=303)


def _instant_s(request: Request, name: str, otherwise: float) -> float:
    """A parameter in milliseconds since the epoch, as dashboards write instants, in seconds."""
    asked = request.query_params.get(name, "")
    return int(asked) / 1000 if asked.isdigit() else otherwise


def experiment_row(folder: ExperimentFolder) -> dict[str, Any]:
    """What the list shows of an experiment."""
    document = folder.document()
    return {
        "id": folder.name,
        "name": document["experiment"],
        "testbed": folder.path.parent.parent.name,
        "description": document["description"],
        "started_at": document["started_at"],
        "varied": document["varied"],
        "points": len(document["points"]),
        "asked": len(document["points"]) * document["repeat"],
        "runs": [run.name for _, _, run in folder.runs()],
    }


@functools.lru_cache(maxsize=4096)
def row(testbed: str, folder: Path, changed: tuple[int, ...]) -> dict[str, Any]:  # noqa: ARG001 - a changed run is read again
    """What the list shows of a run."""
    run = RunFolder(folder)
    manifest = run.manifest()
    hops = run.kpis()["hops"] if run.has_kpis else {}
    end = hops.get("end_to_end", {})
    return {
        "run": run.name,
        "testbed": testbed,
        "workload": manifest.get("workload", {}).get("name", NOTHING),
        "status": manifest.get("status", NOTHING),
        "started_at": manifest.get("started_at"),
        "ended_at": manifest.get("ended_at"),
        "count": end.get("count"),
        "lost": end.get("lost"),
        "p50_ms": end.get("p50_ms"),
        "p99_ms": None if "p99" in end.get("few", ()) else end.get("p99_ms"),
    }


def _changed(folder: Path) -> tuple[int, ...]:
    files = (folder / "manifest.json", folder / "kpis.json")
    return tuple(file.stat().st_mtime_ns for file in files if file.is_file())


def show(request: Request) -> Response:
    """One run: its table at once, its report below."""
    testbed, run = _run(request)
    manifest = run.manifest()
    values: dict[str, Any] = {"columns": [name for name, _ in COLUMNS], "rows": [], "ledger": "", "remarks": []}
    if run.has_kpis:
        document = run_document(run)
        whole = document["ledger"]
        values |= {
            "rows": hop_rows(document),
            "ledger": ledger_line(whole["total"], closes=whole["closes"]),
            "remarks": remarks(document)[1:],
        }
    started, ended = manifest.get("started_at") or 0.0, manifest.get("ended_at") or time.time()
    span = (int((started - MARGIN_S) * 1000), int((ended + MARGIN_S) * 1000))
    parts = [folder.name for folder in list_experiments(testbed) if _belongs(run, folder)]
    return page(
        request,
        "run",
        testbed=testbed,
        run=run.name,
        manifest=manifest,
        state=run.status,
        span=span,
        parts=parts,
        **values,
    )


def _belongs(run: RunFolder, folder: ExperimentFolder) -> bool:
    return any(entry["run"] == run.name for entry in folder.document()["runs"])


def report(request: Request) -> Response:
    """The run's report, made if it is not there yet; shut in a sandbox, since it carries its program inside."""
    _, run = _run(request)
    file = run.path / "report.html"
    if not file.is_file():
        write_report([run], file)
    answer = HTMLResponse(file.read_bytes(), headers={"content-security-policy": REPORT_POLICY})
    return packed(request, answer)


def experiment(request: Request) -> Response:
    """One experiment: its runs, and its summary below."""
    testbed, folder = _experiment(request)
    return page(request, "experiment", testbed=testbed, about=experiment_row(folder))


def summary(request: Request) -> Response:
    """The experiment's page, made again where runs came after it."""
    _, folder = _experiment(request)
    file = folder.path / "report.html"
    with _SUMMARIES:
        if not file.is_file() or file.stat().st_mtime < (folder.path / FILE).stat().st_mtime:
            write_experiment(folder)
    answer = HTMLResponse(file.read_bytes(), headers={"content-security-policy": REPORT_POLICY})
    return packed(request, answer)


def _experiment(request: Request) -> tuple[str, ExperimentFolder]:
    """The testbed and the experiment that the address names."""
    return _listed(request, "experiment", list_experiments, experiments_dir)


def _run(request: Request) -> tuple[str, RunFolder]:
    """The testbed and the run that the address names."""
    return _listed(request, "run", list_runs, runs_dir)


def _listed(
    request: Request, kind: str, listed: Callable[[str], Iterable[F]], home: Callable[[str], Path]
) -> tuple[str, F]:
    """Only folders that are listed are ever opened."""
    testbed, name = request.path_params["name"], request.path_params[kind]
    console_of(request).catalogue.entry(testbed)
    for folder in listed(testbed):
        if folder.name == name:
            return testbed, folder
    raise UsageError(f"testbed {testbed} has no {kind} {name!r} in {home(testbed)}")


ROUTES = [
    Route("/runs", index),
    Route("/testbeds/{name}/runs", at),
    Route("/testbeds/{name}/runs/{run}", show),
    Route("/testbeds/{name}/runs/{run}/report", report),
    Route("/testbeds/{name}/experiments/{experiment}", experiment),
    Route("/testbeds/{name}/experiments/{experiment}/report", summary),
]
