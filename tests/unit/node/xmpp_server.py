"""A Prosody of a test's own, configured as toolkit configures it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.ports import await_port, free_port
from tests.programs import find_program
from toolkit.provisioning.prosody import prosody_config

MODULES = Path(__file__).resolve().parents[3] / "images" / "prosody" / "files"


class Prosody:
    """Runs from `start` to `stop`."""

    def __init__(
        self,
        folder: Path,
        *,
        user: str = "toolkit",
        environment: Mapping[str, str] | None = None,
        certificate: str = "",
        key: str = "",
        **settings: object,
    ) -> None:
        self._program = find_program("prosody")
        self.port = free_port()
        self._folder = folder / f"prosody-{self.port}"
        (self._folder / "certs").mkdir(parents=True)
        config = prosody_config(
            settings, port=self.port, user=user, certificate=certificate, key=key, interface="127.0.0.1",
            run=str(self._folder), modules=str(MODULES),
        )  # fmt: skip
        self._config = self._folder / "prosody.cfg.lua"
        self._config.write_text(("run_as_root = true\n" if os.geteuid() == 0 else "") + config)
        self._environment = {**os.environ, **(environment or {})}
        self.start()

    def start(self) -> None:
        with (self._folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self._program, "--config", str(self._config), "-F"], stdout=log, stderr=log, env=self._environment
            )
        try:
            await_port(self.port, process=self.process)
        except AssertionError as error:
            raise AssertionError(self.log()) from error

    def log(self) -> str:
        return (self._folder / "log").read_text()

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)
