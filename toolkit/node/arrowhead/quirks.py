"""Where the 4.1.x releases differ on the wire, and which of them is imitated."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Quirks:
    """What changes from one release to the next; everything else is the same in all of them."""

    validation_status: int
    """HTTP status of a violated field rule and of bad JSON."""
    registry_matches_interfaces: bool
    """True: the Service Registry drops entries without a common interface, case-sensitively.
    False: the Orchestrator does, whatever the case."""
    core_interfaces: tuple[str, str]
    """Interface that core systems register with: insecure, secure."""
    unicode_names: bool
    """Names may have any Unicode letter, not only A to Z."""
    blank_entries_refused: bool
    """A blank interface, or a blank key or value in the metadata, is a bad payload."""
    store_update_status: int
    """HTTP status of an updated Orchestration Store entry."""


_4_1_1 = Quirks(
    validation_status=404,
    registry_matches_interfaces=False,
    core_interfaces=("JSON", "JSON"),
    unicode_names=False,
    blank_entries_refused=False,
    store_update_status=202,
)

QUIRKS = {
    "4.1": dataclasses.replace(_4_1_1, validation_status=400),
    "4.1.1": _4_1_1,
    "4.1.2": Quirks(
        validation_status=400,
        registry_matches_interfaces=True,
        core_interfaces=("HTTP-INSECURE-JSON", "HTTP-SECURE-JSON"),
        unicode_names=True,
        blank_entries_refused=True,
        store_update_status=200,
    ),
}
"""`4.1` behaves as 4.1.1 and says 400 where that release says 404 by mistake."""

TOLERANT = dataclasses.replace(_4_1_1, unicode_names=True)
"""For reading what another system answers, whichever release it is."""
