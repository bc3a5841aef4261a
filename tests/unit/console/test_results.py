"""Runs and experiments on pages: lists, the summary that is made when it is opened, and what is not opened."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests.unit.report.test_report import make_run
from toolkit.console.actions import Actions, Order, shown
from toolkit.console.app import make_app
from toolkit.console.guard import REPORT_POLICY, Guard
from toolkit.measure.experiments import ExperimentFolder, list_experiments
from toolkit.provisioning.pages import NOTHING, ago, delay, lasted
from toolkit.state import locked

NAME = "20260101T000000Z-loads"


@pytest.fixture
def console(workspace: Path, tmp_path: Path) -> TestClient:
    guard = Guard(port=8400)
    client = TestClient(make_app(tmp_path, guard), base_url="http://127.0.0.1:8400")
    client.get("/enter", params={"token": guard.watch_token})
    return client


@pytest.fixture
def experiment(workspace: Path) -> ExperimentFolder:
    """Two points of which one was played."""
    run = make_run(workspace / "lab" / "runs" / "20260101T000001Z-slow")
    ended = {"status": "complete", "started_at": 1.0, "ended_at": 2.0, "problems": []}
    run.write("manifest.json", run.manifest() | ended)
    folder = ExperimentFolder(workspace / "lab" / "experiments" / NAME)
    folder.path.mkdir(parents=True)
    points = [{"name": name, "workload": "hello", "parameters": {"rate": name}, "reference": []} for name in "ab"]
    folder.write(
        {
            "experiment": "loads", "description": "Two loads.", "key": "k", "testbed": "lab", "twin": False,
            "scale": 1.0, "started_at": 1.0, "order": "given", "seed": 1, "repeat": 1, "varied": ["rate"],
            "points": points, "runs": [{"cell": "a", "repetition": 1, "run": run.name}],
        }
    )  # fmt: skip
    return folder


def test_an_experiment_is_listed_beside_its_runs_and_its_summary_opens(
    console: TestClient, experiment: ExperimentFolder
) -> None:
    address = f"/testbeds/lab/experiments/{NAME}"
    [(_, _, run)] = experiment.runs()
    for listed in (console.get("/runs").text, console.get("/runs?testbed=lab").text):
        assert f'<a href="{address}">loads</a>' in listed
        assert "1 of 2" in listed
        assert f'<span class="soft">in <a href="{address}">loads</a>' in listed
    assert f'href="{address}">Its experiment</a>' in console.get(f"/testbeds/lab/runs/{run.name}").text
    page = console.get(address).text
    assert f'src="{address}/report"' in page
    assert f'href="/testbeds/lab/runs/{run.name}"' in page
    summary = console.get(f"{address}/report")
    assert summary.headers["content-security-policy"] == REPORT_POLICY
    assert "loads on lab" in summary.text
    assert "<svg" in summary.text


def test_a_run_that_nobody_plays_any_more_is_interrupted(console: TestClient, experiment: ExperimentFolder) -> None:
    [(_, _, run)] = experiment.runs()
    run.write("manifest.json", run.manifest() | {"status": "running"})
    pages = ("/runs", f"/testbeds/lab/runs/{run.name}")
    with locked("lab"):
        assert all('data-health="running"' in console.get(page).text for page in pages)
    assert all('data-health="interrupted"' in console.get(page).text for page in pages)


def test_a_summary_is_made_again_when_runs_came_after_it(console: TestClient, experiment: ExperimentFolder) -> None:
    address = f"/testbeds/lab/experiments/{NAME}/report"
    (experiment.path / "report.html").write_text("as it was")
    assert console.get(address).text == "as it was"
    [(_, _, run)] = experiment.runs()
    (experiment.path / "report.html").unlink()
    assert console.get(address).text.count(f"<code>{run.name}</code>") == 1
    (experiment.path / "report.html").write_text("as it was")
    later = make_run(run.path.with_name("20260101T000002Z-fast"))
    experiment.add(later, cell="b", repetition=1)
    assert later.name in console.get(address).text


def test_an_experiment_without_figures_says_so(console: TestClient, experiment: ExperimentFolder) -> None:
    experiment.write({**experiment.document(), "runs": []})
    page = console.get(f"/testbeds/lab/experiments/{NAME}").text
    assert "has come to figures" in page
    assert "<iframe" not in page


def test_an_action_leads_to_its_runs_or_to_the_summary_of_its_experiment(console: TestClient) -> None:
    order = Order(verb="run", testbed="lab", workload="hello", by="command line")
    with shown(order) as journal:
        (action,) = Actions().latest()
        assert "Ctrl-C there stops it" in console.get(f"/actions/{action.id}").text
        journal.outcome |= {"message": "1 run measured and saved", "runs": ["r1"]}
    page = console.get(f"/actions/{action.id}").text
    assert 'href="/testbeds/lab/runs/r1"' in page
    assert "Ctrl-C" not in page
    with shown(order) as journal:
        journal.outcome |= {"message": "2 runs measured and saved", "runs": ["r1", "r2"], "experiment": NAME}
    page = console.get(f"/actions/{Actions().latest()[0].id}").text
    assert f'href="/testbeds/lab/experiments/{NAME}">Open the summary' in page
    assert "/runs/r1" not in page


@pytest.mark.parametrize(
    ("asked", "leads"),
    [
        ({"at": "1500"}, "/testbeds/lab/runs/20260101T000001Z-slow"),
        ({"at": "11900"}, "/testbeds/lab/runs/20260101T000001Z-slow"),
        ({"at": "99000"}, "/runs?testbed=lab"),
        ({"at": "99000", "since": "11900"}, "/testbeds/lab/runs/20260101T000001Z-slow"),
        ({"at": "99000", "since": "98000"}, "/runs?testbed=lab"),
        ({"at": "1500", "since": "99000"}, "/testbeds/lab/runs/20260101T000001Z-slow"),
        ({}, "/runs?testbed=lab"),
        ({"at": "soon"}, "/runs?testbed=lab"),
    ],
)
def test_an_instant_leads_to_the_run_that_was_going_then_or_the_last_since(
    console: TestClient, experiment: ExperimentFolder, asked: dict[str, str], leads: str
) -> None:
    answer = console.get("/testbeds/lab/runs", params=asked, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, leads)
    assert console.get("/testbeds/none/runs", params=asked).status_code == 404


def test_how_long_ago_is_said_with_the_instant_and_durations_carry_over() -> None:
    said = ago(time.time() - 300)
    assert said.startswith('<time data-at="')
    assert said.endswith(">5 min ago</time>")
    assert ago(None) == NOTHING
    assert [lasted(seconds) for seconds in (3.21, 59.94, 59.96, 119.6, 61)] == [
        "3.2 s", "59.9 s", "1 min 0 s", "2 min 0 s", "1 min 1 s",
    ]  # fmt: skip


def test_only_experiments_that_are_listed_are_opened(console: TestClient, experiment: ExperimentFolder) -> None:
    (experiment.path.parent / "other").mkdir()
    assert [folder.name for folder in list_experiments("lab")] == [NAME]
    for name in ("other", "..", "%2e%2e%2fruns", "none"):
        assert console.get(f"/testbeds/lab/experiments/{name}/report").status_code == 404, name
    assert console.get(f"/testbeds/none/experiments/{NAME}").status_code == 404


@pytest.mark.parametrize(
    ("milliseconds", "words"),
    [(0.1234, "0.123 ms"), (999.4, "999 ms"), (999.6, "1 s"), (2971.0, "2.97 s"), (None, NOTHING)],
)
def test_delays_have_three_figures(milliseconds: float | None, words: str) -> None:
    assert delay(milliseconds) == words
