"""Links of virtual nodes: what is to be imposed on them, and by what delay, jitter and loss are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from toolkit.providers.kernel import has_netem, has_tun
from toolkit.spec.nodes import VIRTUAL
from toolkit.spec.testbed import Link, Node, ProviderSettings

Imposer = Literal["netem", "relay", "neither", "unknown"]
"""`netem`: the kernel; `relay`: a program on the node, toolkit/node/cable.py. A node takes the first it can have."""
WORDS: Mapping[Imposer, str] = {
    "netem": "by the kernel (netem)",
    "relay": "by a program on the node (relay), since the kernel has no netem; it is charged to the node's processor",
    "neither": "not to be had: the kernel has neither netem (module sch_netem) nor tun",
    "unknown": "by the kernel (netem), or by a program on the node (relay) where it turns out to have none",
}


def link_settings(link: Link) -> dict[str, str]:
    """What a node's `link` script turns into queueing disciplines; see images/node/files/usr/lib/toolkit/link."""
    netem = []
    if link.delay_s or link.jitter_s:
        netem.append(f"delay {round(link.delay_s * 1e6)}us")
        netem += [f"{round(link.jitter_s * 1e6)}us"] if link.jitter_s else []
    if link.loss:
        netem.append(f"loss {link.loss * 100:.6f}%")
    settings = {
        "TOOLKIT_LINK_RATE": str(link.rate_bps) if link.rate_bps else "",
        "TOOLKIT_LINK_NETEM": " ".join(netem),
    }
    return {name: value for name, value in settings.items() if value}


def imposer() -> Imposer:
    """By what this machine's kernel lets virtual nodes delay and lose what they send and receive."""
    netem, tun = has_netem(), has_tun()
    if netem:
        return "netem"
    if netem is None or tun is None:
        return "unknown"
    return "relay" if tun else "neither"


def forecast(settings: ProviderSettings, nodes: Sequence[Node]) -> str:
    """By what the links of these nodes are going to be impaired, in words; empty where that is no question."""
    impaired = [node.name for node in nodes if node.link.impaired]
    if not impaired or settings.type not in VIRTUAL:
        return ""
    has_own_kernel, is_elsewhere = settings.type == "vm", settings.docker_host is not None
    by: Imposer = "netem" if has_own_kernel else "unknown" if is_elsewhere else imposer()
    return "" if by == "neither" else f"delay, jitter and loss of the links of {', '.join(impaired)}: {WORDS[by]}"
