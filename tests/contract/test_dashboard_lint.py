"""The rules of Grafana's dashboard linter, on the dashboards that Grafana is given; each exception with its reason."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import promql_parser as promql
import pytest

from toolkit.provisioning.dashboards import dashboards

DOCUMENTS = {name: json.loads(text) for name, text in dashboards().items()}
EXCEPTIONS = {
    "target-counter-agg-rule": {
        "Loss ratio by QoS": "a share of two totals since the run began",
        "Lost so far": "a share of two totals since the run began",
    },
}
"""Rule -> the panel -> why it does not hold there; all other rules hold everywhere."""
UNITS = {"s", "pps", "percentunit", "short", "bytes", "Bps", "celsius", "mps"}
"""Those of Grafana's that are used; `mps` (messages each second) is Grafana's, and not yet in the linter's list."""
RATE_S = 7777
NAMES = {"$__rate_interval": f"{RATE_S}s", "$testbed": "T", "$job": "J", "$instance": "I"}


def resolved(expr: str) -> str:
    for name, value in NAMES.items():
        expr = expr.replace(name, value)
    return re.sub(r"\$\w+", "x", expr)


def walk(node: Any, parents: tuple[Any, ...] = ()) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """Every node of an expression, each with those above it."""
    yield node, parents
    below = [getattr(node, name, None) for name in ("lhs", "rhs", "expr", "vector_selector", "param")]
    for child in [*below, *getattr(node, "args", ())]:
        if child is not None and not isinstance(child, (str, float)):
            yield from walk(child, (*parents, node))


def selectors(expr: str) -> Iterator[tuple[promql.VectorSelector, tuple[Any, ...]]]:
    for node, parents in walk(promql.parse(resolved(expr))):
        if isinstance(node, promql.VectorSelector):
            yield node, parents


def panels(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in document["panels"] if panel["type"] != "row"]


def excepted(rule: str, panel: dict[str, Any]) -> bool:
    return panel["title"] in EXCEPTIONS.get(rule, {})


# -- rules: each gives what is wrong, in words ----------------------------------------------------------------------


def template_datasource_rule(document: dict[str, Any]) -> Iterator[str]:
    sources = [v for v in document["templating"]["list"] if v["type"] == "datasource"]
    if [(v["name"], v["label"], v["query"]) for v in sources] != [("datasource", "Data source", "prometheus")]:
        yield f"its data sources are {sources}"


def template_required_variables_rule(document: dict[str, Any]) -> Iterator[str]:
    if "testbed" not in {v["name"] for v in document["templating"]["list"]}:
        yield "no testbed can be chosen"


def template_job_rule(document: dict[str, Any]) -> Iterator[str]:
    yield from _of_processes(document, "job")


def template_instance_rule(document: dict[str, Any]) -> Iterator[str]:
    yield from _of_processes(document, "instance")


def _of_processes(document: dict[str, Any], name: str) -> Iterator[str]:
    """What the linter asks of both: found by a query, several at once, and `.+` for all of them."""
    keys = ("type", "label", "multi", "includeAll", "allValue")
    found = [[v.get(key) for key in keys] for v in document["templating"]["list"] if v["name"] == name]
    if found != [["query", name.title(), True, True, ".+"]]:
        yield f"{name}: {found}"


def template_label_promql_rule(document: dict[str, Any]) -> Iterator[str]:
    for variable in document["templating"]["list"]:
        if variable["type"] == "query":
            found = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
            if not found or not isinstance(promql.parse(resolved(found[1])), promql.VectorSelector):
                yield variable["name"]
            if not variable["label"]:
                yield f"{variable['name']} has no label"


def template_on_time_change_reload_rule(document: dict[str, Any]) -> Iterator[str]:
    yield from (v["name"] for v in document["templating"]["list"] if v["type"] == "query" and v["refresh"] != 2)


def template_uneditable_rule(document: dict[str, Any]) -> Iterator[str]:
    if document["editable"] is not False:
        yield "people would lose what they change with the next deploy"


def panel_datasource_rule(document: dict[str, Any]) -> Iterator[str]:
    yield from (p["title"] for p in panels(document) if p["datasource"]["uid"] != "${datasource}")


def panel_title_description_rule(document: dict[str, Any]) -> Iterator[str]:
    yield from (str(p.get("title")) for p in panels(document) if not (p.get("title") and p.get("description")))


def panel_units_rule(document: dict[str, Any]) -> Iterator[str]:
    yield from (p["title"] for p in panels(document) if p["fieldConfig"]["defaults"].get("unit") not in UNITS)


def panel_links_rule(document: dict[str, Any]) -> Iterator[str]:
    """Ours: from every panel there is a way to a run of its testbed."""
    for panel in panels(document):
        links = panel["fieldConfig"]["defaults"].get("links", [])
        if not links or any("/testbeds/${testbed}/runs" not in link["url"] or not link["title"] for link in links):
            yield f"{panel['title']}: {[link['url'] for link in links]}"


def panel_no_targets_rule(document: dict[str, Any]) -> Iterator[str]:
    yield from (p["title"] for p in panels(document) if not p["targets"])


def target_promql_rule(document: dict[str, Any]) -> Iterator[str]:
    for panel in panels(document):
        for target in panel["targets"]:
            try:
                promql.parse(resolved(target["expr"]))
            except ValueError as error:
                yield f"{panel['title']}: {error}"


def target_required_matchers_rule(document: dict[str, Any]) -> Iterator[str]:
    yield from _without(document, "testbed", promql.MatchOp.Equal, "T")


def target_job_rule(document: dict[str, Any]) -> Iterator[str]:
    yield from _without(document, "job", promql.MatchOp.Re, "J")


def target_instance_rule(document: dict[str, Any]) -> Iterator[str]:
    yield from _without(document, "instance", promql.MatchOp.Re, "I")


def _without(document: dict[str, Any], label: str, operator: promql.MatchOp, value: str) -> Iterator[str]:
    """Selectors that are not held to what is chosen."""
    for panel in panels(document):
        for target in panel["targets"]:
            for selector, _ in selectors(target["expr"]):
                held = [(m.op, m.value) for m in selector.matchers.matchers if m.name == label]
                if held != [(operator, value)]:
                    yield f"{panel['title']}: {selector.name} whatever the {label}"


def target_rate_interval_rule(document: dict[str, Any]) -> Iterator[str]:
    for panel in panels(document):
        for target in panel["targets"]:
            for node, _ in walk(promql.parse(resolved(target["expr"]))):
                if isinstance(node, promql.MatrixSelector) and node.range != timedelta(seconds=RATE_S):
                    yield f"{panel['title']}: {node.prettify()}"


def target_counter_agg_rule(document: dict[str, Any]) -> Iterator[str]:
    for panel in panels(document):
        if excepted("target-counter-agg-rule", panel):
            continue
        for target in panel["targets"]:
            for selector, parents in selectors(target["expr"]):
                if (selector.name or "").endswith("_total"):
                    above = parents[-2] if len(parents) > 1 else None
                    if not isinstance(above, promql.Call) or above.func.name not in {"rate", "irate", "increase"}:
                        yield f"{panel['title']}: {selector.name}"


def target_histogram_rule(document: dict[str, Any]) -> Iterator[str]:
    for panel in panels(document):
        for target in panel["targets"]:
            for selector, parents in selectors(target["expr"]):
                quantile = any(isinstance(p, promql.Call) and p.func.name == "histogram_quantile" for p in parents)
                if "_bucket" in (selector.name or "") and not quantile and panel["type"] != "heatmap":
                    yield f"{panel['title']}: {selector.name}"


RULES: list[Callable[[dict[str, Any]], Iterator[str]]] = [
    value for name, value in sorted(globals().items()) if name.endswith("_rule")
]


@pytest.mark.parametrize("name", DOCUMENTS)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__.replace("_", "-"))
def test_a_dashboard_keeps_to_the_linters_rules(name: str, rule: Callable[[dict[str, Any]], Iterator[str]]) -> None:
    assert list(rule(DOCUMENTS[name])) == []


CHOSEN = 'job=~"$job", instance=~"$instance"'
HELD = f'testbed="$testbed", {CHOSEN}'


def variable(document: dict[str, Any], name: str) -> dict[str, Any]:
    return next(v for v in document["templating"]["list"] if v["name"] == name)


WRONG: dict[str, Callable[[dict[str, Any]], object]] = {
    "template-datasource-rule": lambda d: d["templating"]["list"][0].update(label="x"),
    "template-required-variables-rule": lambda d: d["templating"]["list"].pop(1),
    "template-label-promql-rule": lambda d: d["templating"]["list"][1]["query"].update(
        query="label_values(sum(up), x)"
    ),
    "template-on-time-change-reload-rule": lambda d: d["templating"]["list"][1].update(refresh=1),
    "template-uneditable-rule": lambda d: d.update(editable=True),
    "panel-datasource-rule": lambda d: panels(d)[0]["datasource"].update(uid="mine"),
    "panel-title-description-rule": lambda d: panels(d)[0].update(description=""),
    "panel-units-rule": lambda d: panels(d)[0]["fieldConfig"]["defaults"].update(unit="furlongs"),
    "panel-links-rule": lambda d: panels(d)[0]["fieldConfig"]["defaults"]["links"].clear(),
    "panel-no-targets-rule": lambda d: panels(d)[0]["targets"].clear(),
    "target-promql-rule": lambda d: panels(d)[0]["targets"][0].update(expr="sum(("),
    "template-job-rule": lambda d: variable(d, "job").update(multi=False),
    "template-instance-rule": lambda d: variable(d, "instance").update(allValue=".*"),
    "target-required-matchers-rule": lambda d: panels(d)[0]["targets"][0].update(expr=f"a{{{HELD}}} + b{{{CHOSEN}}}"),
    "target-job-rule": lambda d: panels(d)[0]["targets"][0].update(expr=f"a{{{HELD.replace('job=~', 'job=')}}}"),
    "target-instance-rule": lambda d: panels(d)[0]["targets"][0].update(expr=f"a{{{HELD.replace('$instance', '.+')}}}"),
    "target-rate-interval-rule": lambda d: panels(d)[0]["targets"][0].update(expr=f"max(rate(a{{{HELD}}}[5m]))"),
    "target-counter-agg-rule": lambda d: panels(d)[0]["targets"][0].update(expr=f"sum(a_total{{{HELD}}})"),
    "target-histogram-rule": lambda d: panels(d)[0]["targets"][0].update(
        expr=f"sum(rate(a_bucket{{{HELD}}}[$__rate_interval]))"
    ),
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__.replace("_", "-"))
def test_a_rule_finds_what_it_is_for(rule: Callable[[dict[str, Any]], Iterator[str]]) -> None:
    document = json.loads(json.dumps(DOCUMENTS["kpis.json"]))
    WRONG[rule.__name__.replace("_", "-")](document)
    assert len(list(rule(document))) == 1


def test_an_exception_is_of_something_that_is_there() -> None:
    titles = {panel["title"] for document in DOCUMENTS.values() for panel in panels(document)}
    for rule, places in EXCEPTIONS.items():
        assert set(places) <= titles, rule
