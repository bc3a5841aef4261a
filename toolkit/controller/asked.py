"""What a deployed testbed was asked to be, so that later commands see the same one."""

from __future__ import annotations

from toolkit.spec.load import Asked
from toolkit.state import Deployment, file_of


def as_deployed(deployment: Deployment) -> Asked:
    """What the testbed was deployed from: its file, as the same twin if it is one, with what was set and scaled."""
    return Asked(
        file=file_of(deployment),
        provider=deployment.provider or None,
        overrides=deployment.overrides,
        scale=deployment.scale,
    )
