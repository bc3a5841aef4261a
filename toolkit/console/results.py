"""Runs and their reports, opened in place."""

from __future__ import annotations

import functools
import time
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from toolkit.console.guard import REPORT_POLICY
from toolkit.console.held import console_of
from toolkit.console.pages import NOTHING, packed, page
from toolkit.errors import UsageError
from toolkit.measure.store import RunFolder, list_runs, runs_dir
from toolkit.report.html import write_report
from toolkit.report.table import COLUMNS, hop_rows, ledger_line, remarks, run_document

MARGIN_S = 10.0
"""Shown before and after a run where a dashboard is opened on it."""


def index(request: Request) -> Response:
    """Runs of a testbed, or of all, newest first."""
    name = request.query_params.get("testbed", "")
    names = [name] if name else [entry.name for entry in console_of(request).catalogue.entries()]
    folders = [(each, file.parent) for each in names for file in runs_dir(each).glob("*/manifest.json")]
    rows = [row(each, folder, _changed(folder)) for each, folder in folders]
    rows.sort(key=lambda one: one["started_at"] or 0.0, reverse=True)
    return page(request, "runs", rows=rows, testbed=name)


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
    return page(request, "run", testbed=testbed, run=run.name, manifest=manifest, span=span, **values)


def report(request: Request) -> Response:
    """The run's report, made if it is not there yet; shut in a sandbox, since it carries its program inside."""
    _, run = _run(request)
    file = run.path / "report.html"
    if not file.is_file():
        write_report([run], file)
    answer = HTMLResponse(file.read_bytes(), headers={"content-security-policy": REPORT_POLICY})
    return packed(request, answer)


def _run(request: Request) -> tuple[str, RunFolder]:
    """The run that the address names; only folders that are listed are ever opened."""
    testbed, name = request.path_params["name"], request.path_params["run"]
    console_of(request).catalogue.entry(testbed)
    for run in list_runs(testbed):
        if run.name == name:
            return testbed, run
    raise UsageError(f"testbed {testbed} has no run {name!r} in {runs_dir(testbed)}")


ROUTES = [
    Route("/runs", index),
    Route("/testbeds/{name}/runs/{run}", show),
    Route("/testbeds/{name}/runs/{run}/report", report),
]
