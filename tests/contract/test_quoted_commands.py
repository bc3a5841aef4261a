"""Every `toolkit …` that a page or an example quotes is a command, with options that it has."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer

from tests.conftest import ROOT
from toolkit.cli.main import application

PAGES = [
    ROOT / "README.md",
    *ROOT.glob("docs/**/*.md"),
    *ROOT.glob("examples/**/*.md"),
    *ROOT.glob("examples/**/*.yml"),
]
FENCED = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`(toolkit [^`\n]+)`")
LINE = re.compile(r"(?:^|&& )(?:\$ |#\s+)?(toolkit [^\n;&|#]*)", re.MULTILINE)
COMMAND_LINE: Any = typer.main.get_command(application())


def quoted(page: Path) -> set[str]:
    text = page.read_text()
    blocks = FENCED.findall(text) if page.suffix == ".md" else [text]
    return {*INLINE.findall(text), *(line for block in blocks for line in LINE.findall(block))}


def lacks(line: str) -> str:
    """What of a quoted command there is not; empty: it is all there."""
    command = COMMAND_LINE
    words = line.partition(" -- ")[0].split()[1:]
    while words and hasattr(command, "commands"):
        word = words.pop(0).rstrip(",")
        if word not in command.commands:
            return "" if word.startswith(("-", "COMMAND")) else word
        command = command.commands[word]
        if words[:1] and words[0].endswith(","):  # a list of sub-commands
            return next((word for word in (w.rstrip(",") for w in words) if word not in command.commands), "")
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    options = {re.split(r"[=.,]", word)[0] for word in words if re.match(r"--?[a-zA-Z]", word)}
    return " ".join(sorted(options - known - {"--help"}))


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_every_quoted_command_exists(page: Path) -> None:
    assert {line: missing for line in quoted(page) if (missing := lacks(line))} == {}


def test_commands_are_found_and_slips_are_seen() -> None:
    assert sum(len(quoted(page)) for page in PAGES) > 100
    assert lacks("toolkit deploi x.yml") == "deploi"
    assert lacks("toolkit deploy x.yml --twin --scale 0.3") == "--twin"
    assert lacks("toolkit results list, shaw") == "shaw"
    assert lacks("toolkit exec kind:pi1 -- uptime --pretty") == ""
