"""`toolkit model solve --json`: the same document for every shipped net, whatever is asked of it."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from toolkit import paths
from toolkit.cli.model import app
from toolkit.errors import ModelError
from toolkit.model.netfile import load_net

NETS = ("intracloud", "intercloud", "event-handler")
MEANS = {"intracloud": 266.945797, "intercloud": 1653.110315, "event-handler": 13 / 2.088 + 0.5 + 6 / 2.683}


def solve(name, *options):
    found = CliRunner().invoke(
        app, ["solve", str(paths.MODELS / f"{name}.yml"), *options, "--json"], catch_exceptions=False
    )
    return json.loads(found.stdout)


def check(document, name, at=None):
    places = list(load_net(paths.MODELS / f"{name}.yml").places)
    assert document["unit"] == "ms"
    assert document["mean"] > 0 < document["sd"]
    levels = [float(level) for level in document["quantiles"]]
    values = list(document["quantiles"].values())
    assert {0.5, 0.9, 0.95, 0.99, 0.999} <= set(levels)
    assert sorted(levels) == levels
    assert sorted(values) == values
    assert list(document["places"]) == places
    assert at is None or document["at"] == at
    for chances in document["places"].values():
        assert len(chances) == len(document["at"])
        assert all(-1e-9 <= chance <= 1 + 1e-9 for chance in chances)
    assert document["method"] in {"semi-markov", "phases", "simulation"}
    assert 0 <= document["error_bound"] < 1e-4
    assert document["places"][places[0]][0] > 0.99 or document["at"][0] > 0


@pytest.mark.parametrize("name", NETS)
def test_each_shipped_net_has_its_document(name):
    document = solve(name)
    check(document, name)
    assert document["mean"] == pytest.approx(MEANS[name], rel=1e-6)


@pytest.mark.parametrize("name", NETS)
def test_places_are_told_at_the_times_asked_for_and_in_their_order(name):
    mean = MEANS[name]
    at = [round(mean * part, 3) for part in (1.2, 0.1, 0.7)]
    document = solve(name, "--at", ",".join(map(str, at)))
    check(document, name, at)
    alone = solve(name, "--at", str(at[1]))
    for place, chances in document["places"].items():
        assert alone["places"][place] == pytest.approx([chances[1]], abs=1e-9)
    end = list(document["places"].values())[-1]
    assert end[1] < end[2] < end[0]


@pytest.mark.parametrize(("name", "option"), [("intracloud", "N=2"), ("event-handler", "events=2")])
def test_tokens_are_the_parameter_that_the_file_names(name, option):
    document = solve(name, "--tokens", "2", "--at", "10")
    check(document, name, [10])
    assert document["method"] == "phases"
    assert document["params"]["N"] == 2
    assert [m["message"] for m in document["messages"]] == [1, 2]
    same = solve(name, "--set", option, "--at", "10")
    assert same["mean"] == document["mean"] > MEANS[name]
    assert same["places"] == document["places"]


def test_settings_change_the_answer_by_any_of_their_names():
    free = solve("event-handler", "--tokens", "3", "--at", "10")
    tight = solve("event-handler", "--tokens", "3", "--set", "threads=1", "--at", "10")
    check(tight, "event-handler", [10])
    assert tight["params"]["K"] == 1
    assert tight["mean"] > free["mean"]
    assert solve("event-handler", "--tokens", "3", "--set", "K=1", "--at", "10")["mean"] == tight["mean"]


def test_no_tokens_are_nothing_to_wait_for():
    with pytest.raises(ModelError, match="Subscriber == 0 holds from the start"):
        solve("event-handler", "--tokens", "0")


@pytest.mark.parametrize("name", NETS)
def test_a_setting_that_a_net_lacks_is_an_error(name):
    with pytest.raises(ModelError, match="speed"):
        solve(name, "--set", "speed=3")
