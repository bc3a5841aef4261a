"""What of an observation counts as a difference."""

from __future__ import annotations

import pytest

from toolkit.provisioning.observe import Observed, ObservedContainer


@pytest.mark.parametrize(
    ("state", "health", "why"),
    [
        ("running", "", None),
        ("running", "healthy", None),
        ("running", "starting", None),
        ("running", "unhealthy", "it is unhealthy"),
        ("exited", "", "it is exited"),
        ("restarting", "starting", "it is restarting"),
    ],
)
def test_a_service_that_is_still_starting_is_no_difference(state: str, health: str, why: str | None) -> None:
    container = ObservedContainer(
        name="toolkit-t-s", service="s", role="broker", hash="h", content="c", image="i", state=state,
        status="", health=health,
    )  # fmt: skip
    seen = Observed(
        node="a", containers={container.name: container}, engine_version="20", engine_error="",
        clock=None, python="3.11", load=0.0, bundle="d",
    )  # fmt: skip
    assert seen.running.unwell == ({} if why is None else {container.name: why})
    assert seen.running.hashes == {container.name: "h"}
