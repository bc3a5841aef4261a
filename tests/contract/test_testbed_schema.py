"""The committed JSON Schema is the one the types give, and other checkers read it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from toolkit.spec.file import json_schema
from toolkit.spec.load import load_testbed

ROOT = Path(__file__).parents[2]
SCHEMA = ROOT / "docs" / "testbed.schema.json"
EXAMPLES = sorted((ROOT / "examples").rglob("testbed.yml"))


def _check_jsonschema(*files: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "check_jsonschema", "--schemafile", str(SCHEMA), *map(str, files)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_committed_schema_has_not_drifted():
    assert json.loads(SCHEMA.read_text()) == json_schema(), "run: make schema"


def test_the_schema_is_itself_valid():
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--check-metaschema", str(SCHEMA)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_a_variable_may_stand_for_a_number_or_a_duration(tmp_path):
    file = tmp_path / "testbed.yml"
    file.write_text(
        'variables: {n: 5, every: 2s}\nnodes: {base: {count: "${n}"}}\n'
        'services: {broker: {on: base, image: mosquitto, settings: {queue_limit: "${n}"}}}\n'
        'monitoring: {scrape_interval: "${every}"}\n'
    )
    done = _check_jsonschema(file)
    assert done.returncode == 0, done.stdout


def test_every_example_fits_the_schema():
    done = _check_jsonschema(*EXAMPLES)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: str(file.parent.relative_to(ROOT / "examples")))
def test_every_example_loads(file):
    assert load_testbed(file, environ={}).nodes


@pytest.mark.parametrize(
    "text",
    [
        "nodes: {base: {memry: 1G}}",
        "nodes: {base: {memory: 512}}",
        "nodes: {base: {}}\nservices: {broker: {on: base, settings: {mode: fast}}}",
        "nodes: {base: {}}\nservices: {b: {on: base, image: mosquitto, settings: {mode: direct}}}",
        "nodes: {base: {}}\nservices: {b: {on: base, role: broker, settings: {mod: direct}}}",
    ],
)
def test_the_schema_refuses_what_the_loader_refuses(tmp_path, text):
    file = tmp_path / "testbed.yml"
    file.write_text(text)
    assert _check_jsonschema(file).returncode == 1


def test_the_five_node_example_is_as_short_as_promised():
    text = (ROOT / "examples" / "five-nodes" / "testbed.yml").read_text()
    assert len(text.splitlines()) <= 25
    assert len(load_testbed(ROOT / "examples" / "five-nodes" / "testbed.yml").nodes) == 5
