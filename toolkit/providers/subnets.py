"""Is a subnet free on this machine? Asked before a testbed takes one, because a clash cuts off whatever had it."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network
from itertools import islice
from pathlib import Path

PRIVATE = (
    IPv4Network("10.77.0.0/16"),
    IPv4Network("10.64.0.0/10"),
    IPv4Network("172.20.0.0/14"),
    IPv4Network("192.168.0.0/16"),
)
"""Where an alternative is looked for, in this order."""
ROUTES = Path("/proc/net/route")
UP = 1
CANDIDATES = 512


def host_routes(table: Path = ROUTES) -> dict[IPv4Network, str]:
    """The kernel's IPv4 routes but for the default one: network -> device."""
    if not table.is_file():
        return {}
    routes: dict[IPv4Network, str] = {}
    for line in table.read_text().splitlines()[1:]:
        device, destination, _gateway, flags, *_counts, mask, _mtu, _window, _irtt = line.split()
        length = int(mask, 16).bit_count()
        if length and int(flags, 16) & UP:
            address = IPv4Address(int(destination, 16).to_bytes(4, "little"))
            routes[IPv4Network((address, length))] = device
    return routes


def clash(subnet: IPv4Network, taken: Mapping[IPv4Network, str]) -> str | None:
    """Who has (part of) the subnet: `10.77.0.0/24 (network "lab")`; None where it is free."""
    return next((f"{network} ({owner})" for network, owner in taken.items() if network.overlaps(subnet)), None)


def free_alternative(subnet: IPv4Network, taken: Mapping[IPv4Network, str]) -> IPv4Network | None:
    """A private subnet of the same size that nobody has, the next above the one asked for if there is one."""
    areas = [area for area in PRIVATE if area.prefixlen <= subnet.prefixlen]
    candidates = [c for area in areas for c in islice(area.subnets(new_prefix=subnet.prefixlen), CANDIDATES)]
    return next((c for c in sorted(candidates, key=lambda c: (c < subnet, c)) if clash(c, taken) is None), None)


def advice(subnet: IPv4Network, taken: Mapping[IPv4Network, str]) -> str | None:
    """Who has (part of) the subnet, and what to write instead; None where it is free."""
    owner = clash(subnet, taken)
    if owner is None:
        return None
    free = free_alternative(subnet, taken)
    instead = f'"network: {{subnet: {free}}}" in the file would be free' if free else "choose another one"
    return f"its subnet {subnet} overlaps {owner} on this machine; {instead}"
