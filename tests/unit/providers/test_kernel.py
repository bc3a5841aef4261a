"""What modules and configuration tell of netem and of tun."""

from __future__ import annotations

import gzip
import platform
from pathlib import Path

import pytest

from toolkit.providers.kernel import has_netem, has_tun

MODULES = f"lib/modules/{platform.release()}"
NETEM = "kernel/net/sched/sch_netem.ko"


@pytest.mark.parametrize(
    ("files", "there"),
    [
        ({}, None),
        ({"sys/module/sch_netem/refcnt": ""}, True),
        ({f"{MODULES}/modules.builtin": "", f"{MODULES}/modules.dep": f"{NETEM}.zst: kernel/other.ko"}, True),
        ({f"{MODULES}/modules.builtin": f"{NETEM}\n"}, True),
        ({f"{MODULES}/modules.builtin": "", f"{MODULES}/modules.dep": "kernel/net/sched/sch_tbf.ko:"}, False),
        ({"proc/config.gz": "\nCONFIG_NET_SCH_NETEM=y\n"}, True),
        ({"proc/config.gz": "\nCONFIG_NET_SCH_NETEM=m\n"}, None),
        ({"proc/config.gz": "\n# CONFIG_NET_SCH_NETEM is not set\n"}, False),
    ],
)
def test_netem_is_there_or_not_or_not_known(tmp_path: Path, files: dict[str, str], there: bool | None) -> None:
    _write(tmp_path, files)
    assert has_netem(tmp_path) is there


@pytest.mark.parametrize(
    ("files", "there"),
    [
        ({}, None),
        ({"dev/net/tun": ""}, True),
        ({f"{MODULES}/modules.builtin": "kernel/drivers/net/tun.ko\n"}, True),
        ({f"{MODULES}/modules.builtin": "", f"{MODULES}/modules.dep": "kernel/net/ipv4/tunnel4.ko:"}, False),
        ({"proc/config.gz": "\nCONFIG_TUN=y\n"}, True),
        ({"proc/config.gz": "\n# CONFIG_TUN is not set\n"}, False),
    ],
)
def test_tun_too(tmp_path: Path, files: dict[str, str], there: bool | None) -> None:
    _write(tmp_path, files)
    assert has_tun(tmp_path) is there


def _write(root: Path, files: dict[str, str]) -> None:
    for path, text in files.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(gzip.compress(text.encode()) if path.endswith(".gz") else text.encode())
