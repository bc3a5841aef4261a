"""From a run folder to fits, nets, predictions and a validation; the commands around them."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from toolkit.cli.model import app
from toolkit.contract.steps import StepRecord, steps_of
from toolkit.errors import ModelError, UsageError
from toolkit.model.analyse import solve
from toolkit.model.broker import run_settings
from toolkit.model.build import net_from_run
from toolkit.model.classes import message_classes
from toolkit.model.netfile import read_net
from toolkit.model.samples import pool, read_run
from toolkit.model.simulate import simulate, why_not_followed
from toolkit.model.validate import compare, distances, validate

duckdb = pytest.importorskip("duckdb")


@pytest.fixture(autouse=True)
def _few_families(monkeypatch):
    """Those that the made runs follow: the search among all of them is what the tests of fits are for."""
    monkeypatch.setattr("toolkit.model.delays.FAMILIES", ("gamma", "lognormal", "shifted_gamma"))
    monkeypatch.setattr("toolkit.model.predict._LATENCIES", 20_000)


def write_table(file, columns):
    with duckdb.connect() as connection:
        connection.register("given", {name: np.asarray(list(values)) for name, values in columns.items()})
        connection.execute(f"COPY given TO '{file}' (FORMAT parquet)")


def make_run(folder, *, n=600, subscribers=1, seed=1, threads=8):
    folder.mkdir()
    rng = np.random.Generator(np.random.Philox(seed))
    t1 = 10**18 + np.arange(n) * 2_000_000
    t2 = t1 + (rng.gamma(4, 0.1, n) * 1e6).astype(np.int64)
    at = t2 + (rng.lognormal(-1.5, 0.4, n) * 1e6).astype(np.int64)
    names = "stream seq subscriber t0_ns t1_ns t2_ns t3_ns t4_ns late"
    columns = {name: [] for name in names.split()}
    for subscriber in range(subscribers):
        t4 = at + (rng.gamma(3, 0.2, n) * 1e6).astype(np.int64)
        parts = (np.zeros(n, int), np.arange(n), np.full(n, subscriber), t1, t1, t2, at, t4, np.zeros(n, bool))
        for name, part in zip(columns, parts, strict=True):
            columns[name] += part.tolist()
        at = at + 50_000
    write_table(folder / "samples.parquet", columns)
    settings = {"broker": {"thread_pool_size": threads, "cores": 2}}
    (folder / "manifest.json").write_text(json.dumps({"settings": settings}))
    return folder


def test_a_run_becomes_a_net_with_its_own_settings(tmp_path):
    samples = read_run(make_run(tmp_path / "r", subscribers=3))
    assert set(samples.hops) == {"publish", "broker", "deliver"}
    total = sum(samples.hops[hop] for hop in samples.hops)
    assert total == pytest.approx(samples.end_to_end, abs=1e-6)
    assert samples.freed.gap_ms == pytest.approx(0.05)
    assert run_settings(samples) == {"K": 8, "C": 2, "S": 3, "rate": pytest.approx(500, rel=1e-4)}
    net = read_net(net_from_run(samples), {"threads": 2})
    assert net.params["K"] == 2


def test_a_model_fitted_on_one_run_predicts_another(tmp_path):
    fitted = read_run(make_run(tmp_path / "a", subscribers=4, n=1500))
    judged = read_run(make_run(tmp_path / "b", subscribers=2, n=1500, seed=2))
    result = validate(fitted, judged)
    assert not result.is_own
    assert abs(result.figure("mean").error_percent) < 3
    assert abs(result.figure("p99").error_percent) < 10
    assert result.is_good
    assert result.figure("mean").low < result.figure("mean").measured < result.figure("mean").high


def test_steps_leave_no_time_out(tmp_path):
    folder = tmp_path / "s"
    folder.mkdir()
    columns = {"request": [], "step": [], "start_ns": [], "end_ns": []}
    rng = np.random.Generator(np.random.Philox(3))
    for request in range(200):
        now = request * 10**9
        for step in ("query", "answer"):
            end = now + int(rng.gamma(5, 0.2) * 1e6)
            for name, value in zip(columns, (request, step, now, end), strict=True):
                columns[name].append(value)
            now = end + 300_000
    write_table(folder / "steps.parquet", columns)
    samples = read_run(folder)
    assert list(samples.steps) == ["query", "after_query", "answer"]
    assert sum(v.mean() for v in samples.steps.values()) == pytest.approx(samples.end_to_end.mean())
    net = read_net(net_from_run(samples))
    assert str(net.transition("after_query").timing.delay) == "deterministic(0.3)"
    assert abs(validate(samples, samples).figure("mean").error_percent) < 1.5


def record(request, call, kind, system, start_us, end_us):
    return StepRecord(
        request=str(request), call=call, kind=kind, system=system, cloud="", operation="orchestration",
        start_ns=start_us * 1000, end_ns=end_us * 1000,
    )  # fmt: skip


def test_recorded_steps_become_a_net_with_the_time_inside_systems(tmp_path):
    rng = np.random.Generator(np.random.Philox(4))
    records = []
    for request in range(150):
        at = request * 1_000_000
        there, inside, query, rest, back = (int(v) for v in rng.gamma(20, [20, 30, 50, 10, 15]))
        served = at + there
        queried = served + inside
        answered = queried + query + rest
        records += [
            record(request, "1", "call", "consumer", at, answered + back),
            record(request, "1", "serve", "orchestrator", served, answered),
            record(request, "1", "query", "orchestrator", queried, queried + query),
        ]
    steps = steps_of(records)
    names = ("request", "step", "start_ns", "end_ns")
    folder = tmp_path / "s"
    folder.mkdir()
    write_table(folder / "steps.parquet", {name: [getattr(step, name) for step in steps] for name in names})
    samples = read_run(folder)
    assert len(samples.steps) == 5
    assert sum("inside" in name for name in samples.steps) == 2
    assert sum(v.mean() for v in samples.steps.values()) == pytest.approx(samples.end_to_end.mean())
    result = validate(samples, samples)
    assert result.is_good, result.lines()
    assert solve(read_net(net_from_run(samples))).time.mean == pytest.approx(samples.end_to_end.mean(), rel=0.02)


def test_a_folder_without_samples_is_an_error(tmp_path):
    with pytest.raises(ModelError, match=r"neither samples\.parquet nor steps\.parquet"):
        read_run(tmp_path)


def test_comparing_a_sample_with_itself_finds_no_error():
    values = np.random.Generator(np.random.Philox(1)).gamma(3, 1, 20_000)
    for figure in compare(values, values):
        assert figure.error_percent == 0
        assert figure.low <= figure.measured <= figure.high
    assert [f.name for f in compare(values, values)][-1] == "p99.9"
    ks, wasserstein = distances(values, values)
    assert ks.value == 0
    assert wasserstein.value < 1e-3 < wasserstein.high < 0.1
    assert 0 < ks.low < ks.high < 0.03


def test_the_distances_of_a_wrong_model_have_intervals_around_them():
    rng = np.random.Generator(np.random.Philox(2))
    measured, predicted = rng.exponential(1.0, 4000), rng.exponential(1.2, 40_000)
    ks, wasserstein = distances(measured, predicted)
    # The largest difference of exp(-x) and exp(-x / 1.2), and the difference of the means.
    assert ks.low < 1.2**-5 - 1.2**-6 < ks.high
    assert wasserstein.low < 0.2 < wasserstein.high
    assert wasserstein.low < wasserstein.value < wasserstein.high


def run(*arguments):
    return CliRunner().invoke(app, list(arguments), catch_exceptions=False)


def test_solve_prints_one_document():
    net = "examples/models/event-handler.yml"
    result = run("solve", net, "--tokens", "2", "--set", "C=1", "--at", "5,10", "--json")
    document = json.loads(result.stdout)
    assert document["at"] == [5, 10]
    assert set(document["places"]) == set(document["tokens"])
    assert len(document["places"]["Publisher"]) == 2
    assert {"mean", "sd", "quantiles", "method", "error_bound"} <= set(document)
    assert document["quantiles"]["0.5"] < document["quantiles"]["0.99"]
    assert document["messages"][1]["delivered_at"]["mean"] == pytest.approx(document["mean"])


def test_the_commands_on_a_run_write_into_its_folder(tmp_path):
    folder = make_run(tmp_path / "r", n=250)
    only = ("--hop", "publish", "--families", "gamma,erlang")
    run("fit", str(folder), *only, "--plots", str(tmp_path / "plots"))
    shown = run("fit", str(folder), *only, "--round-shapes", "--bootstrap", "5")
    assert "rounded_gamma" in shown.stdout
    assert re.search(r"gamma .* AD \d\.\d+ .*gamma\(", shown.stdout)
    assert re.search(r"bootstrap: KS p .* of 5 rounds:\n    mean 0\.\d+ to 0\.\d+\n", shown.stdout)
    fits = json.loads((folder / "model" / "fits.json").read_text())
    assert fits["hops"]["publish"]["fits"][0]["family"] in {"gamma", "erlang"}
    assert (tmp_path / "plots" / "fit-publish.svg").stat().st_size > 1000
    document = json.loads(run("predict", str(folder), "--set", "threads=4,8", "--seconds", "1", "--json").stdout)
    assert [p["settings"]["threads"] for p in document["points"]] == [4, 8]
    run("validate", str(folder), "--plot", str(tmp_path / "both.svg"))
    (validated,) = json.loads((folder / "model" / "validation.json").read_text())["runs"]
    assert validated["ks_confidence"][0] < validated["ks_confidence"][1] < 0.2
    assert (tmp_path / "both.svg").stat().st_size > 1000


QUEUE = """\
net: queue
unit: ms
params: {rate: 10, threads: 1}
places: {Source: 100, Way: 0, Queue: 0, Done: 0}
transitions:
  arrive: {in: Source, out: Way, delay: "exponential(rate / 1000)"}
  send: {in: Way, out: Queue, delay: deterministic(1), server: infinite}
  serve: {in: Queue, out: Done, delay: "exponential(0.1)", server: threads}
measures: {done: {first_passage: Done == 100}}
latency: {from: send, to: Done}
"""


def test_a_sweep_is_plotted_and_the_capacity_keeps_its_bound(tmp_path):
    file, drawn = tmp_path / "queue.yml", tmp_path / "sweep.svg"
    file.write_text(QUEUE)
    options = ("--set", "threads=1,2", "--set", "rate=50", "--plot", str(drawn), "--json")
    points = json.loads(run("predict", str(file), *options).stdout)["points"]
    assert [point["settings"] for point in points] == [{"threads": 1, "rate": 50}, {"threads": 2, "rate": 50}]
    # One server at half its speed: 1 ms there, then 1 / (0.1 - 0.05) ms in the system.
    assert points[0]["mean"] == pytest.approx(21, rel=0.05)
    assert points[1]["mean"] == pytest.approx(1 + 1 / (0.1 * (1 - 0.25**2)), rel=0.05)
    assert drawn.stat().st_size > 1000
    wanted = ("--set", "threads=1", "--capacity", "93", "--json")
    capacity = json.loads(run("predict", str(file), *wanted).stdout)["capacity"]
    # The time in the system is exponential: p99 is 92 ms where arrivals leave 0.05 of the 0.1 a millisecond.
    assert capacity["p99"] < 93
    assert capacity["rate"] == pytest.approx(50, rel=0.15)


def test_places_over_time_are_drawn(tmp_path):
    drawn = tmp_path / "places.svg"
    run("solve", "examples/models/event-handler.yml", "--at", "0,2,4,6,8,10,12,16", "--plot", str(drawn))
    # Letters are paths; what they spell is in the comments beside them.
    assert "<!-- Ready_to_Send -->" in drawn.read_text()


def test_show_and_table(tmp_path):
    drawn, written = tmp_path / "n.svg", tmp_path / "n.pnml"
    net = "examples/models/event-handler.yml"
    shown = run("show", net, "--plot", str(drawn), "--write", str(written))
    assert "constant: Publisher + Request_Queue" in shown.stdout
    assert drawn.read_text().startswith("<svg")
    assert "start: Active_Threads -> Executing  immediate  unless Executing >= 4" in shown.stdout
    rows = json.loads(run("table", "--json").stdout)["rows"]
    # What the thesis read off its curves as "certain" is the 99.95 % point of the same nets.
    assert rows[0]["exact_certain"] == pytest.approx(448.6, rel=0.001)
    assert rows[1]["exact_certain"] == pytest.approx(2867, rel=0.006)
    assert rows[0]["exact_mean"] == pytest.approx(266.9458, rel=1e-6)


def test_wrong_options_say_what_is_expected():
    with pytest.raises(UsageError, match="NAME=VALUE"):
        run("solve", "examples/models/intracloud.yml", "--set", "K")
    with pytest.raises(UsageError, match="numbers separated by commas"):
        run("solve", "examples/models/intracloud.yml", "--at", "x")
    with pytest.raises(UsageError, match=r"a picture is a \.svg, \.pdf or \.png file"):
        run("solve", "examples/models/intracloud.yml", "--plot", "x.gif")
    with pytest.raises(UsageError, match=r"a net is written as \.yml or \.pnml"):
        run("show", "examples/models/intracloud.yml", "--write", "x.txt")


@pytest.mark.parametrize("command", [("solve",), ("show",), ("predict", "--write", "n.yml")])
def test_several_values_are_no_setting_of_one_net(command):
    name, *options = command
    with pytest.raises(UsageError, match="K=1,2: one value is expected here; toolkit model predict sweeps"):
        run(name, "examples/models/event-handler.yml", *options, "--set", "K=1,2")


def test_hops_that_are_slow_together_become_a_kind_of_message_of_their_own(tmp_path):
    rng = np.random.Generator(np.random.Philox(5))
    slow = rng.random(3000) < 0.1
    delays = rng.lognormal(0.0, 0.2, (3000, 2)) * np.where(slow, 8.0, 1.0)[:, None]
    kinds = message_classes(delays)
    assert (kinds == 0).mean() == pytest.approx(0.9, abs=0.02)
    assert ((kinds > 0) == slow).mean() > 0.99
    assert not message_classes(delays[:100]).any()


def make_closed_run(folder, *, subscribers, seed):
    """Subscribers on one cable: each arrival is 1 ms after the one before; some messages are late at every hop."""
    folder.mkdir()
    rng = np.random.Generator(np.random.Philox(seed))
    names = ["stream", "seq", "subscriber", "t0_ns", "t1_ns", "t2_ns", "t3_ns", "t4_ns", "late"]
    columns = {name: [] for name in names}
    for seq in range(800):
        factor = 6.0 if rng.random() < 0.05 else 1.0
        t1 = 10**18 + seq * 50_000_000
        t2 = t1 + int(rng.gamma(9, 0.2) * factor * 1e6)
        t3 = t2 + int(rng.gamma(4, 0.05) * factor * 1e6)
        first = t3 + int(rng.gamma(9, 0.1) * factor * 1e6)
        for rank in range(subscribers):
            row = (0, seq, rank, t1, t1, t2, t3 + rank * 20_000, first + rank * 1_000_000, False)
            for name, value in zip(columns, row, strict=True):
                columns[name].append(value)
    write_table(folder / "samples.parquet", columns)
    workload = {"arrivals": {"kind": "closed"}, "connections": 1}
    streams = [{"stream": 0, "process": "p/publisher-0"}]
    (folder / "manifest.json").write_text(json.dumps({"workload": workload, "streams": streams}))
    return folder


def test_a_closed_loop_fitted_with_few_subscribers_predicts_more(tmp_path):
    fitted = [read_run(make_closed_run(tmp_path / f"f{n}", subscribers=n, seed=n)) for n in (2, 4)]
    judged = read_run(make_closed_run(tmp_path / "j", subscribers=7, seed=9))
    result = validate(pool(fitted), judged)
    assert result.is_good, result.lines()


def test_a_closed_loop_is_asked_what_a_rate_would_do(tmp_path):
    folder = make_closed_run(tmp_path / "c", subscribers=2, seed=3)
    options = ("--set", "cores=1", "--set", "rate=20,10000", "--seconds", "1", "--json")
    slow, fast = json.loads(run("predict", str(folder), *options).stdout)["points"]
    assert slow["mean"] == pytest.approx(read_run(folder).end_to_end.mean(), rel=0.1)
    # A core is busy for 0.2 ms with a message, 1.2 ms with a late one: not 10,000 times a second.
    assert fast["mean"] > slow["mean"] + 4
    assert json.loads(run("predict", str(folder), "--json").stdout)["points"][0]["settings"] == {}


def test_a_miss_is_explained_with_what_changed_and_with_the_noise(tmp_path):
    fitted = read_run(make_closed_run(tmp_path / "f", subscribers=1, seed=1))
    judged = read_run(make_closed_run(tmp_path / "j", subscribers=3, seed=2))
    result = validate(fitted, judged)
    assert not result.is_good
    assert any("had one subscriber" in text for text in result.explanations)
    assert any("by which two such measurements differ" in text for text in result.explanations)
    assert "mean: a single run does not tell by how much runs with equal settings differ" in result.explanations


def test_a_miss_shows_how_runs_with_equal_settings_differ(tmp_path):
    runs = [read_run(make_run(tmp_path / f"r{n}", n=300, seed=n)) for n in range(3)]
    slow = replace(runs[0], end_to_end=runs[0].end_to_end * 2, parts=(runs[0].end_to_end * 2,))
    result = validate(pool(runs), pool([runs[1], slow]))
    (noise,) = (text for text in result.explanations if text.startswith("mean: the miss"))
    assert "differ (95 %; 3 and 2 runs)" in noise
    (values,) = (text for text in result.explanations if text.startswith("mean of the runs judged by"))
    first, second = (float(word) for word in values.split(": ")[1].removesuffix(" ms").split(", "))
    assert second == pytest.approx(2 * first, rel=0.15)
    assert re.search(r": repetitions differ by [67]. %, where 3 % are asked of the model$", values)


def test_a_thread_is_held_until_the_last_subscriber_was_sent_to(tmp_path):
    samples = read_run(make_run(tmp_path / "r", subscribers=4, n=400, threads=64))
    document = net_from_run(samples) | {"measures": {"held": {"reward": "Writing_1"}}}
    assert why_not_followed(read_net(document)) is None
    held = simulate(read_net(document), horizon=115.0, warm_up=20.0, least=64, most=64)
    writing = [place.startswith("Writing") for place in document["places"]]
    # Little's law: 500 messages a second, each 3 x 0.05 ms after the first sending.
    assert held.averages[:, writing].sum(axis=1).mean() == pytest.approx(0.5 * 0.15, rel=0.05)


def test_show_tells_the_parameters_of_a_runs_net_and_takes_others(tmp_path):
    folder = make_run(tmp_path / "r", n=200, subscribers=2)
    shown = run("show", str(folder), "--set", "threads=3", "--set", "subscribers=1").stdout
    assert "parameter K: 3 (also threads, thread_pool_size)" in shown
    assert "Active_Threads + Executing + To_Write_1 < 3" in shown
    assert "write_2" not in shown
    document = json.loads(run("show", str(folder), "--json").stdout)
    assert document["params"]["S"] == 2
    assert document["aliases"]["subscribers"] == "S"
    assert "write_last_2" in document["transitions"]
