"""Who a client says it is: the name travels in orders, the password never does."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from toolkit.errors import WorkloadError


def system_name(usual: str, environ: Mapping[str, str] = os.environ) -> str:
    """By which a client calls itself in Arrowhead; TOOLKIT_SYSTEM says it where a certificate has to agree."""
    return environ.get("TOOLKIT_SYSTEM") or usual


def read_login(
    options: Mapping[str, Any], environ: Mapping[str, str] = os.environ, *, usual: tuple[str, str] | None = None
) -> tuple[str, str] | None:
    """(user, password) of the option `user` and the variable (a file's path if it ends in _FILE) `password_variable`.

    `usual` is for brokers that know no anonymous client. Raises WorkloadError where the password is not there.
    """
    user = options.get("user")
    if user is None:
        return usual
    variable = str(options.get("password_variable", ""))
    if variable not in environ:
        raise WorkloadError(f"no password for user {user!r}: {variable or 'password_variable'} is not set here")
    if not variable.endswith("_FILE"):
        return str(user), environ[variable]
    try:
        return str(user), Path(environ[variable]).read_text().rstrip("\n")
    except OSError as error:
        raise WorkloadError(f"no password for user {user!r}: {error}") from error
