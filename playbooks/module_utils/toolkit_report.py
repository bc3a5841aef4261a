# SPDX-License-Identifier: Apache-2.0
"""What a converge did, or in check mode would do: the value that all its parts write to.

Runs on nodes: Python 3.8 and later, standard library only.
"""

from __future__ import annotations

import contextlib
import time


class NodeError(Exception):
    """The node could not be brought to its bundle; `failures` has a text for each part that failed."""

    def __init__(self, *failures):
        super().__init__("\n".join(failures))
        self.failures = list(failures)


class Report:
    """Changes, differences and remarks, in the order in which they came."""

    def __init__(self, *, check=False):
        self.check = check
        self.changes = []
        self.diffs = []
        self.notes = []
        self.timings = {}

    def change(self, action, what, why=""):
        """Note a change that follows; True if it is really to be made."""
        self.changes.append({"action": action, "what": what, "why": why})
        return not self.check

    def diff(self, path, before, after):
        """The difference of a text file, as `--diff` shows it."""
        import difflib

        old = (before or b"").decode(errors="replace").splitlines(keepends=True)
        new = after.decode(errors="replace").splitlines(keepends=True)
        lines = list(difflib.unified_diff(old, new, "%s (on the node)" % path, "%s (bundle)" % path, n=1))
        self.diffs.append({"prepared": "".join(lines[:200])})

    @contextlib.contextmanager
    def timed(self, step):
        start = time.monotonic()
        try:
            yield
        finally:
            self.timings[step] = round(time.monotonic() - start, 3)
