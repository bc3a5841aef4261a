"""Subscribers that share their messages: each message is due once to all of them together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from oracle import Fate, Message, Oracle
from test_join import measure

from toolkit.measure.layout import Subscriber, Terms


def shared(messages: int) -> tuple[Oracle, dict[str, int]]:
    """Each message goes to one of three members; some to nobody, some again, to the same member or to another one."""
    rng = np.random.default_rng(5)
    found = {"delivered": 0, "dropped": 0, "duplicates": 0}
    sent = []
    for _ in range(messages):
        fates = [Fate(outcome="lost_in", delay_ns=(10_000, int(rng.integers(1, 10**6)))) for _ in range(3)]
        takers = rng.choice(3, size=int(rng.choice([0, 1, 2], p=[0.1, 0.8, 0.1])), replace=False)
        for taker in takers:
            fates[taker].outcome = "delivered"
            fates[taker].copies = int(rng.choice([1, 2], p=[0.9, 0.1]))
        copies = sum(fates[taker].copies for taker in takers)
        found["delivered" if copies else "dropped"] += 1
        found["duplicates"] += max(copies - 1, 0)
        sent.append(Message(fates=fates))
    oracle = Oracle(messages=[sent], subscribers=3)
    first = oracle.subscriptions[0]
    members = [[each.process, each.connection] for each in oracle.subscriptions]
    document = {"name": "all", "process": first.process, "connection": 0, "topics": sorted(first.topics)}
    oracle.subscriptions = [Subscriber.of(document | {"members": members})]
    return oracle, found


def test_what_one_of_them_got_all_of_them_got(tmp_path: Path) -> None:
    oracle, found = shared(2000)
    joined = measure(oracle, tmp_path)
    [ledger] = joined.ledgers.values()
    assert ledger.expected == 2000
    assert {name: getattr(ledger, name) for name in found} == found
    assert ledger.lost_in_broker == found["dropped"]
    assert joined.unmatched_flows == 0
    assert ledger.closes


def test_what_a_dead_member_may_have_got_is_not_lost(tmp_path: Path) -> None:
    oracle, found = shared(500)
    from oracle import START_NS, TIMEOUT_NS

    died = Terms(loss_timeout_ns=TIMEOUT_NS, settle_ns=0, watched_until_ns={"sub-1/subscriber-0": START_NS})
    [ledger] = measure(oracle, tmp_path, terms=died).ledgers.values()
    assert (ledger.dropped, ledger.in_flight) in {(0, found["dropped"]), (1, found["dropped"] - 1)}
    assert ledger.delivered == found["delivered"]
