"""What a machine says of itself before anything is done to it, and what is made of that."""

from __future__ import annotations

import os
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


def said_by(folder: Path, *, nobody: bool = True, **programs: str) -> str:
    """The script's answer on this machine, where these programs say something else."""
    for name, script in {**({"id": "echo 1000"} if nobody else {}), **programs}.items():
        program = folder / name.replace("_", "-")
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
    return subprocess.run(["sh", "-c", PREFLIGHT], env=environment, capture_output=True, text=True, check=True).stdout


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
