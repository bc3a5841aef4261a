"""Folders of this machine: files put into them, and what processes without a container left there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from toolkit.measure.collect import CLOCK_LOGS


def write_files(folder: Path, files: Mapping[str, str]) -> None:
    """Name below the folder -> content."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


class FolderCollector:
    def __init__(self, samples: Mapping[str, Path]) -> None:
        """`samples`: node -> its samples folder."""
        self._samples = samples

    def fetch(self, run: str, nodes: Iterable[str], raw: Path) -> dict[str, str]:
        """Copy each node's files of a run into `raw/<node>/`."""
        failed = {}
        for node in dict.fromkeys(nodes):
            folder = self._samples[node]
            logs = [folder / name for name in CLOCK_LOGS if (folder / name).is_file()]
            try:
                left = [file for own in folder.iterdir() if own.name == run for file in sorted(own.iterdir())]
                found = [*left, *logs]
                (raw / node).mkdir(parents=True, exist_ok=True)
                for file in found:
                    (raw / node / file.name).write_bytes(file.read_bytes())
            except OSError as error:
                failed[node] = f"node {node}: {error}"
        return failed

    def forget(self, run: str, nodes: Iterable[str]) -> None:
        """Nothing: the caller owns the folders."""
