"""The event loop of a process, and what it runs on: uvloop where its image has it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Any


def run_in_loop(main: Coroutine[Any, Any, None]) -> None:
    """Run until it returns; what it raises goes on up."""
    with asyncio.Runner(loop_factory=_factory()) as runner:
        runner.run(main)


def _factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def versions() -> dict[str, str]:
    """Versions of Python and of the compiled parts that are in use, by name."""
    parts = {name: sys.modules[name] for name in ("httptools", "uvloop") if name in sys.modules}
    return {
        "python": sys.version.split()[0],
        **{name: str(getattr(module, "__version__", "?")) for name, module in parts.items()},
    }
