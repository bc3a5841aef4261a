import contextlib
import getpass
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ports import await_port
from tests.programs import find_program

from .event_clients import Consumer
from .processes import Bench, free_port


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    started = Bench(tmp_path)
    yield started
    started.close()


@pytest.fixture
def consumer() -> Iterator[Consumer]:
    """One that an Event Handler calls back."""
    made = Consumer()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[int]:
    """The port of a Mosquitto of our own."""
    with running_mosquitto(tmp_path) as port:
        yield port


@contextlib.contextmanager
def running_mosquitto(folder: Path) -> Iterator[int]:
    program = find_program("mosquitto")
    port = free_port()
    configuration = folder / "mosquitto.conf"
    configuration.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\n"
        f"persistence false\nmax_queued_messages 0\n"
        f"user {getpass.getuser()}\n"
    )
    process = subprocess.Popen([program, "-c", str(configuration)], stderr=subprocess.DEVNULL)
    await_port(port, process=process)
    yield port
    process.terminate()
    process.wait(10)
