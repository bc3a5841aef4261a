"""Every error that toolkit raises on purpose, and the exit code each becomes.

ToolkitError                     1  (never raised itself; 1 also means a bug)
├── UsageError                   2  the command line asks for something that cannot be
├── FileInvalidError             3  a file people wrote is wrong; carries every problem found
│   └── ModelError               3  a net, or the samples for it, cannot be used
├── UnreachableError             4  a node, the engine or an image cannot be had, or a node fails the preflight
├── DeployIncompleteError        5  deploy stopped half way; the same command goes on from there
├── GateError                    6  a gate (engine, images, clock, health, metrics) did not open
├── WorkloadError                7  a workload, a KPI assertion, a command of `exec` or a checksum of a run failed
│   └── MeasurementError         7  samples contradict themselves or cannot be joined
├── ResidueError                 8  teardown left something behind
└── LockedError                  9  another toolkit process works on the same testbed

Exit codes without an exception: 0 done or nothing to do, 10 `plan --detailed-exitcode` sees changes,
130 interrupted with the state saved.
"""

from __future__ import annotations

from dataclasses import dataclass

EXIT_CODES: dict[int, str] = {
    0: "done, or nothing to do",
    1: "internal error (a bug; the traceback is in the log)",
    2: "wrong use of the command line, or a path of this machine that cannot be read or written",
    3: "the testbed file (or a file it names) is invalid",
    4: "a node, the engine or an image is out of reach, or a node fails the preflight",
    5: "deploy incomplete; run it again to go on",
    6: "a gate failed: engine, images, clock, health or metrics",
    7: "a workload, a KPI assertion, a command of `exec` or a checksum of a run failed",
    8: "teardown left something behind (listed)",
    9: "locked: another toolkit process works on this testbed",
    10: "`plan --detailed-exitcode` sees changes",
    130: "interrupted; the state is saved",
}
"""The documented contract of exit codes."""


class ToolkitError(Exception):
    """An error with a message for people: what, where, and what to try."""

    exit_code = 1


class UsageError(ToolkitError):
    """The command line asks for something that does not exist or makes no sense."""

    exit_code = 2


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Problem:
    """One thing wrong in a file; `line` and `column` count from 1."""

    file: str
    line: int
    column: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.message}"


class FileInvalidError(ToolkitError):
    """A file people wrote is wrong; every problem found in it is reported together."""

    exit_code = 3

    def __init__(self, problems: list[Problem] | str) -> None:
        self.problems = [] if isinstance(problems, str) else sorted(problems)
        super().__init__(problems if isinstance(problems, str) else "\n".join(map(str, self.problems)))


class ModelError(FileInvalidError):
    """A net, or the samples for it, cannot be used; names the place, transition or sample."""


class UnreachableError(ToolkitError):
    """Some nodes cannot be reached or fail the preflight; the message has a line for each."""

    exit_code = 4


class DeployIncompleteError(ToolkitError):
    """Deploy stopped before its end; what was done is saved and the same command goes on."""

    exit_code = 5


class GateError(ToolkitError):
    """A gate did not open in time; the message has a line for each node and gate."""

    exit_code = 6


class WorkloadError(ToolkitError):
    """A workload, a KPI assertion or a command on nodes failed."""

    exit_code = 7


class MeasurementError(WorkloadError):
    """Samples contradict themselves, or cannot be joined or trusted."""


class ResidueError(ToolkitError):
    """Teardown looked and found something that is still there."""

    exit_code = 8


class LockedError(ToolkitError):
    """Another toolkit process is acting on the same testbed."""

    exit_code = 9
