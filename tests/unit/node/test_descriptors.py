"""More connections than the system lets a process have are refused before the first is opened."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from toolkit.node import descriptors


@pytest.fixture
def ports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A system with 132 descriptors for a process and 101 ports."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (132, 132))
    file = tmp_path / "ip_local_port_range"
    file.write_text("32768\t32868\n")
    return file


def test_descriptors_and_ports_bound_the_connections(ports: Path) -> None:
    descriptors.check_connections(100, ports=ports)
    with pytest.raises(
        ValueError, match="101 connections need as many file descriptors, and this process may have 100"
    ):
        descriptors.check_connections(101, ports=ports)


def test_ports_are_for_each_address_of_the_broker(ports: Path) -> None:
    ports.write_text("100 149")
    with pytest.raises(ValueError, match="51 connections need as many ports, and this node has 50 for each"):
        descriptors.check_connections(51, ports=ports)
    descriptors.check_connections(51, entrances=2, ports=ports)


def test_a_system_that_does_not_tell_its_ports_is_believed_to_have_some(tmp_path: Path, ports: Path) -> None:
    ports.write_text("many")
    descriptors.check_connections(100, ports=ports)
    descriptors.check_connections(100, ports=tmp_path / "nothing")
