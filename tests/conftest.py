"""What every test shares: where they run, and that a missing tool fails where it could have been installed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from hypothesis import settings

from tests.browser import has_browser

settings.register_profile("toolkit", deadline=None)  # machines are shared: how long an example takes says nothing
settings.load_profile("toolkit")

# A shell ignores SIGINT for what it starts in the background, and so would every process that a test interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parents[1]
COMPLETE = os.environ.get("TOOLKIT_TESTS_COMPLETE") == "1"
"""Set by `make test`: a test that would be skipped for want of a tool fails instead."""


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("docker") and not _engine_answers():
        lacking("a Docker engine that answers (make setup starts one)")
    if item.get_closest_marker("browser") and not has_browser():
        lacking("chromium (tools/setup.sh --tests installs one)")


def lacking(what: str) -> None:
    """Skip on a laptop, fail where everything was to run."""
    if COMPLETE:
        pytest.fail(f"this test needs {what}")
    pytest.skip(f"needs {what}")


def _engine_answers() -> bool:
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "version"], capture_output=True, check=False).returncode == 0


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace of the test's own; commands and functions both see it."""
    home = tmp_path / ".toolkit"
    monkeypatch.setenv("TOOLKIT_HOME", str(home))
    monkeypatch.chdir(tmp_path)
    return home
