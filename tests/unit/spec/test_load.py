from __future__ import annotations

import dataclasses
import re
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from toolkit.contract.orders import Arrivals
from toolkit.contract.payloads import Payload
from toolkit.errors import FileInvalidError, UsageError
from toolkit.spec.load import load_testbed
from toolkit.spec.scale import scale_traffic
from toolkit.spec.testbed import Architecture, Health, Image
from toolkit.spec.workload import Reference, Stop

EXAMPLES = Path(__file__).parents[3] / "examples"
SERVICES = """
services:
  ntp: {on: base}
  broker: {on: base}
  publisher: {on: base}
  subscriber: {on: base}
"""
TWO_REGISTRIES = """r1: {role: service-registry, cloud: one, on: a}
  r2: {role: service-registry, cloud: two, on: b}"""


@pytest.fixture
def load(tmp_path):
    def _load(text, **how):
        file = tmp_path / "testbed.yml"
        file.write_text(text)
        return load_testbed(file, **({"environ": {}} | how))

    return _load


def test_the_shortest_file(load):
    testbed = load("nodes: {base: }\n")
    (node,) = testbed.nodes
    assert (node.kind, node.provider, node.cpus, node.memory_bytes) == ("vm", "container", 2, 2**30)
    assert node.link.rate_bps == 10**9


def test_the_quickstart():
    testbed = load_testbed(EXAMPLES / "quickstart" / "testbed.yml")
    assert [node.name for node in testbed.nodes] == ["ntp", "eh", "pub", "sub-1", "sub-2", "mon"]
    assert testbed.node("eh").architecture is Architecture.ARMV7
    assert testbed.node("sub-2").architecture is Architecture.ARMV6
    assert {s.name: s.image.name for s in testbed.services} == {
        "ntp": "clock",
        "monitor": "prometheus",
        "broker": "event-handler",
        "publisher": "client",
        "subscriber": "client",
    }
    assert testbed.service_of_role("subscriber")[0].nodes == ("sub-1", "sub-2")
    assert testbed.service_of_role("broker")[0].settings["mode"] == "direct"
    assert testbed.workloads["quickstart"].messages == 2000
    assert not testbed.twin


def test_scenario_e_has_its_eleven_nodes_and_three_pools():
    testbed = load_testbed(EXAMPLES / "arrowhead" / "event-handler" / "scenario-e" / "testbed.yml")
    assert len(testbed.nodes) == 11
    cells = testbed.experiments["scenario-e"].cells
    assert [cell.name for cell in cells] == ["thread_pool_size=4", "thread_pool_size=32", "thread_pool_size=64"]
    assert [cell.reference[0].figures["max"] for cell in cells] == [96, 49, 450]


@pytest.mark.parametrize(
    ("clouds", "services", "cloud"),
    [
        ("", "", None),
        ("", "service-registry: {on: a}", "local"),
        ("clouds: {hall: {}}", "service-registry: {on: a}", "hall"),
        ("clouds: {hall: {secure: true}}", "service-registry: {on: a}", None),
        ("clouds: {one: {}, two: {}}", TWO_REGISTRIES, None),
        ("clouds: {one: {}, two: {secure: true}}", TWO_REGISTRIES, "one"),
    ],
)
def test_an_event_handler_joins_the_only_cloud_with_a_registry_and_of_its_mode(load, clouds, services, cloud):
    testbed = load(f"nodes: {{a: {{}}, b: {{}}}}\n{clouds}\nservices:\n  broker: {{on: b}}\n  {services}\n")
    broker = testbed.service_of_role("broker")[0]
    assert broker.cloud == cloud
    assert bool(broker.after) == (cloud is not None)


def test_an_event_handler_with_a_certificate_of_its_own_joins_where_the_file_says_so(load):
    text = """
nodes: {a: {}, b: {}}
clouds: {hall: {secure: true}}
secrets: {own: "${env.OWN}"}
services:
  service-registry: {on: a}
  broker: {on: b%s, secrets: {TOOLKIT_EVENT_HANDLER_TLS_CERTIFICATE_FILE: own}}
"""
    assert load(text % "").service_of_role("broker")[0].cloud is None
    assert load(text % ", cloud: hall").service_of_role("broker")[0].cloud == "hall"


class TestPrecedence:
    @pytest.mark.parametrize(
        ("levels", "cpus"),
        [
            ({"defaults": 1}, 1.0),
            ({"defaults": 1, "kind": 3}, 3.0),
            ({"defaults": 1, "kind": 3, "group": 4}, 4.0),
            ({"defaults": 1, "kind": 3, "group": 4, "node": 5}, 5.0),
            ({"defaults": 1, "node": 5}, 5.0),
            ({"group": 4, "kind": 3}, 4.0),
        ],
    )
    def test_node_over_group_over_kind_over_defaults(self, load, levels, cpus):
        def level(name):
            return f"cpus: {levels[name]}" if name in levels else ""

        testbed = load(f"""
defaults: {{{level("defaults")}}}
kinds: {{board: {{{level("kind")}}}}}
groups: {{worker: {{{level("group")}}}}}
nodes: {{n: {{kind: board, group: worker{", " + level("node") if "node" in levels else ""}}}}}
""")
        assert testbed.nodes[0].cpus == cpus

    def test_a_built_in_kind_goes_over_defaults(self, load):
        assert load("defaults: {cpus: 7}\nnodes: {n: {kind: pi1}}").nodes[0].cpus == 0.5

    def test_a_file_may_change_a_built_in_kind(self, load):
        node = load("kinds: {pi1: {memory: 256M}}\nnodes: {n: {kind: pi1}}").nodes[0]
        assert (node.memory_bytes, node.cpus) == (256 * 2**20, 0.5)

    def test_a_kind_may_start_from_another(self, load):
        node = load("kinds: {zero: {like: pi1, memory: 256M}}\nnodes: {n: {kind: zero}}").nodes[0]
        assert (node.kind, node.memory_bytes, node.architecture) == ("zero", 256 * 2**20, Architecture.ARMV6)

    def test_link_and_labels_are_inherited_key_by_key(self, load):
        node = load("""
defaults: {link: {delay: 5ms, loss: 1%}, labels: {a: "1", b: "1"}}
groups: {far: {link: {delay: 50ms}, labels: {b: "2"}}}
nodes: {n: {kind: pi1, group: far, link: {loss: 2%}}}
""").nodes[0]
        assert (node.link.rate_bps, node.link.delay_s, node.link.loss) == (10**8, 0.05, 0.02)
        assert node.labels == {"a": "1", "b": "2"}

    def test_the_kind_itself_comes_from_node_group_or_defaults(self, load):
        text = "defaults: {kind: pi1}\ngroups: {g: {kind: pi3}}\nnodes: {a: {}, b: {group: g}, c: {group: g, kind: vm}}"
        assert [node.kind for node in load(text).nodes] == ["pi1", "pi3", "vm"]

    def test_the_provider_of_the_file_is_the_weakest(self, load):
        testbed = load("provider: vm\ngroups: {c: {provider: container}}\nnodes: {a: {}, b: {group: c}}")
        assert [node.provider for node in testbed.nodes] == ["vm", "container"]
        assert set(testbed.providers) == {"vm", "container"}


class TestAddresses:
    def test_virtual_nodes_are_counted_up_from_ten(self, load):
        testbed = load("network: {subnet: 10.9.0.0/24}\nnodes: {a: {}, b: {count: 2}, c: {}}")
        assert [node.address for node in testbed.nodes] == [f"10.9.0.{n}" for n in (10, 11, 12, 13)]

    def test_appending_nodes_moves_nobody(self, load):
        before = load("name: x\nnodes: {a: {}, b: {count: 2}}")
        after = load("name: x\nnodes: {a: {}, b: {count: 2}, c: {}, d: {count: 9}}")
        assert after.nodes[: len(before.nodes)] == before.nodes

    def test_who_holds_an_address_keeps_it_whoever_comes_before(self, load):
        before = load("network: {subnet: 10.9.0.0/24}\nnodes: {a: {}, b: {count: 2}, c: {}}")
        held = {node.name: node.address for node in before.nodes}
        grown = load("network: {subnet: 10.9.0.0/24}\nnodes: {z: {}, a: {}, b: {count: 4}, c: {}}", held=held)
        addresses = {node.name: node.address for node in grown.nodes}
        assert held.items() <= addresses.items()
        assert len(set(addresses.values())) == len(grown.nodes)
        assert [addresses[name] for name in ("z", "b-3", "b-4")] == ["10.9.0.14", "10.9.0.15", "10.9.0.16"]
        fewer = load("network: {subnet: 10.9.0.0/24}\nnodes: {c: {}}", held=held)
        assert fewer.nodes[0].address == held["c"]

    def test_an_address_that_is_held_gives_way_to_the_file(self, load):
        held = {"a": "10.9.0.10", "b": "10.9.0.11"}
        named = load("network: {subnet: 10.9.0.0/24}\nnodes: {a: {}, b: {}, c: {address: 10.9.0.10}}", held=held)
        assert [node.address for node in named.nodes] == ["10.9.0.12", "10.9.0.11", "10.9.0.10"]
        elsewhere = load("network: {subnet: 10.8.0.0/24}\nnodes: {a: {}, b: {}}", held=held)
        assert [node.address for node in elsewhere.nodes] == ["10.8.0.10", "10.8.0.11"]

    def test_a_given_address_is_kept_and_never_given_twice(self, load):
        testbed = load("network: {subnet: 10.9.0.0/24}\nnodes: {a: {}, b: {address: 10.9.0.11}, c: {}}")
        assert [node.address for node in testbed.nodes] == ["10.9.0.10", "10.9.0.11", "10.9.0.12"]

    def test_the_subnet_follows_the_name(self, load):
        assert load("name: one\nnodes: {a: {}}").subnet == load("name: one\nnodes: {b: {}}").subnet
        assert load("name: one\nnodes: {a: {}}").subnet != load("name: two\nnodes: {a: {}}").subnet
        assert load("name: one\nnodes: {a: {}}").subnet.subnet_of(IPv4Network("10.77.0.0/16"))

    def test_a_range_is_counted_out(self, load):
        testbed = load("provider: ssh\nnodes: {sub: {kind: pi1, addresses: 192.168.60.21-23}}")
        assert [(n.name, n.address) for n in testbed.nodes] == [
            ("sub-1", "192.168.60.21"),
            ("sub-2", "192.168.60.22"),
            ("sub-3", "192.168.60.23"),
        ]

    def test_nodes_of_a_reservation_need_none(self, load):
        testbed = load("providers: {wall: {type: rspec, manifest: m.xml}}\nnodes: {a: {provider: wall}}")
        assert testbed.nodes[0].address is None


class TestTwin:
    def test_a_rack_becomes_virtual_nodes_in_a_subnet_of_its_own(self):
        rack = load_testbed(EXAMPLES / "rack" / "testbed.yml")
        twin = load_testbed(EXAMPLES / "rack" / "testbed.yml", provider="container")
        assert (rack.twin, twin.twin) == (False, True)
        assert {node.provider for node in twin.nodes} == {"container"}
        assert set(twin.providers) == {"container"}
        assert twin.subnet.subnet_of(IPv4Network("10.77.0.0/16"))
        assert twin.nodes[0].address == str(twin.subnet[10])
        assert [(n.name, n.kind, n.architecture) for n in twin.nodes] == [
            (n.name, n.kind, n.architecture) for n in rack.nodes
        ]

    def test_what_is_virtual_already_is_no_twin(self):
        plain = load_testbed(EXAMPLES / "quickstart" / "testbed.yml")
        assert load_testbed(EXAMPLES / "quickstart" / "testbed.yml", provider="container") == plain

    def test_a_file_without_addresses_can_still_be_tried(self, load):
        testbed = load("provider: ssh\nnodes: {a: {}, b: {}}", provider="container")
        assert testbed.twin

    def test_an_unknown_provider_is_a_wrong_command(self, load):
        with pytest.raises(UsageError, match="did you mean 'container'"):
            load("nodes: {a: {}}", provider="contaner")


class TestServices:
    def test_the_role_is_the_name_or_that_of_the_image(self, load):
        testbed = load("""
nodes: {base: {}, other: {}}
images: {filter: {reference: "example/filter:1", platforms: [linux/amd64, linux/arm64]}}
services:
  broker: {on: base}
  second: {on: other, image: mosquitto}
  filter: {on: base, image: filter}
""")
        assert [(s.role, s.image.name) for s in testbed.services] == [
            ("broker", "event-handler"),
            ("broker", "mosquitto"),
            ("filter", "filter"),
        ]
        assert testbed.services[2].image == Image(
            name="filter",
            reference="example/filter:1",
            platforms=frozenset({Architecture.AMD64, Architecture.ARM64}),
        )

    def test_every_key(self, load):
        service = load("""
nodes: {base: {}}
secrets: {key: "${env.KEY}"}
services:
  broker:
    on: base
    settings: {mode: enhanced, thread_pool_size: 4}
    environment: {A: 1, B: true, C: x}
    secrets: {KEY: key}
    command: run --fast "a b"
    ports: [8000]
    capabilities: [NET_ADMIN]
    cpus: 0.5
    memory: 64M
    health: {command: test -e /ok, interval: 500ms, within: 90s}
""").services[0]
        assert service.settings["thread_pool_size"] == 4
        assert service.settings["overflow"] == "block"
        assert service.environment == {"A": "1", "B": "true", "C": "x"}
        assert service.command == ("run", "--fast", "a b")
        assert (service.ports, service.capabilities) == ((8000,), ("NET_ADMIN",))
        assert (service.cpus, service.memory_bytes) == (0.5, 64 * 2**20)
        assert service.health == Health(command=("sh", "-c", "test -e /ok"), interval_s=0.5, within_s=90.0)

    def test_two_brokers_share_a_node_on_two_ports(self, load):
        testbed = load("nodes: {n: {}}\nservices: {broker: {on: n}, b2: {on: n, role: broker, settings: {port: 8000}}}")
        assert [service.ports for service in testbed.services] == [(8454,), (8000,)]

    def test_clients_wait_for_brokers_unless_told_otherwise(self, load):
        testbed = load("nodes: {base: {}}" + SERVICES)
        assert {s.name: s.after for s in testbed.services}["publisher"] == ("broker",)
        told = load(
            "nodes: {base: {}}" + SERVICES.replace("publisher: {on: base", "publisher: {on: base, after: [ntp]")
        )
        assert {s.name: s.after for s in told.services}["publisher"] == ("ntp",)

    def test_several_selectors_are_a_union_in_the_files_order(self, load):
        testbed = load(
            "nodes: {a: {}, b: {kind: pi1, count: 2}, c: {}}\nservices: {ntp: {on: [c, 'kind:pi1', '!b-2']}}"
        )
        assert testbed.services[0].nodes == ("b-1", "c")


class TestWorkloads:
    def test_every_quantity_becomes_a_number(self, load):
        workload = load(
            "nodes: {base: {}}"
            + SERVICES
            + """
workloads:
  w:
    connections: 3
    duration: 10s
    payload: 1K
    arrivals: {kind: ramp, rate: 100/s, to: 5000/s}
    drain: 500ms
    asserts: {lost: "== 0"}
    reference: [{mean: 8.95, max: [20, 32]}]
"""
        ).workloads["w"]
        assert (workload.messages, workload.duration_s, workload.payload_bytes) == (None, 10.0, 1024)
        assert workload.arrivals == Arrivals(kind="ramp", rate_per_s=100.0, to_rate_per_s=5000.0)
        assert workload.reference == (Reference(figures={"mean": 8.95, "max": (20.0, 32.0)}),)

    def test_a_rate_alone_means_a_fixed_rate(self, load):
        text = "nodes: {base: {}}" + SERVICES + "workloads: {w: {arrivals: {rate: 20/s}}}"
        assert load(text).workloads["w"].arrivals == Arrivals(kind="rate", rate_per_s=20.0)

    def test_sizes_are_fixed_uniform_or_counted(self, load):
        text = (
            "nodes: {base: {}}"
            + SERVICES
            + """
workloads:
  a: {payload: {size: 1K, kind: text}}
  b: {payload: {uniform: [64B, 1K]}}
  c: {payload: {empirical: {1K: 1, 64B: 3.5}, kind: zeros}, stop: {after: 5m, backlog: 10}}
"""
        )
        a, b, c = load(text).workloads.values()
        assert (a.payload_bytes, a.payload) == (1024, Payload(kind="text"))
        assert (b.payload_bytes, b.payload) == (1024, Payload(sizes=[64, 1024]))
        assert (c.payload_bytes, c.payload) == (1024, Payload(kind="zeros", sizes=[64, 1024], weights=[3.5, 1.0]))
        assert c.stop == Stop(after_s=300.0, backlog=10)

    def test_subscribers_may_come_in_late(self, load):
        text = "nodes: {base: {}, far: {}}" + SERVICES + "workloads: {w: {join: {JOIN}WITH}}"
        late = load(text.replace("JOIN", "base: 500ms").replace("WITH", "")).workloads["w"]
        assert late.join == {"base": 0.5}
        testbed = load(text.replace("JOIN", "subscriber: 10s").replace("WITH", ""))
        shorter = scale_traffic(testbed, 0.2).workloads["w"]
        assert shorter.join == {"subscriber": 2.0}
        with pytest.raises(FileInvalidError, match="'far' is no service and no node of this workload's subscribers"):
            load(text.replace("JOIN", "far: 1s").replace("WITH", ""))
        with pytest.raises(FileInvalidError, match="unknown how many deliveries are due"):
            load(text.replace("JOIN", "base: 1s").replace("WITH", ", stop: {backlog: 5}"))

    def test_a_trace_may_stand_in_a_file(self, load, tmp_path):
        (tmp_path / "trace.txt").write_text("# seconds\n0\n0.5  # later\n\n1.25\n")
        text = "nodes: {base: {}}" + SERVICES + "workloads: {w: {arrivals: {trace: FILE}}}"
        assert load(text.replace("FILE", "trace.txt")).workloads["w"].arrivals.offsets_ns == [
            0,
            500_000_000,
            1_250_000_000,
        ]
        (tmp_path / "bad.txt").write_text("soon\n")
        for name, words in (("none.txt", "cannot be read"), ("bad.txt", "no number of seconds")):
            with pytest.raises(FileInvalidError, match=words):
                load(text.replace("FILE", name))

    def test_a_trace_is_kept_in_nanoseconds(self, load):
        text = "nodes: {base: {}}" + SERVICES + "workloads: {w: {arrivals: {trace: [0s, 10ms, 0.5s]}}}"
        assert load(text).workloads["w"].arrivals.offsets_ns == [0, 10_000_000, 500_000_000]

    def test_extending_takes_over_and_replaces(self, load):
        workloads = load(
            "nodes: {base: {}}"
            + SERVICES
            + "workloads: {a: {messages: 5, payload: 9K}, b: {extends: a, duration: 1s}, c: {extends: b, payload: 80B}}"
        ).workloads
        assert (workloads["c"].messages, workloads["c"].duration_s, workloads["c"].payload_bytes) == (None, 1.0, 80)


class TestVariables:
    TEXT = """
variables: {pool: 8, who: "${env.WHO}", both: "${who}-${pool}"}
name: bed-${who}
nodes: {base: {cpus: "${cores:-3}", labels: {mark: "$${x} ${both}", unset: "${env.NONE:-nobody}"}}}
services:
  broker:
    on: base
    settings: {thread_pool_size: "${pool}"}
"""

    def test_are_put_in_with_their_type(self, load):
        testbed = load(self.TEXT, environ={"WHO": "ann"})
        assert testbed.name == "bed-ann"
        assert testbed.nodes[0].cpus == 3
        assert testbed.nodes[0].labels == {"mark": "${x} ann-8", "unset": "nobody"}
        assert testbed.services[0].settings["thread_pool_size"] == 8

    def test_a_value_with_signs_of_yaml_stays_one_value(self, load):
        testbed = load('description: "${env.TEXT}"\nnodes: {a: {}}', environ={"TEXT": "a: {b}\nc: d"})
        assert testbed.description == "a: {b}\nc: d"

    def test_can_be_set_from_outside(self, load):
        testbed = load(self.TEXT, environ={"WHO": "ann"}, overrides={"pool": "16"})
        assert testbed.services[0].settings["thread_pool_size"] == 16


class TestOverrides:
    def test_replace_what_the_file_says(self, load):
        testbed = load(
            "nodes: {sub: {kind: pi1, count: 2}}",
            overrides={"nodes.sub.count": "3", "nodes.sub.link": "{delay: 5ms}", "network.subnet": "10.8.0.0/24"},
        )
        assert [n.address for n in testbed.nodes] == ["10.8.0.10", "10.8.0.11", "10.8.0.12"]
        assert testbed.nodes[0].link.delay_s == 0.005

    def test_are_checked_like_the_file_and_blamed_themselves(self, load):
        with pytest.raises(FileInvalidError) as raised:
            load("nodes: {sub: {memory: 1G}}", overrides={"nodes.sub.memory": "lots"})
        (problem,) = raised.value.problems
        assert problem.file == "--set nodes.sub.memory"
        assert "expected a size with its unit" in problem.message

    @pytest.mark.parametrize(("key", "text"), [("nodes.sub.memory.unit", "1"), ("nodes.sub", "{a: [")])
    def test_that_cannot_be_are_a_wrong_command(self, load, key, text):
        with pytest.raises(UsageError, match=f"--set {key}"):
            load("nodes: {sub: {memory: 1G}}", overrides={key: text})

    @pytest.mark.parametrize(
        ("key", "hint"),
        [
            ("nodes.subb.count", "no 'subb' in `nodes`; did you mean 'sub'?"),
            ("services.brker.settings.mode", "did you mean 'broker'?"),
            ("workloads.w.qos", "to add one, write all of it: --set 'workloads.w={…}'"),
        ],
    )
    def test_of_an_entry_that_is_not_there_make_none(self, load, key, hint):
        with pytest.raises(UsageError, match=f"--set {key}: .*{re.escape(hint)}"):
            load("nodes: {sub: {}}\nservices: {broker: {on: sub}}", overrides={key: "1"})

    def test_may_add_what_is_written_whole_and_change_what_is_there_unwritten(self, load):
        overrides = {"nodes.extra": "{kind: pi3}", "kinds.pi3.memory": "2G", "providers.ssh.user": "pi"}
        testbed = load("nodes: {sub: {}}", overrides=overrides)
        assert [(n.name, n.memory_bytes) for n in testbed.nodes] == [("sub", 1 << 30), ("extra", 2 << 30)]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("My Lab/testbed.yml", "my-lab"),
        ("x/scenario_E.yml", "scenario-e"),
        ("x/rack-2.yml", "rack-2"),
        ("x/42.yml", "testbed"),
        ("x/" + "long" * 20 + ".yml", "long" * 10),
    ],
)
def test_a_file_without_a_name_takes_its_own(tmp_path, path, name):
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    file.write_text("nodes: {a: {}}")
    assert load_testbed(file).name == name


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00nodes"])
def test_a_file_that_cannot_be_read_is_said_so(tmp_path, content):
    file = tmp_path / "testbed.yml"
    if content:
        file.write_bytes(content)
    with pytest.raises(FileInvalidError, match=str(file)):
        load_testbed(file)


def test_relative_paths_start_at_the_file(load, tmp_path):
    (tmp_path / "filter").mkdir()
    (tmp_path / "filter" / "Dockerfile").write_text("FROM scratch\n")
    testbed = load("""
provider: lab
providers: {lab: {type: ssh, known_hosts: ./hosts, identity_file: ~/.ssh/key}}
nodes: {base: {kind: host, address: 10.1.2.3}}
images: {filter: {build: filter}}
services: {filter: {on: base, image: filter}}
""")
    assert testbed.providers["lab"].known_hosts == str(tmp_path / "hosts")
    assert testbed.providers["lab"].identity_file == "~/.ssh/key"
    assert testbed.services[0].image.build == str(tmp_path / "filter")


def test_grafana_can_be_left_out(load):
    assert load("nodes: {a: {}}\nmonitoring: {grafana: false}").monitoring.grafana_image is None


@pytest.mark.parametrize("address", ["10.0.0.9:9093", "alerts.lan:9093", "[fd00::9]:65535", "alertmanager:80"])
def test_an_alertmanager_is_a_host_and_a_port(load, address):
    assert load(f'nodes: {{a: {{}}}}\nmonitoring: {{alertmanager: "{address}"}}').monitoring.alertmanager == address


def test_no_alertmanager_is_asked_for_by_itself(load):
    assert load("nodes: {a: {}}").monitoring.alertmanager is None


@pytest.mark.parametrize(
    "address", ["10.0.0.9", "http://alerts:9093", "alerts:0", "alerts:65536", ":9093", "a b:9093", "fd00::9:9093"]
)
def test_an_alertmanager_is_nothing_else(load, address):
    with pytest.raises(FileInvalidError, match=r"monitoring\.alertmanager"):
        load(f'nodes: {{a: {{}}}}\nmonitoring: {{alertmanager: "{address}"}}')


def test_problems_carry_no_values_of_the_environment(load):
    with pytest.raises(FileInvalidError) as raised:
        load("nodes: {a: {}}\nsecrets: {x: hunter2}", environ={"HUNTER": "s3cr3t"})
    assert "hunter2" not in str(raised.value)


def test_entries_know_their_line(load):
    testbed = load("nodes:\n  a: {}\n\n  b: {}\nservices:\n  ntp: {on: a}\n")
    assert [node.line for node in testbed.nodes] == [2, 4]
    assert testbed.services[0].line == 6
    assert dataclasses.replace(testbed.nodes[0], line=99) == testbed.nodes[0]
