import contextlib
import getpass
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ports import await_port

from .processes import Bench, free_port


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    started = Bench(tmp_path)
    yield started
    started.close()


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[int]:
    """The port of a Mosquitto of our own; a missing one is installed by root, skipped on a laptop, an error in CI."""
    with running_mosquitto(tmp_path) as port:
        yield port


@contextlib.contextmanager
def running_mosquitto(folder: Path) -> Iterator[int]:
    program = find_mosquitto()
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


def find_mosquitto() -> str:
    found = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        subprocess.run(["apt-get", "install", "-y", "-q", "mosquitto"], check=False, stdout=subprocess.DEVNULL)
        found = shutil.which("mosquitto", path="/usr/sbin")
    if found is None:
        reason = "needs the program mosquitto: apt-get install mosquitto"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found
