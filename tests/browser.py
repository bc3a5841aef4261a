"""The browser of the tests: Debian's Chromium, else the one that Playwright brought (tools/setup.sh, on Ubuntu)."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Playwright

ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")


def has_browser() -> bool:
    """Whether `open_browser` has one to open."""
    brought = Path(os.environ.get("PLAYWRIGHT_BROWSERS_PATH") or Path.home() / ".cache/ms-playwright")
    return shutil.which("chromium") is not None or any(brought.glob("chromium-*"))


def open_browser(playwright: Playwright) -> Browser:
    """One without a window."""
    return playwright.chromium.launch(executable_path=shutil.which("chromium"), args=ARGUMENTS)
