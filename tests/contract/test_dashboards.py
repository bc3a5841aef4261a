"""The dashboards as Grafana is given them: what its linter would ask, what a parser refuses, what review must see."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import jsonschema
import promql_parser
import pytest
from syrupy.assertion import SnapshotAssertion
from syrupy.extensions.json import JSONSnapshotExtension

from tests.contract.grafana_schema import dashboard_schema
from toolkit.contract import metrics
from toolkit.provisioning.dashboards import dashboards, pages
from toolkit.provisioning.monitoring import NODE_SCRAPE_S, recording_rules

FILES = dashboards()
KINDS = {"stat", "timeseries", "heatmap", "state-timeline"}
FOREIGN = re.compile(r"^(up|ALERTS|node_[a-z0-9_A-Z]+)$")
"""What others expose: Prometheus itself and node_exporter."""
RECORDED = set(re.findall(r"record: (\S+)", recording_rules()))
NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*(?=\{)")


def panels(name: str) -> list[dict[str, Any]]:
    return [panel for panel in json.loads(FILES[name])["panels"] if panel["type"] != "row"]


ALL_PANELS = [(name, panel) for name in FILES for panel in panels(name)]
each_panel = pytest.mark.parametrize(
    ("name", "panel"), ALL_PANELS, ids=lambda v: v["title"] if isinstance(v, dict) else v
)


def resolved(expr: str) -> str:
    expr = expr.replace("$__rate_interval", "10s").replace("$__range", "1m").replace("$__interval", "5s")
    return re.sub(r"\$\{?[a-z]+\}?", "x", expr)


@pytest.mark.parametrize("name", FILES)
def test_a_dashboard_survives_the_sdk_and_is_of_the_schema_it_says(name: str) -> None:
    document = json.loads(FILES[name])
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.cog.plugins import register_default_plugins
    from grafana_foundation_sdk.models.dashboard import Dashboard

    register_default_plugins()
    again = json.loads(json.dumps(Dashboard.from_json(document), cls=JSONEncoder))
    for variable in again["templating"]["list"]:
        for key in ("auto", "auto_count", "auto_min"):
            variable.pop(key, None)
    assert again == document, "keys that Grafana's types do not know would vanish here"
    assert document["schemaVersion"] == 42
    assert document["uid"] == "toolkit-" + name.removesuffix(".json")


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    schema = dashboard_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("name", FILES)
def test_a_dashboard_is_valid_by_the_types_that_grafana_publishes(
    validator: jsonschema.Draft202012Validator, name: str
) -> None:
    found = jsonschema.exceptions.best_match(validator.iter_errors(json.loads(FILES[name])))
    assert found is None, f"{found.json_path}: {found.message}"


def first(document: dict[str, Any], kind: str) -> dict[str, Any]:
    return next(panel for panel in document["panels"] if panel["type"] == kind)


WRONG: dict[str, Callable[[dict[str, Any]], object]] = {
    "a key nobody knows": lambda d: d.update(theme="dark"),
    "no schema version": lambda d: d.pop("schemaVersion"),
    "a word that is no member": lambda d: first(d, "timeseries")["options"]["legend"].update(placement="left"),
    "another panel's option": lambda d: first(d, "stat")["options"].update(calculate=True),
    "another panel's field": lambda d: first(d, "heatmap")["fieldConfig"]["defaults"]["custom"].update(lineWidth=1),
    "a panel that is not drawn": lambda d: first(d, "stat").update(type="gauge"),
    "a number as text": lambda d: first(d, "timeseries")["gridPos"].update(w="8"),
    "a query's misspelt key": lambda d: first(d, "stat")["targets"][0].update(legend="x"),
    "a colour without its step": lambda d: first(d, "stat")["fieldConfig"]["defaults"]["thresholds"]["steps"][0].pop(
        "color"
    ),
    "an unknown kind of variable": lambda d: d["templating"]["list"][0].update(type="choice"),
}


@pytest.mark.parametrize("spoil", WRONG.values(), ids=WRONG)
def test_what_grafana_does_not_know_is_refused(
    validator: jsonschema.Draft202012Validator, spoil: Callable[[dict[str, Any]], object]
) -> None:
    document = json.loads(FILES["kpis.json"])
    assert validator.is_valid(document)
    spoil(document)
    assert not validator.is_valid(document)


@pytest.mark.parametrize("name", FILES)
def test_panels_have_ids_of_their_own_and_do_not_overlap(name: str) -> None:
    document = json.loads(FILES[name])
    ids = [panel["id"] for panel in document["panels"]]
    assert len(set(ids)) == len(ids)
    assert 0 not in ids
    for one, other in combinations((panel["gridPos"] for panel in document["panels"]), 2):
        apart = (
            one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        )  # fmt: skip
        assert apart, (one, other)
        assert one["x"] + one["w"] <= 24


@each_panel
def test_a_panel_says_what_it_shows_in_which_unit_from_where_and_when_it_is_empty(
    name: str, panel: dict[str, Any]
) -> None:
    assert panel["type"] in KINDS
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["noValue"]
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert panel["targets"]
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    for target in panel["targets"]:
        assert target["datasource"] == panel["datasource"]
        assert target["legendFormat"]
    if panel["type"] == "stat":
        assert panel["options"]["reduceOptions"]["calcs"] == ["lastNotNull"]
    if panel["type"] == "heatmap":
        assert [target["format"] for target in panel["targets"]] == ["heatmap"]
        assert panel["options"]["calculate"] is False


@each_panel
def test_a_query_is_promql_over_metrics_of_the_contract_with_their_labels(name: str, panel: dict[str, Any]) -> None:
    by_name = {metric.name: metric for metric in metrics.ALL}
    for target in panel["targets"]:
        expr = target["expr"]
        promql_parser.parse(resolved(expr))
        assert "$testbed" in expr, "a Prometheus may know several testbeds"
        for used in NAME.findall(expr):
            base = re.sub(r"_(bucket|sum|count)$", "", used)
            metric = by_name.get(used) or by_name.get(base)
            assert metric or FOREIGN.match(used) or used in RECORDED, used
            if metric and base != used and used not in by_name:
                assert metric.kind == "histogram", used
        for matched in re.findall(r"(\w+)\s*=~?\s*\"", expr):
            known = {label for metric in metrics.ALL for label in metric.labels}
            assert matched in known | {"testbed", "job", "instance", "node", "service", "mode"}, matched


@each_panel
def test_counters_are_rated_over_an_interval_that_grafana_chooses(name: str, panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        expr = target["expr"]
        for function, window in re.findall(r"\b(rate|increase|irate)\([^\[]*\[([^\]]+)\]", expr):
            assert window == "$__rate_interval", function
        for counter in (metric.name for metric in metrics.ALL if metric.kind == "counter"):
            if counter + "{" in expr and not re.search(rf"(rate|increase)\({counter}\{{", expr):
                assert panel["fieldConfig"]["defaults"]["unit"] == "percentunit", "a share of two totals needs no rate"
        if "histogram_quantile" in expr:
            assert re.search(r"by \([^)]*\ble\b", expr)
        if "node_" in expr:
            assert panel["interval"] == f"{max(NODE_SCRAPE_S.values()):g}s", "scraped less often than the rest"


@pytest.mark.parametrize("name", FILES)
def test_the_page_begins_with_its_choices_and_refreshes_no_faster_than_it_is_scraped(name: str) -> None:
    document = json.loads(FILES[name])
    variables = [variable["name"] for variable in document["templating"]["list"]]
    assert variables[:2] == ["datasource", "testbed"]
    assert document["refresh"] == "5s"
    used = set(re.findall(r"\$([a-z]+)", json.dumps(document["panels"]))) - {"__rate"}
    assert used <= set(variables)
    for variable in document["templating"]["list"][1:]:
        assert variable["datasource"]["uid"] == "${datasource}"
        queried = re.match(r"label_values\(([\w]+)", variable["query"]["query"])
        assert queried
        metric = queried[1].removesuffix("_count")
        assert metric == "up" or metric in {known.name for known in metrics.ALL}


@pytest.mark.parametrize("name", FILES)
def test_runs_deploys_and_faults_are_marked_on_every_page(name: str) -> None:
    marks = {mark["name"]: mark for mark in json.loads(FILES[name])["annotations"]["list"]}
    assert list(marks) == ["Alerts", "Runs", "Deploys", "Faults"]
    for mark in marks.values():
        promql_parser.parse(resolved(mark["expr"]))
        assert "$testbed" in mark["expr"]


def test_a_series_of_one_run_leads_to_that_run_and_its_report() -> None:
    for panel in panels("compare.json"):
        urls = [link["url"] for link in panel["fieldConfig"]["defaults"]["links"]]
        assert [url.rsplit("/", 1)[-1] for url in urls] == ["report", "${__field.labels.run}"]
        assert all("by (run" in target["expr"] for target in panel["targets"])


@pytest.mark.parametrize("name", FILES)
def test_every_page_leads_to_the_console(name: str) -> None:
    [way] = [link for link in json.loads(FILES[name])["links"] if link["type"] == "link"]
    assert way["url"].endswith("/testbeds/${testbed}")


@each_panel
def test_a_panel_leads_to_the_run_at_the_instant_that_it_shows(name: str, panel: dict[str, Any]) -> None:
    if name == "compare.json":
        return
    [link] = panel["fieldConfig"]["defaults"]["links"]
    asked = link["url"].partition("/testbeds/${testbed}/runs?")[2]
    assert asked == (
        "at=${__value.time}" if panel["type"] in {"timeseries", "state-timeline"} else "at=${__to}&since=${__from}"
    )


def test_the_kpi_page_comes_first_and_begins_with_the_eight_kpis() -> None:
    assert pages()[0].name == "kpis"
    stats = [panel["title"] for panel in panels("kpis.json") if panel["type"] == "stat"]
    assert stats == [
        "Processing latency, p99", "Broker throughput in", "Broker throughput out", "Gateway in", "Gateway out",
        "Hub in", "Hub out", "Message drops",
    ]  # fmt: skip
    assert [variable["name"] for variable in json.loads(FILES["kpis.json"])["templating"]["list"]] == [
        "datasource", "testbed", "run", "broker", "qos", "hop", "job", "instance",
    ]  # fmt: skip


def test_the_testbed_that_is_deployed_is_chosen_at_first() -> None:
    from toolkit.spec.testbed import Testbed

    document = json.loads(dashboards(Testbed(name="quickstart", file=Path("testbed.yml")))["kpis.json"])
    [variable] = [v for v in document["templating"]["list"] if v["name"] == "testbed"]
    assert variable["current"] == {"selected": True, "text": "quickstart", "value": "quickstart"}


def test_the_same_contract_gives_the_same_bytes() -> None:
    assert dashboards() == FILES


@pytest.mark.parametrize("name", FILES)
def test_a_change_of_a_dashboard_is_seen_in_review(name: str, snapshot: SnapshotAssertion) -> None:
    assert json.loads(FILES[name]) == snapshot(name=name.removesuffix(".json"), extension_class=JSONSnapshotExtension)
