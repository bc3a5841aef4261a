"""State survives: saved whole, loaded equal, and locked against a second process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from toolkit.errors import FileInvalidError, LockedError
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


@pytest.mark.parametrize(
    ("spoilt", "why"),
    [
        (lambda text: text[: len(text) // 2], "cannot be read"),
        (lambda text: text.replace('"schema": 1', '"schema": 7'), "another version of toolkit wrote it"),
        (lambda text: text.replace('"stage"', '"phase"'), "unexpected keyword argument 'phase'"),
        (lambda _: "[]", "cannot be read"),
    ],
)
def test_a_state_of_another_kind_is_named_with_a_way_out(
    workspace: Path, spoilt: Callable[[str], str], why: str
) -> None:
    save_deployment(a_deployment())
    file = workspace / "lab" / "state.json"
    file.write_text(spoilt(file.read_text()))
    with pytest.raises(FileInvalidError, match=f"{why}.*toolkit teardown lab still finds virtual nodes"):
        load_deployment("lab")


def test_a_lock_that_is_removed_while_it_is_taken_is_taken_anew(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    file = workspace / "lab" / "lock"
    real, taken = fcntl.flock, []

    def flock(handle: Any, how: int) -> None:
        real(handle, how)
        taken.append(how)
        if len(taken) == 1:
            file.unlink()

    monkeypatch.setattr("toolkit.state.fcntl.flock", flock)
    with locked("lab"):
        assert file.read_text().startswith("process ")
    assert len(taken) == 2
