from __future__ import annotations

import re

import pytest

from toolkit.spec.names import NAME_PATTERN, as_name, did_you_mean


@pytest.mark.parametrize(
    ("name", "candidates", "hint"),
    [
        ("dealy", ["delay", "jitter", "loss"], "; did you mean 'delay'?"),
        ("Broker", ["broker"], "; did you mean 'broker'?"),
        ("zzz", ["b", "a"], "; expected one of a, b"),
        ("zzz", [f"name-{n}" for n in range(40)], ""),
        ("zzz", [], ""),
    ],
)
def test_hint(name, candidates, hint):
    assert did_you_mean(name, candidates) == hint


@pytest.mark.parametrize(
    ("text", "name"),
    [("My Testbed", "my-testbed"), ("Küche_2", "kuche-2"), ("10-lab", "lab"), ("--", ""), ("a" * 39 + "--b", "a" * 39)],
)
def test_the_nearest_text_that_may_be_a_name(text, name):
    assert as_name(text) == name
    assert not name or re.fullmatch(NAME_PATTERN, name)
