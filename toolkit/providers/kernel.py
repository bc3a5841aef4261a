"""What the kernel that virtual nodes share can do, as far as that can be told without trying."""

from __future__ import annotations

import contextlib
import gzip
import platform
from pathlib import Path


def has_netem(root: Path = Path("/")) -> bool | None:
    """Whether it can delay and lose packets; None where neither its modules nor its configuration tell."""
    return _has("sch_netem", "NET_SCH_NETEM", root)


def has_tun(root: Path = Path("/")) -> bool | None:
    """Whether a program can be the other end of a network device; None as above."""
    return True if (root / "dev/net/tun").exists() else _has("tun", "TUN", root)


def _has(module: str, option: str, root: Path) -> bool | None:
    if (root / "sys/module" / module).exists():
        return True
    modules = root / "lib/modules" / platform.release()
    with contextlib.suppress(OSError):
        return any(f"/{module}.ko" in (modules / name).read_text() for name in ("modules.builtin", "modules.dep"))
    with contextlib.suppress(OSError):
        config = gzip.decompress((root / "proc/config.gz").read_bytes()).decode()
        return None if f"\nCONFIG_{option}=m" in config else f"\nCONFIG_{option}=y" in config
    return None
