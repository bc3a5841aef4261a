"""What the quality of service that a broker granted promises, and whether a run's books show that it was kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeAlias

from toolkit.measure.ledger import Ledger

Verdict: TypeAlias = Literal["kept", "broken", "not applicable"]
PROMISES: Mapping[str, int] = {"at_most_once": 0, "at_least_once": 1, "exactly_once": 2}
"""Promise -> the QoS that makes it."""
_SAID: Mapping[Verdict, str] = {"kept": "kept", "broken": "not kept", "not applicable": "does not apply"}


def granted_qos(facts: Iterable[Mapping[str, Any]], asked: int) -> int:
    """The lowest QoS that a subscriber was granted; what was asked where the protocol grants none."""
    return min([asked, *(int(each["granted_qos"]) for each in facts if "requested_qos" in each)])


def judge(whole: Ledger, *, asked: int, granted: int) -> dict[str, Verdict]:
    """Each promise that the run asked for; one that nobody made is neither kept nor broken.

    An acknowledged message that never came breaks `at_least_once`, a second copy `at_most_once`; either `exactly_once`.
    """
    lost, doubled = bool(whole.dropped), bool(whole.duplicates)
    broken = {"at_most_once": doubled, "at_least_once": lost, "exactly_once": lost or doubled}
    wanted = [name for name, qos in PROMISES.items() if (qos == 0 if asked == 0 else 0 < qos <= asked)]
    return {
        name: "not applicable" if PROMISES[name] > granted else "broken" if broken[name] else "kept" for name in wanted
    }


def promise_line(kpis: Mapping[str, Any]) -> str:
    """In words, for whoever reads a table; empty for a run that asked for no quality of service."""
    promises: Mapping[str, Verdict] = kpis.get("promises", {})
    if not promises:
        return ""
    granted = f"QoS {kpis['qos']}"
    if kpis["qos"] != kpis["asked_qos"]:
        granted += f" granted, {kpis['asked_qos']} asked"
    return f"{granted}: " + ", ".join(f"{name.replace('_', ' ')} {_SAID[said]}" for name, said in promises.items())
