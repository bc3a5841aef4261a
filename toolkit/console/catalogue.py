"""Which testbeds there are: deployed ones, files that can be deployed, and those of which only results are left."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolkit import paths
from toolkit.console.actions import Action, Actions
from toolkit.controller.asked import as_deployed
from toolkit.errors import FileInvalidError, ToolkitError, UsageError
from toolkit.measure.store import runs_dir
from toolkit.spec.load import Asked
from toolkit.spec.testbed import Testbed
from toolkit.state import Deployment, deployed_names, load_deployment, lock_holder

FILE_NAMES = ("testbed.yml", "testbed.yaml")
DEEPEST = 4
"""Folders below the current one in which files are looked for."""
MOST_FOLDERS = 2000
WALK_EVERY_S = 5.0
_SKIPPED = {"node_modules", "__pycache__", "site-packages", "_data"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One testbed as the console knows it."""

    name: str
    file: Path | None
    """None: only its results are left."""
    testbed: Testbed | None
    """None where the file is invalid or gone; `problem` says why."""
    deployment: Deployment | None
    problem: str = ""
    action: Action | None = None
    """What a console or the command line does to it right now."""
    holder: str = ""
    """Who else holds its lock, in words."""
    runs: int = 0

    @property
    def state(self) -> str:
        """In a word: files that nobody deployed are `ready`."""
        if self.action:
            return "busy"
        if self.holder:
            return "locked"
        if self.deployment:
            failed = self.deployment.failed or self.deployment.stage != "deployed"
            return "incomplete" if failed else "deployed"
        if self.problem:
            return "invalid"
        return "ready" if self.file else "gone"

    @property
    def version(self) -> str:
        """Another one means that buttons drawn before are out of date."""
        deployed = self.deployment
        seen = [
            self.state,
            self.action.id if self.action else "",
            *([deployed.stage, str(deployed.deployed_at), *sorted(deployed.hosts)] if deployed else ()),
        ]
        return hashlib.sha256("\n".join(seen).encode()).hexdigest()[:12]

    @property
    def on_own_machines(self) -> bool:
        """Whether it takes machines that stay when it goes (then a teardown is confirmed by typing its name)."""
        if self.deployment and self.deployment.hosts:
            return any(host.type not in {"container", "vm"} for host in self.deployment.hosts.values())
        providers = self.testbed.providers if self.testbed else {}
        used = {node.provider for node in self.testbed.nodes} if self.testbed else set()
        return any(providers[name].type not in {"container", "vm"} for name in used)


@dataclass(slots=True)
class Catalogue:
    """Finds testbeds below a folder and in the workspace; files are read again when they change."""

    root: Path
    named: Sequence[Path] = ()
    """Files given on the command line; with any, no others are looked for."""
    actions: Actions = field(default_factory=Actions)
    _walked: tuple[float, list[Path]] = (0.0, [])
    _read: dict[str, tuple[float, Testbed | ToolkitError]] = field(default_factory=dict)

    def entries(self) -> list[Entry]:
        """Deployed ones first, then by name."""
        files = self._files()
        names = {*files, *deployed_names(), *_with_results()}
        found = [self._entry(name, files.get(name)) for name in names]
        return sorted(found, key=lambda e: (e.deployment is None, e.state in {"gone", "invalid"}, e.name))

    def entry(self, name: str) -> Entry:
        """One testbed; raises UsageError where there is none of this name."""
        files = self._files()
        if name not in {*files, *deployed_names(), *_with_results()}:
            raise UsageError(f"there is no testbed {name!r} here")
        return self._entry(name, files.get(name))

    def _entry(self, name: str, file: Path | None) -> Entry:
        deployment = load_deployment(name)
        source = Asked(file=file) if file else None
        if deployment:
            source = as_deployed(deployment)
        asked = self._load(source) if source else None
        action = self.actions.running(name)
        return Entry(
            name=name,
            file=source.file if source else None,
            testbed=asked if isinstance(asked, Testbed) else None,
            deployment=deployment,
            problem=str(asked) if isinstance(asked, ToolkitError) else "",
            action=action,
            holder="" if action else lock_holder(name) or "",
            runs=sum(1 for _ in runs_dir(name).glob("*/manifest.json")),
        )

    def _load(self, source: Asked) -> Testbed | ToolkitError:
        try:
            changed = source.file.stat().st_mtime
        except OSError:
            return FileInvalidError(f"{source.file} is gone")
        key = repr(source)
        known = self._read.get(key)
        if known and known[0] == changed:
            return known[1]
        result: Testbed | ToolkitError
        try:
            result = source.load()
        except ToolkitError as error:
            result = error
        self._read[key] = changed, result
        return result

    def _files(self) -> dict[str, Path]:
        """Name -> file; the first one found of a name counts, an invalid file goes by its folder's name."""
        found: dict[str, Path] = {}
        if time.monotonic() >= self._walked[0]:
            self._walked = time.monotonic() + WALK_EVERY_S, [*(self.named or _testbed_files(self.root))]
        for file in self._walked[1]:
            asked = self._load(Asked(file=file))
            name = asked.name if isinstance(asked, Testbed) else (file.parent.name or file.stem)
            found.setdefault(name, file)
        return found


def _testbed_files(root: Path) -> Iterator[Path]:
    for number, (folder, below, files) in enumerate(os.walk(root)):
        if number > MOST_FOLDERS:
            return
        depth = len(Path(folder).relative_to(root).parts)
        below[:] = sorted(n for n in below if depth < DEEPEST and not n.startswith(".") and n not in _SKIPPED)
        yield from (Path(folder) / name for name in FILE_NAMES if name in files)


def _with_results() -> set[str]:
    home = paths.workspace()
    return {f.parent.name for f in home.glob("*/runs") if f.is_dir()} if home.is_dir() else set()


def summary(entry: Entry) -> dict[str, Any]:
    """What a card of the list shows beside the state."""
    bed = entry.testbed
    kinds: dict[str, int] = {}
    for node in bed.nodes if bed else ():
        kinds[node.kind] = kinds.get(node.kind, 0) + 1
    return {
        "nodes": len(bed.nodes) if bed else len(entry.deployment.hosts) if entry.deployment else 0,
        "kinds": kinds,
        "services": [service.name for service in bed.services] if bed else [],
        "workloads": list(bed.workloads) if bed else [],
        "experiments": [name for name in bed.experiments if name not in bed.workloads] if bed else [],
        "failed": dict(entry.deployment.failed) if entry.deployment else {},
    }
