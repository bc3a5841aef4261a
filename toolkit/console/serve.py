"""Serve the console: a socket, the link that lets people in, and the server's loop."""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from toolkit.errors import UsageError

PORT = 8400
LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")


def serve(
    root: Path,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    named: Sequence[Path] = (),
    names: Sequence[str] = (),
    read_only: bool = False,
    tell: Callable[[dict[str, str]], None],
) -> None:
    """Serve until interrupted; `tell` is given the links once the socket listens. Raises UsageError for a taken port.

    Without a port it is 8400, or any free one where that is taken; `names` are further names it answers to.
    """
    import uvicorn

    from toolkit.console.app import make_app
    from toolkit.console.guard import Guard

    listening = listen(host, port)
    number = listening.getsockname()[1]
    own = f"[{host}]" if ":" in host else host
    guard = Guard(port=number, names=(*dict.fromkeys((*LOOPBACK_NAMES, own, *names)),), read_only=read_only)
    shown = "127.0.0.1" if host in {"0.0.0.0", "::"} else own  # noqa: S104 - where people asked for it
    link = f"http://{shown}:{number}/enter?token="
    links = (
        {"watch": link + guard.watch_token}
        if read_only
        else {"act": link + guard.act_token, "watch": link + guard.watch_token}
    )
    app = make_app(root, guard, named=tuple(named))
    config = uvicorn.Config(
        app, log_level="critical", access_log=False, timeout_graceful_shutdown=1, server_header=False
    )
    tell(links)
    uvicorn.Server(config).run(sockets=[listening])


def listen(host: str, port: int | None) -> socket.socket:
    """A listening socket."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for number in (port,) if port is not None else (PORT, 0):
        listening = socket.socket(family)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, number))
            listening.listen(128)
        except OSError as error:
            listening.close()
            problem = error
            continue
        return listening
    where = f"{host}:{port}" if port else host
    other = "--port" if problem.errno in {errno.EADDRINUSE, errno.EACCES} else "--host"
    raise UsageError(f"the console cannot listen on {where}: {problem.strerror}; try another {other}")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a console on this address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
