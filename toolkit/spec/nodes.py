"""The nodes of a file: inherited, counted out, given a provider and an address."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv4Network, NetmaskValueError
from typing import Any, Literal

from toolkit.errors import UsageError
from toolkit.spec import quantities
from toolkit.spec.findings import Findings
from toolkit.spec.kinds import DEFAULT_KIND, inherit, is_discovered, layers_of
from toolkit.spec.names import did_you_mean
from toolkit.spec.testbed import Architecture, Link, Node, ProviderSettings, operator_architecture
from toolkit.spec.yaml import Path

FIRST_HOST = 10
"""Virtual nodes get addresses from here on; .1 is the gateway, the rest is kept for people."""

_IMPLICIT: tuple[Literal["container", "ssh", "vm"], ...] = ("container", "ssh", "vm")
VIRTUAL = frozenset({"container", "vm"})
"""Types of provider whose machines toolkit makes on the operator's processors and takes away; those of the others are
there before and after."""
_UNDEFINED = ProviderSettings(name="", type="rspec")
"""Stands in for one that the file names but does not have, and needs nothing."""
_PATHS = ("identity_file", "known_hosts", "manifest")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machines:
    """What a file says about machines."""

    nodes: tuple[Node, ...]
    providers: Mapping[str, ProviderSettings]
    subnet: IPv4Network
    twin: bool


def default_subnet(testbed: str) -> IPv4Network:
    """10.77.N.0/24 with N from the testbed's name, so that two testbeds on one machine seldom meet."""
    return IPv4Network(f"10.77.{hashlib.sha256(testbed.encode()).digest()[0]}.0/24")


def resolve_machines(
    file: Mapping[str, Any], name: str, findings: Findings, *, provider: str | None = None, held: Mapping[str, str]
) -> Machines:
    """Every node of the file; `provider` takes all of them from there instead; `held`: as in `load_testbed`."""
    providers = _providers(file, findings)
    if provider is not None and provider not in providers:
        raise UsageError(f"--provider {provider}: no such provider{did_you_mean(provider, filter(None, providers))}")
    asked: list[Node] = []
    for entry in file.get("nodes", {}):
        asked += _expand(entry, file, providers, findings)
    _check_unique(asked, findings)
    changed = provider is not None and any(providers[n.provider].type != providers[provider].type for n in asked)
    twin = bool(file.get("twin")) or (changed and providers[str(provider)].type in VIRTUAL)
    nodes = [dataclasses.replace(node, provider=provider) for node in asked] if provider else asked
    declared = _subnet(file, findings)
    _check_addresses(nodes, declared, file, providers, findings, real=not changed)
    subnet = declared or default_subnet(name)
    if declared and not changed and any(providers[n.provider].type in VIRTUAL for n in nodes):
        _check_own(declared, findings)
    if changed and twin:
        nodes = [dataclasses.replace(node, address=None) for node in nodes]
        subnet = default_subnet(name)
    return Machines(
        nodes=tuple(_assign(nodes, subnet, providers, held, findings)),
        providers={key: value for key, value in providers.items() if any(n.provider == key for n in nodes)},
        subnet=subnet,
        twin=twin,
    )


def _providers(file: Mapping[str, Any], findings: Findings) -> dict[str, ProviderSettings]:
    providers: dict[str, ProviderSettings] = {name: ProviderSettings(name=name, type=name) for name in _IMPLICIT}
    for name, entry in file.get("providers", {}).items():
        kind = entry.get("type", name)
        if kind not in (*_IMPLICIT, "rspec"):
            findings.lacking(
                ("providers", name), "type", f"provider {name!r} needs a type: container, ssh, vm or rspec"
            )
            kind = "ssh"
        if kind == "rspec" and "manifest" not in entry:
            message = "an rspec provider needs `manifest`, the file of its reservation"
            findings.lacking(("providers", name), "manifest", message)
        folder = findings.document.folder
        settings = {k: str(folder / v) if k in _PATHS and not v.startswith("~") else v for k, v in entry.items()}
        providers[name] = ProviderSettings(**(settings | {"name": name, "type": kind}))
    providers[_UNDEFINED.name] = _UNDEFINED
    return providers


def _expand(
    entry: str, file: Mapping[str, Any], providers: Mapping[str, ProviderSettings], findings: Findings
) -> list[Node]:
    """The nodes that one entry of the file stands for."""
    here: Path = ("nodes", entry)
    values, origin = inherit(layers_of(entry, file, findings))
    provider = values.get("provider", file.get("provider", "container"))
    if provider not in providers:
        place = origin.get("provider", ("provider",))
        findings.add(place, f"undefined provider {provider!r}{did_you_mean(provider, filter(None, providers))}")
        provider = _UNDEFINED.name
    kind = values.get("kind", DEFAULT_KIND)
    architecture = Architecture(values["architecture"]) if "architecture" in values else None
    if architecture is None and not is_discovered(kind, file):
        architecture = operator_architecture()
    addresses = _addresses(values, here, findings)
    count = values.get("count", len(addresses) or 1)
    numbered = "count" in values or "addresses" in values  # so that a count of 1 can grow without renaming a node
    return [
        Node(
            name=f"{entry}-{index + 1}" if numbered else entry,
            entry=entry,
            kind=kind,
            provider=provider,
            architecture=architecture,
            cpus=values.get("cpus"),
            memory_bytes=quantities.size_bytes(values["memory"]) if "memory" in values else None,
            link=_link(values.get("link", {}), origin, findings),
            address=addresses[index] if index < len(addresses) else None,
            group=values.get("group"),
            labels=values.get("labels", {}),
            line=findings.line(here),
        )
        for index in range(count)
    ]


def _link(values: Mapping[str, str], origin: Mapping[str, Path], findings: Findings) -> Link:
    link = Link(
        rate_bps=quantities.bitrate_bps(values["rate"]) if "rate" in values else None,
        delay_s=quantities.duration_s(values.get("delay", "0s")),
        jitter_s=quantities.duration_s(values.get("jitter", "0s")),
        loss=quantities.fraction(values.get("loss", "0%")),
    )
    if link.rate_bps == 0:
        findings.add(origin["link.rate"], "a link of rate 0 carries nothing; leave `rate` out for no limit")
    if link.jitter_s and not link.delay_s:
        findings.add(origin["link.jitter"], "`jitter` without `delay`: jitter spreads a delay; add `delay` beside it")
    elif link.jitter_s > link.delay_s:
        findings.add(
            origin["link.jitter"], f"jitter {values['jitter']} is more than the delay {values['delay']} it spreads"
        )
    if link.loss > 1:
        findings.add(origin["link.loss"], f"loss {values['loss']} is more than 100 %; write a share from 0% to 100%")
    return link


def _addresses(values: Mapping[str, Any], here: Path, findings: Findings) -> list[str]:
    """The addresses an entry names, in order; count and range must agree."""
    count = values.get("count")
    if "address" in values and "addresses" in values:
        findings.add((*here, "addresses"), "both `address` and `addresses`; keep one", at_key=True)
    if "address" in values:
        if (count or 1) > 1:
            findings.add((*here, "address"), f"one address for {count} nodes; write `addresses` with a range or a list")
        return [values["address"]]
    written = values.get("addresses", [])
    if isinstance(written, str):
        first, last = written.split("-")
        prefix, _, low = first.rpartition(".")
        listed = [f"{prefix}.{number}" for number in range(int(low), int(last) + 1)]
        if not listed:
            findings.add((*here, "addresses"), f"the range {written} ends before it begins")
    else:
        listed = list(written)
    if listed and count is not None and count != len(listed):
        findings.add(
            (*here, "addresses"), f"{len(listed)} addresses for count {count}; make them agree, or leave `count` out"
        )
    return listed


def _check_unique(nodes: list[Node], findings: Findings) -> None:
    entries: dict[str, str] = {}
    for node in nodes:
        other = entries.setdefault(node.name, node.entry)
        if other != node.entry:
            counted = node.entry if node.name != node.entry else other
            message = f"two nodes are called {node.name!r}: this one, and one of the `count` of {counted!r}; rename one"
            findings.add(("nodes", node.name), message, at_key=True)


def _place(node: Node) -> Path:
    return ("nodes", node.entry, "address" if node.name == node.entry else "addresses")


def _check_addresses(
    nodes: list[Node],
    subnet: IPv4Network | None,
    file: Mapping[str, Any],
    providers: Mapping[str, ProviderSettings],
    findings: Findings,
    *,
    real: bool,
) -> None:
    """`subnet`: the file's, if it has one that is right; `real`: whether nodes are where the file says."""
    declared = "subnet" in file.get("network", {}) or ("network", "subnet") in findings.left_out
    users: dict[str, str] = {}
    for node in nodes:
        kind = providers[node.provider].type
        if node.address is None:
            if kind == "ssh" and real:
                _lacks_address(node, file["nodes"][node.entry] or {}, findings)
            continue
        try:
            address = IPv4Address(node.address)
        except AddressValueError:
            message = f"{node.address!r} is not an IPv4 address; each of its four numbers is 0 to 255"
            zeros = ", written without a 0 before it" if re.search(r"\b0[0-9]", node.address) else ""
            findings.add(_place(node), message + zeros)
            continue
        if (other := users.setdefault(node.address, node.name)) != node.name:
            findings.add(
                _place(node), f"duplicate address {node.address}: nodes {other!r} and {node.name!r} both have it"
            )
        if not declared and kind in VIRTUAL and real:
            message = f"address {node.address} for a virtual node needs `network: {{subnet: …}}` that contains it"
            findings.add(_place(node), message)
        if subnet is not None and (address not in subnet or address in {subnet[0], subnet[-1]}):
            findings.add(
                _place(node), f"address {node.address} of node {node.name!r} is not a host address in subnet {subnet}"
            )
        elif subnet is not None and kind in VIRTUAL and address == subnet[1]:
            findings.add(_place(node), f"address {node.address} is the gateway of subnet {subnet}; take another")


def _lacks_address(node: Node, written: Mapping[str, Any], findings: Findings) -> None:
    """Said once for all nodes of an entry, and not where an address stands there and is wrong."""
    here: Path = ("nodes", node.entry)
    if "address" in written or "addresses" in written or (*here, "addresses") in findings.left_out:
        return
    lacks = f"node {node.name!r} comes from SSH provider {node.provider!r} and needs an `address`"
    if node.name != node.entry:
        lacks = f"nodes {node.entry!r} come from SSH provider {node.provider!r} and need `addresses`, a range or a list"
    findings.lacking(here, "address", lacks)


def _subnet(file: Mapping[str, Any], findings: Findings) -> IPv4Network | None:
    """The declared one; None where there is none, or none that is right."""
    text = file.get("network", {}).get("subnet")
    if text is None:
        return None
    smallest = 28
    try:
        subnet = IPv4Network(text)
    except (AddressValueError, NetmaskValueError):
        findings.add(("network", "subnet"), f"{text!r} is not a subnet; write one such as 10.77.0.0/24")
    except ValueError:
        hint = IPv4Network(text, strict=False)
        findings.add(("network", "subnet"), f"{text} has bits set behind its prefix; did you mean {hint}?")
    else:
        if subnet.prefixlen <= smallest:
            return subnet
        findings.add(("network", "subnet"), f"subnet {text} is too small for a testbed; take /{smallest} or larger")
    return None


def _check_own(subnet: IPv4Network, findings: Findings) -> None:
    """Virtual nodes get a network of their own, which hides whoever has its addresses elsewhere."""
    special = subnet.is_loopback or subnet.is_link_local or subnet.is_multicast or subnet.is_reserved
    if not special and not subnet.is_global and subnet[0].packed[0]:
        return
    message = f"subnet {subnet} is not for networks of one's own, and virtual nodes would hide what has its addresses"
    findings.add(("network", "subnet"), f"{message}; take one within 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16")


def _assign(
    nodes: list[Node],
    subnet: IPv4Network,
    providers: Mapping[str, ProviderSettings],
    held: Mapping[str, str],
    findings: Findings,
) -> list[Node]:
    """Addresses for virtual nodes without one: those that they hold, else the next free one in the file's order."""
    named = {node.address for node in nodes}
    kept = {
        node.name: held[node.name]
        for node in nodes
        if node.address is None and node.name in held
        if held[node.name] not in named and IPv4Address(held[node.name]) in subnet
    }
    taken = named.union(kept.values())
    free = (str(subnet[host]) for host in range(FIRST_HOST, subnet.num_addresses - 1))
    open_addresses = (address for address in free if address not in taken)
    assigned: list[Node] = []
    homeless: dict[str, list[str]] = {}
    for node in nodes:
        if node.address is None and providers[node.provider].type in VIRTUAL:
            address = kept.get(node.name) or next(open_addresses, None)
            if address is None:
                homeless.setdefault(node.entry, []).append(node.name)
            assigned.append(dataclasses.replace(node, address=address))
        else:
            assigned.append(node)
    for entry, names in homeless.items():
        which = f"node {names[0]!r}" if len(names) == 1 else f"{len(names)} nodes from {names[0]!r} on"
        message = f"subnet {subnet} has no address left for {which}; declare a larger `network.subnet`"
        findings.add(("nodes", entry), message, at_key=True)
    return assigned
