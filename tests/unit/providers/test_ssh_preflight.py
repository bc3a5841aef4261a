"""What a machine says of itself before anything is done to it, and what is made of that."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from toolkit.errors import UnreachableError
from toolkit.providers.ssh import PREFLIGHT, _facts
from toolkit.spec.testbed import Architecture, Link, Node
from toolkit.state import Host, SshAccess

HOST = Host(
    node="sub-1",
    provider="ssh",
    type="ssh",
    address="192.168.60.21",
    ssh=SshAccess(address="192.168.60.21", user="pi", known_hosts="/dev/null"),
    architecture="",
)


def node(architecture: Architecture | None = None) -> Node:
    return Node(
        name="sub-1", kind="pi1", provider="ssh", architecture=architecture, cpus=None, memory_bytes=None, link=Link()
    )


def said_by(folder: Path, *, nobody: bool = True, script: str = PREFLIGHT, **programs: str) -> str:
    """The script's answer on this machine, where these programs say something else."""
    for name, words in {**({"id": "echo 1000"} if nobody else {}), **programs}.items():
        program = folder / name.replace("_", "-")
        program.write_text(f"#!/bin/sh\n{words}\n")
        program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
    return subprocess.run(["sh", "-c", script], env=environment, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    ("machine", "bits", "architecture"),
    [
        ("armv6l", "32", "arm/v6"),
        ("armv7l", "32", "arm/v7"),
        ("aarch64", "32", "arm/v7"),
        ("aarch64", "64", "arm64"),
        ("x86_64", "64", "amd64"),
    ],
)
def test_the_architecture_is_that_of_the_system_not_of_the_kernel_alone(
    tmp_path: Path, machine: str, bits: str, architecture: str
) -> None:
    words = f'case "$1" in LONG_BIT) echo {bits};; *) echo 4;; esac'
    answer = said_by(tmp_path, uname=f"echo {machine}", getconf=words, sudo="exit 0")
    found = _facts(HOST, node(), answer)
    assert found.architecture == architecture
    assert found.facts["cpus"] == 4
    with pytest.raises(UnreachableError, match=f"its architecture is {architecture}, the file says "):
        _facts(HOST, node(next(each for each in Architecture if each != architecture)), answer)


def test_one_who_may_use_sudo_may_be_warned_by_it(tmp_path: Path) -> None:
    warned = said_by(tmp_path, sudo="echo 'sudo: unable to resolve host pi' >&2; echo two lines >&2")
    assert "\nsudo=yes\nsudo_said=sudo: unable to resolve host pi two lines\n" in warned
    _facts(HOST, node(), warned)


@pytest.mark.parametrize(
    ("sudo", "words"),
    [
        (
            "echo 'sudo: a password is required' >&2; exit 1",
            r"\(sudo: a password is required\); .* as root: echo 'pi ALL",
        ),
        ("echo 'sh: 1: sudo: not found' >&2; exit 127", r"not found\); .* as root: apt-get install sudo; echo 'pi ALL"),
    ],
)
def test_who_may_not_use_sudo_is_told_what_it_said(tmp_path: Path, sudo: str, words: str) -> None:
    with pytest.raises(UnreachableError, match=words):
        _facts(HOST, node(), said_by(tmp_path, sudo=sudo))


def test_32_bit_systems_of_pcs_are_refused(tmp_path: Path) -> None:
    answer = said_by(tmp_path, uname="echo x86_64", getconf="echo 32", sudo="exit 0")
    with pytest.raises(UnreachableError, match="its architecture i386 is not one that toolkit has images for"):
        _facts(HOST, node(), answer)


def test_sudo_for_some_commands_is_not_enough(tmp_path: Path) -> None:
    some = 'case "$*" in *sh*) echo "sudo: I\'m sorry pi. I\'m afraid I can\'t do that" >&2; exit 1;; esac'
    with pytest.raises(UnreachableError, match="may not use sudo without a password"):
        _facts(HOST, node(), said_by(tmp_path, sudo=some))


def test_a_machine_that_is_still_being_set_up_is_waited_for(tmp_path: Path) -> None:
    answer = said_by(tmp_path, sudo="exit 1").replace("booting=\n", "booting=cloud-init\n")
    with pytest.raises(UnreachableError, match=r"cloud-init is still setting it up, .* try again in a minute"):
        _facts(HOST, node(), answer)


def test_an_engine_that_is_a_snap_is_refused(tmp_path: Path) -> None:
    answer = re.sub("engine=.*\nsnap=\n", "engine=\nsnap=docker\n", said_by(tmp_path, sudo="exit 0"))
    with pytest.raises(UnreachableError, match="sudo snap remove docker"):
        _facts(HOST, node(), answer)


@pytest.mark.parametrize(
    "release",
    [
        'PRETTY_NAME="Raspbian GNU/Linux 12 (bookworm)"\nID=raspbian\nID_LIKE=debian\nVERSION_ID="12"',
        'PRETTY_NAME="Debian GNU/Linux 13 (trixie)"\nID=debian\nVERSION_ID="13"\nDEBIAN_VERSION_FULL=13.1',
        'PRETTY_NAME="Ubuntu 22.04.5 LTS"\nNAME="Ubuntu"\nVERSION_ID="22.04"\nID=ubuntu\nID_LIKE=debian',
        'PRETTY_NAME="Ubuntu 26.04 LTS"\nNAME="Ubuntu"\nVERSION_ID="26.04"\nID=ubuntu\nID_LIKE=debian',
    ],
)
def test_systems_are_known_by_what_they_call_themselves(tmp_path: Path, release: str) -> None:
    (tmp_path / "os-release").write_text(release + "\n")
    answer = said_by(tmp_path, script=PREFLIGHT.replace("/etc/os-release", f"{tmp_path}/os-release"), sudo="exit 0")
    facts = _facts(HOST, node(), re.sub("engine=.*", "engine=", answer)).facts
    assert f'PRETTY_NAME="{facts["os"]}"' in release
    assert f"ID={facts['os_id']}\n" in release + "\n"
    assert facts["has_engine"] is False


@pytest.mark.parametrize(
    ("listed", "limits"),
    [
        ("cpuset cpu io memory hugetlb pids", True),
        ("memory pids", True),
        ("cpuset cpu io pids", False),  # as the firmware of a Raspberry Pi has it
        ("#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t2\t1\t1\nmemory\t4\t80\t1", True),
        ("#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t2\t1\t1\nmemory\t0\t1\t0", False),
        ("cpuset cpu io pids\n#subsys_name\thierarchy\tnum_cgroups\tenabled\nmemory\t0\t80\t0", False),
    ],
)
def test_whether_the_kernel_can_limit_memory(tmp_path: Path, listed: str, limits: bool) -> None:
    (tmp_path / "listed").write_text(f"{listed}\n")
    words = f'case "$*" in *cgroup*) cat {tmp_path}/listed;; *) exec /bin/cat "$@";; esac'
    answer = said_by(tmp_path, cat=words.replace(f"cat {tmp_path}", f"/bin/cat {tmp_path}"), sudo="exit 0")
    assert _facts(HOST, node(), answer).facts["memory_limits"] is limits
