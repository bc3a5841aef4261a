"""The database servers that a testbed may name, each with a folder and a port of its own."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.ports import free_port

POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin")) if Path("/usr/lib/postgresql").is_dir() else []
DRIVERS = {"mariadb": "pymysql", "postgresql": "psycopg2"}
PASSWORD = "b"  # noqa: S105 - of a server on loopback that lives as long as a test


@dataclass
class DatabaseServer:
    """A database server of the test's own."""

    url: str
    port: int
    command: list[str]
    user: str
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        account = pwd.getpwnam(self.user)
        drop = {"user": account.pw_uid, "group": account.pw_gid} if os.geteuid() == 0 else {}
        self.process = subprocess.Popen(
            self.command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **drop,  # type: ignore[call-overload]
        )

    def stop(self) -> None:
        if self.process is not None:
            # Fast for PostgreSQL, which on SIGTERM waits for its clients; the same as SIGTERM for MariaDB.
            self.process.send_signal(signal.SIGINT if "postgres" in self.command[0] else signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    @contextlib.contextmanager
    def hanging(self) -> Iterator[None]:
        """Meanwhile it takes connections, in the kernel, and says nothing."""
        assert self.process is not None
        stopped = children_of(self.process.pid)
        for process in stopped:
            os.kill(process, signal.SIGSTOP)
        try:
            yield
        finally:
            for process in stopped:
                os.kill(process, signal.SIGCONT)


def as_user(user: str, command: list[str]) -> None:
    account = pwd.getpwnam(user)
    drop = {"user": account.pw_uid, "group": account.pw_gid} if os.geteuid() == 0 else {}
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=120, **drop)  # type: ignore[call-overload]


def own_folder(folder: Path, user: str) -> Path:
    """Where the server's user may write."""
    target = folder / "data"
    target.mkdir()
    if os.geteuid() == 0:
        shutil.chown(target, user, user)
    return target


def mariadb(folder: Path) -> DatabaseServer:
    if shutil.which("mariadbd") is None:
        pytest.skip("needs mariadb-server")
    data, port = own_folder(folder, "mysql"), free_port()
    socket = folder / "data" / "s"
    as_user(
        "mysql",
        ["mariadb-install-db", f"--datadir={data}", "--auth-root-authentication-method=normal", "--skip-test-db"],
    )
    options = [f"--datadir={data}", f"--port={port}", f"--socket={socket}", "--bind-address=127.0.0.1"]
    options += ["--innodb-buffer-pool-size=32M", "--innodb-flush-log-at-trx-commit=2", f"--pid-file={data}/pid"]
    init = folder / "init.sql"
    init.write_text(
        "CREATE DATABASE IF NOT EXISTS arrowhead;\n"
        f"CREATE USER IF NOT EXISTS a@localhost IDENTIFIED BY '{PASSWORD}';\n"
        "GRANT ALL ON arrowhead.* TO a@localhost;\n"
    )
    init.chmod(0o644)
    url = f"mariadb://a:{PASSWORD}@127.0.0.1:{port}/arrowhead"
    return DatabaseServer(url, port, ["mariadbd", "--no-defaults", *options, f"--init-file={init}"], "mysql")


def postgresql(folder: Path) -> DatabaseServer:
    if not POSTGRES:
        pytest.skip("needs postgresql")
    data, port = own_folder(folder, "postgres"), free_port()
    password = folder / "password"
    password.write_text(PASSWORD)
    password.chmod(0o644)
    how = ["-U", "a", "-A", "scram-sha-256", f"--pwfile={password}", "-E", "UTF8", "--no-sync"]
    as_user("postgres", [str(POSTGRES[-1] / "initdb"), "-D", str(data), *how])
    command = [str(POSTGRES[-1] / "postgres"), "-D", str(data), "-p", str(port), "-k", str(data), "-h", "127.0.0.1"]
    return DatabaseServer(
        f"postgresql://a:{PASSWORD}@127.0.0.1:{port}/postgres",
        port,
        [*command, "-c", "shared_buffers=16MB"],
        "postgres",
    )


def children_of(pid: int) -> list[int]:
    """The process and those that it started; PostgreSQL has one for each connection."""
    own = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, own)]
