"""What the dashboards' page makes of the JSON that Grafana is given: strict reading, queries, units, bands."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import pytest

from tests.unit.console.browser_code import run_module
from toolkit.provisioning.dashboards import dashboards
from toolkit.provisioning.pages import VENDOR, VENDORED, static_file

UNITS = [
    (0.0123, "s", "12.3 ms"), (0.000375, "s", "375 µs"), (2.5e-8, "s", "25 ns"), (0, "s", "0 s"),
    (61, "s", "1.02 mins"), (-0.0123, "s", "-12.3 ms"), (197.2, "mps", "197 msg/s"),
    (2048, "mps", "2.05 K msg/s"), (0.9731, "percentunit", "97.3%"),
    (0, "percentunit", "0%"), (1536, "bytes", "1.50 KiB"), (1500, "Bps", "1.50 kB/s"), (1234567, "short", "1.23 Mil"),
    (9.996, "mps", "10.0 msg/s"), (0.0999999, "percentunit", "10.0%"),
    (41, "celsius", "41 °C"), (12, "pps", "12 p/s"), (3, "short", "3"),
]  # fmt: skip


def test_numbers_are_written_with_their_units() -> None:
    calls = ", ".join(f"format({value}, {json.dumps(unit)})" for value, unit, _ in UNITS)
    assert run_module("units.js", f"[{calls}]", "format") == [words for _, _, words in UNITS]


def test_marks_of_an_axis_have_no_idle_zeros() -> None:
    marks = [
        (0.3, "mps"),
        (1.2, "mps"),
        (0.5, "short"),
        (100, "short"),
        (0.0001, "s"),
        (0.00012, "percentunit"),
        (0, "s"),
    ]
    calls = ", ".join(f"tick({value}, {json.dumps(unit)})" for value, unit in marks)
    assert run_module("units.js", f"[{calls}]", "tick") == [
        "0.3 msg/s", "1.2 msg/s", "0.5", "100", "100 µs", "0.012%", "0 s",
    ]  # fmt: skip


def test_labels_of_a_time_axis_stand_at_round_times_that_are_on_the_grid() -> None:
    asked = ", ".join(
        f"labelStep({args})" for args in ("300, 5, 1", "300, 3, 1", "900, 9, 2", "86400, 8, 300", "300, 0, 1")
    )
    assert run_module("queries.js", f"[{asked}]", "labelStep") == [60, 120, 120, 10800, 300]


def test_an_unknown_unit_is_an_error_and_nothing_is_a_dash() -> None:
    told = run_module(
        "units.js", "(() => { try { return format(1, 'furlongs'); } catch (e) { return e.message; } })()", "format"
    )
    assert "furlongs" in told
    assert run_module("units.js", "[format(null, 's'), format(NaN, 's'), format(Infinity, 's')]", "format") == [
        "\N{EN DASH}",
        "\N{EN DASH}",
        "∞",
    ]


def unknown(panels: list[dict[str, Any]]) -> list[str]:
    return list(run_module("reading.js", f"{json.dumps(panels)}.map(unknownIn)", "unknownIn"))


def read(document: dict[str, Any]) -> str:
    """What reading a dashboard complains of; empty: nothing."""
    call = (
        f"(() => {{ try {{ readDashboard({json.dumps(document)}); return ''; }} catch (e) {{ return e.message; }} }})()"
    )
    return str(run_module("reading.js", call, "readDashboard"))


@pytest.mark.parametrize("name", dashboards())
def test_every_panel_that_grafana_is_given_is_drawn_here(name: str) -> None:
    document = json.loads(dashboards()[name])
    assert read(document) == ""
    assert set(unknown(document["panels"])) == {""}


def panel_of(kind: str) -> dict[str, Any]:
    everything = [panel for text in dashboards().values() for panel in json.loads(text)["panels"]]
    return copy.deepcopy(next(panel for panel in everything if panel["type"] == kind))


def changed(kind: str, **changes: Any) -> dict[str, Any]:
    """A panel with values put in at dotted places."""
    panel = panel_of(kind)
    for place, value in changes.items():
        *way, last = place.split("__")
        inner = panel
        for key in way:
            inner = inner[int(key)] if isinstance(inner, list) else inner[key]
        inner[last] = value
    return panel


def test_what_is_not_drawn_is_named_never_ignored() -> None:
    wrong = [
        (changed("stat", type="gauge"), "gauge"),
        (changed("stat", options__sparkle=True), "options.sparkle"),
        (changed("stat", options__graphMode="none"), "graphMode"),
        (changed("stat", options__reduceOptions__calcs=["mean"]), "calcs"),
        (changed("stat", fieldConfig__defaults__unit="furlongs"), "unit"),
        (changed("stat", transformations=[{"id": "merge"}]), "transformations"),
        (changed("timeseries", fieldConfig__defaults__custom__stacking={"mode": "normal"}), "stacking"),
        (changed("timeseries", options__legend__displayMode="hidden"), "displayMode"),
        (changed("timeseries", fieldConfig__overrides=[{"matcher": {}}]), "overrides"),
        (changed("timeseries", targets__0__instant=True), "instant"),
        (changed("heatmap", options__color__scheme="Blues"), "scheme"),
        (changed("heatmap", targets__0__format="table"), "format"),
        (changed("state-timeline", options__mergeValues=False), "mergeValues"),
        (changed("row", collapsed=True), "collapsed"),
        (changed("stat", links=[{"title": "x", "url": "y"}]), "links"),
    ]
    for (panel, word), told in zip(wrong, unknown([panel for panel, _ in wrong]), strict=True):
        assert word in told, panel
        assert panel["title"] in told


def test_a_dashboard_of_another_kind_is_refused_whole() -> None:
    document = json.loads(dashboards()["kpis.json"])
    assert "schemaVersion" in read({**document, "schemaVersion": 43})
    assert "custom" in read({**document, "templating": {"list": [{"type": "custom", "name": "x"}]}})
    other = copy.deepcopy(document)
    other["templating"]["list"][2]["query"]["query"] = "query_result(up)"
    assert "label_values" in read(other)
    for key, value in {"hide": 1, "skipUrlSync": "yes", "allValue": "everything"}.items():
        other = copy.deepcopy(document)
        other["templating"]["list"][-1][key] = value
        assert key in read(other)
    assert "elsewhere" in read({**document, "links": [{"type": "elsewhere"}]})
    assert "does not lead to the testbed" in read({**document, "links": [{"type": "link", "url": "http://x/other"}]})


def test_intervals_are_at_least_four_scrapes_and_steps_are_round() -> None:
    calls = "[intervals(900, 450, 1), intervals(300, 1000, 1), intervals(86400, 600, 1), intervals(900, 450, 5)]"
    assert run_module("queries.js", calls, "intervals") == [
        {"step": 2, "rate": 4}, {"step": 1, "rate": 4}, {"step": 300, "rate": 301}, {"step": 5, "rate": 20},
    ]  # fmt: skip


def test_choices_become_what_grafana_would_ask() -> None:
    variable = '{multi: true, allValue: ".*"}'
    picks = [["$__all"], ["a"], ["a.b", "c"]]
    calls = f'[...{json.dumps(picks)}.map((picked) => chosen({variable}, picked)), chosen({{multi: false}}, ["x"])]'
    assert run_module("queries.js", calls, "chosen") == [".*", "a", "(a\\\\.b|c)", "x"]
    expr = 'interpolate("rate(x{run=~\\"$run\\"}[$__rate_interval])", {run: ".*", __rate_interval: "4s"})'
    assert run_module("queries.js", expr, "interpolate") == 'rate(x{run=~".*"}[4s])'
    failing = '(() => { try { return interpolate("$other", {}); } catch (e) { return e.message; } })()'
    assert "$other" in run_module("queries.js", failing, "interpolate")


def test_a_series_leads_to_pages_of_this_console_wherever_it_listens() -> None:
    panel = next(panel for panel in json.loads(dashboards()["compare.json"])["panels"] if panel["type"] == "timeseries")
    links = panel["fieldConfig"]["defaults"]["links"]
    call = f"[{{run: 'r/1'}}, {{}}].map((labels) => linksOf({json.dumps(links)}, labels, {{testbed: ['lab']}}))"
    named, nameless = run_module("queries.js", call, "linksOf")
    assert [link["path"] for link in named] == ["/testbeds/lab/runs/r%2F1/report", "/testbeds/lab/runs/r%2F1"]
    assert nameless == [], "a series of no run leads nowhere"
    assert run_module("queries.js", "linksOf(undefined, {}, {})", "linksOf") == []


@pytest.mark.parametrize(
    ("kind", "known", "leads"),
    [
        ("timeseries", "at", "/testbeds/lab/runs?at=1500"),
        ("state-timeline", "at", "/testbeds/lab/runs?at=1500"),
        ("stat", "span", "/testbeds/lab/runs?at=2000&since=1000"),
        ("heatmap", "span", "/testbeds/lab/runs?at=2000&since=1000"),
    ],
)
def test_a_point_leads_to_the_run_then_and_a_figure_to_the_last_run_shown(kind: str, known: str, leads: str) -> None:
    links = json.dumps(panel_of(kind)["fieldConfig"]["defaults"]["links"])
    span = "{testbed: ['lab'], __from: ['1000'], __to: ['2000']}"
    at = {"at": f"linksOf({links}, {{}}, {span}, 1500)", "span": f"linksOf({links}, {{}}, {span})"}[known]
    without = f"linksOf({links}, {{}}, {{testbed: ['lab']}})"
    [[lead], nowhere] = run_module("queries.js", f"[{at}, {without}]", "linksOf")
    assert lead["path"] == leads
    assert nowhere == []


def test_what_happened_lasts_until_its_points_end_and_what_begins_together_is_one_mark() -> None:
    points = json.dumps([[10, "1"], [12, "1"], [14, "1"], [30, "1"]])
    assert run_module("queries.js", f"lastings({points}, 2)", "lastings") == [[10, 14], [30, 30]]
    marks = [
        {"name": "Deploys", "from": 11, "to": 40, "words": "a", "colour": "green"},
        {"name": "Deploys", "from": 10, "to": 39, "words": "b", "colour": "green"},
        {"name": "Deploys", "from": 12, "to": 12, "words": "b", "colour": "green"},
        {"name": "Deploys", "from": 12, "to": 12, "words": "c", "colour": "green"},
        {"name": "Deploys", "from": 12, "to": 12, "words": "d", "colour": "green"},
        {"name": "Runs", "from": 12, "to": 20, "words": "run r1", "colour": "blue", "run": "r1"},
        {"name": "Runs", "from": 12, "to": 20, "words": "run r2", "colour": "blue", "run": "r2"},
        {"name": "Deploys", "from": 90, "to": 95, "words": "e", "colour": "green"},
    ]
    found = run_module("queries.js", f"together({json.dumps(marks)}, 1)", "together")
    assert [(mark["from"], mark["to"], mark["words"]) for mark in found] == [
        (10, 40, "b, a, c and 1 more"), (12, 20, "run r1"), (12, 20, "run r2"), (90, 95, "e"),
    ]  # fmt: skip


def test_every_name_in_every_query_is_given() -> None:
    for text in dashboards().values():
        document = json.loads(text)
        names = {variable["name"] for variable in document["templating"]["list"]}
        for panel in document["panels"]:
            for target in panel.get("targets", ()):
                used = set(re.findall(r"\$(\w+)", target["expr"]))
                assert used <= names | {"__rate_interval", "__interval", "__range"}


def test_series_lie_on_a_grid_and_gaps_stay_gaps() -> None:
    call = 'onGrid([[100, "1"], [102, "NaN"], [104, "3"], [106, "+Inf"]], 100, 108, 2)'
    assert run_module("queries.js", call, "onGrid") == [1, None, 3, None, None]  # JSON has no infinity
    assert run_module(
        "queries.js", "[lastOf([1, null]), mostOf([1, 5, null, 2]), lastOf([null])]", "lastOf", "mostOf"
    ) == [1, 5, None]


def test_buckets_become_bands_sorted_by_their_bound() -> None:
    series = json.dumps(
        [
            {"labels": {"le": le}, "values": values}
            for le, values in (("+Inf", [9, None]), ("0.1", [2, 1]), ("0.5", [6, 1]))
        ]
    )
    found = run_module("queries.js", f"bands({series})", "bands")
    assert [band["values"] for band in found] == [[2, 1], [4, 0], [3, None]]


def test_states_are_merged_and_thresholds_colour() -> None:
    assert run_module("queries.js", "stretches([1, 1, 0, null, 0, 1])", "stretches") == [
        [0, 2, 1],
        [2, 3, 0],
        [4, 5, 0],
        [5, 6, 1],
    ]
    steps = '{steps: [{value: null, color: "green"}, {value: 0.1, color: "yellow"}, {value: 1, color: "red"}]}'
    calls = f"[...[0, 0.1, 5].map((value) => thresholdColour({steps}, value)), thresholdColour(undefined, 5)]"
    assert run_module("queries.js", calls, "thresholdColour") == ["green", "yellow", "red", None]


def test_vendored_files_are_those_that_were_published() -> None:
    import hashlib

    told = (VENDOR / "README.md").read_text()
    for name, path in VENDORED.items():
        assert hashlib.sha256(path.read_bytes()).hexdigest() in told, name
        assert (path.parent / "LICENSE").is_file()


def test_no_module_asks_for_anything_from_elsewhere() -> None:
    from toolkit.provisioning.pages import HOME

    for file in [*(HOME / "static").iterdir(), *HOME.glob("*.j2")]:
        addresses = set(re.findall(r"https?://[^\s\"'`)]+", file.read_text())) - {"http://www.w3.org/2000/svg"}
        assert not addresses, file.name
    assert len(static_file("htmx.min.js").packed) < 20_000
