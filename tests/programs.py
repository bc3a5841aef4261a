"""Programs that tests start; `make setup` installs them."""

from __future__ import annotations

import shutil

from tests.conftest import lacking


def find_program(name: str) -> str:
    """Its path, also where only root looks; a missing one skips the test on a laptop, and fails it in `make test`."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if found is None:
        lacking(f"{name} (apt-get install {name})")
    return str(found)
