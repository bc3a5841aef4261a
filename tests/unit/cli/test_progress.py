"""How events look: live on a terminal, plain lines elsewhere, and without colours where people want none."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

import pytest

STORY = """
from toolkit.cli.progress import progress
from toolkit.events import Event
with progress() as emit:
    emit(Event(stage="plan", message="4 nodes, 5 services", state="done", duration_s=0.1))
    emit(Event(stage="provision", message="broker starts", node="eh", state="started"))
    emit(Event(stage="gate", message="the clock of sub is known to 3 ms only", node="sub", level="warning"))
    emit(Event(stage="provision", message="broker does not start", node="eh", state="failed", level="error"))
"""
COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3|4|9)\d(?:;\d+)*m")
PLAIN = [
    "✓ plan: 4 nodes, 5 services (0.1 s)",
    "gate: sub: the clock of sub is known to 3 ms only",
    "✗ provision: eh: broker does not start",
]


def on_a_terminal(**environment: str) -> str:
    """What the story prints on a terminal of 80 columns."""
    own, others = pty.openpty()
    settings = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", **environment}
    process = subprocess.Popen([sys.executable, "-c", STORY], stderr=others, env=settings)
    os.close(others)
    shown = b""
    while True:
        try:
            part = os.read(own, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        shown += part
    assert process.wait(30) == 0
    os.close(own)
    return shown.decode()


def lines_of(text: str) -> list[str]:
    return [re.sub(r"^\[ *[\d.]+ s\] +", "", line) for line in text.replace("\r", "").splitlines()]


@pytest.fixture(autouse=True)
def no_wishes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE"):
        monkeypatch.delenv(name, raising=False)


def test_a_terminal_has_colours_unless_people_want_none() -> None:
    coloured = on_a_terminal()
    assert COLOUR.search(coloured)
    bare = on_a_terminal(NO_COLOR="1")
    assert not COLOUR.search(bare)
    assert "broker does not start" in bare


@pytest.mark.parametrize("terminal", [False, True])
def test_elsewhere_and_on_a_dumb_terminal_there_are_plain_lines(terminal: bool) -> None:
    if terminal:
        told = on_a_terminal(TERM="dumb")
    else:
        told = subprocess.run([sys.executable, "-c", STORY], capture_output=True, text=True, check=True).stderr
    assert "\x1b" not in told
    assert lines_of(told) == PLAIN
