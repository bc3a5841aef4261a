"""Where machines come from: one module for each source, listed here."""

from __future__ import annotations

from collections.abc import Callable

from toolkit.errors import UsageError
from toolkit.providers.base import Provider
from toolkit.providers.container import ContainerProvider
from toolkit.providers.rspec import RspecProvider
from toolkit.providers.ssh import SshProvider
from toolkit.providers.vm import VmProvider
from toolkit.spec.testbed import ProviderSettings

PROVIDERS: dict[str, Callable[[ProviderSettings], Provider]] = {
    "container": ContainerProvider,
    "ssh": SshProvider,
    "vm": VmProvider,
    "rspec": RspecProvider,
}
"""Type in the file -> its provider; what is heavy is imported when machines are really asked for."""


def provider_for(settings: ProviderSettings) -> Provider:
    """The provider that these settings ask for."""
    if settings.type not in PROVIDERS:
        raise UsageError(
            f"provider {settings.name}: no machines can be had from {settings.type!r}; "
            f"known types: {', '.join(sorted(PROVIDERS))}"
        )
    return PROVIDERS[settings.type](settings)
