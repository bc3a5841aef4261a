"""A pool of threads with blocking sockets: each takes a connection that has something to say, serves it, goes on.

All of them wait in one epoll set, which is the queue: a kept connection waits there between two requests and holds no
thread. The pool's size therefore limits the requests that are served at a time, not the connections. Only while other
threads are free does one stay with its connection for a moment: whoever publishes in a closed loop is then answered by
a thread that waits for nobody else, instead of one that has to be woken while the last is still on its way back.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import ssl
import struct
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from toolkit.errors import WorkloadError
from toolkit.node.event_handler.recorder import Passage, SharedRecorder
from toolkit.node.event_handler.server import LAST_CHUNK, Connection, EventHandler
from toolkit.node.event_handler.settings import HandlerSettings

_READ_BYTES = 65_536
_WRITE_WITHIN_S = 15
"""A client that takes nothing for so long is given up; until then it holds the thread that writes to it."""
_STAY_S = 0.002
"""A thread waits so long for the next request of the connection that it has served, if others are free meanwhile."""
_ONCE = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLONESHOT


class Line(asyncio.Transport):
    """A connection with its blocking socket, as the transport that `Connection` and `Outlet` know.

    Whoever holds `lock` serves it. Only its server closes the socket; others shut it down, which wakes a worker. A
    stream is written to by whoever took an event, while its server may be reading: OpenSSL takes one thread at a time,
    so that with TLS each read, write and handshake is a turn of its own, and a read never waits for data in it.
    """

    def __init__(self, accepted: socket.socket, peer: tuple[Any, ...], connection: Connection) -> None:
        super().__init__()
        self._secure = isinstance(accepted, ssl.SSLSocket)
        accepted.settimeout(_WRITE_WITHIN_S if self._secure else None)
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", _WRITE_WITHIN_S, 0))
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, int(_STAY_S * 1e6)))
        self.socket = accepted
        self.connection = connection
        self.lock = threading.Lock()
        self._tls_turn = threading.Lock()
        """Held in every call of OpenSSL, and never when another lock is asked for."""
        self._known: dict[str, Any] = {"socket": accepted, "peername": peer}
        self._closing = False
        self.begun = False
        """Whether requests may come: at once, with TLS after its handshake."""
        self.since_s = time.monotonic()

    def begin(self) -> None:
        """Tell the connection of its transport."""
        self.begun = True
        self.connection.connection_made(self)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """`socket` or `peername`."""
        return self._known.get(name, default)

    def shake_hands(self) -> bytes:
        """Go on with what comes before the first request of a TLS connection, then as `receive`."""
        if isinstance(self.socket, ssl.SSLSocket):
            with self._tls_at_once(self.socket):
                self.socket.do_handshake()
                self._known |= {"peercert": self.socket.getpeercert(), "ssl_object": self.socket}
        self.begin()
        return self.receive()

    def receive(self) -> bytes:
        """What is there, without waiting for more; raises OSError, BlockingIOError where nothing is."""
        if not isinstance(self.socket, ssl.SSLSocket):
            return self.socket.recv(_READ_BYTES, socket.MSG_DONTWAIT)
        with self._tls_at_once(self.socket):
            data = self.socket.recv(_READ_BYTES)
            while self.socket.pending():  # decrypted already: epoll says nothing of it
                data += self.socket.recv(_READ_BYTES)
        return data

    @contextlib.contextmanager
    def _tls_at_once(self, secured: ssl.SSLSocket) -> Iterator[None]:
        """A turn in which nothing waits for the other side; raises BlockingIOError where it would have to."""
        with self._tls_turn:
            secured.settimeout(0)
            try:
                yield
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as error:
                raise BlockingIOError from error
            finally:
                secured.settimeout(_WRITE_WITHIN_S)

    def receive_soon(self) -> bytes:
        """What comes within `_STAY_S`; raises as `receive`."""
        return self.receive() if self._secure else self.socket.recv(_READ_BYTES)

    def is_closing(self) -> bool:
        """Whether it was closed or given up."""
        return self._closing

    def get_write_buffer_size(self) -> int:
        """Nothing is buffered: writing waits."""
        return 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send everything, or give the connection up."""
        try:
            if not self._secure:
                self.socket.sendall(data)
                return
            with self._tls_turn:
                if not self._closing:
                    self.socket.sendall(data)
        except OSError:
            self.close()

    def close(self) -> None:
        """Send and take no more."""
        self._closing = True
        with contextlib.suppress(OSError):
            # Of the connection below TLS: an SSLSocket would go on without encryption in the middle of another's write.
            socket.socket.shutdown(self.socket, socket.SHUT_RDWR)

    def abort(self) -> None:
        """The same: what was written is in the kernel already."""
        self.close()

    def pause_reading(self) -> None:
        """A line is read only when it is its turn."""

    def resume_reading(self) -> None:
        """A line is read only when it is its turn."""


class WorkerHandler(EventHandler):
    """An Event Handler that several threads use at a time."""

    def __init__(self, settings: HandlerSettings) -> None:
        super().__init__(settings, SharedRecorder())
        self.turn = threading.Lock()
        """Held while counters change."""

    def account(self, passage: Passage | None, publisher: Connection, at_ns: int, payload_bytes: int) -> None:
        """Count an event that was published and answered, and stamp it."""
        with self.turn:
            super().account(passage, publisher, at_ns, payload_bytes)

    def finish(self, until_s: float) -> None:
        """Do what is left once nothing new comes, by `until_s` (monotonic) at the latest."""


class Workers:
    """Listens and serves with a fixed number of threads."""

    def __init__(self, handler: WorkerHandler, threads: int) -> None:
        """Raises WorkloadError where the port is taken. 0 threads: twice the cores."""
        settings = handler.settings
        self.threads = threads or 2 * (os.cpu_count() or 1)
        self._handler = handler
        try:
            self._listener = socket.create_server((settings.address, settings.port), backlog=1024)
        except OSError as error:
            raise WorkloadError(
                f"cannot listen on {settings.address}:{settings.port}: {error.strerror}; "
                f"see what holds it with `ss -ltnp 'sport = :{settings.port}'`"
            ) from error
        self._listener.setblocking(False)
        self._listening = self._listener.fileno()
        self._lines: dict[int, Line] = {}
        self._free: set[int] = set()
        """Threads that wait for any connection."""
        self._ended = os.eventfd(0, os.EFD_CLOEXEC)
        self._ready = select.epoll()
        self._ready.register(self._listening, select.EPOLLIN | select.EPOLLONESHOT)
        self._ready.register(self._ended, select.EPOLLIN)
        self._pool = [threading.Thread(target=self._work, name=f"worker-{n}", daemon=True) for n in range(self.threads)]

    def start(self) -> None:
        """Serve from now on."""
        for thread in self._pool:
            thread.start()

    def busy(self) -> int:
        """How many threads are with a connection now."""
        return self.threads - len(self._free)

    def sweep(self) -> None:
        """End connections that are too slow or idle, those that are being served are neither; then tidy."""
        now_s = time.monotonic()
        for line in list(self._lines.values()):
            if line.lock.acquire(blocking=False):
                try:
                    if line.begun:
                        line.connection.check_age(now_s)
                    elif now_s - line.since_s > self._handler.settings.request_within_s:
                        line.close()
                finally:
                    line.lock.release()
        self._handler.tidy(now_s)

    def stop(self, until_s: float) -> None:
        """Take nothing new, finish what is being served, close every line; by `until_s` (monotonic) at the latest."""
        self._handler.draining = True
        self._ready.unregister(self._listening)
        self._listener.close()
        for subscriber in self._handler.exchange.subscribers():
            subscriber.end(LAST_CHUNK)
        for line in list(self._lines.values()):
            if line.lock.acquire(timeout=max(until_s - time.monotonic(), 0)):
                try:
                    line.connection.end()
                finally:
                    line.lock.release()
        while self._lines and time.monotonic() < until_s:
            time.sleep(0.02)
        os.eventfd_write(self._ended, 1)
        for thread in self._pool:
            thread.join(max(until_s - time.monotonic(), 0.1))

    def _work(self) -> None:
        me = threading.get_ident()
        while True:
            self._free.add(me)
            ready = self._ready.poll(None, 1)
            self._free.discard(me)
            for fd, _ in ready:
                if fd == self._ended:
                    return
                if fd == self._listening:
                    self._accept()
                elif (line := self._lines.get(fd)) is not None:
                    self._serve(fd, line)

    def _accept(self) -> None:
        try:
            accepted, peer = self._listener.accept()
        except OSError:
            accepted = None
        with contextlib.suppress(OSError, ValueError):  # the listener is closed at the end
            self._ready.modify(self._listening, select.EPOLLIN | select.EPOLLONESHOT)
        if accepted is None:
            return
        connection = self._handler.make_connection()
        guard = self._handler.guard
        if guard is not None:
            accepted = guard.server_context.wrap_socket(accepted, server_side=True, do_handshake_on_connect=False)
        line = Line(accepted, peer, connection)
        self._lines[accepted.fileno()] = line
        if guard is None:
            line.begin()
        self._ready.register(accepted.fileno(), _ONCE)

    def _serve(self, fd: int, line: Line) -> None:
        with line.lock:
            try:
                goes_on = self._take(line, line.receive if line.begun else line.shake_hands)
                while goes_on and self._free and line.connection.is_between_requests and not self._handler.draining:
                    goes_on = self._take(line, line.receive_soon)
            except BlockingIOError:
                goes_on = True
            if goes_on and not line.is_closing():
                self._ready.modify(fd, _ONCE)
                return
            line.close()
            line.connection.connection_lost(None)
            del self._lines[fd]
            line.socket.close()

    def _take(self, line: Line, receive: Callable[[], bytes]) -> bool:
        """Serve what comes; whether the connection goes on. Raises BlockingIOError where nothing comes."""
        try:
            data = receive()
            if data:
                line.connection.data_received(data)
        except BlockingIOError:
            raise
        except OSError:
            return False
        except Exception:  # noqa: BLE001  one client's request must not cost a worker
            traceback.print_exc()
            return False
        return bool(data) and not line.is_closing()
