"""A Docker engine in memory that speaks the Engine API on a unix socket, as far as the converge module uses it."""

from __future__ import annotations

import io
import json
import re
import socketserver
import struct
import tarfile
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

USERS = "root:x:0:0:root:/:/bin/sh\napp:x:1234:1235:app:/:/bin/sh\n"


class EngineDaemon:
    """Containers and images that tests set up and look at."""

    def __init__(self, socket: Path, version: str = "20.10.24", api: str = "1.41", oldest: str = "1.12") -> None:
        self.socket = socket
        self.versions = {"Version": version, "ApiVersion": api, "MinAPIVersion": oldest}
        self.containers: dict[str, dict[str, Any]] = {}
        self.images: dict[str, dict[str, Any]] = {}
        self.registry: dict[str, dict[str, Any]] = {}
        self.calls: list[str] = []
        self.asked_versions: set[str] = set()
        self.ends_with: dict[str, int] = {}
        """Container name -> exit status of its process, which ends at once."""
        self.healthy_after: dict[str, int] = {}
        """Container name -> how many times its check fails first; never where negative."""
        self._execs: dict[str, tuple[str, int]] = {}
        self._count = 0
        daemon = self

        class Handler(_Handler):
            engine = daemon

        self._server = _Server(str(socket), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def add_image(self, reference: str, content: str | None = None, user: str = "", *, registry: bool = False) -> None:
        labels = {"org.toolkit.content": content} if content else None
        image = {"Id": f"sha256:{reference}", "Config": {"Labels": labels, "User": user}}
        (self.registry if registry else self.images)[reference] = image

    def kill(self, name: str, status: int = 137) -> None:
        self.containers[name]["State"] |= {"Status": "exited", "ExitCode": status}

    def writes(self) -> list[str]:
        return [call for call in self.calls if not call.startswith("GET") and "/exec" not in call]

    def answer(  # noqa: C901, PLR0911, PLR0912 - a table of calls
        self, method: str, path: str, query: dict[str, str], body: Any
    ) -> tuple[int, Any]:
        versioned = re.match(r"/v(\d+\.\d+)(/.*)", path)
        if versioned:
            self.asked_versions.add(versioned[1])
            path = versioned[2]
        self.calls.append(f"{method} {path}")
        parts = [urllib.parse.unquote(part) for part in path.strip("/").split("/")]
        match [method, *parts]:
            case ["GET", "version"]:
                return 200, self.versions
            case ["GET", "containers", "json"]:
                wanted = dict([json.loads(query["filters"])["label"][0].split("=", 1)])
                found = [c for c in self.containers.values() if wanted.items() <= c["Config"]["Labels"].items()]
                return 200, [self._listed(c) for c in found]
            case ["POST", "containers", "create"]:
                return self._create(query["name"], body)
            case ["GET", "containers", name, "json"]:
                container = self._find(name)
                return (200, container) if container else (404, {"message": f"No such container: {name}"})
            case ["GET", "containers", name, "logs"]:
                text = b"listening\nfatal: no such file\n"
                return 200, struct.pack(">BxxxI", 2, len(text)) + text
            case ["GET", "containers", _, "archive"]:
                return 200, _tar("passwd", USERS)
            case ["POST", "containers", name, "exec"]:
                return self._exec(name)
            case ["POST", "exec", number, "start"]:
                text = b"checked\n"
                return 200, struct.pack(">BxxxI", 1, len(text)) + text
            case ["GET", "exec", number, "json"]:
                return 200, {"ExitCode": self._execs[number][1]}
            case ["POST", "containers", name, "start" | "restart" | "unpause"]:
                return self._start(name)
            case ["POST", "containers", name, "stop"]:
                self.kill(self._name(name), 0)
                return 204, None
            case ["DELETE", "containers", name]:
                return (204, None) if self.containers.pop(self._name(name), None) else (404, {"message": "no such"})
            case ["POST", "images", "create"]:
                return self._pull(query)
            case ["GET", "images", *rest]:
                image = self.images.get("/".join(rest[:-1]))
                return (200, image) if image else (404, {"message": "no such image"})
            case ["POST", "images", *rest]:
                self.images[f"{query['repo']}:{query['tag']}"] = self.images["/".join(rest[:-1])]
                return 201, None
            case ["DELETE", "images", *rest]:
                reference = "/".join(rest)
                if any(c["Config"]["Image"] == reference for c in self.containers.values()):
                    return 409, {"message": "conflict: it is used by a container"}
                return (200, []) if self.images.pop(reference, None) else (404, {"message": "no such image"})
            case ["GET", "networks"]:
                return 200, []
            case ["GET", "volumes"]:
                return 200, {"Volumes": None}
        return 404, {"message": f"page not found: {method} {path}"}

    def _find(self, name: str) -> dict[str, Any] | None:
        return self.containers.get(self._name(name))

    def _name(self, name: str) -> str:
        return next((n for n, c in self.containers.items() if name == c["Id"]), name)

    def _create(self, name: str, body: dict[str, Any]) -> tuple[int, Any]:
        if name in self.containers:
            return 409, {"message": f'Conflict. The container name "/{name}" is already in use'}
        if body["Image"] not in self.images:
            return 404, {"message": f"No such image: {body['Image']}"}
        self._count += 1
        self.containers[name] = {
            "Id": f"{self._count:064x}",
            "Name": f"/{name}",
            "Config": body,
            "State": {"Status": "created", "ExitCode": 0, "StartedAt": "0001-01-01T00:00:00Z"},
            "RestartCount": 0,
        }
        return 201, {"Id": f"{self._count:064x}", "Warnings": []}

    def _start(self, name: str) -> tuple[int, Any]:
        container = self._find(name)
        assert container is not None
        name = self._name(name)
        for mount in container["Config"]["HostConfig"]["Mounts"]:
            if not Path(mount["Source"]).exists():
                return 400, {"message": f"bind source path does not exist: {mount['Source']}"}
        now = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + f".{time.monotonic_ns() % 10**9:09d}Z"
        container["State"] = {"Status": "running", "ExitCode": 0, "StartedAt": now}
        if "Healthcheck" in container["Config"]:
            container["State"]["Health"] = {"Status": "starting", "Log": []}
        if name in self.ends_with:
            self.kill(name, self.ends_with[name])
        return 204, None

    def _exec(self, name: str) -> tuple[int, Any]:
        name = self._name(name)
        fails = self.healthy_after.get(name, 0)
        self.healthy_after[name] = fails - 1 if fails > 0 else fails
        number = f"exec{len(self._execs)}"
        self._execs[number] = (name, 0 if fails == 0 else 1)
        return 201, {"Id": number}

    def _pull(self, query: dict[str, str]) -> tuple[int, Any]:
        reference = f"{query['fromImage']}:{query['tag']}"
        if reference not in self.registry:
            return 200, [{"status": "pulling"}, {"error": f"manifest for {reference} not found"}]
        self.images[reference] = self.registry[reference]
        return 200, [{"status": "pulling"}, {"status": "done"}]

    def _listed(self, container: dict[str, Any]) -> dict[str, Any]:
        state = container["State"]
        health = state.get("Health", {}).get("Status")
        words = {"running": "Up 3 seconds", "exited": f"Exited ({state['ExitCode']}) 1 second ago"}
        status = words.get(state["Status"], state["Status"].title())
        if health and state["Status"] == "running":
            status += " (health: starting)" if health == "starting" else f" ({health})"
        return {
            "Id": container["Id"],
            "Names": [container["Name"]],
            "Image": container["Config"]["Image"],
            "State": state["Status"],
            "Status": status,
            "Labels": container["Config"]["Labels"],
            "Created": 1,
        }


def _tar(name: str, text: str) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(text)
        archive.addfile(entry, io.BytesIO(text.encode()))
    return data.getvalue()


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


class _Handler(BaseHTTPRequestHandler):
    engine: EngineDaemon
    protocol_version = "HTTP/1.1"

    def _serve(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        status, answer = self.engine.answer(self.command, url.path, dict(urllib.parse.parse_qsl(url.query)), body)
        raw = isinstance(answer, bytes)
        lines = isinstance(answer, list) and self.command == "POST"
        data = (
            b""
            if answer is None
            else answer
            if raw
            else b"\n".join(json.dumps(line).encode() for line in answer)
            if lines
            else json.dumps(answer).encode()
        )
        self.send_response(status)
        self.send_header("Content-Type", "application/octet-stream" if raw else "application/json")
        if status != 204:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_DELETE = _serve  # noqa: N815

    def address_string(self) -> str:
        return "unix"

    def log_message(self, *_: object) -> None:
        pass
