"""The folder of a run: everything that went in and came out, sealed with checksums.

Entries: `manifest.json` (what was asked for, who played it, how it ended), `raw/<node>/` (as it came from the nodes),
`messages.parquet` (a row per message sent or refused), `samples.parquet` (a row per message delivered to a subscriber),
or of requests for orchestration `requests.parquet` and `steps.parquet`,
`kpis.json` (what was computed from them), `SHA256SUMS` of all these; docs/runs.md has every field.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit import paths
from toolkit.errors import UsageError
from toolkit.state import lock_holder

SCHEMA = 1
SUMS = "SHA256SUMS"
UNSEALED = (SUMS, "report.html", "model")
"""Not part of what happened: the sums themselves, and files and folders that can be made again from the rest."""


@dataclass(frozen=True, slots=True)
class RunFolder:
    """One run on disk."""

    path: Path

    @property
    def name(self) -> str:
        """The run's id."""
        return self.path.name

    @property
    def raw(self) -> Path:
        """What nodes sent, a folder each."""
        return self.path / "raw"

    @property
    def samples(self) -> Path:
        """Delivered messages."""
        return self.path / "samples.parquet"

    @property
    def messages(self) -> Path:
        """Sent messages."""
        return self.path / "messages.parquet"

    @property
    def requests(self) -> Path:
        """Requests for orchestration."""
        return self.path / "requests.parquet"

    @property
    def steps(self) -> Path:
        """The steps of their way."""
        return self.path / "steps.parquet"

    def manifest(self) -> dict[str, Any]:
        """What was asked for and how it ended; raises UsageError where this is no run."""
        return self._read("manifest.json")

    @property
    def status(self) -> str:
        """How it ended: complete, failed, interrupted, also where who played it was killed; or running."""
        manifest = self.manifest()
        status = str(manifest.get("status", ""))
        gone = status == "running" and lock_holder(manifest["testbed"]["name"]) is None
        return "interrupted" if gone else status

    def kpis(self) -> dict[str, Any]:
        """What was computed; raises UsageError where the run ended before that."""
        if not self.has_kpis:
            raise UsageError(
                f"run {self.name} has no figures (it is {self.status or 'unfinished'}); "
                "others: toolkit results list --status complete"
            )
        return self._read("kpis.json")

    @property
    def has_kpis(self) -> bool:
        """Whether the run came as far as being computed."""
        return (self.path / "kpis.json").is_file()

    def resources(self) -> dict[str, Any]:
        """What nodes spent; empty where nobody watched."""
        return self._read("resources.json") if (self.path / "resources.json").is_file() else {}

    def _read(self, name: str) -> dict[str, Any]:
        try:
            document = json.loads((self.path / name).read_text())
        except FileNotFoundError:
            raise UsageError(f"{self.path} has no {name}; `toolkit results list` lists the runs there are") from None
        except ValueError as error:
            raise UsageError(f"{self.path / name} is damaged ({error}); `toolkit results verify` tells more") from None
        return dict(document)

    def write(self, name: str, document: Mapping[str, Any]) -> None:
        """Write a JSON document; the old or the new one is there, never half of one."""
        self.path.mkdir(parents=True, exist_ok=True)
        draft = self.path / f"{name}.new"
        draft.write_text(json.dumps({"schema": SCHEMA, **document}, indent=1, default=str) + "\n")
        draft.replace(self.path / name)

    def files(self) -> Iterator[Path]:
        """Everything that belongs to the run, sorted."""
        yield from (
            file
            for file in sorted(self.path.rglob("*"))
            if file.is_file() and file.relative_to(self.path).parts[0] not in UNSEALED
        )

    def seal(self) -> None:
        """Write the checksums of everything; what is changed from now on, `verify` finds."""
        lines = [f"{_sha256(file)}  {file.relative_to(self.path).as_posix()}\n" for file in self.files()]
        (self.path / SUMS).write_text("".join(lines))

    def verify(self) -> list[str]:
        """What differs from the time of sealing, in words; empty: nothing."""
        try:
            lines = (self.path / SUMS).read_text().splitlines()
        except FileNotFoundError:
            return [f"{self.name} was never sealed: it was interrupted before its end"]
        sums = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
        there = {file.relative_to(self.path).as_posix(): file for file in self.files()}
        problems = [f"{name} is missing" for name in sorted(sums.keys() - there.keys())]
        problems += [f"{name} was added later" for name in sorted(there.keys() - sums.keys())]
        problems += [
            f"{name} was changed" for name in sorted(sums.keys() & there.keys()) if _sha256(there[name]) != sums[name]
        ]
        return problems

    def size_bytes(self) -> int:
        """Of all files."""
        return sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file())


def _sha256(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def runs_dir(testbed: str) -> Path:
    """Where the runs of a testbed are."""
    return paths.testbed_dir(testbed) / "runs"


def new_run(testbed: str, workload: str, *, now_s: float | None = None) -> RunFolder:
    """An empty folder for a run."""
    return RunFolder(folder_of_now(runs_dir(testbed), workload, now_s=now_s))


def folder_of_now(home: Path, name: str, *, now_s: float | None = None) -> Path:
    """An empty folder `<UTC second>-<name>`, with a number behind it where that exists."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now_s))
    home.mkdir(parents=True, exist_ok=True)
    for number in range(1, 10_000):
        folder = home / f"{stamp}-{name}{f'-{number}' if number > 1 else ''}"
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder
    raise UsageError(f"{home} has ten thousand folders of one second")


def list_runs(testbed: str, *, workload: str | None = None) -> list[RunFolder]:
    """Runs of a testbed that have a manifest, oldest first."""
    home = runs_dir(testbed)
    found = [RunFolder(folder) for folder in sorted(home.iterdir())] if home.is_dir() else []
    found = [run for run in found if (run.path / "manifest.json").is_file()]
    return [run for run in found if workload in (None, run.manifest().get("workload", {}).get("name"))]


def find_run(name: str, testbed: str | None = None) -> RunFolder:
    """A run by its folder, its id, a unique beginning of its id, its workload (the latest with figures), or `latest`.

    Raises UsageError listing candidates.
    """
    place = Path(name)
    if (place / "manifest.json").is_file():
        return RunFolder(place.resolve())
    if place.is_dir() and "/" in name:
        raise UsageError(f"{name} is no folder of a run: it holds no manifest.json")
    if not place.exists() and ("/" in name or place.suffix):  # ids and names of workloads have neither
        raise UsageError(f"there is no file or folder {name}; runs: toolkit results list")
    home = paths.workspace()
    names = [testbed] if testbed else sorted(f.name for f in home.iterdir() if f.is_dir()) if home.is_dir() else []
    runs = [run for each in names for run in list_runs(each)]
    if name == "latest" and runs:
        return _latest(runs)
    found = [run for run in runs if run.name == name] or [run for run in runs if run.name.startswith(name)]
    if len(found) == 1:
        return found[0]
    played = [run for run in runs if run.has_kpis and run.manifest().get("workload", {}).get("name") == name]
    if played and not found:
        return _latest(played)
    if not runs:
        raise UsageError(f"there are no runs{f' of testbed {testbed}' if testbed else ''} yet; try: toolkit run")
    hint = ", ".join(run.name for run in (found or runs)[-5:])
    raise UsageError(f"{'several runs begin with' if found else 'there is no run'} {name!r}; there are: {hint}")


def _latest(runs: Sequence[RunFolder]) -> RunFolder:
    return max(runs, key=lambda run: float(run.manifest().get("started_at") or 0.0))


def prune(testbed: str, *, keep: int, dry_run: bool = False) -> list[RunFolder]:
    """Delete all but the newest `keep` runs; returns those deleted (or that would be)."""
    runs = list_runs(testbed)
    old = runs[: max(len(runs) - keep, 0)]
    for run in () if dry_run else old:
        shutil.rmtree(run.path)
    return old
