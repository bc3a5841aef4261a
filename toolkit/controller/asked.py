"""What is asked of a testbed that is there: it stays the same one, and its nodes keep their addresses."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from toolkit.spec.load import Asked, name_in
from toolkit.spec.nodes import VIRTUAL
from toolkit.state import Deployment, file_of, load_deployment


def asked_anew(file: Path, *, provider: str | None, overrides: Mapping[str, str], scale: float) -> Asked:
    """What the command line asks for; raises FileInvalidError where the file is not YAML."""
    deployment = load_deployment(overrides.get("name") or name_in(file))
    held = _held(deployment) if deployment else {}
    return Asked(file=file, provider=provider, overrides=overrides, scale=scale, held=held)


def as_deployed(deployment: Deployment) -> Asked:
    """What the testbed was deployed from: its file, as the same twin if it is one, with what was set and scaled."""
    return Asked(
        file=file_of(deployment),
        provider=deployment.provider or None,
        overrides=deployment.overrides,
        scale=deployment.scale,
        held=_held(deployment),
    )


def _held(deployment: Deployment) -> dict[str, str]:
    return {node: host.address for node, host in deployment.hosts.items() if host.type in VIRTUAL}
