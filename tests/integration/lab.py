"""A testbed of a test's own: a workspace, a file that can be edited, and the `toolkit` command run on it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TOOLKIT = (sys.executable, "-m", "toolkit")
DEPLOY_S = 300


@dataclass
class Lab:
    """One workspace with one testbed file."""

    folder: Path
    name: str
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def file(self) -> Path:
        return self.folder / "testbed.yml"

    @property
    def home(self) -> Path:
        return self.folder / ".toolkit"

    def write(self, text: str) -> None:
        self.file.write_text(text.replace("NAME", self.name))

    def edit(self, old: str, new: str) -> None:
        text = self.file.read_text()
        assert old in text
        self.file.write_text(text.replace(old, new))

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*TOOLKIT, *arguments],
            cwd=self.folder,
            env={**os.environ, "TOOLKIT_HOME": str(self.home), **self.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, expect: int | None = 0, within_s: float = DEPLOY_S) -> Ran:
        process = self.start(*arguments)
        try:
            stdout, stderr = process.communicate(timeout=within_s)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            stdout, stderr = process.communicate(timeout=60)
            raise AssertionError(f"toolkit {' '.join(arguments)} took over {within_s} s:\n{stdout}\n{stderr}") from None
        ran = Ran(arguments=arguments, code=process.returncode, stdout=stdout, stderr=stderr)
        assert expect is None or ran.code == expect, f"{ran}"
        return ran

    def interrupt(self, process: subprocess.Popen[str], *, after_s: float, how: signal.Signals = signal.SIGINT) -> Ran:
        """Stop a command so long after it took the testbed's lock; returns how it ended."""
        deadline = time.monotonic() + 60
        while process.poll() is None and not self.locked and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(after_s)
        over = process.poll() is not None
        process.send_signal(how)
        stdout, stderr = process.communicate(timeout=60)
        when = "too late" if over else f"after {after_s:.2f} s"
        return Ran(arguments=("interrupted", when), code=process.returncode, stdout=stdout, stderr=stderr, over=over)

    @property
    def locked(self) -> bool:
        """Whether a command holds the testbed's lock, in which it then writes its name."""
        with contextlib.suppress(FileNotFoundError):
            return bool((self.home / self.name / "lock").read_text())
        return False

    def status(self) -> dict[str, dict[str, Any]]:
        document = self.run("status", "--json").document
        return {node["node"]: node for node in document["nodes"]}

    def node(self, name: str) -> str:
        """The container that is this virtual node."""
        return f"toolkit-{self.name}-{name}"

    def left(self) -> list[str]:
        """Everything on this machine's engine that carries the testbed's label."""
        mark = f"label=org.toolkit.testbed={self.name}"
        return [
            *docker("ps", "-a", "--filter", mark, "--format", "container {{.Names}}").splitlines(),
            *docker("network", "ls", "--filter", mark, "--format", "network {{.Name}}").splitlines(),
            *docker("volume", "ls", "--filter", mark, "--format", "volume {{.Name}}").splitlines(),
        ]


@contextlib.contextmanager
def deployed(folder: Path, name: str, text: str) -> Iterator[Lab]:
    """A testbed that is up inside the block; nothing of it is left afterwards, also where it never came up."""
    made = Lab(folder=folder, name=name)
    made.write(text)
    try:
        made.run("deploy")
        yield made
    finally:
        made.run("teardown")
    assert made.left() == []


@dataclass(frozen=True)
class Ran:
    """A command that ended."""

    arguments: Sequence[str]
    code: int
    stdout: str
    stderr: str
    over: bool = False
    """It had ended by itself before it was to be interrupted."""

    @property
    def document(self) -> Any:
        return json.loads(self.stdout.splitlines()[-1])

    def __str__(self) -> str:
        return f"toolkit {' '.join(self.arguments)}: exit {self.code}\n{self.stdout[-3000:]}\n{self.stderr[-3000:]}"


def docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True).stdout
