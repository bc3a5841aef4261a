"""Any valid file, resolved and written out again, loads to an equal testbed; and the stronger layer always wins."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from toolkit.spec.dump import dump_testbed
from toolkit.spec.load import load_testbed
from toolkit.spec.services import CLOUD_ROLES
from toolkit.spec.settings import SETTINGS
from toolkit.spec.variables import escaped

EXAMPLES = sorted((Path(__file__).parents[3] / "examples").rglob("testbed.yml"))
NAMES = st.sampled_from(["base", "eh", "pub", "sub", "edge", "n1", "a-b"])
DURATIONS = st.builds("{}{}".format, st.integers(1, 999), st.sampled_from(["us", "ms", "s"]))
SIZES = st.builds("{}{}".format, st.integers(600, 4096), st.sampled_from(["M"]))
RATES = st.builds("{}{}".format, st.integers(1, 999), st.sampled_from(["kbit", "mbit"]))
SHARES = st.builds("{}%".format, st.decimals(0, 100, places=3))
TEXTS = st.just("$${x} ${y} $$${") | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def entries(**parts):
    return st.fixed_dictionaries({}, optional=parts)


LINKS = st.builds(
    lambda link, jitter: link | ({"jitter": f"{jitter}us", "delay": "1ms"} if jitter else {}),
    entries(rate=RATES, delay=DURATIONS, loss=SHARES),
    st.integers(0, 1000),
)
INHERITED = {
    "architecture": st.sampled_from(["amd64", "arm64", "arm/v7", "arm/v6"]),
    "cpus": st.floats(0.05, 64, allow_nan=False),
    "memory": SIZES,
    "link": LINKS,
    "labels": st.dictionaries(st.text("abc", min_size=1, max_size=3), TEXTS, max_size=2),
}
KINDS = st.sampled_from(["pi1", "pi3", "pi4", "vm", "host", "own"])
NODES = entries(
    **INHERITED,
    kind=KINDS,
    group=st.just("worker"),
    count=st.integers(1, 4),
    provider=st.sampled_from(["vm", "container"]),
)
HEALTH = entries(command=st.one_of(st.just("test -e /ok"), st.just(["true"])), interval=DURATIONS, within=DURATIONS)
BROKER = entries(
    settings=entries(
        mode=st.sampled_from(["direct", "enhanced", "original"]),
        thread_pool_size=st.integers(0, 64),
        overflow=st.sampled_from(["block", "drop-oldest", "disconnect"]),
        drain=DURATIONS,
    ),
    environment=st.dictionaries(st.sampled_from(["A", "B_C"]), st.one_of(TEXTS, st.integers(), st.booleans())),
    command=st.lists(TEXTS.filter(bool), max_size=2),
    ports=st.just([7000]),
    capabilities=st.just(["NET_ADMIN"]),
    memory=st.just("16M"),
    health=HEALTH,
    after=st.just(["ntp"]),
)
ARRIVALS = st.one_of(
    st.just("closed"),
    st.fixed_dictionaries({"rate": st.sampled_from(["10/s", "0.1/s", "33.3/m"])}),
    st.just({"kind": "burst", "rate": "5/s", "burst": 10}),
    st.just({"kind": "step", "rate": "5/s", "to": "9/s", "step": "10s"}),
    st.fixed_dictionaries({"trace": st.lists(DURATIONS, max_size=3)}),
)
WORKLOADS = entries(
    messages=st.integers(1, 10**6),
    payload=st.one_of(
        st.builds("{}B".format, st.integers(40, 10**6)),
        st.just({"uniform": ["64B", "1K"]}),
        st.just({"empirical": {"64B": 1, "1.5K": 0.5}, "kind": "text"}),
    ),
    stop=st.just({"after": "90s"}),
    disturb=st.just([{"at": "1s", "restart": "broker"}, {"at": "3s", "pause": "publisher", "lasts": "500ms"}]),
    arrivals=ARRIVALS,
    qos=st.integers(0, 2),
    drain=DURATIONS,
    warmup=st.integers(0, 10),
    seed=st.integers(0, 2**40),
    asserts=st.just({"lost": "== 0"}),
    reference=st.just([{"hop": "deliver", "mean": 8.95, "max": [1, 3.5]}]),
    options=st.just({"tls": False, "interfaces": ["on", "1"], "dead_after_s": 0.5}),
)

EXPERIMENTS = entries(
    workload=st.just("w"),
    description=TEXTS,
    vary=entries(
        **{
            "qos": st.just([0, 1]),
            "payload": st.just(["40B", "1.5K"]),
            "arrivals": st.just(["closed", {"rate": "7/m"}]),
            "kinds.own.cpus": st.just([1, 2]),
        }
    ),
    points=st.just([{"label": "x", "options.flags": {"on": True}}, {"services.broker.settings.mode": "direct"}]),
    repeat=st.integers(1, 9),
    order=st.just("listed"),
    seed=st.integers(0, 9),
    reference=st.just([{"source": "a", "mean": 3}]),
)


@st.composite
def files(draw):
    nodes = draw(st.dictionaries(NAMES, st.one_of(st.none(), NODES), min_size=1, max_size=5))
    place = draw(st.sampled_from(sorted(nodes)))
    one = f"{place}-1" if ((nodes[place] or {}).get("count", 1)) > 1 else place
    return {
        "name": draw(st.sampled_from(["a", "bed-1"])),
        "description": draw(TEXTS),
        "defaults": draw(entries(**INHERITED)),
        "kinds": {"own": draw(entries(**INHERITED, like=st.sampled_from(["pi1", "host"])))},
        "groups": {"worker": draw(entries(**INHERITED, kind=KINDS))},
        "nodes": nodes,
        "services": {
            "ntp": {"on": one},
            "broker": {"on": one} | draw(BROKER),
            "publisher": {"on": "all", "secrets": {"KEY": "key"}},
            "subscriber": {"on": place},
        },
        "workloads": draw(st.dictionaries(st.sampled_from(["w", "v"]), WORKLOADS)) | {"w": draw(WORKLOADS)},
        "experiments": draw(st.dictionaries(st.just("w"), EXPERIMENTS)),
        "secrets": {"key": "${env.KEY}"},
        "clock": draw(entries(max_offset=DURATIONS, within=DURATIONS)),
        "monitoring": draw(
            entries(
                scrape_interval=DURATIONS,
                grafana=st.one_of(st.just(False), st.just("grafana:1")),
                alertmanager=st.just("alerts.lan:9093"),
            )
        ),
    }


def without_a_loose_jitter(file):
    """Layers may give a jitter to a delay that another layer makes smaller; that is not what is tried here."""
    for layer in (
        file["defaults"],
        file["kinds"]["own"],
        file["groups"]["worker"],
        *filter(None, file["nodes"].values()),
    ):
        layer.get("link", {}).pop("jitter", None)
    return file


def load(document, **how):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "testbed.yml"
        if not isinstance(document, str):
            document = json.dumps(
                {key: value if key == "secrets" else escaped(value) for key, value in document.items()}
            )
        path.write_text(document)
        return load_testbed(path, environ={}, **how)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(file=files().map(without_a_loose_jitter))
def test_any_valid_file_comes_back_equal(file):
    testbed = load(file)
    text = dump_testbed(testbed)
    again = load(text)
    assert again == testbed
    assert dump_testbed(again) == text


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(file=files().map(without_a_loose_jitter))
def test_a_twin_comes_back_a_twin(file):
    testbed = load(file | {"provider": "vm"}, provider="container")
    assert load(dump_testbed(testbed)) == testbed
    assert len({node.address for node in testbed.nodes}) == len(testbed.nodes)
    assert all(node.address in map(str, testbed.subnet.hosts()) for node in testbed.nodes)


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.parent.name)
@pytest.mark.parametrize("provider", [None, "container"])
def test_every_example_comes_back_equal(file, provider, tmp_path):
    testbed = load_testbed(file, provider=provider, environ={})
    written = tmp_path / "testbed.yml"
    written.write_text(dump_testbed(testbed))
    assert load_testbed(written, environ={}) == testbed


def test_all_settings_with_a_default_are_written_out():
    file = {"nodes": {"n": {"count": len(SETTINGS)}}, "services": {}}
    for index, key in enumerate(SETTINGS, 1):
        image, _, role = key.partition(":")
        file["services"][role or image] = {"on": "n-1" if role else f"n-{index}", "image": image}
    for service in load(file).services:
        kind = SETTINGS.get(service.image.name) or SETTINGS[f"{service.image.name}:{service.role}"]
        fields = TypeAdapter(kind).json_schema()["properties"]
        assert set(service.settings) == {name for name, field in fields.items() if "default" in field}


def test_clouds_come_back_equal():
    system = {"name": "far", "address": "192.0.2.1", "port": 8080}
    file = {
        "name": "clouds",
        "nodes": {"n": {}, "db": {}},
        "clouds": {
            "a": {
                "operator": "Op", "database": "database", "version": "4.1.2", "filler_entries": 60, "systems": [system],
                "definitions": {"Heat": ["JSON"]}, "intracloud": [], "secure": True,
                "intercloud": [{"cloud": "theirs", "services": ["IndoorTemperature"]}],
                "entries": [{"service": "Light", "provider": system, "metadata": {"unit": "lux"}, "version": 2}],
                "store": [{"consumer": "consumer", "service": "Light", "provider": "provider", "priority": 1}],
            },
            "theirs": {"address": "192.0.2.9", "secure": True},
            "empty-rules": {"neighbours": [], "intercloud": []},
        },
        "services": {
            "database": {"on": "db"},
            **{role: {"on": "n", "cloud": "a"} for role in CLOUD_ROLES},
            "registry": {"role": "service-registry", "on": "n", "cloud": "empty-rules"},
        },
        "workloads": {
            "ask": {"consumers": "consumer", "messages": 2000},
            "other": {"extends": "ask", "duration": "3s"},
        },
    }  # fmt: skip
    assert load(file).clouds["theirs"].port == 8447
    assert load(file).clouds["a"].neighbours == ("theirs",)
    text = dump_testbed(load(file))
    assert load(text) == load(file)
    assert dump_testbed(load(text)) == text


LAYERS = ("defaults", "kind", "group", "node")
VALUES = {
    "cpus": st.integers(1, 60),
    "memory": st.integers(600, 4000),
    "delay": st.integers(1, 99),
    "label": st.integers(),
}


@settings(max_examples=60, deadline=None)
@given(layers=st.fixed_dictionaries({layer: entries(**VALUES) for layer in LAYERS}))
def test_the_strongest_layer_that_speaks_wins(layers):
    def written(layer):
        said = layers[layer]
        return {
            **({"cpus": said["cpus"]} if "cpus" in said else {}),
            **({"memory": f"{said['memory']}M"} if "memory" in said else {}),
            **({"link": {"delay": f"{said['delay']}ms"}} if "delay" in said else {}),
            **({"labels": {"mark": str(said["label"])}} if "label" in said else {}),
        }

    (node,) = load(
        {
            "defaults": written("defaults"),
            "kinds": {"own": written("kind")},
            "groups": {"g": written("group")},
            "nodes": {"n": {"kind": "own", "group": "g", **written("node")}},
        }
    ).nodes
    strongest = {key: next((layers[la][key] for la in reversed(LAYERS) if key in layers[la]), None) for key in VALUES}
    assert node.cpus == strongest["cpus"]
    assert node.memory_bytes == (strongest["memory"] * 2**20 if strongest["memory"] else None)
    assert node.link.delay_s == pytest.approx((strongest["delay"] or 0) / 1000)
    assert node.labels == ({"mark": str(strongest["label"])} if strongest["label"] is not None else {})


@settings(max_examples=30, deadline=None)
@given(counts=st.lists(st.integers(1, 5), min_size=1, max_size=6), more=st.lists(st.integers(1, 5), max_size=4))
def test_appended_nodes_move_nobody(counts, more):
    def nodes(numbers):
        return load({"name": "x", "nodes": {f"n{i}": {"count": count} for i, count in enumerate(numbers)}}).nodes

    before = nodes(counts)
    assert nodes(counts + more)[: len(before)] == before


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    file=files(),
    key=st.sampled_from(["nodes", "services", "workloads", "clock", "defaults"]),
    junk=st.one_of(st.none(), st.integers(), TEXTS, st.lists(st.integers())),
)
def test_junk_anywhere_ends_in_problems_or_a_testbed(file, key, junk):
    from toolkit.errors import FileInvalidError

    for broken in (file | {key: junk}, file | {key: {"x": junk}}, file | {key: {"x": {"on": junk, "kind": junk}}}):
        try:
            load(broken)
        except FileInvalidError as error:
            assert error.problems  # noqa: PT017 - either way out is right
