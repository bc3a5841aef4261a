"""What modules and configuration tell of netem."""

from __future__ import annotations

import gzip
import platform
from pathlib import Path

import pytest

from toolkit.providers.kernel import has_netem

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
    for path, text in files.items():
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(gzip.compress(text.encode()) if path.endswith(".gz") else text.encode())
    assert has_netem(tmp_path) is there
