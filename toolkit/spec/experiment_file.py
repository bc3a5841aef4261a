"""Experiments in a file of their own, beside the testbed they are for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path as FilePath

from toolkit.errors import FileInvalidError, Problem
from toolkit.spec import yaml
from toolkit.spec.names import did_you_mean

SECTIONS = ("workloads", "experiments")
KEYS = ("version", "testbed", *SECTIONS)


def join_experiments(testbed: yaml.Document, more: yaml.Document) -> yaml.Document:
    """The testbed's document with the other one's workloads and experiments in it; each keeps its places.

    Raises FileInvalidError where the second file has other sections, or names that the first has too.
    """
    root = dict(testbed.root) if isinstance(testbed.root, dict) else {}
    problems: list[Problem] = []
    joined: dict[yaml.Path, yaml.Document] = {}
    if not isinstance(more.root, dict):
        raise FileInvalidError([more.problem((), "a file of experiments is a mapping that begins with `experiments:`")])
    for section, entries in more.root.items():
        if section not in KEYS:
            message = f"unknown key {section!r} in a file of experiments{did_you_mean(section, KEYS)}"
            problems.append(more.problem((section,), message, at_key=True))
        if section not in SECTIONS:
            continue
        there = root.get(section) or {}
        if not isinstance(entries, dict) or not isinstance(there, dict):
            problems.append(more.problem((section,), f"{section}: expected a mapping NAME: VALUE"))
            continue
        problems += [
            more.problem((section, name), f"{name!r} is in {testbed.file} too; rename one", at_key=True)
            for name in sorted(entries.keys() & there.keys())
        ]
        root[section] = {**there, **entries}
        joined |= {(section, name): more for name in entries}
    if problems:
        raise FileInvalidError([*testbed.problems, *more.problems, *problems])
    references = {path: plain for path, plain in more.references.items() if path[:1] in {(s,) for s in SECTIONS}}
    return dataclasses.replace(
        testbed,
        root=root,
        joined=joined,
        references={**testbed.references, **references},
        problems=(*testbed.problems, *more.problems),
    )


def testbed_of(file: FilePath) -> FilePath | None:
    """The file itself where it declares nodes, else the testbed file that a file of experiments names, if any."""
    root = yaml.read(file).root
    if not isinstance(root, Mapping):
        return None
    named = root.get("testbed")
    return file if "nodes" in root else file.parent / named if isinstance(named, str) else None
