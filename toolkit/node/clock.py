"""Runs chronyd as this node's NTP server or client, and tells how far its clock can be trusted."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from toolkit.contract import metrics
from toolkit.contract.settings import SAMPLES_DIR
from toolkit.node.board import SYSFS, board_families, throttled_bits
from toolkit.node.exposition import CONTENT_TYPE, metrics_page
from toolkit.node.pages import Page, health, pages_handler, text
from toolkit.node.serving import Server
from toolkit.node.stamps import ClockWatch, both_clocks_ns

RUN_DIR = Path("/run/chrony")
STALE_S = 5.0
"""Facts older than this are no longer answered as true."""
LOG_BYTES = 4 << 20
"""About seven hours of history, three at least."""
NOT_SYNCHRONISED = "Not synchronised"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockSettings:
    """What this node's clock is to be."""

    node: str
    role: Literal["server", "client"]
    servers: tuple[str, ...]
    """A client's server; a server's upstream, if it has one."""
    allow: str
    """Subnet a server answers; empty: everybody."""
    shared: bool
    """The clock belongs to the host and others: it is never steered."""
    metrics_port: int
    samples_dir: Path
    ntp_port: int = 123
    sysfs: Path = SYSFS
    """Where the kernel tells of the board."""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> ClockSettings:
        """Read TOOLKIT_*; raises KeyError or ValueError naming the variable that is missing or wrong."""
        role = environ.get("TOOLKIT_CLOCK_ROLE", "client")
        if role not in {"server", "client"}:
            raise ValueError(f"TOOLKIT_CLOCK_ROLE is {role!r}; it must be server or client")
        servers = tuple(environ.get("TOOLKIT_CLOCK_SERVER", "").replace(",", " ").split())
        if role == "client" and not servers:
            raise KeyError("TOOLKIT_CLOCK_SERVER")
        return cls(
            node=environ.get("TOOLKIT_NODE", ""),
            role="server" if role == "server" else "client",
            servers=servers,
            allow=environ.get("TOOLKIT_CLOCK_ALLOW", ""),
            shared=environ.get("TOOLKIT_CLOCK_SHARED", "0") == "1",
            metrics_port=int(environ.get("TOOLKIT_METRICS_PORT", "9101")),
            samples_dir=Path(environ.get("TOOLKIT_SAMPLES_DIR", SAMPLES_DIR)),
            ntp_port=int(environ.get("TOOLKIT_CLOCK_NTP_PORT", "123")),
            sysfs=Path(environ.get("TOOLKIT_SYSFS", SYSFS)),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracking:
    """One answer of `chronyc tracking`, in seconds."""

    reference: str
    stratum: int
    offset_s: float
    """This clock minus NTP time: positive is fast (chronyc's own sign is the opposite)."""
    frequency_ppm: float
    skew_ppm: float
    root_delay_s: float
    root_dispersion_s: float
    leap: str

    @property
    def synchronised(self) -> bool:
        """The clock follows something."""
        return self.leap != NOT_SYNCHRONISED and self.stratum > 0

    @property
    def bound_s(self) -> float:
        """chronyc(1)'s absolute bound of the clock's error: |offset| + root dispersion + root delay / 2."""
        return abs(self.offset_s) + self.root_dispersion_s + self.root_delay_s / 2


def chrony_config(settings: ClockSettings, run_dir: Path = RUN_DIR) -> str:
    """What chronyd is given: a LAN testbed converges in seconds, and the clock is stepped only right after the start.

    Polls are 1 to 4 s apart, interleaved so that the server's own transmit times are used; only the first three
    updates may step (by more than a second), everything later is slewed, so that no run sees a jump.
    """
    lines = [f"server {server} iburst minpoll 0 maxpoll 2 xleave" for server in settings.servers]
    if settings.role == "server":
        lines += ["local stratum 10", f"allow {settings.allow}".rstrip(), f"port {settings.ntp_port}"]
    else:
        lines.append("port 0")
    lines += [
        "makestep 1.0 3",
        "cmdport 0",
        f"bindcmdaddress {run_dir}/chronyd.sock",
        f"pidfile {run_dir}/chronyd.pid",
        f"driftfile {run_dir}/drift",
    ]
    return "\n".join(lines) + "\n"


def parse_tracking(line: str) -> Tracking:
    """Read one line of `chronyc -c tracking`; raises ValueError on anything else."""
    fields = line.strip().split(",")
    if len(fields) != 14:  # noqa: PLR2004
        raise ValueError(f"chronyc answered {line.strip()!r} in place of 14 fields of tracking")
    return Tracking(
        reference=fields[1] or fields[0],
        stratum=int(fields[2]),
        offset_s=0.0 - float(fields[4]),
        frequency_ppm=float(fields[7]),
        skew_ppm=float(fields[9]),
        root_delay_s=float(fields[10]),
        root_dispersion_s=float(fields[11]),
        leap=fields[13],
    )


@dataclass(slots=True, kw_only=True)
class ClockState:
    """What is known of the clock now; written by the polling loop, read by pages."""

    settings: ClockSettings
    watch: ClockWatch = field(default_factory=ClockWatch)
    tracking: Tracking | None = None
    tracked_at_s: float = float("-inf")
    """On the monotonic clock."""
    error: str | None = "chronyd has not answered yet"

    def fresh(self, now_s: float) -> Tracking | None:
        """What chronyd said, unless that is too long ago."""
        return self.tracking if now_s - self.tracked_at_s <= STALE_S else None

    def document(self, now_s: float | None = None) -> dict[str, Any]:
        """Everything known, as `GET /clock` answers it; seconds, and ns where a name ends so."""
        tracking = self.fresh(time.monotonic() if now_s is None else now_s)
        shared = self.settings.shared
        synchronised = tracking is not None and tracking.synchronised
        return {
            "node": self.settings.node,
            "role": self.settings.role,
            "at_ns": time.time_ns(),
            "monotonic_ns": time.monotonic_ns(),
            "shared": shared,
            "synchronised": synchronised,
            "offset_s": 0.0 if shared else tracking.offset_s if tracking else None,
            "bound_s": 0.0 if shared else tracking.bound_s if tracking and synchronised else None,
            "measured_offset_s": tracking.offset_s if tracking else None,
            "root_delay_s": tracking.root_delay_s if tracking else None,
            "root_dispersion_s": tracking.root_dispersion_s if tracking else None,
            "frequency_ppm": tracking.frequency_ppm if tracking else None,
            "skew_ppm": tracking.skew_ppm if tracking else None,
            "stratum": tracking.stratum if tracking else None,
            "reference": tracking.reference if tracking else None,
            "leap": tracking.leap if tracking else None,
            "steps": [list(step) for step in self.watch.steps],
            "error": self.error,
        }

    def reading(self, tracking: Tracking) -> dict[str, int | bool]:
        """One line of the clock log, in ns; of a Raspberry Pi also what its firmware says of power and heat."""
        wall, monotonic, window = both_clocks_ns()
        return {
            "at_ns": wall,
            "monotonic_ns": monotonic,
            "read_window_ns": window,
            "offset_ns": 0 if self.settings.shared else round(tracking.offset_s * 1e9),
            "root_delay_ns": round(tracking.root_delay_s * 1e9),
            "root_dispersion_ns": round(tracking.root_dispersion_s * 1e9),
            "synchronised": tracking.synchronised,
            "shared": self.settings.shared,
            "frequency_ppb": round(tracking.frequency_ppm * 1e3),
            "stratum": tracking.stratum,
            **({} if (bits := throttled_bits(self.settings.sysfs)) is None else {"throttled": bits}),
        }

    def families(self) -> dict[metrics.Metric, float]:
        """The clock's metrics; offset and bound are absent while they are not known."""
        known = self.document()
        families: dict[metrics.Metric, float] = {
            metrics.CLOCK_SYNCHRONISED: float(known["synchronised"]),
            metrics.CLOCK_SHARED: float(known["shared"]),
            metrics.CLOCK_STEPS: float(len(self.watch.steps)),
        }
        optional = {
            metrics.CLOCK_OFFSET: known["offset_s"],
            metrics.CLOCK_BOUND: known["bound_s"],
            metrics.CLOCK_ROOT_DELAY: known["root_delay_s"],
            metrics.CLOCK_ROOT_DISPERSION: known["root_dispersion_s"],
            metrics.CLOCK_FREQUENCY_ERROR: None if known["frequency_ppm"] is None else known["frequency_ppm"] / 1e6,
            metrics.CLOCK_STRATUM: known["stratum"],
        }
        families |= {metric: float(value) for metric, value in optional.items() if value is not None}
        return families


class ClockLog:
    """The clock's facts once a second as JSON lines, in one file that loses its older half when it is full."""

    def __init__(self, folder: Path, limit_bytes: int = LOG_BYTES) -> None:
        self.file = folder / "clock.jsonl"
        self._limit_bytes = limit_bytes
        folder.mkdir(parents=True, exist_ok=True)

    def append(self, document: Mapping[str, Any]) -> None:
        """Add a line; a full disk is for the caller to report."""
        with self.file.open("a") as log:
            log.write(json.dumps(document, separators=(",", ":")) + "\n")
            full = log.tell() >= self._limit_bytes
        if full:
            self._halve()

    def _halve(self) -> None:
        """Whoever reads at this moment has the old file or the new one, each whole."""
        draft = self.file.with_suffix(".jsonl.new")
        with self.file.open("rb") as old, draft.open("wb") as new:
            old.seek(self._limit_bytes // 2)
            old.readline()
            new.writelines(old)
        draft.replace(self.file)


class Chrony:
    """chronyd as a child, and one chronyc that stays open: starting one each second would load a Pi 1."""

    def __init__(self, settings: ClockSettings, run_dir: Path = RUN_DIR) -> None:
        self._settings = settings
        self._run_dir = run_dir
        self._socket = run_dir / "chronyd.sock"
        self._daemon: subprocess.Popen[bytes] | None = None
        self._client: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Write the configuration and start chronyd; its log goes to this process' stderr."""
        self._run_dir.mkdir(parents=True, exist_ok=True)
        self._run_dir.chmod(0o750)
        config = self._run_dir / "toolkit.conf"
        config.write_text(chrony_config(self._settings, self._run_dir))
        self._socket.unlink(missing_ok=True)
        (self._run_dir / "chronyd.pid").unlink(missing_ok=True)
        never_steer = ["-x"] if self._settings.shared else []
        self._daemon = subprocess.Popen(["chronyd", "-d", "-u", "root", *never_steer, "-f", str(config)])
        for _ in range(40):  # chronyc gives up at once where the socket is not there yet
            if self._socket.exists() or self._daemon.poll() is not None:
                return
            time.sleep(0.05)

    def check(self) -> None:
        """Raises ChildProcessError when chronyd has ended."""
        if self._daemon is None or (code := self._daemon.poll()) is not None:
            raise ChildProcessError(
                f"chronyd ended with code {code if self._daemon else None}; see the log of this container. "
                f"Does another time service hold port {self._settings.ntp_port}, or is CAP_SYS_TIME missing?"
            )

    def tracking(self) -> Tracking:
        """Ask once; raises OSError or ValueError when there is no sensible answer."""
        self.check()
        if self._client is None or self._client.poll() is not None:
            if self._client is not None:
                _end(self._client)
            self._client = subprocess.Popen(
                ["chronyc", "-c", "-n", "-h", str(self._socket)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
            )  # fmt: skip
        if self._client.stdin is None or self._client.stdout is None:
            raise BrokenPipeError("chronyc has no pipes")
        self._client.stdin.write("tracking\n")
        return parse_tracking(self._client.stdout.readline())

    def stop(self) -> None:
        """End both children."""
        for child in (self._client, self._daemon):
            if child is not None:
                _end(child)


def _end(child: subprocess.Popen[Any]) -> None:
    """Closing its input is what ends chronyc; SIGTERM only makes it finish the read that it is in."""
    with contextlib.suppress(OSError):
        if child.stdin is not None:
            child.stdin.close()
    child.terminate()
    try:
        child.wait(timeout=3)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    if child.stdout is not None:
        child.stdout.close()


def poll(state: ClockState, chrony: Chrony, log: ClockLog) -> None:
    """One look: chronyd's tracking, steps, one line of the log; failures are kept as the state's `error`."""
    state.watch.look()
    try:
        tracking = chrony.tracking()
        state.tracking, state.tracked_at_s, state.error = tracking, time.monotonic(), None
        log.append(state.reading(tracking))
    except (OSError, ValueError) as error:
        state.error = str(error)


def clock_pages(state: ClockState) -> dict[str, Page]:
    """What this process answers."""
    return {
        "/metrics": lambda: text(
            metrics_page({**state.families(), **board_families(state.settings.sysfs)}), content_type=CONTENT_TYPE
        ),
        "/healthz": lambda: health(None if state.fresh(time.monotonic()) else state.error),
        "/clock": lambda: text(json.dumps(state.document()) + "\n", content_type="application/json"),
    }


def run(settings: ClockSettings, stopped: threading.Event, run_dir: Path = RUN_DIR) -> None:
    """Keep chronyd running and its facts fresh until `stopped`."""
    state = ClockState(settings=settings)
    chrony = Chrony(settings, run_dir)
    server = Server({("0.0.0.0", settings.metrics_port): pages_handler(clock_pages(state))})
    server.start()
    try:
        log = ClockLog(settings.samples_dir)
        chrony.start()
        due_s = time.monotonic()
        while not stopped.wait(max(0.0, due_s - time.monotonic())):
            poll(state, chrony, log)
            due_s = max(due_s + 1.0, time.monotonic())
            chrony.check()
    finally:
        chrony.stop()
        server.stop()


def main() -> int:
    """Exit code 0 after SIGTERM or SIGINT, 1 when chronyd ends by itself (the engine then starts it again)."""
    settings = ClockSettings.from_environment()
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    try:
        run(settings, stopped)
    except ChildProcessError as error:
        record = {"level": "error", "node": settings.node, "role": "clock", "message": str(error)}
        print(json.dumps(record), file=sys.stderr)  # noqa: T201 - the log of a node process
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
