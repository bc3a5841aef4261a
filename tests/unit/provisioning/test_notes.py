"""What is found out about a machine before it is changed, from what apt-get and systemctl say."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import pytest

from toolkit import paths

_SPEC = importlib.util.spec_from_file_location("toolkit_notes", paths.PLAYBOOKS / "module_utils" / "toolkit_notes.py")
assert _SPEC is not None
assert _SPEC.loader is not None
notes: Any = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(notes)


def says(output: str, status: int = 0) -> Callable[[list[str]], tuple[int, str, str]]:
    return lambda _: (status, output, "")


def unit(name: str, active: str, file: str, load: str = "loaded") -> str:
    return f"Id={name}\nLoadState={load}\nActiveState={active}\nUnitFileState={file}\n"


def test_packages_that_come_are_noted_and_upgrades_are_not():
    told = "Inst runc [1.1.4] (1.1.5 Debian [amd64])\nInst docker.io (20.10 Debian [amd64])\nConf docker.io (20.10)\n"
    assert notes.FINDERS["package"](["docker.io"], says(told)) == [{"name": "docker.io"}]


def test_nothing_is_installed_that_would_push_out_what_is_there():
    told = "Remv docker-ce [5:27]\nRemv containerd.io [1.7]\nInst docker.io (20.10 Debian [amd64])\n"
    with pytest.raises(ValueError, match=r"would remove docker-ce containerd.io to install docker.io"):
        notes.FINDERS["package"](["docker.io"], says(told))


def test_a_service_is_found_once_under_its_own_name():
    told = "\n".join(
        [
            unit("systemd-timesyncd.service", "inactive", "disabled"),
            unit("chrony.service", "active", "enabled"),
            unit("chrony.service", "active", "enabled"),  # asked for as chronyd
            unit("ntp.service", "inactive", "", "not-found"),
        ]
    )
    names = ["systemd-timesyncd", "chrony", "chronyd", "ntp"]
    assert notes.FINDERS["service"](names, says(told)) == [{"name": "chrony", "active": True, "enabled": True}]
    assert notes.FINDERS["service"](names, says("System has not been booted with systemd", 1)) == []


def test_services_that_do_not_run_or_will_not_are_found_before_they_are_started():
    told = "\n".join(
        [
            unit("docker.socket", "active", "enabled"),
            unit("docker.service", "inactive", "disabled"),
            unit("containerd.service", "inactive", "enabled"),
        ]
    )
    assert notes.FINDERS["idle service"](["docker.socket", "docker", "containerd"], says(told)) == [
        {"name": "docker", "active": False, "enabled": False},
        {"name": "containerd", "active": False, "enabled": True},
    ]
    assert notes.UNDONE_AS["idle service"] == "service"
