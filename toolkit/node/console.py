"""The console on the monitor's node: shows the pages that deploy drew, with live figures, and does nothing else."""

from __future__ import annotations

import gzip
import hmac
import http.client
import http.server
import json
import mimetypes
import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit

from toolkit.contract.watching import EVERY_S, PAGES, POLICIES, TOKEN, figures, question, readable_path

STATIC = "/opt/toolkit/static"
MOST_SESSIONS = 1000
MOST_CONNECTIONS = 64
IDLE_S = 30.0
TIMEOUT_S = 10.0
_WORTH_PACKING = 1024
_FOREVER = "public, max-age=31536000, immutable"
"""Addresses of files change with their content."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What it shows, and where."""

    testbed: str
    port: int
    names: tuple[str, ...]
    """Under which it may be asked, beside those of loopback; another one means DNS was bent to reach it."""
    token: str
    prometheus: str
    """host:port."""
    pages: Path
    static: Path

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """Read TOOLKIT_*; raises KeyError or ValueError naming the variable that is missing or wrong."""
        return cls(
            testbed=environ["TOOLKIT_TESTBED"],
            port=int(environ["TOOLKIT_CONSOLE_PORT"]),
            names=tuple(environ.get("TOOLKIT_CONSOLE_NAMES", "").split(",")),
            token=Path(environ[TOKEN]).read_text().strip(),
            prometheus=environ["TOOLKIT_PROMETHEUS"],
            pages=Path(environ.get("TOOLKIT_CONSOLE_PAGES", PAGES)),
            static=Path(environ.get("TOOLKIT_CONSOLE_STATIC", STATIC)),
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """What a browser gets."""

    body: bytes
    media_type: str
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()


class Prometheus:
    """The server beside it."""

    def __init__(self, address: str) -> None:
        self._address = address

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body; raises OSError or HTTPException."""
        connection = http.client.HTTPConnection(self._address, timeout=TIMEOUT_S)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def vector(self, query: str) -> list[tuple[dict[str, str], float]]:
        """An instant query's series; raises OSError, HTTPException or ValueError."""
        _, body = self.get(f"/api/v1/query?{urlencode({'query': query})}")
        document = json.loads(body)
        if document.get("status") != "success":
            raise ValueError(str(document.get("error")))
        return [(row["metric"], float(row["value"][1])) for row in document["data"]["result"]]


class Feed:
    """The testbed's figures, asked for once a second however many look."""

    def __init__(self, testbed: str, source: Prometheus) -> None:
        self._query = question(testbed)
        self._source = source
        self._lock = threading.Lock()
        self._asked_s = float("-inf")
        self._latest = ""

    def latest(self) -> str:
        """A JSON document not older than a second."""
        with self._lock:
            if time.monotonic() - self._asked_s >= EVERY_S * 0.95:
                try:
                    document = figures(self._source.vector(self._query))
                except (OSError, ValueError, http.client.HTTPException) as error:
                    document = {"error": f"Prometheus does not answer ({error or type(error).__name__})"}
                self._asked_s = time.monotonic()
                self._latest = json.dumps({"at": round(time.time(), 3), **document}, separators=(",", ":"))
            return self._latest


class Sessions:
    """Browsers that came in with the token; kept in memory alone."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()
        self._known: dict[str, None] = {}

    def enter(self, token: str) -> str | None:
        """A new session's name; None for a wrong token."""
        if not self._token or not hmac.compare_digest(token.encode(), self._token):
            return None
        while len(self._known) >= MOST_SESSIONS:
            self._known.pop(next(iter(self._known)), None)
        name = secrets.token_urlsafe(24)
        self._known[name] = None
        return name

    def has(self, name: str) -> bool:
        """Whether somebody came in as this."""
        return name in self._known


class Console(http.server.ThreadingHTTPServer):
    """The server; everything it may send from files is in memory, by its address."""

    daemon_threads = True

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.sessions = Sessions(settings.token)
        self.prometheus = Prometheus(settings.prometheus)
        self.feed = Feed(settings.testbed, self.prometheus)
        self.home = f"/testbeds/{settings.testbed}"
        self.pages = dict(_pages(settings.pages, self.home))
        self.refusals = {
            int(file.stem): file.read_bytes() for file in settings.pages.glob("*.html") if file.stem.isdigit()
        }
        self.static = {
            file.name: Answer(file.read_bytes(), mimetypes.guess_type(file.name)[0] or "application/octet-stream",
                              headers=(("cache-control", _FOREVER),))
            for file in settings.static.rglob("*") if file.suffix in {".js", ".css"}
        }  # fmt: skip
        self._packed: dict[bytes, bytes] = {}
        self._places = threading.BoundedSemaphore(MOST_CONNECTIONS)
        super().__init__(("0.0.0.0", settings.port), _Request)

    def packed(self, body: bytes, *, keep: bool) -> bytes:
        """In fewer bytes; what is sent again and again is packed once."""
        found = self._packed.get(body)
        if found is None:
            found = gzip.compress(body, 6, mtime=0)
            if keep:
                self._packed[body] = found
        return found

    def process_request(self, request: object, client_address: object) -> None:
        """A thread for each connection, and no more of them than there are places."""
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)  # type: ignore[arg-type]
            return
        super().process_request(request, client_address)  # type: ignore[arg-type]

    def process_request_thread(self, request: object, client_address: object) -> None:
        """Answer, then give the place back."""
        try:
            super().process_request_thread(request, client_address)  # type: ignore[arg-type]
        finally:
            self._places.release()

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002 - the base class's
        """Browsers go away in the middle; anything else is told, without the request: an address may hold a token."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            print(json.dumps({"level": "error", "role": "console", "message": repr(error)}), file=sys.stderr)  # noqa: T201 - the log of a node process


class _Request(http.server.BaseHTTPRequestHandler):
    server: Console
    protocol_version = "HTTP/1.1"
    server_version = "toolkit"
    sys_version = ""
    timeout = IDLE_S

    def do_GET(self) -> None:
        """Let in, or show."""
        address = urlsplit(self.path)
        query = parse_qsl(address.query)
        if self._host() not in {"127.0.0.1", "localhost", "[::1]", *self.server.settings.names}:
            self._send(Answer(b"This console does not answer to that name.\n", "text/plain", 421))
        elif address.path == "/enter":
            self._enter(dict(query).get("token", ""))
        elif address.path.startswith("/static/"):
            self._send(self.server.static.get(address.path.rpartition("/")[2]) or self._refusal(404))
        elif not self._is_known():
            self._send(self._refusal(401))
        elif address.path == "/":
            self._send(Answer(b"", "text/plain", 303, (("location", self.server.home),)))
        elif address.path == f"{self.server.home}/live":
            self._live()
        elif address.path.startswith(asked := f"{self.server.home}/prometheus/api/v1/"):
            self._send(self._asked(address.path.removeprefix(asked), query))
        else:
            self._send(self.server.pages.get(address.path) or self._refusal(404))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Nothing is logged: an address may hold the token."""

    def _host(self) -> str:
        """Without the port, which differs behind a tunnel."""
        host: str = self.headers.get("host", "")
        return host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]

    @property
    def _cookie(self) -> str:
        """Cookies know no ports: two consoles on one machine need two names."""
        return f"toolkit-monitor-{self.server.settings.testbed}"

    def _enter(self, token: str) -> None:
        session = self.server.sessions.enter(token)
        if session is None:
            self._send(self._refusal(403))
            return
        cookie = f"{self._cookie}={session}; HttpOnly; SameSite=Lax; Path=/"
        self._send(Answer(b"", "text/plain", 303, (("location", "/"), ("set-cookie", cookie))))

    def _is_known(self) -> bool:
        try:
            morsel = SimpleCookie(self.headers.get("cookie", "")).get(self._cookie)
        except CookieError:
            return False
        return morsel is not None and self.server.sessions.has(morsel.value)

    def _refusal(self, status: int) -> Answer:
        return Answer(self.server.refusals.get(status, b""), "text/html; charset=utf-8", status)

    def _asked(self, rest: str, query: list[tuple[str, str]]) -> Answer:
        """A reading query, passed on; errors in the form that Prometheus itself uses."""
        try:
            path = readable_path(rest, query)
        except ValueError as error:
            return _error(403, str(error))
        try:
            status, body = self.server.prometheus.get(path)
        except (OSError, http.client.HTTPException) as error:
            return _error(502, f"Prometheus does not answer ({error or type(error).__name__})")
        return Answer(body, "application/json", status)

    def _live(self) -> None:
        """Figures once a second as server-sent events, until the browser goes."""
        self.close_connection = True
        self.send_response(200)
        for name, value in (*POLICIES, ("content-type", "text/event-stream"), ("connection", "close")):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(b"retry: 2000\n\n")
        while True:
            self.wfile.write(f"data: {self.server.feed.latest()}\n\n".encode())
            self.wfile.flush()
            time.sleep(EVERY_S)

    def _send(self, answer: Answer) -> None:
        given = dict(answer.headers)
        body = answer.body
        if len(body) > _WORTH_PACKING and "gzip" in self.headers.get("accept-encoding", ""):
            body = self.server.packed(body, keep=answer.media_type != "application/json")
            given["content-encoding"] = "gzip"
        given |= {"content-type": answer.media_type, "content-length": str(len(body)), "vary": "accept-encoding"}
        self.send_response(answer.status)
        for name, value in {**dict(POLICIES), **given}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def _error(status: int, message: str) -> Answer:
    document = {"status": "error", "errorType": "console", "error": message}
    return Answer(json.dumps(document).encode(), "application/json", status)


def _pages(folder: Path, home: str) -> Iterable[tuple[str, Answer]]:
    """Address -> page, of the files that deploy has written."""
    for file in folder.glob("*.html"):
        if not file.stem.isdigit():
            address = home if file.stem == "testbed" else f"{home}/dashboards/{file.stem}"
            yield address, Answer(file.read_bytes(), "text/html; charset=utf-8")
    for file in folder.glob("*.json"):
        yield f"{home}/dashboards/{file.stem}/document", Answer(file.read_bytes(), "application/json")


def main() -> int:
    """Serve until SIGTERM."""
    try:
        settings = Settings.from_environment()
        console = Console(settings)
    except (KeyError, ValueError, OSError) as error:
        print(json.dumps({"level": "error", "role": "console", "message": repr(error)}), file=sys.stderr)  # noqa: T201 - the log of a node process
        return 1
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=console.shutdown).start())
    console.serve_forever()
    console.server_close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
