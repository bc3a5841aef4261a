"""Deploy for real: virtual nodes, changes that touch only what differs, faults that are named, nothing left."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.lab import Lab, Ran, deployed, docker
from tests.waiting import until
from toolkit import engine

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]

TESTBED = """\
name: NAME
nodes:
  sub: {kind: pi1, count: 1} # first, so that one more would move all others if nodes did not keep their addresses
  base: {kind: vm}
  eh: {kind: pi3}
  pub: {kind: vm}
services:
  ntp: {on: base}
  monitor: {on: base}
  broker: {on: eh, settings: {queue_limit: 1000}}
  publisher: {on: pub}
  subscriber: {on: sub}
workloads:
  few: {messages: 300, asserts: {lost: "== 0"}}
  impossible: {messages: 50, asserts: {lost: "> 0"}}
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A deployed testbed that the tests of this module change one after the other."""
    with deployed(tmp_path_factory.mktemp("lab"), "test-deploy", TESTBED) as made:
        yield made


def ids(lab: Lab, nodes: str = "all") -> dict[str, set[str]]:
    """Node -> identities of the containers that run there."""
    listed = lab.run("exec", nodes, "--json", "--", "docker", "ps", "-q", "--no-trunc").document
    return {node: set(told["stdout"].split()) for node, told in listed.items()}


def test_every_node_is_up_and_its_services_are_healthy(lab: Lab) -> None:
    nodes = lab.status()
    assert {name: node["state"] for name, node in nodes.items()} == dict.fromkeys(("base", "eh", "pub", "sub-1"), "up")
    assert set(nodes["base"]["services"]) == {"clock", "node-exporter", "prometheus", "hop-exporter"}
    assert all(node["clock"]["shared"] for node in nodes.values())
    lab.run("verify")
    logged = [json.loads(line) for line in lab.run("logs", "eh", "-s", "broker", "--json").stdout.splitlines()]
    assert {(line["node"], line["service"]) for line in logged} == {("eh", "broker")}


def test_again_changes_nothing_and_says_so(lab: Lab) -> None:
    before = ids(lab)
    assert lab.run("deploy", "--json").document["changed"] is False
    assert lab.run("plan", "--detailed-exitcode").stdout.startswith("nothing to do")
    assert ids(lab) == before
    assert set(before) == {"base", "eh", "pub", "sub-1"}


def test_a_run_prints_every_hop_and_leaves_a_sealed_folder(lab: Lab) -> None:
    document = lab.run("run", "few", "--json").document
    hops = document["hops"]
    assert set(hops) == {"publish", "broker", "deliver", "end_to_end"}
    assert hops["end_to_end"]["count"] == 300
    assert hops["end_to_end"]["lost"] == 0
    assert 0 < hops["publish"]["p50_ms"] < hops["end_to_end"]["p50_ms"] < 1000
    lab.run("results", "verify", "latest")
    assert lab.run("results", "show", "latest", "--json").document["hops"] == hops
    manifest = json.loads((Path(document["path"]) / "manifest.json").read_text())
    assert manifest["images"] == {
        name: {service: seen["image"] for service, seen in node["services"].items()}
        for name, node in lab.status().items()
    }


def test_a_kpi_that_does_not_hold_is_exit_7_and_its_run_is_kept(lab: Lab) -> None:
    ran = lab.run("run", "impossible", expect=7)
    assert "lost" in ran.stderr
    assert "> 0" in ran.stderr
    assert lab.run("results", "show", "latest", "--json").document["hops"]["end_to_end"]["count"] == 50


def test_two_more_subscribers_touch_nothing_else(lab: Lab) -> None:
    before = ids(lab)
    lab.edit("count: 1", "count: 2")
    planned = lab.run("plan", "--json").document["actions"]
    assert {action["node"] for action in planned} == {"sub-2", "base"}  # Prometheus gets a target more, and goes on
    lab.run("plan", "--detailed-exitcode", expect=10)
    lab.run("deploy")
    assert {node: held for node, held in ids(lab).items() if node != "sub-2"} == before
    assert lab.status()["sub-2"]["state"] == "up"


def test_one_changed_setting_replaces_one_container(lab: Lab) -> None:
    before = ids(lab)
    lab.edit("queue_limit: 1000", "queue_limit: 2000")
    planned = lab.run("plan", "--json").document["actions"]
    assert [(a["verb"], a["node"], a["name"]) for a in planned] == [("replace", "eh", "broker")]
    lab.run("deploy")
    after = ids(lab)
    assert len(before.pop("eh") & after.pop("eh")) == 2
    assert after == before


def test_what_exec_began_ends_with_an_interrupt(lab: Lab) -> None:
    sought = ["--", "pgrep", "-x", "-c", "sleep"]
    began = [
        lab.start("exec", "role:broker,role:subscriber", *line)
        for line in (["--", "sleep", "600"], ["sleep 600 | cat"])
    ]

    def counts() -> set[str]:
        told = lab.run("exec", "role:broker,role:subscriber", "--json", *sought, expect=None).document
        return {node["stdout"].strip() for node in told.values()}

    until(lambda: counts() == {"2"}, instead=counts)
    for process in began:
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=30) == ("", "interrupted\n")
        assert process.returncode == 130
    until(lambda: counts() == {"0"}, instead=counts)


def test_a_killed_service_is_seen_and_mended(lab: Lab) -> None:
    lab.run("exec", "eh", "--", "docker", "rm", "-f", f"toolkit-{lab.name}-broker")
    assert "broker" not in lab.status()["eh"]["services"]
    refused = lab.run("verify", "--gate", "health", expect=6)
    assert "node eh: broker is missing" in refused.stderr
    assert lab.run("deploy", "--json").document["changed"] is True
    lab.run("verify")


def test_the_broker_moves_to_another_node_and_another_kind(lab: Lab) -> None:
    lab.edit("broker: {on: eh, settings: {queue_limit: 2000}}", "broker: {on: pub, image: mosquitto}")
    lab.run("deploy")
    nodes = lab.status()
    assert {"broker", "broker-probe"} <= set(nodes["pub"]["services"])
    assert "broker" not in nodes["eh"]["services"]
    hops = lab.run("run", "few", "--json").document["hops"]
    assert hops["end_to_end"]["count"] == 600
    assert hops["broker"]["count"] > 0


def test_a_node_that_left_the_file_is_removed(lab: Lab) -> None:
    lab.edit("count: 2", "count: 1")
    lab.run("deploy")
    assert lab.node("sub-2") not in " ".join(lab.left())


def test_the_second_of_two_deploys_is_told_who_holds_the_lock(lab: Lab) -> None:
    lab.edit("image: mosquitto", "image: event-handler")
    first = lab.start("deploy")
    until(lambda: lab.locked)
    second = lab.run("deploy", expect=9)
    assert f"process {first.pid}" in second.stderr
    stdout, stderr = first.communicate(timeout=300)
    assert first.returncode == 0, stdout + stderr


def test_a_full_disk_is_named_with_its_node_and_the_others_go_on(lab: Lab) -> None:
    root = f"/var/lib/toolkit/{lab.name}"
    docker(
        "exec",
        lab.node("sub-1"),
        "sh",
        "-c",
        f"mount -t tmpfs -o size=4k tmpfs {root} && head -c 9000 /dev/zero > {root}/full || true",
    )
    try:
        ran = lab.run("deploy", expect=5)
        assert "sub-1" in ran.stderr
        assert "No space left" in ran.stderr
    finally:
        docker("exec", lab.node("sub-1"), "umount", "-l", root)
    lab.run("deploy")


def test_an_image_that_ends_at_once_is_named_with_its_last_words(lab: Lab) -> None:
    docker_import = 'FROM toolkit/base:bookworm-amd64\nENTRYPOINT ["sh", "-c", "echo no licence found >&2; exit 3"]\n'
    subprocess.run(
        ["docker", "build", "-q", "-t", "toolkit-test/broken:1", "-"],
        input=docker_import,
        text=True,
        check=True,
        capture_output=True,
    )
    before = lab.file.read_text()
    lab.edit(
        "workloads:",
        "  extra: {on: eh, role: extra, image: broken}\nimages:\n  broken: {reference: 'toolkit-test/broken:1', "
        "platforms: [linux/amd64, linux/arm64, linux/arm/v7, linux/arm/v6]}\nworkloads:",
    )
    ran = lab.run("deploy", expect=None)
    lab.file.write_text(before)
    lab.run("deploy")
    docker("rmi", "toolkit-test/broken:1")
    assert ran.code == 5
    assert "extra" in ran.stderr
    assert "no licence found" in ran.stderr


def test_a_node_killed_in_the_middle_is_reported_and_comes_back(lab: Lab) -> None:
    lab.run("exec", "all", "--", "sh", "-c", "docker rm -f $(docker ps -q --filter label=org.toolkit.service=clock)")
    process = lab.start("deploy", "--json")
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line).get("stage") == "provision":
            docker("kill", lab.node("pub"))
            break
    rest, stderr = process.communicate(timeout=300)
    assert process.returncode == 5, rest + stderr
    assert "node pub" in stderr
    lab.run("deploy")
    assert lab.status()["pub"]["state"] == "up"


def test_a_machine_that_was_switched_off_is_named_and_switched_on(lab: Lab) -> None:
    docker("stop", "--time", "1", lab.node("pub"))
    (action,) = lab.run("plan", "--json").document["actions"]
    assert (action["verb"], action["subject"], action["node"]) == ("update", "node", "pub")
    assert lab.run("deploy", "--json").document["changed"] is True


@pytest.fixture(scope="module")
def deploy_s(lab: Lab) -> float:
    """How long a deploy from nothing takes here."""
    lab.run("teardown")
    started = time.monotonic()
    lab.run("deploy")
    return time.monotonic() - started


def interrupted_deploy(lab: Lab, deploy_s: float, how: signal.Signals = signal.SIGINT) -> Ran:
    """A deploy from nothing, cut off anywhere; sooner where it was over before."""
    within_s = 0.7 * deploy_s
    while True:
        lab.run("teardown")
        ended = lab.interrupt(lab.start("deploy"), after_s=random.uniform(0.0, within_s), how=how)
        if not ended.over or ended.code != 0:
            return ended
        within_s *= 0.7


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_deploy_interrupted_anywhere_can_be_repeated(lab: Lab, deploy_s: float, how: signal.Signals) -> None:
    ended = interrupted_deploy(lab, deploy_s, how)
    assert ended.code == (-how if how == signal.SIGKILL else 130), ended
    assert ("the state is saved" in ended.stderr) == (how != signal.SIGKILL)
    lab.run("deploy")
    lab.run("verify")


def test_an_interrupted_deploy_can_be_torn_down(lab: Lab, deploy_s: float) -> None:
    ended = interrupted_deploy(lab, deploy_s)
    assert ended.code == 130, ended
    ended = lab.interrupt(lab.start("teardown"), after_s=random.uniform(0.0, 1.0), how=signal.SIGTERM)
    assert ended.code in {0, 130}, ended
    lab.run("teardown")
    assert lab.left() == []
    assert {entry.name for entry in (lab.home / lab.name).glob("*")} <= {"runs"}
    assert lab.run("teardown", "--json").document[0]["removed"] == []
    lab.run("deploy")


def test_redeploy_checks_the_file_before_it_removes_anything(lab: Lab) -> None:
    before = lab.left()
    text = lab.file.read_text()
    lab.edit("kind: pi3", "kind: pi33")
    assert "did you mean 'pi3'" in lab.run("redeploy", expect=3).stderr
    assert lab.left() == before
    lab.file.write_text(text.replace("workloads:", "secrets: {never: {vault: none.yml}}\nworkloads:"))
    assert "there is no file none.yml" in lab.run("redeploy", expect=3).stderr
    assert lab.left() == before
    lab.file.write_text(text)
    would = lab.run("redeploy", "--dry-run").stdout
    assert f"would remove container {lab.node('eh')}" in would
    assert "create service broker on " in would
    assert lab.left() == before
    lab.run("redeploy")
    lab.run("verify")


def test_nodes_of_a_provider_that_left_the_file_do_not_stay(lab: Lab) -> None:
    text = lab.file.read_text()
    nobody = f"127.0.0.1, architecture: {engine.architecture()}"  # nothing there answers SSH to a key that is not there
    lab.write(f"name: NAME\nprovider: ssh\nproviders: {{ssh: {{port: 9}}}}\nnodes: {{eh: {{address: {nobody}}}}}\n")
    ran = lab.run("deploy", expect=4)
    assert "node eh" in ran.stderr
    assert not [left for left in lab.left() if left.startswith("container")]
    lab.run("teardown")
    assert lab.left() == []
    lab.file.write_text(text)
    lab.run("deploy")


def test_the_inventory_works_with_ansible_itself(lab: Lab, tmp_path: Path) -> None:
    script = lab.run("inventory", "--script").stdout.strip()
    program = Path(sys.executable).with_name("ansible")
    ran = subprocess.run(
        [program, "role_broker", "-i", script, "-m", "ping"], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert '"ping": "pong"' in ran.stdout


def test_what_was_left_by_hand_is_listed_and_never_hidden(lab: Lab) -> None:
    docker(
        "run",
        "-d",
        "--name",
        "test-by-hand",
        "--network",
        f"toolkit-{lab.name}",
        "toolkit/base:bookworm-amd64",
        "sleep",
        "300",
    )
    try:
        ran = lab.run("teardown", expect=8)
        assert f"network toolkit-{lab.name}: used by container test-by-hand" in ran.stderr
    finally:
        docker("rm", "-f", "test-by-hand")
    lab.run("teardown")
    assert lab.left() == []
