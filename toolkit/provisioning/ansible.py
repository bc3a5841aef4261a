"""The one place that starts ansible-playbook: its events become ours, its outcome a value per node."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from toolkit import paths
from toolkit.errors import DeployIncompleteError, ToolkitError
from toolkit.events import Emit, Event
from toolkit.provisioning.light import write_light_playbook

Status = Literal["ok", "changed", "failed", "unreachable"]
_ENDS_WITHIN_S = 10.0
_MAX_FORKS = 50
_QUIET_ACTIONS = frozenset({"ansible.builtin.validate_argument_spec", "ansible.builtin.include_role"})
"""Steps of Ansible's own that nobody waits for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeOutcome:
    """What a playbook came to on one node."""

    status: Status
    message: str = ""
    """Of a node that failed or was not reached: why."""
    changes: tuple[Mapping[str, Any], ...] = ()
    """What the converge module did: action, what, why."""
    noted: tuple[Mapping[str, Any], ...] = ()
    """Changes to the machine itself, noted before they were made; they belong in `Deployment.changes`."""
    notes: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    """Of a teardown: what is still there."""
    timings: Mapping[str, float] = field(default_factory=dict)

    @property
    def well(self) -> bool:
        """Neither failed nor out of reach."""
        return self.status in {"ok", "changed"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaybookRun:
    """A playbook that ended."""

    outcomes: Mapping[str, NodeOutcome]
    log: Path
    duration_s: float

    @property
    def failed(self) -> dict[str, str]:
        """Node -> why."""
        return {node: outcome.message for node, outcome in self.outcomes.items() if not outcome.well}

    @property
    def changed(self) -> bool:
        """Whether anything was changed anywhere."""
        return any(outcome.status == "changed" or outcome.changes for outcome in self.outcomes.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Ansible:
    """ansible-playbook, with settings of our own only."""

    directory: Path
    """The testbed's folder; logs and Ansible's own files go below it."""

    def run(
        self,
        playbook: str,
        inventory: Path,
        emit: Emit,
        *,
        stage: str = "provision",
        secrets: Mapping[str, Mapping[str, Mapping[str, str]]] | None = None,
        limit: tuple[str, ...] | None = None,
    ) -> PlaybookRun:
        """Run `playbook` (deploy.yml, teardown.yml, check.yml); a node that fails does not stop the others.

        `secrets`: node -> container -> variable -> value. `limit`: only these nodes.
        Raises DeployIncompleteError where Ansible itself cannot run.
        """
        if limit is not None and not limit:
            raise ToolkitError(f"{playbook} was given no nodes to work on")
        nodes = limit if limit is not None else _nodes(inventory)
        quick = write_light_playbook(playbook, self.directory / "ansible")
        command = [_program(), str(quick), "--inventory", str(inventory)]
        if limit is not None:
            command += ["--limit", ",".join(limit)]
        start = time.monotonic()
        log = self._log(playbook)
        reader = _Reader(stage=stage, nodes=nodes, emit=emit)
        with _secret_file({"toolkit_secrets": secrets} if secrets else None) as secret_file, log.open("w") as log_file:
            if secret_file is not None:
                command += ["--extra-vars", f"@{secret_file}"]
            with _process(command, self._environment(len(nodes))) as process:
                assert process.stdout is not None  # noqa: S101
                for line in process.stdout:
                    log_file.write(line)
                    reader.read(line)
                    if secret_file is not None and reader.playing:
                        secret_file.unlink(missing_ok=True)
                status = process.wait()
        if not reader.finished:
            said = "\n".join(reader.words[-5:]) or f"status {status}"
            raise DeployIncompleteError(f"ansible-playbook {playbook} did not get to its end: {said}; log: {log}")
        return PlaybookRun(outcomes=reader.outcomes(), log=log, duration_s=time.monotonic() - start)

    def _log(self, playbook: str) -> Path:
        logs = self.directory / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        return logs / f"{time.strftime('%Y%m%d-%H%M%S')}-{Path(playbook).stem}.jsonl"

    def _environment(self, nodes: int) -> dict[str, str]:
        """The caller's environment without its Ansible settings, and ours."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("ANSIBLE_", "PYTHON"))}
        home = self.directory / "ansible"
        playbooks = paths.PLAYBOOKS
        ours = {
            "ANSIBLE_CONFIG": str(playbooks / "ansible.cfg"),
            "ANSIBLE_HOME": str(home),
            "ANSIBLE_LOCAL_TEMP": str(home / "tmp"),
            "ANSIBLE_LIBRARY": str(playbooks / "library"),
            "ANSIBLE_MODULE_UTILS": str(playbooks / "module_utils"),
            "ANSIBLE_ROLES_PATH": str(playbooks / "roles"),
            "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.jsonl",
            "ANSIBLE_FORKS": str(max(1, min(nodes, _MAX_FORKS))),
            "ANSIBLE_INVENTORY_ENABLED": "ansible.builtin.yaml",
            "ANSIBLE_DEPRECATION_WARNINGS": "0",
            "ANSIBLE_NOCOLOR": "1",
            "LC_ALL": "C.UTF-8",
        }
        return {**kept, **ours}


class _Reader:
    """Takes the callback's lines, one JSON object each, and keeps what they say about each node."""

    def __init__(self, *, stage: str, nodes: tuple[str, ...], emit: Emit) -> None:
        self.words: list[str] = []
        self.playing = False
        self.finished = False
        self._stage = stage
        self._emit = emit
        self._facts: dict[str, dict[str, Any]] = {node: {"status": "ok"} for node in nodes}
        self._seen: set[str] = set()
        self._began: dict[tuple[str, str], float] = {}

    def read(self, line: str) -> None:
        try:
            event = json.loads(line)
            kind = event["_event"]
        except (ValueError, TypeError, KeyError):
            if line.strip():
                self.words.append(line.strip())
            return
        if kind == "v2_playbook_on_play_start":
            self.playing = True
        elif kind in {"v2_playbook_on_task_start", "v2_playbook_on_handler_task_start", "v2_runner_on_start"}:
            self._began[event["task"]["id"], ""] = time.monotonic()
        elif kind.startswith("v2_runner_on_"):
            for node, result in event["hosts"].items():
                self._result(node, event["task"], kind.removeprefix("v2_runner_on_"), result)
        elif kind == "v2_playbook_on_stats":
            self.finished = True
            self._seen = set(event["stats"])

    def _result(self, node: str, task: Mapping[str, Any], outcome: str, result: Mapping[str, Any]) -> None:
        if outcome == "skipped" or (outcome == "ok" and result.get("action") in _QUIET_ACTIONS):
            return
        facts = self._facts.setdefault(node, {"status": "ok"})
        changed = bool(result.get("changed"))
        began = self._began.get((task["id"], ""))
        duration_s = time.monotonic() - began if began is not None else None
        name = task["name"].rpartition(" : ")[2]
        for part in (result, *_items(result)):
            for key in ("changes", "noted", "notes", "left"):
                facts[key] = (*facts.get(key, ()), *part.get(key, ()))
            facts["timings"] = {**facts.get("timings", {}), **part.get("timings", {})}
        if outcome in {"failed", "unreachable"} and not result.get("ignore_errors"):
            facts["status"] = outcome
            facts["message"] = _why(outcome, name, result)
            self._emit(
                Event(
                    stage=self._stage,
                    node=node,
                    message=facts["message"],
                    level="error",
                    state="failed",
                    duration_s=duration_s,
                )
            )
            return
        if changed and facts["status"] == "ok":
            facts["status"] = "changed"
        self._emit(
            Event(
                stage=self._stage,
                node=node,
                message=_summary(name, result),
                state="done",
                changed=changed,
                duration_s=duration_s,
            )
        )

    def outcomes(self) -> dict[str, NodeOutcome]:
        return {
            node: NodeOutcome(**facts)
            if node in self._seen
            else NodeOutcome(status="failed", message=f"node {node}: no play came to it")
            for node, facts in self._facts.items()
        }


def _items(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The results of a loop's rounds."""
    rounds = result.get("results", ())
    return [item for item in rounds if isinstance(item, dict)] if isinstance(rounds, list) else []


def _summary(task: str, result: Mapping[str, Any]) -> str:
    """`Converge the node: created toolkit-x-broker, wrote 3 files`."""
    counts: dict[str, list[str]] = {}
    for change in result.get("changes", ()):
        counts.setdefault(str(change["action"]), []).append(str(change["what"]))
    parts = [f"{verb} {things[0] if len(things) == 1 else len(things)}" for verb, things in counts.items()]
    return f"{task}: {', '.join(parts)}" if parts else task


def _why(outcome: str, task: str, result: Mapping[str, Any]) -> str:
    broken = next((item for item in _items(result) if item.get("failed")), None)
    if broken is not None:
        result = broken
    message = str(result.get("msg") or result.get("stderr") or result.get("module_stderr") or "no reason was given")
    if outcome == "unreachable":
        return f"cannot be reached: {message.strip()}"
    if message.startswith("non-zero return code"):  # of a shell; on a terminal all it says is stdout
        message = _last_line(result, "stderr") or _last_line(result, "stdout") or message
    return f"{task}: {_last_line(result, 'module_stderr') or message.strip()}"


def _last_line(result: Mapping[str, Any], stream: str) -> str:
    lines = [line.strip() for line in str(result.get(stream) or "").splitlines()]
    return next((line for line in reversed(lines) if line and not line.startswith("Shared connection to ")), "")


def _nodes(inventory: Path) -> tuple[str, ...]:
    return tuple(json.loads(inventory.read_text())["all"]["hosts"])


def _program() -> str:
    beside = Path(sys.executable).with_name("ansible-playbook")
    found = str(beside) if beside.is_file() else shutil.which("ansible-playbook")
    if found is None:
        raise DeployIncompleteError(
            "there is no ansible-playbook beside this Python or on the PATH; install toolkit with its dependencies"
        )
    return found


@contextlib.contextmanager
def _secret_file(values: Mapping[str, Any] | None) -> Iterator[Path | None]:
    """A file for our user alone, in memory where there is such a place, gone as soon as Ansible has read it.

    A shell of its own waits for our end, so that the file goes with us also when we are killed.
    """
    if values is None:
        yield None
        return
    place = next((p for p in (os.environ.get("XDG_RUNTIME_DIR"), "/dev/shm") if p and os.access(p, os.W_OK)), None)  # noqa: S108
    handle, name = tempfile.mkstemp(prefix="toolkit-", suffix=".json", dir=place)  # mode 0600
    file = Path(name)
    mourner = subprocess.Popen(
        ["/bin/sh", "-c", 'cat > /dev/null; rm -f -- "$0"', name], stdin=subprocess.PIPE, start_new_session=True
    )
    try:
        with os.fdopen(handle, "w") as stream:
            stream.write(_untemplated(values))
        yield file
    finally:
        mourner.communicate()
        file.unlink(missing_ok=True)


def _untemplated(value: Any) -> str:
    """YAML of mappings and texts, each text as it is: Ansible takes `{{` in variables for an expression to work out."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(key)}: {_untemplated(inner)}" for key, inner in value.items()) + "}"
    plain = (c if " " <= c <= "~" and c not in '"\\' else f"\\U{ord(c):08x}" for c in str(value))
    return f'!unsafe "{"".join(plain)}"' if value else '""'  # an empty one that is tagged becomes none at all


@contextlib.contextmanager
def _process(command: list[str], environment: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A process in a session of its own, which is over when the block is left, however it is left.

    Also when this process is killed and cannot leave it: the kernel tells the child, where util-linux can ask for that.
    """
    bound = ["setpriv", "--pdeathsig", "TERM", "--"] if shutil.which("setpriv") else []
    process = subprocess.Popen(
        [*bound, *command],
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        cwd=paths.PLAYBOOKS,
    )
    try:
        yield process
    finally:
        for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            if process.poll() is not None:
                break
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, ending)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_ENDS_WITHIN_S / 2)
        if process.stdout is not None:
            process.stdout.close()
