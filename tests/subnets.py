"""Subnets for testbeds that tests make: free on this machine, and hardly the same in two suites at once."""

from __future__ import annotations

import itertools
import os
from ipaddress import IPv4Network

from toolkit.providers.subnets import clash, host_routes

_AREA = list(IPv4Network("10.87.0.0/16").subnets(new_prefix=24))
_STRIDE = 101
"""Processes that began one after the other begin so far apart."""
_subnets = itertools.islice(itertools.cycle(_AREA), os.getpid() * _STRIDE % len(_AREA), None)


def free_subnet() -> IPv4Network:
    """One that no route of this machine overlaps right now; networks of its engine have routes."""
    taken = host_routes()
    return next(each for each in itertools.islice(_subnets, len(_AREA)) if clash(each, taken) is None)
