"""How many connections a process may have."""

from __future__ import annotations

import contextlib
import resource

MOST = 65_536


def allow_descriptors() -> None:
    """As many as the system lets the process have, up to `MOST`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
