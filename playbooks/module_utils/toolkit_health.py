# SPDX-License-Identifier: Apache-2.0
"""Whether containers that were started have become well: running, and healthy by their own check.

The engine repeats health checks seldom (see toolkit_containers), so a starting container is asked from here.

Runs on nodes: Python 3.8 and later, standard library only.
"""

from __future__ import annotations

import calendar
import select
import time

from ansible.module_utils.toolkit_engine import EngineError
from ansible.module_utils.toolkit_report import NodeError

SETTLED_AFTER_S = 0.7
"""A container without a health check counts as well when it has run this long without a restart."""
RESTARTS_TOO_MANY = 6
POLL_S = 0.1
FIRST_ASKED_AFTER_S = 0.2
ILLEGAL_INSTRUCTION = 128 + 4


class Health:
    """Verdicts on the containers of one node."""

    def __init__(self, engine, known_well=None, clock=time):
        self._engine = engine
        self._clock = clock
        self._deadlines = {}
        self._runs = {}
        self._asks = {}
        self._said = {}
        self.well = dict(known_well or {})
        """Container name -> [id, instant of the start at which it was found well]."""

    def expect(self, container):
        """From now on this container has its time to become well."""
        self._deadlines[container["name"]] = self._clock.monotonic() + container["health_within_s"]

    def pause(self):
        """Wait a little; raises NodeError where nobody waits for the answer any more."""
        self._clock.sleep(POLL_S)
        if _nobody_listens():
            raise NodeError("the deploy was interrupted")

    def verdict(self, container):
        """Empty: well. None: not yet. Otherwise why it is not, with its last words."""
        name = container["name"]
        seen = self._engine.inspect(name)
        if seen is None:
            return "%s vanished while it was starting" % name
        state = seen["State"]
        running = state["Status"] == "running" and not state.get("Restarting")
        if running and self._is_well(container, seen["Id"], state):
            self.well[name] = [seen["Id"], state.get("StartedAt")]
            return ""
        why = self._hopeless(seen, state, running)
        if why is None and self._clock.monotonic() < self._deadlines[name]:
            return None
        if why is None and running:
            why = "is not healthy after %g s; its check says: %s" % (
                container["health_within_s"],
                self._said.get(name) or "nothing",
            )
        return self._failure(name, why or "is %s, with status %d" % (state["Status"], state.get("ExitCode", 0)))

    def _hopeless(self, seen, state, running):
        """What no waiting helps against."""
        code, restarts = state.get("ExitCode", 0), seen.get("RestartCount", 0)
        if not running and code == ILLEGAL_INSTRUCTION:
            return "was stopped by SIGILL: its image is for a newer processor than this node's"
        if restarts >= RESTARTS_TOO_MANY:
            return "ended %d times, last with status %d" % (restarts, code)
        return None

    def _is_well(self, container, identity, state):
        name, started = container["name"], state.get("StartedAt")
        if self.well.get(name) == [identity, started] and (state.get("Health") or {}).get("Status") != "unhealthy":
            return True  # asked and found well in this very run of it, and the engine's own checks agree
        now = self._clock.monotonic()
        first, seen_at = self._runs.get(name, (None, now))
        if first != started:
            self._runs[name] = (started, now)
            seen_at = now
            self._asks[name] = (now + FIRST_ASKED_AFTER_S, FIRST_ASKED_AFTER_S)
        if not container["health"]:
            return max(now - seen_at, _age_s(started, self._clock.time())) >= SETTLED_AFTER_S
        due, pause = self._asks[name]
        if now < due:
            return False
        if (state.get("Health") or {}).get("Status") == "healthy" or self._ask(name, identity, container["health"]):
            return True
        pause = min(pause * 1.5, max(container["health_interval_s"], FIRST_ASKED_AFTER_S))
        self._asks[name] = (self._clock.monotonic() + pause, pause)
        return False

    def _ask(self, name, identity, command):
        try:
            status, output = self._engine.execute(identity, command)
        except EngineError as error:
            status, output = -1, str(error)
        self._said[name] = output.strip()[-300:]
        return status == 0

    def _failure(self, name, why):
        words = self._engine.last_words(name)
        return "\n".join(["%s %s" % (name, why), *("    " + line for line in words)])


def _nobody_listens():
    """Whether the other end of our output was closed, as happens when the SSH session of an interrupted deploy ends."""
    output = select.poll()
    output.register(1, 0)
    return any(events & (select.POLLERR | select.POLLHUP) for _fd, events in output.poll(0))


def _age_s(started, now):
    """Seconds since an instant in the engine's words, such as 2026-01-02T03:04:05.678901234Z."""
    try:
        return now - calendar.timegm(time.strptime((started or "")[:19], "%Y-%m-%dT%H:%M:%S")) - 1.0
    except ValueError:
        return 0.0
