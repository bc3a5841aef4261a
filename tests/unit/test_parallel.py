"""The same done to many things: order, errors, and that an interrupt waits for nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from toolkit.parallel import on_each

ENDLESS = """
import os, time
from toolkit.parallel import on_each
on_each(range(9), lambda number: (os.write(1, b"begun\\n"), time.sleep(60)), at_once=2)
"""


def test_results_come_in_order_and_no_more_is_done_at_once_than_may_be() -> None:
    now, most, lock = [0], [0], threading.Lock()

    def action(number: int) -> int:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.01 * (5 - number))
        with lock:
            now[0] -= 1
        return number * number

    assert on_each(range(5), action, at_once=3) == [0, 1, 4, 9, 16]
    assert most == [3]
    assert on_each((), action, at_once=3) == []


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_after_an_error_nothing_more_begins(kind: type[BaseException]) -> None:
    begun = []

    def action(number: int) -> None:
        begun.append(number)
        if number == 1:
            raise kind(str(number))

    with pytest.raises(kind, match="1"):
        on_each(range(9), action, at_once=1)
    assert begun == [0, 1]


def test_an_interrupt_waits_for_nothing() -> None:
    command = [sys.executable, "-c", ENDLESS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        assert [program.stdout.readline(), program.stdout.readline()] == ["begun\n"] * 2
        os.kill(program.pid, signal.SIGINT)
        begun, said = program.communicate(timeout=30)
    assert begun == ""
    assert "KeyboardInterrupt" in said
