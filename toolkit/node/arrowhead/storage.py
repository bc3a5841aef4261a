"""The database of a local cloud or an Event Handler: connections, transactions, and what happens when it is away.

SQLite answers a look-up in a fraction of a millisecond, less than a hop to another thread costs, so reads run where
they are asked for; writes, which may wait for another process, and everything on a database server run in threads.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar, cast

from sqlalchemy import create_engine, event, exc, text
from sqlalchemy.engine import Connection, Engine, make_url
from sqlalchemy.pool import QueuePool

from toolkit.errors import UsageError
from toolkit.node.arrowhead.refusals import Refusal
from toolkit.node.arrowhead.schema import migrate
from toolkit.node.arrowhead.trace import Trace

T = TypeVar("T")

_TRIES = 5
_ANSWER_FACTOR = 3
"""A look-up takes a connection, perhaps a lock, and the work itself: so many times the time for one of them."""
_LOCK = 5_240_219
"""Number of the lock that keeps two processes from migrating at once."""
DRIVERS = {"mysql": "mysql+pymysql", "mariadb": "mariadb+pymysql", "postgresql": "postgresql+psycopg2"}
"""SQLAlchemy's name where people write only the database; its 1.4 knows no psycopg 3."""


class Storage:
    """Runs units of work, each in a transaction of its own."""

    def __init__(self, engine: Engine, *, pool: int, timeout_s: float) -> None:
        self.engine = engine
        self._answer_s = _ANSWER_FACTOR * timeout_s
        self._embedded = engine.dialect.name == "sqlite"
        # One writer at a time is all that SQLite has.
        self._writers = ThreadPoolExecutor(1 if self._embedded else pool, thread_name_prefix="database")
        self.observe: Callable[[str, float], None] = lambda _operation, _seconds: None

    async def read(self, work: Callable[[Connection], T], *, operation: str, trace: Trace | None = None) -> T:
        """Run a short look-up; raises Refusal UNAVAILABLE when the database is away or says nothing."""
        if self._embedded:
            return self._timed(self._read_once, work, operation, trace)
        try:
            async with asyncio.timeout(self._answer_s):
                return await self._in_thread(self._read_once, work, operation, trace)
        except TimeoutError:
            raise self._silent() from None

    async def read_all(self, work: Callable[[Connection], T], *, operation: str) -> T:
        """Run a look-up that may return many rows."""
        return await self._in_thread(self._read_once, work, operation, None)

    async def write(self, work: Callable[[Connection], T], *, operation: str, trace: Trace | None = None) -> T:
        """Run a change: all of it is in the database when this returns, or nothing.

        Raises Refusal DUPLICATE_ENTRY or UNAVAILABLE.
        """
        return await self._in_thread(self._write_once, work, operation, trace)

    def write_now(self, work: Callable[[Connection], T]) -> T:
        """`write` for those who have no event loop, or who must not go on before it is done."""
        return self._write_once(work)

    def wait_read(self, work: Callable[[Connection], T]) -> T:
        """`read` for those who are threads themselves."""
        return self._wait(self._read_once, work)

    def wait_write(self, work: Callable[[Connection], T]) -> T:
        """`write` for those who are threads themselves; a server that says nothing is UNAVAILABLE here, too."""
        return self._wait(self._write_once, work)

    def close(self) -> None:
        """Wait for running work and close every connection."""
        self._writers.shutdown(wait=True)
        self.engine.dispose()

    async def _in_thread(
        self,
        run: Callable[[Callable[[Connection], T]], T],
        work: Callable[[Connection], T],
        operation: str,
        trace: Trace | None,
    ) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._writers, self._timed, run, work, operation, trace)

    def _wait(self, run: Callable[[Callable[[Connection], T]], T], work: Callable[[Connection], T]) -> T:
        if self._embedded:
            return run(work)
        waiting = self._writers.submit(run, work)
        try:
            return waiting.result(self._answer_s)
        except TimeoutError:
            waiting.cancel()
            raise self._silent() from None

    def _silent(self) -> Refusal:
        message = f"The database is not available: no answer within {self._answer_s:g} s"
        return Refusal("UNAVAILABLE", message, status=503)

    def _timed(
        self,
        run: Callable[[Callable[[Connection], T]], T],
        work: Callable[[Connection], T],
        operation: str,
        trace: Trace | None,
    ) -> T:
        start_ns = time.time_ns()
        try:
            return run(work)
        finally:
            end_ns = time.time_ns()
            self.observe(operation, (end_ns - start_ns) / 1e9)
            if trace is not None:
                trace.record("query", operation, start_ns, end_ns)

    def _read_once(self, work: Callable[[Connection], T]) -> T:
        try:
            with self.engine.connect() as connection:
                return work(connection)
        except exc.SQLAlchemyError as error:
            raise _refusal(error) from error

    def _write_once(self, work: Callable[[Connection], T]) -> T:
        for last in (*[False] * (_TRIES - 1), True):
            try:
                with self.engine.connect() as plain:
                    connection = plain.execution_options(writes=True)
                    with connection.begin():
                        return work(connection)
            except exc.SQLAlchemyError as error:
                if last or not _is_conflict(error):
                    raise _refusal(error) from error
            # Uneven, so that two that met do not meet again.
            time.sleep(random.uniform(0.001, 0.02))  # noqa: S311 - no secret
        raise AssertionError


def _is_conflict(error: exc.SQLAlchemyError) -> bool:
    """Somebody else made the same row, or held it, in the same moment: once more, and it is found."""
    if isinstance(error, exc.IntegrityError):
        return True
    text = str(getattr(error, "orig", "")).lower()
    return isinstance(error, exc.OperationalError) and ("deadlock" in text or "could not serialize" in text)


def _refusal(error: exc.SQLAlchemyError) -> Refusal:
    if isinstance(error, exc.IntegrityError):
        return Refusal("DUPLICATE_ENTRY", "There is already an entry in the database with these unique fields")
    if isinstance(error, exc.DataError):
        return Refusal("BAD_PAYLOAD", f"The database cannot keep a value: {error.orig}")
    if isinstance(error, exc.OperationalError | exc.InterfaceError | exc.InternalError | exc.TimeoutError):
        cause = getattr(error, "orig", None) or error
        return Refusal("UNAVAILABLE", f"The database is not available: {cause}", status=503)
    return Refusal("GENERIC", f"class {type(error).__name__}: {error}")


def open_storage(
    url: str,
    *,
    password: Path | None = None,
    pool: int,
    timeout_s: float,
    patience_s: float = 60.0,
    durable: bool = False,
    variable: str = "TOOLKIT_ARROWHEAD_DATABASE_URL",
) -> Storage:
    """Connect, waiting up to `patience_s` for a server that is still starting, and migrate.

    `password`: a file that holds it; `durable`: SQLite flushes the disk at each commit, as servers do; `variable`: what
    the address is read from. Raises UsageError for an address that names no database that can be used.
    """
    try:
        engine = _make_engine(url, password=password, pool=pool, timeout_s=timeout_s)
    except (exc.ArgumentError, exc.NoSuchModuleError, ImportError, OSError) as error:
        raise UsageError(f"{variable} cannot be used: {error}; try sqlite:////data/arrowhead.sqlite") from None
    if engine.dialect.name == "sqlite":
        _prepare_sqlite(engine, durable=durable)
    deadline = time.monotonic() + patience_s
    while True:
        try:
            _migrate(engine)
            return Storage(engine, pool=pool, timeout_s=timeout_s)
        except (exc.OperationalError, exc.InterfaceError) as error:
            if time.monotonic() > deadline:
                place = engine.url.render_as_string(hide_password=True)
                raise UsageError(
                    f"database {place} does not answer after {patience_s:g} s: {error.orig}; is it running?"
                ) from None
            time.sleep(0.5)


def _make_engine(url: str, *, password: Path | None, pool: int, timeout_s: float) -> Engine:
    address = make_url(url)
    address = address.set(drivername=DRIVERS.get(address.drivername, address.drivername))
    if password is not None:
        address = address.set(password=password.read_text().strip())
    options: dict[str, Any] = {"pool_size": pool, "max_overflow": 0, "pool_timeout": timeout_s}
    if address.get_backend_name() == "sqlite":
        if address.database and address.database != ":memory:":
            Path(address.database).parent.mkdir(parents=True, exist_ok=True)
        options |= {"poolclass": QueuePool, "connect_args": {"check_same_thread": False, "timeout": timeout_s}}
    else:
        # A server that restarted is noticed before its dead connection is used: 0.1 ms a look-up.
        options |= {"pool_pre_ping": True, "pool_recycle": 1800}
        options["connect_args"] = _patience(address.get_backend_name(), timeout_s)
    return create_engine(address, future=True, **options)


def _patience(backend: str, timeout_s: float) -> dict[str, int]:
    """What the driver is told, so that a server that hangs or vanished gives its connections back some time."""
    connect_s, answer_s = max(1, int(timeout_s)), max(1, int(_ANSWER_FACTOR * timeout_s))
    if backend == "postgresql":  # libpq waits for ever for a server that is there and silent
        return {
            "connect_timeout": connect_s,
            "keepalives_idle": connect_s,
            "keepalives_interval": connect_s,
            "keepalives_count": 2,
            "tcp_user_timeout": answer_s * 1000,
        }
    return {"connect_timeout": connect_s, "read_timeout": answer_s, "write_timeout": answer_s}


def _prepare_sqlite(engine: Engine, *, durable: bool) -> None:
    """Readers beside a writer (WAL), foreign keys, and transactions that begin when we say so."""

    @event.listens_for(engine, "connect")
    def _connected(connection: Any, _record: object) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode=WAL")
        # In WAL mode NORMAL survives a crash of the process; only a power cut can lose the last commits.
        connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
        connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def _begun(connection: Connection) -> None:
        # A transaction that begins as a reader cannot become a writer while another process writes.
        if connection.get_execution_options().get("writes"):
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:  # past SQLAlchemy, whose way costs as much as a look-up; this waits for nobody and so cannot fail
            cast("Any", connection.connection).dbapi_connection.execute("BEGIN")


def _migrate(engine: Engine) -> None:
    with engine.connect() as plain:
        connection = plain.execution_options(writes=True)
        with connection.begin():
            if engine.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            elif engine.dialect.name in {"mysql", "mariadb"}:
                got = connection.execute(text("SELECT GET_LOCK(:lock, 3)"), {"lock": f"toolkit-{_LOCK}"})
                if got.scalar() != 1:
                    raise exc.OperationalError("GET_LOCK", {}, TimeoutError("another process is migrating"))
            try:
                migrate(connection)
            finally:
                if engine.dialect.name in {"mysql", "mariadb"}:
                    connection.execute(text("SELECT RELEASE_LOCK(:lock)"), {"lock": f"toolkit-{_LOCK}"})
