from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.errors import FileInvalidError
from toolkit.spec import yaml

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on", "on"),
        ("no", "no"),
        ("yes", "yes"),
        ("22:22", "22:22"),
        ("0o17", 15),
        ("017", 17),
        ("0x1F", 31),
        ("1e3", 1000.0),
        ("1_000", "1_000"),
        (".inf", math.inf),
        ("true", True),
        ("True", True),
        ("~", None),
        ("", None),
        ("2026-11-22", "2026-11-22"),
    ],
)
def test_plain_scalars_mean_what_yaml_1_2_says(text, value):
    assert yaml.parse(f"key: {text}\n", "f").root == {"key": value}


def test_quoted_scalars_are_text():
    assert yaml.parse("""{a: "1", b: 'true', c: !!str 5}""", "f").root == {"a": "1", "b": "true", "c": "5"}


@pytest.mark.parametrize("text", ["a: !vault x", "a: !!python/name:os.system x", "a: !!int '5'", "a: !x {b: 1}"])
def test_tags_are_refused(text):
    with pytest.raises(FileInvalidError, match="mean nothing here"):
        yaml.parse(text, "f")


def test_keys_are_text_whatever_they_look_like():
    assert yaml.parse("{1: a, on: b, true: c}", "f").root == {"1": "a", "on": "b", "true": "c"}


def test_knows_where_everything_stands():
    document = yaml.parse("nodes:\n  base: {kind: vm}\n  list:\n    - a\n    - b: 1\n", "f")
    assert document.keys[("nodes", "base", "kind")] == (2, 10)
    assert document.values[("nodes", "base", "kind")] == (2, 16)
    assert document.values[("nodes", "list", 1, "b")] == (5, 10)
    missing = document.problem(("nodes", "base", "memory"), "m")
    assert (missing.line, missing.column) == (2, 3)


def test_reports_every_duplicate_key_with_the_line_of_the_first():
    with pytest.raises(FileInvalidError) as raised:
        yaml.parse("a: 1\nb: {c: 1, c: 2}\na: 2\n", "f")
    assert [(p.line, p.column) for p in raised.value.problems] == [(2, 11), (3, 1)]
    assert "line 1" in raised.value.problems[1].message


def test_an_alias_is_the_same_value():
    assert yaml.parse("a: &x {k: [1]}\nb: *x\n", "f").root["b"] == {"k": [1]}


def test_aliases_of_aliases_are_stopped():
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    with pytest.raises(FileInvalidError, match="enormous"):
        yaml.parse("\n".join(levels), "f")


@pytest.mark.parametrize("text", ["[" * 60 + "]" * 60, "[" * 100_000 + "]" * 100_000])
def test_bottomless_nesting_is_stopped(text):
    with pytest.raises(FileInvalidError, match="nested too deeply"):
        yaml.parse(f"a: {text}", "f")


def test_an_anchor_inside_itself_is_undefined():
    with pytest.raises(FileInvalidError, match="nothing above is marked &x"):
        yaml.parse("a: &x [*x]\n", "f")


def test_takes_what_libyaml_refuses_but_yaml_1_2_allows():
    assert yaml.parse("[::a]", "f").root == ["::a"]


def test_json_is_yaml():
    assert yaml.parse('{"a":[1,{"b":null}],"c":"\\u00e9"}', "f").root == {"a": [1, {"b": None}], "c": "é"}


def test_works_the_same_without_libyaml(monkeypatch):
    text = (ROOT / "examples" / "quickstart" / "testbed.yml").read_text()
    fast = yaml.parse(text, "f")
    monkeypatch.setitem(sys.modules, "yaml", None)
    slow = yaml.parse(text, "f")
    assert (fast.root, fast.keys, fast.values) == (slow.root, slow.keys, slow.values)


def _documents(texts):
    leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts
    return st.dictionaries(
        texts,
        st.recursive(
            leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=20
        ),
    )


@given(value=_documents(st.text(st.characters(exclude_categories=["Cs"]))))
def test_what_is_written_is_read_back(value):
    assert yaml.parse(yaml.write(value) or "{}", "f").root == value


@given(value=_documents(st.text("ab10 :#-'\"\n?é")))
def test_both_parsers_find_the_same_in_the_same_places(value):
    text = yaml.write(value) or "{}"
    fast = yaml.parse(text, "f")
    slow = yaml._Reader("f")
    assert slow.read(iter(yaml._events_of_ruamel(text, "f"))) == fast.root == value
    assert (slow.keys, slow.values) == (fast.keys, fast.values)


def test_text_is_quoted_only_where_in_doubt():
    value = {"a": "arm/v7", "b": "on", "c": "1", "d": "null", "e": "x y", "f": [], "g": {}, "h": {"i": [1, "?0"]}}
    assert yaml.write(value) == ('a: arm/v7\nb: on\nc: "1"\nd: "null"\ne: "x y"\nf: []\ng: {}\nh:\n  i: [1, "?0"]\n')


def test_escapes_of_json_give_one_character():
    assert yaml.parse('a: "\\ud83d\\ude00"', "f").root == {"a": "😀"}
    with pytest.raises(FileInvalidError, match="half a character"):
        yaml.parse('a: "\\ud83d"', "f")


@given(text=st.text(max_size=60))
def test_any_text_is_read_or_refused_with_a_place(text):
    try:
        yaml.parse(text, "f")
    except FileInvalidError as error:
        wrong = [p for p in error.problems if p.line < 1 or p.column < 1]
        assert not wrong
