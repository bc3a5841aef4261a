from __future__ import annotations

import pytest

from toolkit.spec.names import did_you_mean


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
