"""The addresses of this machine, as its kernel tells them."""

from __future__ import annotations

import re
import socket
from pathlib import Path

IPV4 = Path("/proc/net/fib_trie")
IPV6 = Path("/proc/net/if_inet6")
_LOCAL = re.compile(r"\|-- ([0-9.]+)\n\s+/32 host LOCAL")
_LOOPBACK = 127


def local_addresses(ipv4: Path = IPV4, ipv6: Path = IPV6) -> frozenset[bytes]:
    """Packed IPv4 and IPv6 addresses; empty where the kernel does not tell."""
    try:
        own = {socket.inet_aton(address) for address in _LOCAL.findall(ipv4.read_text())}
    except OSError:
        return frozenset()
    try:
        own |= {bytes.fromhex(line.split()[0]) for line in ipv6.read_text().splitlines()}
    except (OSError, ValueError, IndexError):
        return frozenset(own)  # a machine without IPv6
    return frozenset(own)


def is_local(address: bytes, local: frozenset[bytes]) -> bool:
    """Whether a packed address is of this machine; every one is where `local` is empty."""
    return not local or address in local or address[0] == _LOOPBACK
