"""What a page that shows a testbed may ask of its Prometheus, and what it is sent each second.

Both consoles answer with it: the operator's, and the one on the monitor's node.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from toolkit.contract import metrics as m

TOKEN = "TOOLKIT_CONSOLE_TOKEN_FILE"  # noqa: S105 - a name, no token
"""Variable of the console on the monitor's node: the file with the token of its link."""
PAGES = "/etc/toolkit/pages"
"""Where it finds the pages that deploy drew."""
EVERY_S = 1.0
WINDOW = "5s"
RATES = {
    "sent": (m.MESSAGES_SENT, m.GATEWAY_SENT, m.HUB_SENT),
    "received": (m.MESSAGES_RECEIVED, m.GATEWAY_RECEIVED, m.HUB_RECEIVED),
    "in": (m.BROKER_RECEIVED,),
    "out": (m.BROKER_SENT,),
}
"""Figure of a service -> the counters it is the rate of; the brokers' own stand apart from the clients'."""
READABLE = frozenset({"query", "query_range", "labels", "series", "label"})
"""What of `/api/v1/` is passed on: nothing that changes anything, nothing about the server itself."""
PARAMETERS = frozenset({"query", "time", "start", "end", "step", "match[]", "limit", "timeout"})
LONGEST_QUERY = 8192
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
POLICIES = (
    ("content-security-policy", PAGE_POLICY),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "same-origin"),  # with `no-referrer` browsers send their own forms with the origin `null`
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cache-control", "no-store"),
)
"""What browsers are told with every answer."""


def question(testbed: str) -> str:
    """Everything in one query: series with a label `figure`, so that a look costs one answer."""
    mine = f'testbed="{testbed}"'

    def named(figure: str, expr: str) -> str:
        return f'label_replace({expr}, "figure", "{figure}", "", "")'

    parts = [named("up", f"max by (node, service, role) (up{{{mine}}})")]
    parts += [
        named(figure, f"sum by (node, service) (rate({metric.name}{{{mine}}}[{WINDOW}]))")
        for figure, counters in RATES.items()
        for metric in counters
    ]
    delays = f"rate({m.HOP_DELAY.name}_bucket{{{mine}}}[{WINDOW}])"
    parts += [
        named("hop", f"histogram_quantile(0.5, sum by (hop, le) ({delays}))"),
        named("bound", f"max by (node) ({m.CLOCK_BOUND.name}{{{mine}}})"),
        named("hot", f"max by (node) (node_thermal_zone_temp{{{mine}}})"),
        named("alert", f'max by (alertname, node, service) (ALERTS{{{mine}, alertstate="firing"}})'),
    ]
    return " or ".join(parts)


def figures(series: list[tuple[dict[str, str], float]]) -> dict[str, Any]:
    """What the page is sent: services by node, hops, clocks, alerts."""
    services: dict[str, dict[str, dict[str, float]]] = {}
    found: dict[str, Any] = {"services": services, "hops": {}, "bound": {}, "hot": {}, "alerts": []}
    for labels, value in series:
        figure = labels.get("figure", "")
        node, service = labels.get("node", ""), labels.get("service", "")
        if value != value:  # noqa: PLR0124 - NaN: a quantile of nothing
            continue
        if figure == "hop":
            found["hops"][labels["hop"]] = value
        elif figure in {"bound", "hot"}:
            found[figure][node] = value
        elif figure == "alert":
            found["alerts"].append({"name": labels.get("alertname", ""), "node": node, "service": service})
        elif figure:
            services.setdefault(node, {}).setdefault(service, {})[figure] = round(value, 3)
    return found


def readable_path(rest: str, parameters: list[tuple[str, str]]) -> str:
    """The path to ask Prometheus for; raises ValueError where this is nothing to be read through the console."""
    first, *more = rest.split("/")
    label = len(more) == 2 and more[1] == "values" and more[0].replace("_", "a").isalnum()  # noqa: PLR2004
    if first not in READABLE or (label if first != "label" else not label) or (more and first != "label"):
        raise ValueError(f"/api/v1/{rest} is not passed on")
    for name, value in parameters:
        if name not in PARAMETERS or len(value) > LONGEST_QUERY:
            raise ValueError(f"the parameter {name} is not passed on, or too long")
    return f"/api/v1/{rest}?{urlencode(parameters)}"
