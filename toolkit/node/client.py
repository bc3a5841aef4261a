"""The main program of publisher, subscriber and consumer: carries out orders one after the other, until SIGTERM."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterable
from typing import Protocol

from toolkit.contract.orders import RunOrder
from toolkit.contract.settings import ProcessSettings
from toolkit.errors import ToolkitError
from toolkit.node import exposition
from toolkit.node.control import Control, log
from toolkit.node.descriptors import allow_descriptors


class Part(Protocol):
    """What one client does in one run."""

    def prepare(self) -> None:
        """Connect to the broker; raises OSError, ValueError or ToolkitError."""

    def play(self) -> None:
        """Go through the phases from ready to draining; returns when nothing more is to be expected."""

    def finish(self, error: str | None) -> str | None:
        """Close the connections and save the stamps; the error of the run, if it has one."""


MakePart = Callable[[ProcessSettings, Control, RunOrder], Part]


def serve_orders(
    role: str,
    make_part: MakePart,
    *,
    readings: Callable[[Control], Iterable[exposition.Reading]],
    check: Callable[[RunOrder], None],
) -> int:
    """Serve until SIGTERM; the exit code."""
    sys.setswitchinterval(1e-4)  # the hot thread waits at most 0.1 ms for the others
    allow_descriptors()
    settings = ProcessSettings.from_environment()
    try:
        control = Control(settings, role, readings=lambda: readings(control), check=check)
    except ToolkitError as error:
        log("failed", settings, role, error=str(error))
        return error.exit_code
    control.serve()
    log("serving", settings, role, control_port=settings.control_port, metrics_port=settings.metrics_port)
    while (order := control.next_order()) is not None:
        _carry_out(settings, control, order, make_part)
    control.close()
    return 0


def at_entrance(order: RunOrder, turn: int) -> RunOrder:
    """The order for one connection: of several entrances of a broker, the one whose turn it is."""
    entrances = order.broker.split(",")
    return order if len(entrances) == 1 else dataclasses.replace(order, broker=entrances[turn % len(entrances)])


def _carry_out(settings: ProcessSettings, control: Control, order: RunOrder, make_part: MakePart) -> None:
    part: Part | None = None
    error: str | None = None
    try:
        part = make_part(settings, control, order)
        part.prepare()
        part.play()
    except (OSError, ValueError, ToolkitError) as problem:
        error = f"{settings.service} on {settings.node}: {problem}"
    if part is not None:
        error = part.finish(error)
    control.enter("failed" if error else "done", error)
