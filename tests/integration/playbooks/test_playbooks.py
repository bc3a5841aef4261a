"""The playbooks against virtual nodes: what they do, that twice changes nothing, and what one sees from outside."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from playbook_lab import NAME, Lab, differences, python

from tests.waiting import until
from toolkit import paths, ssh
from toolkit.contract.bundle import BundleFile
from toolkit.errors import ToolkitError
from toolkit.provisioning.images import Builder
from toolkit.provisioning.observe import observe
from toolkit.provisioning.registry import find_registry, registry_in_use, remove_registry

pytestmark = [pytest.mark.docker, pytest.mark.timeout(240)]

CONFIG = BundleFile(path="etc/service.conf", content="rate = 1  # {{ not a template }}\n", mode="0640")


def test_twice_and_after_trouble(clean: Lab) -> None:
    lab = clean
    wanted = lab.bundle(
        "full",
        lab.container("clock", mounts=(("etc/service.conf", "/service.conf", "ro"), ("data/x", "/x", "rw"))),
        lab.container("client", after=("clock",)),
        files=(CONFIG,),
    )
    foretold = lab.deploy(wanted, playbook="check.yml")
    assert not foretold.failed, foretold.failed
    first = lab.deploy(wanted)
    assert not first.failed, first.failed
    assert sorted(map(str, foretold.outcomes["full"].changes)) == sorted(map(str, first.outcomes["full"].changes))
    assert differences(wanted, lab.seen("full")) == []
    assert lab.on("full", f"cat /var/lib/toolkit/{NAME}/etc/service.conf") == CONFIG.content
    assert all(c.well and c.content == lab.image.content for c in lab.seen("full").containers.values())
    assert {event.node for event in lab.events} == {"full"}

    assert lab.deploy(wanted).outcomes["full"].status == "ok"

    by_hand = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "-i", lab.directory / "inventory.json", "deploy.yml"],
        cwd=paths.PLAYBOOKS,
        env={**os.environ, "LC_ALL": "C.UTF-8", "ANSIBLE_HOME": str(lab.directory / "by-hand")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert by_hand.returncode in {0, 2}, by_hand.stdout + by_hand.stderr
    assert re.search(r"^full +: ok=1 +changed=0 .*failed=0", by_hand.stdout, re.MULTILINE), by_hand.stdout

    lab.on("full", f"docker kill toolkit-{NAME}-client && docker pause toolkit-{NAME}-clock")
    assert len(differences(wanted, lab.seen("full"))) == 2
    again = lab.deploy(wanted)
    assert sorted(change["action"] for change in again.outcomes["full"].changes) == ["restart", "start"]

    lab.on("full", "systemctl restart docker")
    back = lab.deploy(wanted)
    assert not back.failed, back.failed
    assert differences(wanted, lab.seen("full")) == []
    assert lab.deploy(wanted).outcomes["full"].status == "ok"

    lab.on("full", f"echo by hand >> /var/lib/toolkit/{NAME}/etc/service.conf")
    assert differences(wanted, lab.seen("full")) == [
        "update file etc/service.conf on full (changed on the node by hand)"
    ]
    mended = lab.deploy(wanted)
    assert [change["what"] for change in mended.outcomes["full"].changes] == ["etc/service.conf"]


def test_images_come_through_the_ssh_connection(clean: Lab) -> None:
    lab = clean
    had_one = find_registry() is not None
    try:
        with registry_in_use():
            port = Builder(lambda _: None).registry([lab.image])
            wanted = lab.bundle("empty", lab.container("client"))
            run = lab.deploy(wanted, inventory={"registry_port": port})
            assert not run.failed, run.failed
            assert {"action": "pull", "what": lab.image.reference, "why": "missing"} in run.outcomes["empty"].changes
            assert lab.on("empty", "docker images --format '{{.Repository}}:{{.Tag}}'").split() == [lab.image.reference]
            gone = lab.deploy(lab.bundle("empty"), playbook="teardown.yml")
            assert f"image {lab.image.reference}" in [change["what"] for change in gone.outcomes["empty"].changes]
            assert lab.on("empty", "docker images -q") == ""
    finally:
        if not had_one:
            remove_registry()


def test_secrets_are_seen_by_the_service_alone(clean: Lab) -> None:
    lab = clean
    wanted = lab.bundle("full", lab.container("client", secrets=("PASSWORD", "TOKEN_FILE")))
    values = {"PASSWORD": "tell-nobody-1", "TOKEN_FILE": "tell-nobody-2"}
    secrets = {"full": {f"toolkit-{NAME}-client": values}}
    seen_in_processes: list[str] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.05):
            for file in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    if b"tell-nobody" in file.read_bytes():
                        seen_in_processes.append(file.read_text())
                except OSError:
                    continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        run = lab.deploy(wanted, secrets=secrets)
    finally:
        stop.set()
        watcher.join()
    assert not run.failed, run.failed
    assert seen_in_processes == []
    assert "tell-nobody" not in str(lab.events) + str(run)
    for file in lab.directory.rglob("*"):
        if file.is_file():
            assert b"tell-nobody" not in file.read_bytes(), file
    assert lab.on("full", "journalctl --no-pager | grep -c tell-nobody || true").strip() == "0"
    inside = lab.on("full", f"docker exec toolkit-{NAME}-client sh -c 'echo $PASSWORD; cat $TOKEN_FILE'")
    assert inside == "tell-nobody-1\ntell-nobody-2"
    assert lab.deploy(wanted, secrets=secrets).outcomes["full"].status == "ok"


def test_one_bad_node_does_not_stop_the_other(clean: Lab) -> None:
    lab = clean
    nowhere = dataclasses.replace(
        lab.hosts["empty"], ssh=dataclasses.replace(lab.hosts["empty"].ssh, identity_file="/nowhere")
    )
    run = lab.deploy(
        lab.bundle("full", lab.container("client")),
        lab.bundle("empty"),
        hosts={"full": lab.hosts["full"], "empty": nowhere},
    )
    assert run.outcomes["full"].status == "changed"
    assert run.outcomes["empty"].status == "unreachable"
    assert "Permission denied" in run.failed["empty"]
    failed = [event for event in lab.events if event.state == "failed"]
    assert [event.node for event in failed] == ["empty"]


def test_a_broken_service_and_a_full_disk_are_told(clean: Lab) -> None:
    lab = clean
    lab.on("empty", "mkdir -p /var/lib/toolkit && mount -t tmpfs -o size=64k tmpfs /var/lib/toolkit")
    try:
        broken = lab.container("client", command=python("raise SystemExit('no broker here')"), health_within_s=3.0)
        large = BundleFile(path="etc/large", content="x" * 200_000)
        run = lab.deploy(lab.bundle("full", broken), lab.bundle("empty", files=(large,)))
        assert "no broker here" in run.failed["full"]
        assert "No space left on device" in run.failed["empty"]
    finally:
        ssh.disconnect(lab.hosts["empty"])
        lab.on("empty", "umount /var/lib/toolkit && rmdir /var/lib/toolkit")


def test_as_a_user_with_sudo(clean: Lab) -> None:
    lab = clean
    lab.on(
        "full",
        "useradd -m -p '*' -s /bin/sh pi; install -d -o pi /home/pi/.ssh; "
        "cat /etc/ssh/authorized_keys.d/operator > /home/pi/.ssh/authorized_keys; "
        "command -v sudo > /dev/null || (apt-get -qq update && apt-get -qq install sudo) > /dev/null 2>&1; "
        "echo 'pi ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/pi",
    )
    pi = {"full": lab.as_user("full", "pi")}
    wanted = lab.bundle("full", lab.container("client"))
    run = lab.deploy(wanted, hosts=pi)
    assert not run.failed, run.failed
    found = observe(pi, NAME)["full"]
    assert not isinstance(found, ToolkitError)
    assert differences(wanted, found) == []


def test_another_time_daemon_is_stopped_and_comes_back(clean: Lab) -> None:
    lab = clean
    unit = "[Service]\nExecStart=/bin/sleep 1d\n[Install]\nWantedBy=multi-user.target\nAlias=chronyd.service\n"
    lab.on("full", f"printf '{unit}' > /etc/systemd/system/chrony.service; systemctl enable --now chrony 2>&1")
    state = "systemctl is-active chrony; systemctl is-enabled chrony; systemctl is-enabled chronyd"
    before = lab.on("full", state).split()
    assert before[:2] == ["active", "enabled"]
    try:
        run = lab.deploy(lab.bundle("full"), inventory={"clocks": ["full"]})
        assert not run.failed, run.failed
        assert lab.on("full", f"({state}) 2>/dev/null || true").split()[:2] == ["inactive", "disabled"]
        (note,) = run.outcomes["full"].noted
        assert note["items"] == [{"name": "chrony", "active": True, "enabled": True}]  # once, by its own name
        again = lab.deploy(lab.bundle("full"), inventory={"clocks": ["full"]})
        assert again.outcomes["full"].status == "ok"
        assert again.outcomes["full"].noted == ()
        lab.deploy(lab.bundle("full"), playbook="teardown.yml")
        assert lab.on("full", state).split() == before
    finally:
        lab.on("full", "systemctl disable --now chrony 2>&1; rm /etc/systemd/system/chrony.service")


def test_an_engine_that_was_there_and_stopped_is_started_and_stopped_again(clean: Lab) -> None:
    lab = clean
    others = "/usr/local/sbin/dpkg-query"  # by which docker.io is not a package here: the engine is somebody else's
    lab.on("full", f"printf '#!/bin/sh\nexit 1\n' > {others}; chmod 755 {others}")
    lab.on("full", "systemctl disable --now docker docker.socket 2>&1; docker ps 2>&1 || true")
    state = "systemctl is-active docker docker.socket; systemctl is-enabled docker docker.socket"
    before = lab.on("full", f"({state}) || true").split()
    assert before == ["inactive", "inactive", "disabled", "disabled"]
    try:
        run = lab.deploy(lab.bundle("full", lab.container("client")), inventory={"bare": ["full"]})
        assert not run.failed, run.failed
        (note,) = run.outcomes["full"].noted  # and none of packages
        assert {"name": "docker", "active": False, "enabled": False} in note["items"]
        assert lab.seen("full").engine_version
        again = lab.deploy(lab.bundle("full", lab.container("client")), inventory={"bare": ["full"]})
        assert again.outcomes["full"].status == "ok"
        gone = lab.deploy(lab.bundle("full"), playbook="teardown.yml")
        assert not gone.failed, gone.failed
        assert lab.on("full", f"({state}) || true").split() == before
        assert lab.on("full", "ls /var/lib/toolkit 2>/dev/null || true") == ""
    finally:
        lab.on("full", f"rm -f {others}; systemctl enable --now docker.socket docker 2>&1")


@pytest.mark.slow
def test_a_bare_machine_gets_an_engine_and_is_bare_again(clean: Lab) -> None:
    lab = clean
    lab.on(
        "empty",
        "dpkg-query -Wf '${Package}\\n' 'python3*' 'libpython3*' docker.io containerd runc | "
        "xargs apt-get -qq -y purge >/dev/null 2>&1; groupdel docker || true",
    )
    assert lab.on("empty", "command -v python3 dockerd || true") == ""
    wanted = lab.bundle("empty", files=(CONFIG,))
    run = lab.deploy(wanted, inventory={"bare": ["empty"]})
    assert not run.failed, run.failed
    assert lab.seen("empty").engine_version
    assert {"package", "group"} <= {note["kind"] for note in run.outcomes["empty"].noted}
    assert lab.deploy(wanted, inventory={"bare": ["empty"]}).outcomes["empty"].status == "ok"
    gone = lab.deploy(lab.bundle("empty"), playbook="teardown.yml")
    assert not gone.failed, gone.failed
    bare = "command -v python3 dockerd || getent group docker || ls -d /var/lib/toolkit || true"
    assert lab.on("empty", bare) == ""

    note = '[{"id": 1, "kind": "package", "items": [{"name": "python3"}, {"name": "python3-minimal"}]}]'
    lab.on("empty", f"mkdir -p /var/lib/toolkit/{NAME} && echo '{note}' > /var/lib/toolkit/changes.json")
    refused = lab.deploy(lab.bundle("empty"), playbook="teardown.yml").failed["empty"]
    assert f"/var/lib/toolkit/{NAME} is still there: install python3" in refused
    lab.on("empty", f"rmdir /var/lib/toolkit/{NAME}")  # and so it is where a teardown was cut off before its last step
    again = lab.deploy(lab.bundle("empty"), playbook="teardown.yml")
    assert not again.failed, again.failed
    assert lab.on("empty", bare) == ""


@pytest.mark.slow
def test_what_python_handles_packages_with_is_noted_before_it_comes(clean: Lab) -> None:
    lab = clean
    there = "python3 -c 'import apt_pkg' 2>/dev/null && echo there || echo none"
    lab.on("full", "apt-get -qq -y purge python3-apt 2>&1")
    assert lab.on("full", there).split()[-1] == "none"
    try:
        run = lab.deploy(lab.bundle("full"), inventory={"bare": ["full"]})
        assert not run.failed, run.failed
        assert {"name": "python3-apt"} in [item for note in run.outcomes["full"].noted for item in note["items"]]
        assert lab.on("full", there).split()[-1] == "there"
        gone = lab.deploy(lab.bundle("full"), playbook="teardown.yml")
        assert not gone.failed, gone.failed
        assert lab.on("full", there).split()[-1] == "none"
    finally:
        lab.on("full", "apt-get -qq update && apt-get -qq -y install --no-install-recommends python3-apt 2>&1")


def test_an_interrupt_ends_ansible(lab: Lab) -> None:
    """Ctrl-C reaches us, not Ansible, which runs in a session of its own: it must end with us and leave no process."""
    slow = lab.container("client", command=python("import time; time.sleep(60)"), health=("false",))
    assert lab.deploy(lab.bundle("full")).failed == {}
    wanted = lab.bundle("full", slow, files=(CONFIG,))
    with pytest.raises(KeyboardInterrupt):
        _interrupted_when(
            lambda: slow.name in lab.on("full", "docker ps --format '{{.Names}}'"), lambda: lab.deploy(wanted)
        )
    interrupted = time.monotonic()
    mine = str(lab.directory)

    def left() -> list[str]:
        return [line for line in _processes() if mine in line and "ansible" in line and "[mux]" not in line]

    until(lambda: not left(), instead=left)
    assert time.monotonic() - interrupted < 15
    assert lab.seen("full").bundle == ""
    while "ansible" in lab.on("full", "ps -e -o args= | grep python | grep -v grep || true"):
        assert time.monotonic() - interrupted < 30
        time.sleep(0.2)
    lab.deploy(lab.bundle("full"), playbook="teardown.yml")


def _interrupted_when(ready: Callable[[], bool], action: Callable[[], object]) -> None:
    """Ctrl-C for this process as soon as something is seen."""
    main = threading.main_thread().ident
    assert main is not None
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.1):
            if ready():
                signal.pthread_kill(main, signal.SIGINT)
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        action()
    finally:
        over.set()
        watcher.join()


def _processes() -> list[str]:
    lines = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(file.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return lines
