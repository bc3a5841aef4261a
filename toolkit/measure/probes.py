"""What hop probes say of themselves: packets that they missed, and connections that they could not see into."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

PROBED_HOPS = ("publish", "broker", "deliver")
"""Hops that begin or end with a stamp of the probe."""

Counts = tuple[str, str, Mapping[str, int]]
"""(process, role, StampsInfo.counts)"""


def missed_some(counts: Mapping[str, int]) -> bool:
    """Whether a probe's own counters say that messages may have passed it unseen."""
    return bool(counts.get("packets_lost") or counts.get("gaps"))


def all_seen(counts: Iterable[Counts]) -> bool:
    """Whether no probe of the run missed anything or was blind."""
    return not any(missed_some(c) or c.get("encrypted_connections") for _, role, c in counts if role == "probe")


def probe_problems(counts: Iterable[Counts]) -> list[str]:
    """Probes that missed packets: their hops are of the messages they saw, and nobody knows where the others went."""
    return [
        f"{process} missed {c.get('packets_lost', 0)} packets and {c.get('gaps', 0)} stretches of connections: "
        f"{', '.join(PROBED_HOPS)} are of the messages it saw, and where others were lost is not known; give its node "
        "more processor time, or send more slowly"
        for process, role, c in counts
        if role == "probe" and missed_some(c)
    ]


def blind_spots(counts: Iterable[Counts]) -> list[str]:
    """Probes that met TLS: no fault of the run, but the reason why hops are missing in it."""
    return [
        f"{process} cannot see into TLS ({c['encrypted_connections']} connections): the run has no times of the broker"
        for process, role, c in counts
        if role == "probe" and c.get("encrypted_connections")
    ]
