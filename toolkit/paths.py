"""Where playbooks, images, templates and nets are, and where a workspace keeps its state."""

from __future__ import annotations

import os
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_INSTALLED = _PACKAGE / "_data"
_ROOT = _INSTALLED if _INSTALLED.is_dir() else _PACKAGE.parent

PLAYBOOKS = _ROOT / "playbooks"
IMAGES = _ROOT / "images"
TEMPLATES = _ROOT / "templates"
MODELS = _INSTALLED / "models" if _INSTALLED.is_dir() else _ROOT / "examples" / "models"
"""The nets that come with toolkit."""
SOURCE = _PACKAGE
"""The package itself: node images copy `contract/` and `node/` from here."""


def workspace() -> Path:
    """The `.toolkit` folder of this workspace: `$TOOLKIT_HOME`, or the nearest one upwards, or a new one here."""
    if home := os.environ.get("TOOLKIT_HOME"):
        return Path(home).expanduser().resolve()
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / ".toolkit").is_dir():
            return folder / ".toolkit"
    return here / ".toolkit"


def testbed_dir(name: str) -> Path:
    """What toolkit knows of one testbed: state, keys, rendered files, runs."""
    return workspace() / name


def cache() -> Path:
    """What every testbed shares and can be made again: base systems, built image archives."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(os.environ.get("TOOLKIT_CACHE", f"{base}/toolkit"))
