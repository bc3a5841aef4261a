"""What a run says of a hop probe that missed something or could not see."""

from __future__ import annotations

from toolkit.measure.kpis import counter_problems
from toolkit.measure.ledger import Joined, Ledger
from toolkit.measure.probes import all_seen, blind_spots, missed_some, probe_problems

WHOLE = {"packets": 100, "packets_lost": 0, "gaps": 0, "encrypted_connections": 0, "native_dropped": 3}


def joined(in_broker: int) -> Joined:
    ledger = Ledger(expected=10, delivered=10 - in_broker, dropped=in_broker, lost_in_broker=in_broker)
    return Joined(ledgers={"s": ledger}, messages=10, broker_lost=in_broker)


def test_a_probe_that_saw_everything_says_nothing() -> None:
    counts = [("eh/broker-probe-0", "probe", WHOLE)]
    assert all_seen(counts)
    assert probe_problems(counts) == blind_spots(counts) == []
    assert counter_problems(joined(3), counts, warm_up=0) == []


def test_the_brokers_own_drops_are_held_against_the_books() -> None:
    [problem] = counter_problems(joined(5), [("p", "probe", WHOLE)], warm_up=0)
    assert problem.startswith("the broker counted 3 messages dropped, the books show 5 lost in it; the others may")


def test_missed_packets_are_a_fault_and_the_books_are_then_not_held_against_the_broker() -> None:
    for change in ({"packets_lost": 7}, {"gaps": 2}):
        counts = [("eh/broker-probe-0", "probe", WHOLE | change)]
        assert missed_some(counts[0][2])
        [problem] = counter_problems(joined(5), counts, warm_up=0)
        assert problem.startswith(f"eh/broker-probe-0 missed {change.get('packets_lost', 0)} packets")


def test_tls_is_a_note_not_a_fault() -> None:
    counts = [("eh/broker-probe-0", "probe", WHOLE | {"encrypted_connections": 4})]
    assert counter_problems(joined(5), counts, warm_up=0) == []
    [note] = blind_spots(counts)
    assert "cannot see into TLS (4 connections)" in note
