"""What exists now: hosts and deployments, saved as JSON in the workspace; and the lock on it."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TextIO

from toolkit import paths
from toolkit.errors import FileInvalidError, LockedError

SCHEMA = 1
LABEL = "org.toolkit.testbed"
"""Everything toolkit makes carries this label, or lies below a path that names the testbed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SshAccess:
    """How to enter a host; every user of SSH (Ansible, OpenSSH, paramiko) is configured from this."""

    address: str
    port: int = 22
    user: str = "root"
    identity_file: str | None = None
    """None: the agent."""
    known_hosts: str
    """Path; host keys are always checked against it."""
    jump: str | None = None
    become: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """The machine acquired for a node."""

    node: str
    provider: str
    """The provider's name in the file."""
    type: str
    """container, ssh, vm."""
    address: str
    """On the testbed's network: what other nodes use."""
    ssh: SshAccess
    architecture: str
    """What the machine really is, in Docker's words: amd64, arm64, arm/v7, arm/v6."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """os, kernel, congestion (TCP's control), model, cpus, memory_bytes, memory_limits, python, engine, shared_clock,
    has_engine, images, link (by what it has delay, jitter and loss: netem or relay; empty where it has none)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """What the last deploy made, or was making when it stopped."""

    name: str
    file: str
    stage: Literal["acquired", "provisioned", "deployed", "teardown"]
    hosts: Mapping[str, Host] = field(default_factory=dict)
    hashes: Mapping[str, str] = field(default_factory=dict)
    """node -> hash of the bundle it was last brought to."""
    images: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """node -> service -> image, with its content hash, that the bundle has."""
    node_hashes: Mapping[str, str] = field(default_factory=dict)
    """node -> hash of the machine asked for; another one means another machine."""
    failed: Mapping[str, str] = field(default_factory=dict)
    """node -> why, from the last deploy."""
    changes: tuple[Mapping[str, Any], ...] = ()
    """What was changed on hosts that are not ours alone, newest last, for people; teardown reads the notes there."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """Facts for people, such as why there is no Grafana."""
    provider: str = ""
    """What `--provider` said, so that later commands see the same testbed."""
    overrides: Mapping[str, str] = field(default_factory=dict)
    """What `--set` said, for the same reason."""
    scale: float = 1.0
    """What `--scale` said."""
    providers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Settings of the file's providers, so that teardown needs no file."""
    twin: bool = False
    deployed_at: float = 0.0


def state_file(name: str) -> Path:
    """Where a deployment is saved."""
    return paths.testbed_dir(name) / "state.json"


def load_deployment(name: str) -> Deployment | None:
    """The saved deployment, or None where the testbed has never been deployed (or is gone)."""
    file = state_file(name)
    if not file.is_file():
        return None
    try:
        return _deployment(json.loads(file.read_text()))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise FileInvalidError(
            f"{file} cannot be read ({error}); tear the testbed down with the version of toolkit that wrote it, or "
            f"remove the file: toolkit teardown {name} still finds virtual nodes, by their labels"
        ) from error


def _deployment(raw: dict[str, Any]) -> Deployment:
    """Raises ValueError, TypeError, KeyError or AttributeError where it is none of this version."""
    if raw.pop("schema") != SCHEMA:
        raise ValueError("another version of toolkit wrote it")
    raw["hosts"] = {node: Host(**{**host, "ssh": SshAccess(**host["ssh"])}) for node, host in raw["hosts"].items()}
    raw["changes"] = tuple(raw["changes"])
    return Deployment(**raw)


def save_deployment(deployment: Deployment) -> Deployment:
    """Save atomically; an interrupt leaves the old or the new state, never half of one."""
    file = state_file(deployment.name)
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_suffix(".json.new")
    draft.write_text(json.dumps({"schema": SCHEMA, **dataclasses.asdict(deployment)}, indent=1, sort_keys=True))
    draft.replace(file)
    return deployment


def deployed_names() -> list[str]:
    """Testbeds this workspace has a state for."""
    home = paths.workspace()
    return sorted(f.parent.name for f in home.glob("*/state.json")) if home.is_dir() else []


def names_on_machine() -> frozenset[str]:
    """Testbeds of every workspace of this user that is still there: those with a state, and those worked on now."""
    found = set()
    for home in _workspaces():
        found |= {file.parent.name for file in home.glob("*/state.json")}
        found |= {file.parent.name for file in home.glob("*/lock") if _holder(file)}
    return frozenset(found)


def held_elsewhere(name: str) -> Path | None:
    """Another workspace of this user that has, or is making, a testbed of this name; None where this one has it."""
    if state_file(name).is_file():
        return None
    others = (home for home in _workspaces() if home != paths.workspace())
    return next((h for h in others if (h / name / "state.json").is_file() or _holder(h / name / "lock")), None)


def _workspaces() -> Iterator[Path]:
    """Those that are still there."""
    for note in sorted(_workspace_notes().glob("*.path")):
        home = Path(os.fsdecode(note.read_bytes()))
        if home.is_dir():
            yield home
        else:
            note.unlink(missing_ok=True)


def file_of(deployment: Deployment) -> Path:
    """The file a testbed was deployed from; the copy that was kept where that is gone."""
    file = Path(deployment.file)
    return file if file.is_file() else kept_file(deployment)


def kept_file(deployment: Deployment) -> Path:
    """Where the file is kept as it was at the last deploy."""
    return paths.testbed_dir(deployment.name) / "testbed.yml"


def lock_holder(name: str) -> str | None:
    """Who holds a testbed's lock, in words; None where it is free. Looking does not get in anybody's way."""
    return _holder(paths.testbed_dir(name) / "lock")


def _holder(file: Path) -> str | None:
    try:
        with file.open("r+") as handle:
            if not handle.read():  # whoever holds it writes so: a free lock is not even tried
                return None
            handle.seek(0)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return handle.read().strip() or "another process"
    except FileNotFoundError:
        pass
    return None


_held: ContextVar[frozenset[str]] = ContextVar("held", default=frozenset())
"""Locks that this thread of the program holds."""


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold the testbed's lock; raises LockedError naming who holds it. The kernel frees it when the process ends.

    Within the block it can be taken again: an experiment deploys other settings between its runs.
    """
    held = _held.get()
    if name in held:
        yield
        return
    file = paths.testbed_dir(name) / "lock"
    file.parent.mkdir(parents=True, exist_ok=True)
    _note_workspace()
    with _taken(name, file) as handle:
        handle.truncate(0)
        handle.write(f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%H:%M:%S')}")
        handle.flush()
        token = _held.set(held | {name})
        try:
            yield
        finally:
            _held.reset(token)
            handle.truncate(0)


def remove_lock(name: str) -> None:
    """Remove the lock's file of a testbed that is gone, unless this program goes on holding it."""
    if name not in _held.get():
        (paths.testbed_dir(name) / "lock").unlink(missing_ok=True)


def _taken(name: str, file: Path) -> TextIO:
    """The lock's file, locked; raises LockedError."""
    while True:
        handle = file.open("a+")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if file.exists() and os.path.samestat(os.fstat(handle.fileno()), file.stat()):
                return handle
        except BlockingIOError:
            handle.seek(0)
            holder = handle.read().strip() or "another process"
            handle.close()
            raise LockedError(
                f"testbed {name} is locked by {holder}; wait for it to end, or stop it, and run this again"
            ) from None
        handle.close()  # a teardown removed it between the two steps


def _note_workspace() -> None:
    """So that nobody takes its testbeds for leftovers."""
    home = os.fsencode(paths.workspace())
    note = _workspace_notes() / f"{hashlib.sha256(home).hexdigest()[:16]}.path"
    if not note.is_file():
        note.parent.mkdir(parents=True, exist_ok=True)
        draft = note.with_suffix(f".{os.getpid()}")
        draft.write_bytes(home)
        draft.replace(note)


def _workspace_notes() -> Path:
    return paths.cache() / "workspaces"
