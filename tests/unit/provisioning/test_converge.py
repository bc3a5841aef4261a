"""The converge module against an engine in memory: what it changes, and that a second time changes nothing."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.toolkit_engine import Engine, EngineError
from ansible.module_utils.toolkit_look import look
from ansible.module_utils.toolkit_node import clear, converge
from ansible.module_utils.toolkit_report import NodeError, Report
from engine_daemon import EngineDaemon

from toolkit.contract.bundle import Bundle, BundleFile, Container

REGISTRY = "127.0.0.1:5000"


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[EngineDaemon]:
    daemon = EngineDaemon(tmp_path / "docker.sock")
    daemon.add_image("toolkit/client:aa", "aa")
    daemon.add_image("toolkit/clock:bb", "bb")
    yield daemon
    daemon.close()


def container(service: str, **values: Any) -> Container:
    return Container(
        **{
            "name": f"toolkit-x-{service}",
            "service": service,
            "role": service,
            "image": "toolkit/client:aa",
            "content": "aa",
            **values,
        }
    )


def bundle(tmp_path: Path, *containers: Container, files: tuple[BundleFile, ...] = ()) -> Bundle:
    return Bundle(testbed="x", node="n1", root=str(tmp_path / "toolkit/x"), files=files, containers=containers)


def bring(engine: EngineDaemon, wanted: Bundle, *, check: bool = False, **values: Any) -> Report:
    report = Report(check=check)
    document = {**wanted.document(), "digest": wanted.digest()}
    with Engine(str(engine.socket)) as client:
        converge(document, client, report, clock=Clock(), **values)
    return report


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return time.time()

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def remove(engine: EngineDaemon, wanted: Bundle) -> Report:
    report = Report()
    with Engine(str(engine.socket)) as client:
        assert clear(wanted.document(), client, report) == []
    return report


def words(report: Report) -> list[str]:
    return [f"{change['action']} {Path(change['what']).name}" for change in report.changes]


def seen(engine: EngineDaemon, wanted: Bundle) -> dict[str, Any]:
    return look("x", wanted.root, clock_port=9, engine=Engine(str(engine.socket)))


FILES = (BundleFile(path="etc/client.conf", content="rate=1\n"), BundleFile(path="etc/key", content="k", mode="0600"))


def test_a_second_time_changes_nothing(engine: EngineDaemon, tmp_path: Path) -> None:
    wanted = bundle(
        tmp_path,
        container("clock", image="toolkit/clock:bb", content="bb", health=("true",)),
        container("client", after=("clock",), mounts=(("etc/client.conf", "/c", "ro"), ("samples", "/s", "rw"))),
        files=FILES,
    )
    first = bring(engine, wanted)
    assert words(first) == [
        "create x",
        "write client.conf",
        "write key",
        "create toolkit-x-clock",
        "create toolkit-x-client",
        "create samples",
    ]
    assert oct((Path(wanted.root) / "etc/key").stat().st_mode & 0o777) == "0o600"
    engine.calls.clear()
    second = bring(engine, wanted)
    assert second.changes == []
    assert engine.writes() == []
    state = seen(engine, wanted)
    assert state["bundle"] == wanted.digest()
    assert state["drift"] == []
    assert {name: c["health"] for name, c in state["containers"].items()} == {
        "toolkit-x-clock": "healthy",
        "toolkit-x-client": "",
    }


def test_check_mode_tells_the_same_changes_and_makes_none(engine: EngineDaemon, tmp_path: Path) -> None:
    wanted = bundle(
        tmp_path, container("client", mounts=(("etc/client.conf", "/c", "ro"), ("d", "/d", "rw"))), files=FILES
    )
    foretold = bring(engine, wanted, check=True)
    assert engine.writes() == []
    assert not Path(wanted.root).exists()
    assert sorted(words(foretold)) == sorted(words(bring(engine, wanted)))
    assert "+rate=1" in foretold.diffs[0]["prepared"]


@pytest.mark.parametrize("api", ["1.41", "1.44", "1.52"])
def test_speaks_the_version_that_both_know(tmp_path: Path, api: str) -> None:
    daemon = EngineDaemon(tmp_path / "docker.sock", api=api, oldest="1.44" if api != "1.41" else "1.12")
    daemon.add_image("toolkit/client:aa", "aa")
    bring(daemon, bundle(tmp_path, container("client")))
    assert daemon.asked_versions == {min(api, "1.47")}
    daemon.close()


def test_an_engine_that_is_too_new_says_so(tmp_path: Path) -> None:
    daemon = EngineDaemon(tmp_path / "docker.sock", version="40.0", api="1.90", oldest="1.80")
    with pytest.raises(EngineError, match=r"40\.0.*wants API 1\.80.*update toolkit"):
        bring(daemon, bundle(tmp_path, container("client")))
    daemon.close()


def test_no_engine_says_what_to_try(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="is a Docker engine running"), Engine(str(tmp_path / "no.sock")) as engine:
        engine.negotiate()


def test_only_what_differs_is_replaced(engine: EngineDaemon, tmp_path: Path) -> None:
    one, two = container("client", files=("etc/client.conf",)), container("other")
    bring(engine, bundle(tmp_path, one, two, files=FILES))
    changed = (dataclasses.replace(FILES[0], content="rate=2\n"), FILES[1])
    report = bring(engine, bundle(tmp_path, one, two, files=changed))
    assert words(report) == ["write client.conf", "replace toolkit-x-client"]
    report = bring(engine, bundle(tmp_path, one, files=changed[:1]))
    assert words(report) == ["remove key", "remove toolkit-x-other"]
    assert not (tmp_path / "toolkit/x/etc/key").exists()


@pytest.mark.parametrize("how", ["killed", "removed", "paused", "unhealthy", "edited"])
def test_what_went_wrong_on_the_node_is_put_right(engine: EngineDaemon, tmp_path: Path, how: str) -> None:
    wanted = bundle(tmp_path, container("client", health=("true",)), files=FILES)
    bring(engine, wanted)
    state = engine.containers["toolkit-x-client"]["State"]
    match how:
        case "killed":
            engine.kill("toolkit-x-client")
        case "removed":
            engine.containers.clear()
        case "paused":
            state["Status"] = "paused"
        case "unhealthy":
            state["Health"]["Status"] = "unhealthy"
        case "edited":
            (Path(wanted.root) / "etc/client.conf").write_text("by hand")
    before = seen(engine, wanted)
    assert before["drift"] == (["etc/client.conf"] if how == "edited" else [])
    report = bring(engine, wanted)
    assert (
        words(report)
        == {
            "killed": ["start toolkit-x-client"],
            "removed": ["create toolkit-x-client"],
            "paused": ["restart toolkit-x-client"],
            "unhealthy": ["restart toolkit-x-client"],
            "edited": ["write client.conf"],
        }[how]
    )
    assert bring(engine, wanted).changes == []


def test_order_and_health(engine: EngineDaemon, tmp_path: Path) -> None:
    engine.healthy_after["toolkit-x-clock"] = 2
    wanted = bundle(tmp_path, container("client", after=("clock",)), container("clock", health=("check",)))
    bring(engine, wanted)
    starts = [call for call in engine.calls if call.endswith(("/start", "/exec"))]
    asked = [call for call in starts if call.endswith("/exec")]
    assert len(asked) == 3
    client = engine.containers["toolkit-x-client"]["Id"]
    assert starts.index(f"POST /containers/{client}/start") > starts.index(asked[-1])


def test_a_failure_brings_the_last_words_and_does_not_stop_the_rest(engine: EngineDaemon, tmp_path: Path) -> None:
    engine.healthy_after["toolkit-x-clock"] = -1
    wanted = bundle(
        tmp_path,
        container("clock", health=("check",), health_within_s=0.5),
        container("client", after=("clock",)),
        container("other"),
    )
    with pytest.raises(NodeError) as caught:
        bring(engine, wanted)
    clock, client = sorted(caught.value.failures, reverse=True)
    assert clock.startswith("toolkit-x-clock is not healthy after 0.5 s; its check says: checked")
    assert "    fatal: no such file" in clock
    assert client == "toolkit-x-client: not started, since clock is not well"
    assert engine.containers["toolkit-x-other"]["State"]["Status"] == "running"
    assert seen(engine, wanted)["bundle"] == ""


def test_an_image_for_a_newer_processor(engine: EngineDaemon, tmp_path: Path) -> None:
    engine.ends_with["toolkit-x-client"] = 132
    with pytest.raises(NodeError, match="SIGILL: its image is for a newer processor"):
        bring(engine, bundle(tmp_path, container("client")))


def test_after_in_a_circle(engine: EngineDaemon, tmp_path: Path) -> None:
    with pytest.raises(NodeError, match="goes round in a circle"):
        bring(engine, bundle(tmp_path, container("a", after=("b",)), container("b", after=("a",))))


def test_images_come_from_the_registry_and_go_again(engine: EngineDaemon, tmp_path: Path) -> None:
    engine.add_image(f"{REGISTRY}/toolkit/broker:cc", "cc", registry=True)
    wanted = bundle(tmp_path, container("broker", image="toolkit/broker:cc", content="cc"), container("client"))
    report = bring(engine, wanted, registry=REGISTRY)
    assert "pull broker:cc" in words(report)
    assert sorted(engine.images) == ["toolkit/broker:cc", "toolkit/client:aa", "toolkit/clock:bb"]
    gone = remove(engine, wanted)
    assert sorted(engine.images) == ["toolkit/client:aa", "toolkit/clock:bb"]
    assert engine.containers == {}
    assert not (tmp_path / "toolkit").exists()
    assert {"action": "remove", "what": "image toolkit/broker:cc", "why": ""} in gone.changes


def test_an_image_that_cannot_be_had(engine: EngineDaemon, tmp_path: Path) -> None:
    wanted = bundle(tmp_path, container("broker", image="toolkit/broker:cc", content="cc"), container("client"))
    with pytest.raises(NodeError, match=r"toolkit/broker:cc: .* there is no registry"):
        bring(engine, wanted)
    assert list(engine.containers) == ["toolkit-x-client"]
    with pytest.raises(NodeError, match=r"does not give it: .*manifest"):
        bring(engine, wanted, registry=REGISTRY)
    engine.add_image(f"{REGISTRY}/toolkit/broker:cc", "other", registry=True)
    with pytest.raises(NodeError, match="another content than cc"):
        bring(engine, wanted, registry=REGISTRY)


def test_an_image_in_use_by_others_stays(engine: EngineDaemon, tmp_path: Path) -> None:
    engine.add_image(f"{REGISTRY}/toolkit/broker:cc", "cc", registry=True)
    wanted = bundle(tmp_path, container("broker", image="toolkit/broker:cc", content="cc"))
    bring(engine, wanted, registry=REGISTRY)
    theirs = {**engine.containers["toolkit-x-broker"], "Id": "f" * 64, "Name": "/theirs"}
    theirs["Config"] = {**theirs["Config"], "Labels": {}}
    engine.containers["theirs"] = theirs
    report = remove(engine, wanted)
    assert list(engine.containers) == ["theirs"]
    assert report.notes == ["image toolkit/broker:cc stays: conflict: it is used by a container"]


def test_a_container_in_the_way_is_not_touched(engine: EngineDaemon, tmp_path: Path) -> None:
    wanted = bundle(tmp_path, container("client"))
    engine.answer(
        "POST", "/containers/create", {"name": "toolkit-x-client"}, {"Image": "toolkit/client:aa", "Labels": {}}
    )
    with pytest.raises(NodeError, match="not toolkit's is in the way"):
        bring(engine, wanted)
    assert list(engine.containers) == ["toolkit-x-client"]


SECRETS = {"toolkit-x-client": {"PASSWORD": "tell-nobody", "TOKEN_FILE": "nor-this"}}


def test_secrets(engine: EngineDaemon, tmp_path: Path) -> None:
    wanted = bundle(tmp_path, container("client", secrets=("PASSWORD", "TOKEN_FILE")))
    bring(engine, wanted, secrets=SECRETS)
    made = engine.containers["toolkit-x-client"]["Config"]
    assert "PASSWORD=tell-nobody" in made["Env"]
    assert "TOKEN_FILE=/run/secrets/TOKEN_FILE" in made["Env"]
    (mount,) = made["HostConfig"]["Mounts"]
    assert Path(mount["Source"]).read_text() == "nor-this"
    assert oct((Path(wanted.root) / "secrets").stat().st_mode & 0o777) == "0o700"
    assert "nor-this" not in str(made)
    assert "tell-nobody" not in str(made["Labels"])
    assert bring(engine, wanted, secrets=SECRETS).changes == []
    other = {"toolkit-x-client": {**SECRETS["toolkit-x-client"], "PASSWORD": "changed"}}
    assert [(c["action"], c["why"]) for c in bring(engine, wanted, secrets=other).changes] == [("replace", "secret")]
    with pytest.raises(NodeError, match="no value was given for secret PASSWORD, TOKEN_FILE"):
        bring(engine, wanted)
    bring(engine, bundle(tmp_path, container("client")))
    assert not Path(mount["Source"]).exists()


def test_folders_belong_to_the_user_of_the_image(
    engine: EngineDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owned: list[tuple[str, int, int]] = []
    monkeypatch.setattr(os, "chown", lambda path, uid, gid: owned.append((Path(path).name, uid, gid)))
    if os.getuid() != 0:
        pytest.skip("new folders belong to root only where root makes them")
    engine.add_image("toolkit/client:aa", "aa", user="app")
    bring(engine, bundle(tmp_path, container("client", mounts=(("data", "/d", "rw"), ("conf", "/c", "ro")))))
    assert owned == [("data", 1234, 1235)]


def test_a_bundle_stays_below_its_root(engine: EngineDaemon, tmp_path: Path) -> None:
    for path in ("../out", "/etc/passwd", "a/../../out"):
        with pytest.raises(NodeError, match="is not below"):
            bring(engine, bundle(tmp_path, files=(BundleFile(path=path, content=""),)))
    with pytest.raises(NodeError, match="no folder that toolkit may own"):
        bring(engine, Bundle(testbed="x", node="n", root="/etc"))


def test_settings_of_a_container(engine: EngineDaemon, tmp_path: Path) -> None:
    bring(
        engine,
        bundle(
            tmp_path,
            container(
                "client",
                command=("run",),
                environment={"B": "2", "A": "1"},
                capabilities=("NET_RAW",),
                pid_host=True,
                cpus=10_000.0,
                memory_bytes=64 << 20,
                health=("check",),
            ),
        ),
    )
    made = engine.containers["toolkit-x-client"]["Config"]
    host = made["HostConfig"]
    assert made["Env"] == ["A=1", "B=2"]
    assert made["Cmd"] == ["run"]
    assert host["NetworkMode"] == "host"
    assert host["PidMode"] == "host"
    assert host["CapAdd"] == ["NET_RAW"]
    assert host["NanoCpus"] == len(os.sched_getaffinity(0)) * 10**9
    assert host["Memory"] == 64 << 20
    assert host["RestartPolicy"] == {"Name": "unless-stopped"}
    assert host["LogConfig"]["Config"]["max-size"] == "10m"
    assert made["Healthcheck"]["Test"] == ["CMD", "check"]
    assert made["Healthcheck"]["Interval"] == 60 * 10**9
    assert made["Labels"]["org.toolkit.testbed"] == "x"
    assert made["Labels"]["org.toolkit.node"] == "n1"
