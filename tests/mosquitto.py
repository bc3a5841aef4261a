"""A Mosquitto of a test's own, on loopback, that lets everybody in."""

from __future__ import annotations

import getpass
import subprocess
from pathlib import Path
from typing import Self

from tests.ports import await_port, free_port
from tests.programs import find_program


class Mosquitto:
    """Runs from its making to `stop`, and can be started again on its port."""

    def __init__(self, folder: Path, *settings: str) -> None:
        """`settings`: further lines of mosquitto.conf."""
        self._program = find_program("mosquitto")
        self.port = free_port()
        self._config = folder / f"mosquitto-{self.port}.conf"
        self._log = self._config.with_suffix(".log")
        always = (f"listener {self.port} 127.0.0.1", "allow_anonymous true", f"user {getpass.getuser()}",
                  "persistence false", "set_tcp_nodelay true")  # fmt: skip
        self._config.write_text("\n".join((*always, *settings, "")))
        self.start()

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([self._program, "-c", str(self._config)], stderr=log)
        await_port(self.port, process=self._process)

    def log(self) -> str:
        return self._log.read_text()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(10)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(10)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
