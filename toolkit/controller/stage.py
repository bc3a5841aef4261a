"""The processes of one run while it is played: prepare, start, watch, drain, stop, each within its time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from toolkit.contract.orders import RunStatus
from toolkit.controller.cast import Cast
from toolkit.controller.control import Control, Process
from toolkit.controller.disturb import Disturber
from toolkit.errors import ToolkitError, UnreachableError, WorkloadError
from toolkit.events import Emit, Event
from toolkit.spec.workload import Workload

SAY_EVERY_S = 1.0
"""Between two events that tell how far a run is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long each phase may take, in seconds."""

    ready_s: float = 60.0
    start_ahead_s: float = 1.0
    """Between giving the start instant and the instant itself; more for many processes."""
    poll_s: float = 0.25
    stall_s: float = 60.0
    """A run whose counters stand still for so long is over."""
    over_s: float = 60.0
    """How much longer than planned an open-loop run may take."""
    save_s: float = 60.0
    dead_after: int = 3
    """Unanswered polls in a row after which a process counts as dead."""
    drain_s: float = 120.0
    """Longest drain, while messages still come."""


class Stage:
    """A process that stops answering is named and played without."""

    def __init__(
        self,
        cast: Cast,
        control: Control,
        emit: Emit,
        limits: Limits,
        workload: Workload,
        disturber: Disturber | None = None,
    ) -> None:
        self._disturber = disturber or Disturber((), control, emit)
        self._began_s = 0.0
        """When messages began to flow, on this machine's monotonic clock."""
        self._cast = cast
        self._control = control
        self._emit = emit
        self._limits = limits
        self._workload = workload
        self._status: dict[Process, RunStatus] = {}
        self._missed: dict[Process, int] = {}
        self._last_seen_ns: dict[Process, int] = {}
        self.dead: dict[Process, int] = {}
        """Process -> its node's wall clock when it was last heard of."""
        self.started = False
        self.problems: list[str] = []
        self.watched_until_ns: dict[str, int] = {}

    def prepare(self) -> None:
        """Orders to everybody: brokers, gateways and hubs, subscribers, publishers; each kind ready before the next."""
        self._end_former()
        for parts in (self._cast.brokers, self._cast.ends, self._cast.subscribers, self._cast.publishers):
            self._on_every(parts, lambda part: self._control.prepare(*part))
            self._await_ready([process for process, _ in parts])

    def _end_former(self) -> None:
        """End what a run that was cut off left going on nodes: who holds the testbed's lock is alone in playing."""
        until = time.monotonic() + self._limits.save_s
        going = self._going(self._cast.processes)
        for run in sorted(set(going.values())):
            self._emit(Event(stage="run", message=f"{run} was cut off and still goes on; it is ended", level="warning"))
        while going and time.monotonic() < until:
            self._on_every([(process, None) for process in going], lambda part: self._control.stop(part[0]))
            time.sleep(min(self._limits.poll_s, 0.1))
            going = self._going(list(going))

    def _going(self, processes: Sequence[Process]) -> dict[Process, str]:
        """Those in the middle of a run, and which; who does not answer is named when he gets his order."""

        def run_of(process: Process) -> str:
            try:
                status = self._control.status(process)
            except ToolkitError:
                return ""
            return status.run if status.phase in {"running", "draining"} else ""

        return {p: run for p, run in zip(processes, _in_parallel(run_of, processes), strict=True) if run}

    def _await_ready(self, processes: Sequence[Process]) -> None:
        until = time.monotonic() + self._limits.ready_s
        waiting = list(processes)
        while waiting:
            self._poll(waiting, forgiving=False)
            failed = [p for p in waiting if self._status[p].phase == "failed"]
            if failed:
                said = [f"{p.name} cannot take part: {self._status[p].error}" for p in failed]
                raise WorkloadError("\n".join([*said, "is everything up that the run needs? try: toolkit status"]))
            waiting = [p for p in waiting if self._status[p].phase in {"idle", "preparing"}]
            if waiting and time.monotonic() > until:
                names = ", ".join(p.name for p in waiting)
                raise WorkloadError(
                    f"{names}: not ready within {self._limits.ready_s:g} s; try: toolkit logs {waiting[0].service}"
                )
            if waiting:
                time.sleep(min(self._limits.poll_s, 0.1))

    def start(self) -> int:
        """Tell everybody one instant, on each node's own clock; returns it on the first publisher's."""
        clocks = self._node_clocks()
        ahead_ns = round((self._limits.start_ahead_s + 0.01 * len(self._cast.parts)) * 1e9)
        at_ns = time.time_ns() + ahead_ns
        self._on_every(self._cast.parts, lambda part: self._control.start(part[0], at_ns + clocks.get(part[0].node, 0)))
        self.started = True
        self._began_s = time.monotonic() + (at_ns - time.time_ns()) / 1e9
        self._disturber.begin(self._began_s)
        self._emit(Event(stage="run", message=f"{self._workload.name}: started", state="started"))
        return at_ns + clocks.get(self._cast.publishers[0][0].node, 0)

    def _node_clocks(self) -> dict[str, int]:
        """Node -> its wall clock minus ours, ns, where that matters (more than 50 ms apart).

        Nodes agree among themselves to fractions of a millisecond, and it is their agreement that a synchronised start
        needs; so all get the offset of the first one.
        """
        node = self._cast.publishers[0][0].node
        before = time.time_ns()
        with contextlib.suppress(UnreachableError):
            theirs = self._control.now_ns(node)
            offset = theirs - (before + time.time_ns()) // 2
            if abs(offset) > 50_000_000:  # noqa: PLR2004
                return {process.node: offset for process in self._cast.processes}
        return {}

    def watch(self) -> None:
        """Until every publisher has sent everything, is dead, or takes too long."""
        publishers = [process for process, _ in self._cast.publishers]
        began = moved = said = time.monotonic()
        counts = (-1, -1)
        while True:
            self._poll(self._cast.processes)
            alive = [p for p in publishers if p not in self.dead]
            if all(self._status[p].phase in {"draining", "done", "failed"} for p in alive):
                break
            now, seen = time.monotonic(), self._counts()
            if seen != counts:
                moved, counts = now, seen
            if now - said >= SAY_EVERY_S:
                said = now
                self._emit(Event(stage="run", message=f"{seen[0]} sent, {seen[1]} received"))
            if over := self._why_over(now - began, now - moved, *seen):
                self.problems.append(over)
                break
            time.sleep(self._limits.poll_s)
        for process in publishers:
            if process not in self.dead and self._status[process].phase == "failed":
                self.problems.append(f"{process.name}: {self._status[process].error}")
        if len(self.dead) == len(self._cast.parts):
            raise WorkloadError("every process of the run stopped answering")

    def _why_over(self, lasted_s: float, still_s: float, sent: int, received: int) -> str:
        """Why a run must not go on, in words; empty: it may."""
        stop, limits = self._workload.stop, self._limits
        waiting = sent * self._cast.deliveries_per_message - received
        if stop.after_s is not None and lasted_s > stop.after_s:
            return f"the run was stopped after {stop.after_s:g} s, as its workload wants"
        if stop.backlog is not None and waiting > stop.backlog:
            return f"the run was stopped with {waiting} deliveries waiting; its workload allows {stop.backlog}"
        if lasted_s > self._planned_s() + limits.over_s:
            return f"the run took {limits.over_s:g} s longer than planned and was stopped"
        if still_s > limits.stall_s:
            return f"nothing was sent or received for {limits.stall_s:g} s; the run was stopped"
        return ""

    def _planned_s(self) -> float:
        workload = self._workload
        if workload.duration_s is not None:
            return workload.duration_s + self._limits.start_ahead_s
        if workload.arrivals.offsets_ns:
            return workload.arrivals.offsets_ns[-1] / 1e9
        rates = [rate for rate in (workload.arrivals.rate_per_s, workload.arrivals.to_rate_per_s) if rate > 0]
        if workload.arrivals.kind == "closed" or not rates or not workload.messages:
            return 1e9  # a closed loop takes as long as the broker does: only standing still ends it
        return workload.messages * workload.connections / min(rates)

    def drain(self) -> None:
        """Until everything has arrived, or nothing more has for `drain_s`."""
        subscribers = [process for process, _ in self._cast.subscribers]
        end = time.monotonic() + self._limits.drain_s
        moved, received = time.monotonic(), -1
        while True:
            self._poll(self._cast.processes)
            now = time.monotonic()
            sent, arrived = self._counts()
            if arrived != received:
                moved, received = now, arrived
            if not [p for p in subscribers if p not in self.dead] or now - moved >= self._workload.drain_s or now > end:
                return
            if arrived >= sent * self._cast.deliveries_per_message and self._publishers_done():
                return
            time.sleep(min(self._limits.poll_s, 0.1))

    def _publishers_done(self) -> bool:
        return all(self._status[p].phase in {"done", "failed"} for p, _ in self._cast.publishers if p not in self.dead)

    def stop(self) -> None:
        """Stop everybody alive, publishers first, and wait until they have saved."""
        self._disturber.finish()
        self.problems += self._disturber.problems
        for parts in (self._cast.publishers, self._cast.subscribers, self._cast.ends, self._cast.brokers):
            processes = [p for p, _ in parts if p in self._status and p not in self.dead]
            self._forgiving(processes, self._control.stop)
            until = time.monotonic() + self._limits.save_s
            waiting = processes
            while waiting and time.monotonic() < until:
                self._poll(waiting)
                waiting = [
                    p for p in waiting if p not in self.dead and self._status[p].phase not in {"done", "failed", "idle"}
                ]
                if waiting:
                    time.sleep(min(self._limits.poll_s, 0.1))
            self.problems += [f"{p.name} did not end within {self._limits.save_s:g} s" for p in waiting]
        self.watched_until_ns = {process.name: at for process, at in self.dead.items()}

    def _counts(self) -> tuple[int, int]:
        """Messages sent and received by now; receipts of dead subscribers stay as they were."""
        sent = sum(self._status[p].sent for p, _ in self._cast.publishers if p in self._status)
        receivers = self._cast.subscribers or self._cast.publishers  # a consumer counts its own answers
        return sent, sum(self._status[p].received for p, _ in receivers if p in self._status)

    def _poll(self, processes: Sequence[Process], *, forgiving: bool = True) -> None:
        alive = [p for p in processes if p not in self.dead]
        if not forgiving:
            self._on_every([(p, None) for p in alive], lambda part: self._note(part[0], self._control.status(part[0])))
            return
        self._forgiving(alive, lambda p: self._note(p, self._control.status(p)))

    def _note(self, process: Process, status: RunStatus) -> RunStatus:
        run = self._cast.parts[0][1].run
        if status.run != run:  # a process that was started again knows nothing of the run
            raise UnreachableError(f"{process.name} was started again during the run")
        self._status[process] = status
        self._missed[process] = 0
        self._last_seen_ns[process] = status.last_ns or self._last_seen_ns.get(process) or time.time_ns()
        return status

    def _forgiving(self, processes: Sequence[Process], ask: Callable[[Process], RunStatus]) -> None:
        """Ask each; one that does not answer several times in a row is dead from the last time it did."""

        def guarded(process: Process) -> None:
            try:
                ask(process)
            except ToolkitError as error:
                self._missed[process] = self._missed.get(process, 0) + 1
                again = "started again" in str(error)
                if again or self._missed[process] >= self._limits.dead_after:
                    self.dead[process] = self._last_seen_ns.get(process, time.time_ns())
                    reason = "was started again" if again else "stopped answering"
                    self.problems.append(f"{process.name} {reason} during the run; the run went on without it")
                    self._emit(Event(stage="run", node=process.node, level="warning", message=self.problems[-1]))

        _in_parallel(guarded, processes)

    def _on_every(self, parts: Sequence[tuple[Process, Any]], ask: Callable[[Any], RunStatus]) -> None:
        """Ask each; all must answer, and every one that does not is named."""

        def guarded(part: tuple[Process, Any]) -> ToolkitError | None:
            try:
                self._status[part[0]] = ask(part)
            except ToolkitError as error:
                return error
            return None

        errors = [error for error in _in_parallel(guarded, parts) if error is not None]
        if errors:
            kind = UnreachableError if all(isinstance(error, UnreachableError) for error in errors) else WorkloadError
            raise kind("\n".join(map(str, errors)))


def _in_parallel(action: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    if not items:
        return []
    with ThreadPoolExecutor(max_workers=min(len(items), 16)) as pool:
        return list(pool.map(action, items))
