"""What Prometheus is given, checked by Prometheus' own tool."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import lacking
from tests.folders import write_files
from toolkit.contract import metrics
from toolkit.provisioning import monitoring
from toolkit.provisioning.dashboards import dashboards, grafana_files
from toolkit.provisioning.render import Target
from toolkit.spec.testbed import Monitoring, Testbed
from toolkit.state import Host, SshAccess

HERE = Path(__file__).parent / "prometheus"


def promtool(*arguments: str | Path, stdin: str = "") -> str:
    if shutil.which("promtool") is None:
        lacking("promtool (apt-get install prometheus)")
    done = subprocess.run(
        ["promtool", *map(str, arguments)], input=stdin, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def bed(**monitored: Any) -> Testbed:
    return Testbed(name='quick"start', file=Path("testbed.yml"), monitoring=Monitoring(**monitored))


def host(node: str) -> Host:
    return Host(
        node=node, provider="container", type="container", address="10.0.0.2", architecture="amd64",
        ssh=SshAccess(address="10.0.0.2", known_hosts="/dev/null"),
    )  # fmt: skip


TARGETS = [
    Target(node=node, service=service, role=role, job=job, address="10.0.0.2", port=port, kind=kind)
    for node, kind in (("base", "vm"), ("pub", "pi1"), ("gone", "pi1"))
    for service, role, job, port in (
        ("node-exporter", "node", "node", 9100),
        ("publisher", "publisher", "publisher", 9300),
    )
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    hosts = {name: host(name) for name in ("base", "pub")}
    write_files(tmp_path, monitoring.prometheus_files(bed(alertmanager="10.0.0.9:9093"), hosts, TARGETS))
    return tmp_path


def test_promtool_takes_the_configuration_and_both_files_of_rules(folder: Path) -> None:
    said = promtool("check", "config", folder / "prometheus.yml")
    assert "2 rule files found" in said
    assert said.count("rules found") == 2


@pytest.mark.parametrize("address", ["10.0.0.9:9093", "alerts.lan:9093", "[fd00::9]:9093"])
def test_alerts_are_sent_to_the_alertmanager_that_the_testbed_names(folder: Path, address: str) -> None:
    file = folder / "prometheus.yml"
    write_files(folder, monitoring.prometheus_files(bed(alertmanager=address), {"base": host("base")}, TARGETS))
    [manager] = yaml.safe_load(file.read_text())["alerting"]["alertmanagers"]
    assert manager == {"static_configs": [{"targets": [address]}]}
    promtool("check", "config", file)


def test_without_an_alertmanager_there_is_no_alerting_section(folder: Path) -> None:
    file = folder / "prometheus.yml"
    write_files(folder, monitoring.prometheus_files(bed(), {"base": host("base")}, TARGETS))
    assert "alerting" not in yaml.safe_load(file.read_text())
    promtool("check", "config", file)


def test_targets_carry_their_labels_and_those_without_a_host_are_left_out(folder: Path) -> None:
    config = yaml.safe_load((folder / "prometheus.yml").read_text())
    assert config["global"]["external_labels"] == {"testbed": 'quick"start'}
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    assert jobs["node"]["scrape_interval"] == "2s"
    assert jobs["node-pi1"]["scrape_interval"] == "5s"
    assert "scrape_interval" not in jobs["publisher"]
    [found] = jobs["publisher"]["file_sd_configs"]
    assert found["files"] == ["targets/publisher.json"]
    groups = json.loads((folder / "targets/publisher.json").read_text())
    assert [group["targets"] for group in groups] == [["10.0.0.2:9300"]] * 2
    assert [group["labels"]["node"] for group in groups] == ["base", "pub"]
    assert groups[0]["labels"] == {
        "testbed": 'quick"start', "node": "base", "kind": "vm", "service": "publisher", "role": "publisher",
        "instance": "base:9300",
    }  # fmt: skip


def test_a_node_more_changes_only_what_prometheus_reads_again_by_itself() -> None:
    one, two = (
        monitoring.prometheus_files(bed(), {name: host(name) for name in names}, TARGETS)
        for names in (("base", "pub"), ("base", "pub", "gone"))
    )
    assert one.keys() == two.keys()
    assert {name for name in one if one[name] != two[name]} == {"targets/node-pi1.json", "targets/publisher.json"}


@pytest.mark.parametrize(
    ("interval_s", "written", "node"), [(0.5, "500ms", "2s"), (5.0, "5s", None), (15.0, "15s", None)]
)
def test_intervals_are_written_as_prometheus_reads_them(interval_s: float, written: str, node: str | None) -> None:
    files = monitoring.prometheus_files(bed(scrape_interval_s=interval_s), {"base": host("base")}, TARGETS)
    parsed = yaml.safe_load(files["prometheus.yml"])
    assert parsed["global"]["scrape_interval"] == written
    [job] = [job for job in parsed["scrape_configs"] if job["job_name"] == "node"]
    assert job.get("scrape_interval") == node
    timeout, interval = (parsed["global"][key] for key in ("scrape_timeout", "scrape_interval"))
    assert float(timeout.removesuffix("s").removesuffix("m")) <= float(interval.removesuffix("s").removesuffix("m"))


def test_of_node_exporter_what_is_looked_at_is_kept(folder: Path) -> None:
    """What dashboards and alerts ask for, and nothing that nobody does."""
    config = yaml.safe_load((folder / "prometheus.yml").read_text())
    of_nodes = [job for job in config["scrape_configs"] if "metric_relabel_configs" in job]
    assert [job["job_name"] for job in of_nodes] == ["node", "node-pi1"]
    kept = re.compile(of_nodes[0]["metric_relabel_configs"][1]["regex"])
    texts = [*dashboards().values(), monitoring.alert_rules(bed()), monitoring.recording_rules()]
    asked = {name for text in texts for name in re.findall(r"\bnode_[a-zA-Z0-9_]+(?=\{|\[|\)| )", text)}
    assert len(asked) >= 9
    assert [name for name in asked if not kept.fullmatch(name)] == []
    assert not kept.fullmatch("node_scrape_collector_duration_seconds")


def test_the_rules_do_what_they_say(folder: Path) -> None:
    shutil.copy(HERE / "rules_test.yml", folder)
    promtool("test", "rules", folder / "rules_test.yml")


def test_every_rule_is_among_those_that_are_tried(folder: Path) -> None:
    """An alert at its limit, before it has lasted, and firing with its words; a recorded KPI with its value."""
    tried = yaml.safe_load((HERE / "rules_test.yml").read_text())["tests"]
    rules = [
        rule
        for name in ("recording.yml", "alerts.yml")
        for group in yaml.safe_load((folder / name).read_text())["groups"]
        for rule in group["rules"]
    ]
    for alert in (rule["alert"] for rule in rules if "alert" in rule):
        silent = {
            part["name"]
            for part in tried
            for test in part.get("alert_rule_test", ())
            if test["alertname"] == alert and "exp_alerts" not in test
        }
        fires = [
            told
            for part in tried
            for test in part.get("alert_rule_test", ())
            if test["alertname"] == alert
            for told in test.get("exp_alerts", ())
        ]
        assert len(silent) == 2, f"{alert}: at its limit and before it has lasted"
        assert fires, alert
        assert all(told["exp_annotations"]["summary"] for told in fires)
    asked = " ".join(test["expr"] for part in tried for test in part.get("promql_expr_test", ()))
    for kpi in (rule["record"] for rule in rules if "record" in rule):
        family = kpi.rpartition(":")[0] if re.search(r":p\d+$", kpi) else kpi
        if family in {"toolkit:end_to_end_delay_seconds", "toolkit:end_to_end_delay_seconds_bucket:rate"}:
            continue  # LatencyHigh asks for them
        if family.endswith("_bucket:rate"):
            family = family.removesuffix("_bucket:rate")
        assert family in asked, kpi


def test_rules_use_only_metrics_that_something_exposes(folder: Path) -> None:
    known = {metric.name for metric in metrics.ALL}
    known |= {f"{m.name}{end}" for m in metrics.ALL if m.kind == "histogram" for end in ("_bucket", "_sum", "_count")}
    for name in ("recording.yml", "alerts.yml"):
        groups = yaml.safe_load((folder / name).read_text())["groups"]
        for rule in (rule for group in groups for rule in group["rules"]):
            used = set(re.findall(r"(?<![:\w])toolkit_[a-z0-9_]+", rule["expr"]))
            assert used <= known, (rule, used - known)


def test_the_data_source_that_grafana_is_given_has_the_uid_that_dashboards_may_rely_on() -> None:
    files = grafana_files(bed(scrape_interval_s=0.5))
    [source] = yaml.safe_load(files["provisioning/datasources/toolkit.yml"])["datasources"]
    assert source["uid"] == "toolkit-prometheus"
    assert source["jsonData"]["timeInterval"] == "500ms"
    [provider] = yaml.safe_load(files["provisioning/dashboards/toolkit.yml"])["providers"]
    assert provider["options"]["path"] == "/etc/toolkit/dashboards"
    assert {"dashboards/kpis.json", "dashboards/hops.json", "dashboards/nodes.json"} <= set(files)


@pytest.mark.parametrize("page", sorted(HERE.glob("*.prom")), ids=lambda file: file.stem)
def test_recorded_pages_keep_prometheus_conventions(page: Path) -> None:
    promtool("check", "metrics", stdin=page.read_text())


def test_labels_name_nothing_of_which_there_are_as_many_as_clients_or_messages() -> None:
    few = {
        "run": "the hop exporter keeps 16", "hop": "ten", "qos": "three", "stage": "places", "reason": "causes",
        "policy": "three", "state": "two", "since": "two", "phase": "six", "operation": "routes of a core system",
        "status": "HTTP", "outcome": "three", "port": "two of a core system",
    }  # fmt: skip
    assert {label for metric in metrics.ALL for label in metric.labels} <= set(few)


def test_names_follow_the_conventions_and_kinds() -> None:
    for metric in metrics.ALL:
        assert metric.name.startswith("toolkit_"), metric
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric
        assert metric.help.endswith("."), metric
        assert not {"instance", "job", "node", "testbed", "le"} & set(metric.labels), metric
    assert len({metric.name for metric in metrics.ALL}) == len(metrics.ALL)
