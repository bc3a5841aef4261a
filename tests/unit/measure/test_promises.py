"""What a quality of service promised is judged by what the broker granted, never by what was asked of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from oracle import Fate, Message, Oracle
from test_self_test import measured

from toolkit.measure.compute import compute
from toolkit.measure.ledger import Ledger
from toolkit.measure.promises import granted_qos, judge, promise_line
from toolkit.measure.store import RunFolder
from toolkit.report.drops import drop_plots, sum_of_books
from toolkit.report.table import remarks, run_document
from toolkit.report.text import markdown


def run_of(folder: Path, *, lost: int = 0, granted: int) -> RunFolder:
    """400 messages at QoS 2 to two subscribers, of which one was granted this; `lost` of them after their answer."""
    messages = [
        Message(warm_up=seq < 50, fates=[Fate(outcome="lost_in" if seq >= 400 - lost else "delivered"), Fate()])
        for seq in range(400)
    ]
    run = measured(Oracle(messages=[messages], subscribers=2, qos=2), folder)
    document = run.raw / "sub-1" / "subscriber-0.json"
    facts = {"requested_qos": 2, "granted_qos": granted}
    document.write_text(json.dumps(json.loads(document.read_text()) | {"facts": facts}))
    compute(run)
    return run


def test_what_was_granted_names_the_result_and_exactly_once_is_neither_kept_nor_broken(tmp_path: Path) -> None:
    run = run_of(tmp_path, granted=1)
    kpis = run.kpis()
    assert (kpis["qos"], kpis["asked_qos"]) == (1, 2)
    assert kpis["promises"] == {"at_least_once": "kept", "exactly_once": "not applicable"}
    assert kpis["faults"] == ["sub-1/subscriber-0: the broker granted QoS 1 where 2 was asked"]
    document = run_document(run)
    assert "QoS 1 granted, 2 asked: at least once kept, exactly once does not apply" in remarks(document)
    assert "exactly once does not apply" in markdown([document])
    [plot] = drop_plots([("a", kpis["qos"], sum_of_books([{"expected": 1, "dropped": 1}]))])
    assert plot["qos"] == 1


def test_what_was_granted_in_full_is_judged_by_the_books(tmp_path: Path) -> None:
    for lost, said in ((0, "kept"), (7, "broken")):
        kpis = run_of(tmp_path / said, granted=2, lost=lost).kpis()
        assert (kpis["qos"], kpis["asked_qos"], kpis["ledger"]["total"]["dropped"]) == (2, 2, lost)
        assert kpis["promises"] == {"at_least_once": said, "exactly_once": said}
        assert kpis["faults"] == []
    assert promise_line(kpis) == "QoS 2: at least once not kept, exactly once not kept"


@pytest.mark.parametrize(
    ("asked", "granted", "books", "expected"),
    [
        (0, 0, Ledger(dropped=5), {"at_most_once": "kept"}),
        (0, 0, Ledger(duplicates=1), {"at_most_once": "broken"}),
        (1, 1, Ledger(duplicates=3, unconfirmed=2), {"at_least_once": "kept"}),
        (1, 0, Ledger(), {"at_least_once": "not applicable"}),
        (2, 2, Ledger(duplicates=1), {"at_least_once": "kept", "exactly_once": "broken"}),
    ],
)
def test_each_promise_has_its_own_breach(asked: int, granted: int, books: Ledger, expected: dict[str, str]) -> None:
    assert judge(books, asked=asked, granted=granted) == expected


def test_the_weakest_subscriber_decides_and_protocols_that_grant_nothing_do_not() -> None:
    assert granted_qos([{"requested_qos": 2, "granted_qos": 2}, {"requested_qos": 2, "granted_qos": 1}], 2) == 1
    assert granted_qos([{"granted_qos": 0}, {}], 1) == 1
    assert promise_line({}) == ""
