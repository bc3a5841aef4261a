"""Pages become Grafana's classic dashboard JSON, through its foundation SDK (schema 42: Grafana 11.6 and later)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from grafana_foundation_sdk.builders import common, dashboard, heatmap, prometheus, stat, statetimeline, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as cm
from grafana_foundation_sdk.models import dashboard as dm
from grafana_foundation_sdk.models import heatmap as hm
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from toolkit.contract.metrics import RUN_PHASE
from toolkit.provisioning.dashboards.panels import ANY, INSTANCES, JOBS, Page, Panel, Row, Variable

COLUMNS = 24
NODE_INTERVAL = "5s"
"""node_exporter's longest scrape interval, so that `$__rate_interval` spans several scrapes."""
TAG = "toolkit"
CONSOLE = "http://127.0.0.1:8400"
"""Where `toolkit console` is on the operator's machine unless it was told otherwise."""
DATASOURCE = dm.DataSourceRef(type_val="prometheus", uid="${datasource}")
_OWN_TO_VARIABLES = ("auto", "auto_count", "auto_min")
"""Keys the SDK writes on every variable although only interval variables have them."""


def page_json(page: Page, *, testbed: str = "") -> str:
    """The dashboard's file; the same page gives the same bytes. `testbed` is chosen at first where it is named."""
    built = _dashboard(page, testbed).build()
    document = json.loads(json.dumps(built, cls=JSONEncoder))
    for variable in document["templating"]["list"]:
        for key in _OWN_TO_VARIABLES:
            variable.pop(key, None)
        if variable.get("hide") == dm.VariableHide.HIDE_VARIABLE:
            # The SDK's builders leave it out. A link from a page where it can be chosen must not choose it unseen.
            variable["skipUrlSync"] = True
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


def _dashboard(page: Page, chosen: str) -> dashboard.Dashboard:
    built = (
        dashboard.Dashboard(page.title)
        .uid(f"toolkit-{page.name}")
        .description(page.description)
        .tags([TAG])
        .readonly()
        .tooltip(dm.DashboardCursorSync.CROSSHAIR)
        .refresh("5s")
        .time("now-15m", "now")
        .timezone("browser")
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
    )
    for link in _ways():
        built.link(link)
    for annotation in _happenings():
        built.annotation(annotation)
    for variable in _variables(page, chosen):
        built.with_variable(variable)
    _lay_out(built, page.rows)
    return built


def _lay_out(built: dashboard.Dashboard, rows: tuple[Row, ...]) -> None:
    """Rows from top to bottom, each with its panels below."""
    identity = top = 0
    for row in rows:
        identity += 1
        built.with_row(dashboard.Row(row.title).id(identity).grid_pos(dm.GridPos(h=1, w=COLUMNS, x=0, y=top)))
        places = [*_places(row.panels, top + 1)]
        for panel, place in places:
            identity += 1
            built.with_panel(_panel(panel).id(identity).grid_pos(place))
        top = max(place.y + place.h for _, place in places)


def _ways() -> Iterator[dashboard.DashboardLink]:
    """Where the page's head leads: to the other dashboards and to the console."""
    yield (
        dashboard.DashboardLink("toolkit")
        .type(dm.DashboardLinkType.DASHBOARDS)
        .tags([TAG])
        .as_dropdown(True)
        .keep_time(True)
        .include_vars(True)
        .icon("external link")
        .tooltip("The other dashboards of this testbed")
    )
    yield (
        dashboard.DashboardLink("In the console")
        .type(dm.DashboardLinkType.LINK)
        .url(f"{CONSOLE}/testbeds/${{testbed}}")
        .icon("external link")
        .tooltip("This testbed's topology, runs and reports")
        .target_blank(True)
    )


def _happenings() -> Iterator[dashboard.AnnotationQuery]:
    """What explains a bend in a line: alerts, runs from start to end, processes that appeared or are down."""
    for name, colour, expr, title, text in (
        ("Alerts", "red", f'ALERTS{{{ANY}, alertstate="firing"}}', "{{alertname}}", "{{node}} {{service}}"),
        ("Runs", "blue", f'max by (run) ({RUN_PHASE.name}{{{ANY}, phase="running"}}) == 1',
         "run {{run}}", "from its start to its end"),
        ("Deploys", "green", f"up{{{ANY}}} unless up{{{ANY}}} offset 30s", "{{service}} deployed", "new on {{node}}"),
        ("Faults", "yellow", f"up{{{ANY}}} == 0", "{{service}} down", "on {{node}}"),
    ):  # fmt: skip
        yield (
            dashboard.AnnotationQuery()
            .name(name)
            .datasource(DATASOURCE)
            .enable(True)
            .icon_color(colour)
            .expr(expr)
            .title_format(title)
            .text_format(text)
        )


def _places(panels: tuple[Panel, ...], top: int) -> Iterator[tuple[Panel, dm.GridPos]]:
    """From left to right; a panel that does not fit begins a new line below the tallest of the last."""
    x, y, tallest = 0, top, 0
    for panel in panels:
        if x + panel.width > COLUMNS:
            x, y, tallest = 0, y + tallest, 0
        yield panel, dm.GridPos(h=panel.height, w=panel.width, x=x, y=y)
        x += panel.width
        tallest = max(tallest, panel.height)


def _variables(page: Page, chosen: str) -> Iterator[dashboard.QueryVariable]:
    """Of every page its testbed, the page's own, and the processes."""
    yield _variable(Variable(name="testbed", label="Testbed", query="label_values(up, testbed)", every=None), chosen)
    for variable in (*page.variables, JOBS, INSTANCES):
        yield _variable(variable, hidden=variable in {JOBS, INSTANCES} and not page.by_process)


def _variable(variable: Variable, chosen: str = "", *, hidden: bool = False) -> dashboard.QueryVariable:
    built = (
        dashboard.QueryVariable(variable.name)
        .label(variable.label)
        .datasource(DATASOURCE)
        .query({"query": variable.query, "refId": variable.name})
        .refresh(dm.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(dm.VariableSort.ALPHABETICAL_ASC)
    )
    if hidden:
        built.hide(dm.VariableHide.HIDE_VARIABLE)
    if variable.every:
        built.include_all(True).all_value(variable.every).multi(True)
        built.current(dm.VariableOption(selected=True, text=["All"], value=["$__all"]))
    elif chosen:
        built.current(dm.VariableOption(selected=True, text=chosen, value=chosen))
    return built


def _panel(panel: Panel) -> Any:
    built: Any = _KINDS[panel.kind](panel)
    built.title(panel.title).description(panel.description).unit(panel.unit).datasource(DATASOURCE)
    built.no_value(panel.empty)
    if panel.slow:
        built.interval(NODE_INTERVAL)
    for letter, query in zip("ABCDEFGHIJ", panel.queries, strict=False):
        target = prometheus.Dataquery().ref_id(letter).datasource(DATASOURCE).expr(query.expr).range()
        target.legend_format(query.legend or "__auto")
        if panel.kind == "heatmap":
            target.format(PromQueryFormat.HEATMAP).legend_format("{{le}}")
        built.with_target(target)
    built.data_links([dashboard.DashboardLink(title).url(url).target_blank(True) for title, url in _links(panel)])
    if panel.words:
        options = {
            value: dm.ValueMappingResult(text=text, color=color, index=index)
            for index, (value, (text, color)) in enumerate(panel.words.items())
        }
        built.mappings([dm.ValueMap(options=options)])
    if panel.thresholds:
        steps = [dm.Threshold(value=value, color=color) for value, color in panel.thresholds]
        built.thresholds(dashboard.ThresholdsConfig().mode(dm.ThresholdsMode.ABSOLUTE).steps(steps))
    return built


def _links(panel: Panel) -> Iterator[tuple[str, str]]:
    """From a series to its run; from a point to the run that was going then; from one figure to the last run shown."""
    runs = f"{CONSOLE}/testbeds/${{testbed}}/runs"
    if panel.per_run:
        yield "Report of this run", f"{runs}/${{__field.labels.run}}/report"
        yield "This run in the console", f"{runs}/${{__field.labels.run}}"
    elif panel.kind in {"timeseries", "state-timeline"}:
        yield "The run at that time", f"{runs}?at=${{__value.time}}"
    else:
        yield "The last run shown", f"{runs}?at=${{__to}}&since=${{__from}}"


def _stat(panel: Panel) -> stat.Panel:
    built = (
        stat.Panel()
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .graph_mode(cm.BigValueGraphMode.AREA)
        .text_mode(cm.BigValueTextMode.AUTO)
    )
    if panel.thresholds:
        built.color_mode(cm.BigValueColorMode.VALUE)
    return built


def _timeseries(panel: Panel) -> timeseries.Panel:
    """Filled where the number of lines is known: the fillings of many would hide each other."""
    built = (
        timeseries.Panel()
        .line_width(1)
        .fill_opacity(0 if any("{{" in query.legend for query in panel.queries) else 10)
        .show_points(cm.VisibilityMode.NEVER)
        .span_nulls(False)
        .legend(
            common.VizLegendOptions()
            .display_mode(cm.LegendDisplayMode.TABLE)
            .placement(cm.LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs(["lastNotNull", "max"])
        )
        .tooltip(common.VizTooltipOptions().mode(cm.TooltipDisplayMode.MULTI).sort(cm.SortOrder.DESCENDING))
    )
    if not panel.logarithmic:
        built.axis_soft_min(0)
    else:
        built.scale_distribution(common.ScaleDistributionConfig().type(cm.ScaleDistribution.LOG).log(10))
    return built


def _heatmap(panel: Panel) -> heatmap.Panel:
    return (
        heatmap.Panel()
        .calculate(False)
        .cell_gap(1)
        .color(
            heatmap.HeatmapColorOptions()
            .mode(hm.HeatmapColorMode.SCHEME)
            .scheme("Turbo")
            .scale(hm.HeatmapColorScale.EXPONENTIAL)
            .exponent(0.5)
            .steps(64)
        )
        .y_axis(heatmap.YAxisConfig().unit(panel.unit))
        .show_legend()
    )


def _state_timeline(_: Panel) -> statetimeline.Panel:
    return (
        statetimeline.Panel()
        .show_value(cm.VisibilityMode.AUTO)
        .row_height(0.8)
        .merge_values(True)
        .legend(
            common.VizLegendOptions()
            .display_mode(cm.LegendDisplayMode.LIST)
            .placement(cm.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
    )


_KINDS = {"stat": _stat, "timeseries": _timeseries, "heatmap": _heatmap, "state-timeline": _state_timeline}
