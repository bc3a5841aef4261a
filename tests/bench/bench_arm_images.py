"""Images of Arm boards on an emulated processor of the board: does everything start, and do events pass?

.venv/bin/python tests/bench/bench_arm_images.py --architecture arm/v6 --messages 200

Needs emulation that the kernel knows (docs/nodes.md) and, where an image is not built yet, minutes for each. How long
things take says nothing of the board.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.ports import await_port, free_port  # noqa: E402
from tests.unit.node.processes import Bench, of_point, play  # noqa: E402
from toolkit.contract.samples import Point  # noqa: E402
from toolkit.provisioning.images import Builder  # noqa: E402

BOARDS = {
    "arm/v6": ("arm1176", "armv6l"),
    "arm/v7": ("cortex-a7", "armv7l"),
    "arm64": ("cortex-a53", "aarch64"),
    "amd64": ("", "x86_64"),
}
"""Architecture -> processor of the board in QEMU's words, and what its kernel calls it."""
IMAGES = {"broker": "event-handler", "publisher": "client", "subscriber": "client", "clock": "clock", "hops": "clock"}
"""Service -> image."""
OTHERS = ("arrowhead", "mosquitto", "node-exporter")
STARTS_WITHIN_S = 120.0
LOOK = """
import importlib, pkgutil, platform, toolkit.node
lacking = []
modules = [m.name for m in pkgutil.walk_packages(toolkit.node.__path__, "toolkit.node.") if "__main__" not in m.name]
for name in modules:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        lacking.append(error.name)
others = ", the others lack " + ", ".join(sorted(set(lacking))) if lacking else ""
print(f"{platform.machine()} {len(modules) - len(lacking)} of {len(modules)}{others}")
"""


class Board(Bench):
    """Starts node processes in containers of one architecture, on the host's network."""

    starts_within_s = STARTS_WITHIN_S

    def __init__(self, folder: Path, references: Mapping[str, str], processor: str) -> None:
        super().__init__(folder)
        self.references = references
        self.environment = {"QEMU_CPU": processor} if processor else {}
        self.started = 0

    def start(
        self, module: str, service: str, environment: Mapping[str, str], log: IO[bytes]
    ) -> subprocess.Popen[bytes]:
        """As on loopback, but in its image."""
        command = self.command(IMAGES[service], [f"toolkit.node.{module}"], environment)
        return subprocess.Popen(command, stdout=log, stderr=log)

    def command(self, image: str, arguments: list[str], environment: Mapping[str, str], *options: str) -> list[str]:
        """`docker run` of it, in the foreground, with everything below the folder where it is here."""
        variables = [f"--env={name}={value}" for name, value in (self.environment | dict(environment)).items()]
        mount = f"--volume={self.folder}:{self.folder}"
        return ["docker", "run", "--rm", "--init", "--network=host", mount, *variables, *options,
                self.references[image], *arguments]  # fmt: skip

    def asked(self, image: str, *arguments: str) -> str:
        """What a program of an image prints."""
        command = self.command(image, list(arguments[1:]), {}, f"--entrypoint={arguments[0]}")
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--architecture", default="arm/v6", choices=list(BOARDS))
    asked.add_argument("--messages", type=int, default=200)
    options = asked.parse_args()
    processor, machine = BOARDS[options.architecture]
    wanted = {(name, options.architecture) for name in (*IMAGES.values(), *OTHERS)}
    built = Builder(lambda event: print(event.message, file=sys.stderr)).build(wanted)
    references = {name: reference.reference for (name, _), reference in built.items()}
    with tempfile.TemporaryDirectory(prefix="toolkit-arm-") as name:
        board = Board(Path(name), references, processor)
        try:
            look(board, machine)
            serve(board)
            pass_events(board, options.messages)
        finally:
            board.close()


def look(board: Board, machine: str) -> None:
    """The processor is the board's, and each image has what its modules import."""
    for image in sorted({*IMAGES.values(), "arrowhead"}):
        said = board.asked(image, "python3", "-c", LOOK)
        assert said.startswith(machine), said
        assert image != "arrowhead" or "lack" not in said, said  # it has what any of them imports
        print(f"{image:14} modules: {said}")


def serve(board: Board) -> None:
    """What runs on every node: its pages have their figures."""
    port = free_port()
    with running(board.command("node-exporter", [f"--web.listen-address=127.0.0.1:{port}"], {}), port):
        page = metrics(port)
        assert "node_cpu_seconds_total{" in page
        print(f"node-exporter  {page.count(chr(10))} lines of metrics")
    ports = {"TOOLKIT_CLOCK_NTP_PORT": str(free_port()), "TOOLKIT_CLOCK_ROLE": "server", "TOOLKIT_CLOCK_SHARED": "1"}
    for module, service, environment, wanted in (
        ("clock", "clock", ports, "toolkit_clock_"),
        ("hop_exporter", "hops", {"TOOLKIT_STAMPS_PORT": str(free_port())}, "toolkit_"),
    ):
        process = board.launch(module, service, serves_orders=False, **environment)
        page = process.metrics()
        assert wanted in page, page
        print(f"{service:14} {page.count(chr(10))} lines of metrics")


def pass_events(board: Board, messages: int) -> None:
    """Event Handler and Mosquitto hand each event to both subscribers; every stamp is there."""
    handler_port, mosquitto_port = free_port(), free_port()
    handler = board.launch("event_handler", "broker", TOOLKIT_EVENT_HANDLER_PORT=str(handler_port))
    publisher = board.launch("publisher", "publisher")
    subscribers = [board.launch("subscriber", "subscriber", instance) for instance in range(2)]
    configuration = board.folder / "mosquitto.conf"
    configuration.write_text(f"listener {mosquitto_port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\n")
    with running(board.command("mosquitto", ["-c", str(configuration)], {}), mosquitto_port):
        for protocol, port, broker, more in (
            ("sse", handler_port, handler, {}),
            ("mqtt", mosquitto_port, None, {"qos": 1}),
        ):
            orders: dict[str, Any] = {"messages": messages, "payload_bytes": 71, "drain_s": 5.0, **more}
            began_s = time.monotonic()
            play(
                broker,
                [publisher],
                subscribers,
                run=protocol,
                protocol=protocol,
                broker=f"127.0.0.1:{port}",
                within_s=STARTS_WITHIN_S,
                **orders,
            )
            sent = len(of_point(publisher.stamps(protocol), Point.SENT))
            received = [len(of_point(subscriber.stamps(protocol), Point.RECEIVED)) for subscriber in subscribers]
            print(f"{protocol:14} sent {sent}, received {received}, {time.monotonic() - began_s:.1f} s with its drain")
            assert received == [sent, sent] == [messages, messages]


@contextlib.contextmanager
def running(command: list[str], port: int) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        await_port(port, process=process, within_s=STARTS_WITHIN_S)
        yield
    finally:
        process.terminate()
        process.wait(30)


def metrics(port: int) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/metrics")
    return connection.getresponse().read().decode()


if __name__ == "__main__":
    main()
