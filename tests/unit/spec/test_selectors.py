from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.errors import UsageError
from toolkit.spec.load import load_testbed
from toolkit.spec.selectors import PATTERN, choice_of, pick, select

TEXT = """
groups: {worker: {}}
nodes:
  base: {kind: vm, labels: {rack: a}}
  eh: {kind: pi3, group: worker}
  sub: {kind: pi1, count: 3, group: worker, labels: {rack: b}}
services:
  monitor: {on: base}
  broker: {on: eh}
  publisher: {on: base}
  subscriber: {on: sub}
"""
ALL = ("base", "eh", "sub-1", "sub-2", "sub-3")


@pytest.fixture(scope="module")
def testbed(tmp_path_factory):
    file = tmp_path_factory.mktemp("selectors") / "testbed.yml"
    file.write_text(TEXT)
    return load_testbed(file)


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ("all", ALL),
        ("eh", ("eh",)),
        ("sub", ALL[2:]),
        ("sub-3", ("sub-3",)),
        ("role:broker", ("eh",)),
        ("service:subscriber", ALL[2:]),
        ("kind:pi1", ALL[2:]),
        ("group:worker", ALL[1:]),
        ("provider:container", ALL),
        ("label:rack=b", ALL[2:]),
        ("sub-2,base", ("base", "sub-2")),
        ("all, !sub", ("base", "eh")),
        ("!base", ALL[1:]),
        ("kind:pi1,!sub-2", ("sub-1", "sub-3")),
        ("@failed", ("eh",)),
        ("!@failed", ("base", *ALL[2:])),
    ],
)
def test_picks(testbed, selector, names):
    assert re.fullmatch(PATTERN, selector)
    assert select(testbed, selector, failed=["eh"]) == names


@pytest.mark.parametrize(
    ("selector", "said"),
    [
        ("bas", "did you mean 'base'"),
        ("sub-4", "no node is named 'sub-4'"),
        ("kind:pi4", "no node has kind 'pi4'"),
        ("rol:broker", "nothing is selected by 'rol'; did you mean 'role'"),
        ("label:rack=c", "no node has label 'rack=c'"),
        ("eh,", "'' is not a selector"),
        ("a b", "'a b' is not a selector"),
        ("@faild", "no node is named '@faild'; did you mean '@failed'?"),
        ("sub,!kind:pi1", "'sub,!kind:pi1' matches nothing: what it picks it takes away again"),
    ],
)
def test_says_what_is_wrong_with_a_selector(testbed, selector, said):
    with pytest.raises(UsageError, match=re.escape(said)):
        select(testbed, selector)


TERMS = st.sampled_from(["all", *ALL, "sub", "kind:pi1", "role:broker", "group:worker", "@failed"])


@given(left=TERMS, right=TERMS)
def test_comma_is_union_and_minus_takes_away(testbed, left, right):
    choice = choice_of(testbed, failed=["eh"])

    def picked(*selectors: str) -> set[str]:
        return set(pick(selectors, choice))

    one, other = picked(left), picked(right)
    assert picked(f"{left},{right}") == picked(left, right) == one | other
    assert picked(f"{left},!{right}") == one - other
    assert picked(f"!{right}") == set(ALL) - other
