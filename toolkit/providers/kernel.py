"""What the kernel that virtual nodes share can do, as far as that can be told without trying."""

from __future__ import annotations

import contextlib
import gzip
import platform
from pathlib import Path


def has_netem(root: Path = Path("/")) -> bool | None:
    """Whether it can delay and lose packets; None where neither its modules nor its configuration tell."""
    if (root / "sys/module/sch_netem").exists():
        return True
    modules = root / "lib/modules" / platform.release()
    with contextlib.suppress(OSError):
        return any("/sch_netem.ko" in (modules / name).read_text() for name in ("modules.builtin", "modules.dep"))
    with contextlib.suppress(OSError):
        config = gzip.decompress((root / "proc/config.gz").read_bytes())
        return None if b"\nCONFIG_NET_SCH_NETEM=m" in config else b"\nCONFIG_NET_SCH_NETEM=y" in config
    return None
