"""Which engine stores are nobody's, and that their lock files go with them."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import Any

import pytest

from toolkit.providers import engine_store, lock_files
from toolkit.providers.base import Resource


class Engine:
    """The part of an engine that holds volumes, and containers that have mounted them."""

    def __init__(self, **users: tuple[str, ...]) -> None:
        self.users = {engine_store.PREFIX + key: list(names) for key, names in users.items()}

    def volumes(self, filters: Any) -> Any:
        assert filters == {"label": [engine_store.LABEL]}
        keys = {name: name.removeprefix(engine_store.PREFIX) for name in self.users}
        return {"Volumes": [{"Name": name, "Labels": {engine_store.LABEL: key}} for name, key in keys.items()]}

    def containers(self, all: bool, filters: Any) -> Any:  # noqa: A002 - the engine's word
        assert all
        if "volume" in filters:
            names = self.users[filters["volume"]]
        else:  # builders
            names = [name for users in self.users.values() for name in users if name in self.users]
        return [{"Id": name, "Names": [f"/{name}"]} for name in names]

    def remove_container(self, container: str, v: bool, force: bool) -> None:
        assert v
        assert force
        self.users[container].remove(container)

    def remove_volume(self, name: str) -> None:
        assert self.users.pop(name) == []


@pytest.fixture
def locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path))
    for key in ("used", "idle", "broken", "gone", "coming"):
        (tmp_path / f"{engine_store.PREFIX}{key}.lock").touch()
    (tmp_path / "registry.lock").touch()
    return tmp_path


def test_stores_that_nobody_uses_go_with_their_locks(locks: Path) -> None:
    api: Any = Engine(used=("node",), idle=(), kept=(), broken=(f"{engine_store.PREFIX}broken",))
    idle = [Resource(kind="volume", name=f"{engine_store.PREFIX}{key}") for key in ("idle", "broken")]
    assert engine_store.unused_stores(api, frozenset({"kept"})) == idle
    with (locks / f"{engine_store.PREFIX}coming.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # somebody is about to build it
        assert engine_store.remove_unused_stores(api, frozenset({"kept"})) == idle
    assert set(api.users) == {f"{engine_store.PREFIX}{key}" for key in ("used", "kept")}
    assert {file.stem.removeprefix(engine_store.PREFIX) for file in locks.iterdir()} == {"used", "coming", "registry"}


def test_a_lock_that_went_while_we_waited_is_asked_for_again(locks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = locks / f"{engine_store.PREFIX}idle.lock"
    looks = iter([False, True])
    monkeypatch.setattr(lock_files, "_is_at", lambda *_: next(looks))
    with engine_store._locked(file.stem, fcntl.LOCK_EX), file.open() as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert list(looks) == []
