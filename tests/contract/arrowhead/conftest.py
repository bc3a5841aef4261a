"""The clouds that the tests of a session share, and database servers for a test each."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .database_servers import DRIVERS, DatabaseServer, mariadb, postgresql
from .local_cloud import ENTRY, GAUGE, NODE_PYTHON, PANEL, PRESS_GAUGE, LocalCloud


@pytest.fixture(scope="session")
def clouds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LocalCloud, LocalCloud]]:
    """Two clouds that are neighbours: `hall-1` has consumers and a gauge, `hall-2` a thermometer for both."""
    folder = tmp_path_factory.mktemp("clouds")
    one, two = LocalCloud("hall-1", folder / "one"), LocalCloud("hall-2", folder / "two")
    thermometer = {"serviceDefinition": "IndoorTemperature", "interfaces": ["JSON", "XML"]}
    one.seed(
        neighborClouds=[two.own],
        registryEntries=[ENTRY],
        intraCloud=[{"consumer": PANEL, "providerList": [PRESS_GAUGE], "serviceList": [GAUGE]}],
        fillerEntries=60,
    )
    two.seed(
        neighborClouds=[one.own],
        registryEntries=[
            {
                "providedService": {**thermometer, "serviceMetadata": {"unit": "celsius"}},
                "provider": {"systemName": "therm-1", "address": "10.30.0.8", "port": 8460},
                "serviceURI": "temperature",
            }
        ],
        interCloud=[{"cloud": one.own, "serviceList": [thermometer]}],
        fillerEntries=60,
    )
    try:
        for cloud in (one, two):
            cloud.start()
        for cloud in (one, two):
            cloud.await_ready()
        yield one, two
    finally:
        for cloud in (one, two):
            codes = cloud.stop()
            assert set(codes.values()) <= {0}, codes


@pytest.fixture(scope="session")
def cloud(clouds: tuple[LocalCloud, LocalCloud]) -> LocalCloud:
    """The first of the two clouds."""
    return clouds[0]


@pytest.fixture(scope="session")
def other_cloud(clouds: tuple[LocalCloud, LocalCloud]) -> LocalCloud:
    """Its neighbour."""
    return clouds[1]


@pytest.fixture(params=[mariadb, postgresql], ids=lambda make: make.__name__)
def database(request: pytest.FixtureRequest) -> Iterator[DatabaseServer]:
    make: Callable[[Path], DatabaseServer] = request.param
    driver = DRIVERS[make.__name__]
    if subprocess.run([NODE_PYTHON, "-c", f"import {driver}"], capture_output=True, check=False).returncode:
        pytest.skip(f"{NODE_PYTHON} has no {driver}; set TOOLKIT_NODE_PYTHON to Debian's python3")
    # Not pytest's folder: that one is closed to the servers' users.
    folder = Path(tempfile.mkdtemp(prefix="toolkit-database-"))
    folder.chmod(0o755)
    server: DatabaseServer | None = None
    try:
        server = make(folder)
        yield server
    finally:
        if server is not None:
            server.stop()
        shutil.rmtree(folder)
