"""The environment variables every process on a node reads once at its start."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SAMPLES_DIR = "/var/lib/toolkit/samples"
"""Inside the container; mounted from `<node root>/samples` on the node."""


def node_root(testbed: str) -> str:
    """Where everything toolkit puts on a node lives: etc/, samples/, data/ below it."""
    return f"/var/lib/toolkit/{testbed}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSettings:
    """Who a process is and where it may be asked."""

    testbed: str
    node: str
    service: str
    instance: int
    metrics_port: int
    control_port: int
    samples_dir: str

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> ProcessSettings:
        """Read TOOLKIT_*; raises KeyError or ValueError naming the variable that is missing or wrong."""
        return cls(
            testbed=environ["TOOLKIT_TESTBED"],
            node=environ["TOOLKIT_NODE"],
            service=environ["TOOLKIT_SERVICE"],
            instance=int(environ.get("TOOLKIT_INSTANCE", "0")),
            metrics_port=int(environ["TOOLKIT_METRICS_PORT"]),
            control_port=int(environ["TOOLKIT_CONTROL_PORT"]),
            samples_dir=environ.get("TOOLKIT_SAMPLES_DIR", SAMPLES_DIR),
        )

    def environment(self) -> dict[str, str]:
        """The variables that `from_environment` reads back."""
        return {
            "TOOLKIT_TESTBED": self.testbed,
            "TOOLKIT_NODE": self.node,
            "TOOLKIT_SERVICE": self.service,
            "TOOLKIT_INSTANCE": str(self.instance),
            "TOOLKIT_METRICS_PORT": str(self.metrics_port),
            "TOOLKIT_CONTROL_PORT": str(self.control_port),
            "TOOLKIT_SAMPLES_DIR": self.samples_dir,
        }


def service_settings(
    program: str, defaults: Mapping[str, object], environ: Mapping[str, str] = os.environ
) -> dict[str, Any]:
    """TOOLKIT_SETTINGS: a service's `settings` of testbed.yml, with seconds and bytes for quantities.

    Raises ValueError naming one that is not among `defaults`, or is no number where its default is one.
    """
    given: dict[str, Any] = json.loads(environ.get("TOOLKIT_SETTINGS") or "{}")
    if unknown := sorted(given.keys() - defaults.keys()):
        raise ValueError(f"TOOLKIT_SETTINGS: {program} has no setting {', '.join(unknown)}")
    for name, value in given.items():
        if isinstance(defaults[name], int | float) and not isinstance(value, int | float):
            raise ValueError(f"TOOLKIT_SETTINGS: {name} {value!r} is not a number")  # noqa: TRY004 - as all that is wrong with them
    return given
