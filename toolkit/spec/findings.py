"""Problems gathered while a file is read, so that all of them are reported together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from toolkit.errors import Problem
from toolkit.spec.yaml import Document, Path


@dataclass(slots=True, kw_only=True)
class Findings:
    """What is wrong so far in one document."""

    document: Document
    problems: list[Problem] = field(default_factory=list)
    left_out: set[Path] = field(default_factory=set)
    """Where something was wrong already and is not looked at again."""

    def add(self, path: Path, message: str, *, at_key: bool = False) -> None:
        """Something is wrong at a path (`at_key`: with its key rather than its value); said twice, kept once."""
        problem = self.document.problem(path, message, at_key=at_key)
        if problem not in self.problems:
            self.problems.append(problem)

    def extend(self, problems: Iterable[Problem]) -> None:
        """Add problems of another check, but none at a place where something was wrong already."""
        told = {(problem.line, problem.column) for problem in self.problems}
        self.problems += [problem for problem in problems if (problem.line, problem.column) not in told]

    def lacking(self, path: Path, key: str, message: str) -> None:
        """An entry lacks a key it needs; nothing to say where the key was there and wrong."""
        if (*path, key) not in self.left_out:
            self.add(path, message, at_key=True)

    def line(self, path: Path) -> int:
        """The line of an entry's key."""
        place = self.document.keys.get(path) or self.document.values.get(path)
        return place[0] if place else 0
