"""Whatever is exposed or drawn is documented, in the words of the code."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from toolkit.contract import metrics
from toolkit.provisioning.dashboards import pages
from toolkit.provisioning.monitoring import recording_rules

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def writer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("document_monitoring", ROOT / "tools" / "document_monitoring.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_documents_are_what_the_code_says(writer: ModuleType) -> None:
    try_this = "run: python tools/document_monitoring.py"
    assert (ROOT / "docs/metrics.md").read_text() == writer.metrics_text(), try_this
    assert (ROOT / "docs/dashboards.md").read_text() == writer.dashboards_text(), try_this


def test_every_metric_rule_and_panel_is_documented() -> None:
    text = (ROOT / "docs/metrics.md").read_text()
    for metric in metrics.ALL:
        assert f"| `{metric.name}` | {metric.kind} |" in text
    for record in re.findall(r"record: (\S+)", recording_rules()):
        series, _, percentile = record.rpartition(":")
        assert series in text
        assert percentile in text
    drawn = (ROOT / "docs/dashboards.md").read_text()
    for page in pages():
        for panel in (panel for row in page.rows for panel in row.panels):
            assert f"| {panel.title} | {panel.kind} |" in drawn


def test_every_alert_is_documented() -> None:
    text = (ROOT / "docs/metrics.md").read_text()
    template = (ROOT / "templates/prometheus/alerts.yml.j2").read_text()
    names = re.findall(r'alert\("(\w+)"', template)
    assert len(names) == 12
    assert all(f"| {name} |" in text for name in names)
