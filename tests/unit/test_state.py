"""State survives: saved whole, loaded equal, and locked against a second process."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from toolkit.errors import LockedError
from toolkit.state import Deployment, Host, SshAccess, deployed_names, load_deployment, locked, save_deployment


def a_deployment() -> Deployment:
    ssh = SshAccess(address="10.77.0.10", known_hosts="/k", identity_file="/i", jump="me@bastion")
    host = Host(
        node="a", provider="p", type="ssh", address="10.77.0.10", ssh=ssh, architecture="arm/v7", facts={"cpus": 4}
    )
    return Deployment(
        name="lab",
        file="/x/testbed.yml",
        stage="deployed",
        hosts={"a": host},
        hashes={"a": "1"},
        node_hashes={"a": "2"},
        changes=({"node": "a", "action": "install"},),
        notes={"grafana": "no image"},
    )


def test_what_is_saved_is_loaded_equal(workspace: Path) -> None:
    save_deployment(a_deployment())
    assert load_deployment("lab") == a_deployment()
    assert deployed_names() == ["lab"]
    assert load_deployment("other") is None


def test_a_second_process_is_told_who_holds_the_lock(workspace: Path) -> None:
    script = (
        "import sys\nfrom toolkit.state import locked\n"
        "with locked('lab'):\n print('held', flush=True)\n sys.stdin.read()"
    )
    holder = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdin is not None
    try:
        assert holder.stdout.readline().strip() == "held"
        with pytest.raises(LockedError, match=f"process {holder.pid} "), locked("lab"):
            pass
    finally:
        holder.stdin.close()
        holder.wait(10)
        holder.stdout.close()
    with locked("lab"):  # the kernel freed it with the process
        pass


def test_who_holds_the_lock_may_take_it_again(workspace: Path) -> None:
    with locked("lab"):
        with locked("lab"):
            pass
        with ThreadPoolExecutor(1) as pool, pytest.raises(LockedError):
            pool.submit(_take).result()


def _take() -> None:
    with locked("lab"):
        pass
