"""Pass what a bridge of ours carries between its machines: the host's firewall may drop it, as Docker's default does.

A packet that stays on a bridge meets the FORWARD chain where `br_netfilter` is loaded, and Docker sets its policy to
DROP. So each bridge gets one rule, marked with its testbed, and the rule goes with the bridge.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess

from toolkit.errors import UnreachableError

MARK = "org.toolkit.testbed="
_RULE = re.compile(rf'-A FORWARD -i (\S+) -o \1 -m comment --comment "?{MARK}([^\s"]+)"? -j ACCEPT')


def pass_within(bridge: str, testbed: str) -> None:
    """Have the bridge's own traffic accepted; again changes nothing. Raises UnreachableError where it is refused."""
    if shutil.which("iptables") and bridge not in passed_bridges(testbed):
        _change("-I", bridge, testbed)


def passed_bridges(testbed: str) -> list[str]:
    """Bridges of the testbed with a rule; none where the rules may not be read."""
    if not shutil.which("iptables"):
        return []
    listed = _iptables("-S", "FORWARD")
    return [bridge for bridge, owner in _RULE.findall(listed.stdout) if owner == testbed]


def remove_rule(bridge: str, testbed: str) -> None:
    """Take the rule of that bridge away."""
    _change("-D", bridge, testbed)


def _change(how: str, bridge: str, testbed: str) -> None:
    rule = ("-i", bridge, "-o", bridge, "-m", "comment", "--comment", f"{MARK}{testbed}", "-j", "ACCEPT")
    done = _iptables(how, "FORWARD", *rule)
    if done.returncode != 0:
        raise UnreachableError(f"iptables {how} FORWARD {' '.join(rule)} failed: {done.stderr.strip()}")


def _iptables(*arguments: str) -> subprocess.CompletedProcess[str]:
    as_root = ["sudo", "-n"] if os.geteuid() != 0 else []
    return subprocess.run([*as_root, "iptables", *arguments], capture_output=True, text=True, check=False)
