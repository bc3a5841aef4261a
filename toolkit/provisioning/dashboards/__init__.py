"""Grafana's dashboards as code, from the metrics contract; the console draws the very same JSON."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping

from toolkit.provisioning.dashboards.panels import Page
from toolkit.provisioning.templates import duration, render_template
from toolkit.spec.testbed import Testbed

DATASOURCE_UID = "toolkit-prometheus"
MOUNT = "/etc/toolkit"
"""Where Grafana finds the files of `grafana_files` in its container."""


def pages() -> tuple[Page, ...]:
    """Every dashboard, the KPIs first (imported here: most commands never ask)."""
    from toolkit.provisioning.dashboards import arrowhead, compare, hops, kpis, nodes

    return (kpis.PAGE, hops.PAGE, nodes.PAGE, arrowhead.PAGE, compare.PAGE)


def dashboards(testbed: Testbed | None = None) -> dict[str, str]:
    """File name -> classic dashboard JSON; with a testbed its name is what the page shows at first."""
    name = testbed.name if testbed else ""
    return {f"{page.name}.json": dashboard(page.name, name) for page in pages()}


@functools.lru_cache(maxsize=64)
def dashboard(name: str, testbed: str = "") -> str:
    """One of them, by its page's name; raises KeyError where there is none of it."""
    with warnings.catch_warnings():
        # The SDK prefers its new kind of dashboard, which Grafana 13 cannot take from files and 11 cannot read.
        warnings.simplefilter("ignore", DeprecationWarning)
        from toolkit.provisioning.dashboards.build import page_json
    return page_json({page.name: page for page in pages()}[name], testbed=testbed)


def grafana_files(testbed: Testbed, *, prometheus_url: str = "http://127.0.0.1:9090") -> Mapping[str, str]:
    """Path below the folder that is mounted at `MOUNT` -> content: data source, provider and dashboards."""
    values = {
        "testbed": testbed.name,
        "uid": DATASOURCE_UID,
        "url": prometheus_url,
        "folder": f"{MOUNT}/dashboards",
        "scrape_interval": duration(testbed.monitoring.scrape_interval_s),
    }
    provisioning = {
        f"provisioning/{path}": render_template(f"grafana/{path}.j2", **values)
        for path in ("datasources/toolkit.yml", "dashboards/toolkit.yml")
    }
    return provisioning | {f"dashboards/{name}": text for name, text in dashboards(testbed).items()}
