"""Every query of every dashboard, asked of a real Prometheus that scrapes every metric of the contract."""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import answers
from tests.answers import ask, asked
from tests.contract.test_prometheus_files import host
from tests.ports import free_port
from tests.waiting import until
from toolkit.contract import metrics
from toolkit.node.exposition import CONTENT_TYPE, Histogram, expose
from toolkit.node.serving import Reply, Server
from toolkit.provisioning.dashboards import dashboards
from toolkit.provisioning.render import Target
from toolkit.spec.testbed import Testbed

LABELS = {
    "run": ("r1",), "hop": tuple(metrics.HOPS), "qos": ("0", "1", "2"), "stage": ("client",), "reason": ("refused",),
    "since": ("now", "boot"), "phase": ("idle", "running"),
}  # fmt: skip
NODE_EXPORTER = """\
node_cpu_seconds_total{{cpu="0",mode="idle"}} {t}
node_pressure_cpu_waiting_seconds_total {t}
node_memory_MemAvailable_bytes 100
node_memory_MemTotal_bytes 400
node_network_receive_bytes_total{{device="eth0"}} {t}
node_network_transmit_bytes_total{{device="eth0"}} {t}
node_filesystem_avail_bytes{{mountpoint="/"}} 50
node_filesystem_size_bytes{{mountpoint="/"}} 100
node_load1 0.5
node_thermal_zone_temp{{zone="0"}} 41
"""


def everything(started_s: float) -> bytes:
    """A page with every metric of the contract, counters growing by ten a second."""
    age_s = time.monotonic() - started_s
    readings = []
    for metric in metrics.ALL:
        for values in itertools.product(*(LABELS.get(label, ("x",)) for label in metric.labels)):
            if metric.kind == "histogram":
                delays = Histogram()
                delays.counts[10], delays.total = int(10 * age_s), age_s / 10
                readings.append((metric, values, delays))
            else:
                readings.append((metric, values, 10 * age_s if metric.kind == "counter" else 1.0))
    return expose(readings) + NODE_EXPORTER.format(t=age_s / 2).encode()


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Prometheus that has scraped for a while."""
    exported = free_port()
    started_s = time.monotonic()
    server = Server({("127.0.0.1", exported): lambda *_: Reply(body=everything(started_s), content_type=CONTENT_TYPE)})
    server.start()
    bed = Testbed(name="t", file=Path("testbed.yml"))
    target = Target(
        node="eh", service="broker", role="broker", job="broker", address="127.0.0.1", port=exported, kind="pi3"
    )
    try:
        with answers.prometheus(
            tmp_path_factory.mktemp("prometheus") / "home", bed, {"eh": host("eh")}, [target]
        ) as address:
            wait_until_scraped(address)
            yield address
    finally:
        server.stop()


def wait_until_scraped(address: str, within_s: float = 60.0) -> None:
    """Eight scrapes of growing counters: rates over ten seconds have values."""

    def scrapes() -> int:
        return sum(int(one["value"][1]) for one in ask(address, "query", query="count_over_time(up[1m])")["result"])

    until(lambda: scrapes() >= 8, within_s=within_s, every_s=0.5, instead=scrapes)


@pytest.mark.parametrize("name", dashboards())
def test_every_query_of_a_dashboard_gives_data(prometheus: str, name: str) -> None:
    empty = []
    slowest_s = 0.0
    now = time.time()
    for panel in json.loads(dashboards()[name])["panels"]:
        for target in panel.get("targets", ()):
            started_s = time.monotonic()
            found = ask(
                prometheus,
                "query_range",
                query=asked(target["expr"], "t", "10s"),
                start=str(now - 60),
                end=str(now),
                step="1",
            )["result"]
            slowest_s = max(slowest_s, time.monotonic() - started_s)
            if not found:
                empty.append((panel["title"], target["expr"]))
            if panel["type"] == "heatmap":
                assert len(found) == len(metrics.BUCKETS_S) + 1, "one band for each bucket"
    assert empty == []
    assert slowest_s < 1.0


@pytest.mark.parametrize("name", dashboards())
def test_every_choice_has_values(prometheus: str, name: str) -> None:
    for variable in json.loads(dashboards()[name])["templating"]["list"][1:]:
        query = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"])
        assert query
        series, label = query.groups()
        assert ask(prometheus, f"label/{label}/values", **{"match[]": asked(series, "t")}), variable["name"]


def test_every_rule_is_evaluated_and_every_kpi_has_a_series(prometheus: str) -> None:
    groups = ask(prometheus, "rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert {rule["health"] for rule in rules} == {"ok"}, [rule for rule in rules if rule["health"] != "ok"]
    for rule in rules:
        if rule["type"] == "recording":
            assert ask(prometheus, "query", query=rule["name"])["result"], rule["name"]
