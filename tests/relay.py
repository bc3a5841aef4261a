"""A way between a client and a server that can be cut, and made to swallow some of what the client says."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading

_ABORT = struct.pack("ii", 1, 0)


class Relay:
    """Listens on `port`, passes everything on to another port of this machine."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._open: list[tuple[socket.socket, socket.socket]] = []
        self._said: dict[socket.socket, bytes] = {}
        """What each client said first."""
        self._swallowed: bytes | None = None
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                return
            for end in (near, far):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._open.append((near, far))
            for source, sink, from_client in ((near, far, True), (far, near, False)):
                threading.Thread(target=self._pass_on, args=(source, sink, from_client), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, from_client: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if from_client:
                    self._said.setdefault(source, data)
                if not (from_client and self._swallowed and data.startswith(self._swallowed)):
                    sink.sendall(data)
        for end in (source, sink):
            end.close()

    def swallow(self, beginning: bytes) -> None:
        """From now on what clients say with this beginning does not arrive, and nobody tells them."""
        self._swallowed = beginning

    def cut(self, naming: bytes = b"") -> None:
        """Reset the connections of clients that named this in what they said first; new ones work again."""
        for pair in [pair for pair in self._open if naming in self._said.get(pair[0], b"")]:
            self._open.remove(pair)
            for end in pair:
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
                    end.shutdown(socket.SHUT_RDWR)
        self._swallowed = None

    def close(self) -> None:
        """Take no more."""
        self._listener.close()
