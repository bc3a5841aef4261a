# SPDX-License-Identifier: Apache-2.0
"""A small client of the Docker Engine API over its unix socket.

Runs on nodes: Python 3.8 and later, standard library only, engines 20.10 to 29 by asking which versions they speak.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import struct
import urllib.parse

SOCKET = "/var/run/docker.sock"
NEWEST_API = (1, 47)
"""The newest API whose changes were looked through; older engines speak an older one."""

LABEL_TESTBED = "org.toolkit.testbed"
LABEL_NODE = "org.toolkit.node"
LABEL_SERVICE = "org.toolkit.service"
LABEL_ROLE = "org.toolkit.role"
LABEL_HASH = "org.toolkit.hash"
LABEL_SECRETS = "org.toolkit.secrets"
LABEL_CONTENT = "org.toolkit.content"


class EngineError(Exception):
    """The engine is not there or refuses; `status` is 0 where it did not answer."""

    def __init__(self, message, status=0):
        super().__init__(message)
        self.status = status


class _SocketConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout_s):
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Engine:
    """One engine; its connection is kept between calls. Use one Engine per thread."""

    def __init__(self, path=SOCKET, timeout_s=60.0):
        self._path = path
        self._timeout_s = timeout_s
        self._line = None
        self._prefix = None
        self.version = ""
        self.api = ""

    def negotiate(self):
        """Ask the engine for its versions and settle on one; raises EngineError with what to try."""
        if self._prefix is not None:
            return self
        self._prefix = ""
        try:
            known = self.get("/version")
        except EngineError:
            self._prefix = None
            raise
        newest = _numbers(known.get("ApiVersion", "1.41"))
        oldest = _numbers(known.get("MinAPIVersion", "1.12"))
        if oldest > NEWEST_API:
            self._prefix = None
            raise EngineError(
                "the engine (%s) wants API %d.%d or later; toolkit speaks up to %d.%d: update toolkit"
                % (known.get("Version"), *oldest, *NEWEST_API)
            )
        self.api = "%d.%d" % min(newest, NEWEST_API)
        self.version = known.get("Version", "")
        self._prefix = "/v" + self.api
        return self

    def get(self, path, /, **query):
        return self.call("GET", path, query)

    def post(self, path, body=None, /, **query):
        return self.call("POST", path, query, body)

    def delete(self, path, /, **query):
        return self.call("DELETE", path, query)

    def call(self, method, path, query=None, body=None, accept=()):
        """The answer's JSON, or its text where it is none; raises EngineError."""
        answer, data = self._exchange(method, path, query, body)
        if answer.status >= 400 and answer.status not in accept:
            raise EngineError(_message(data) or answer.reason, answer.status)
        if not data:
            return None
        if answer.getheader("Content-Type", "").startswith("application/json"):
            try:
                return json.loads(data)
            except ValueError:
                return [json.loads(line) for line in data.splitlines() if line.strip()]
        return data

    def _exchange(self, method, path, query, body):
        if self._prefix is None:
            self.negotiate()
        target = self._prefix + path
        if query:
            target += "?" + urllib.parse.urlencode(
                {k: json.dumps(v) if isinstance(v, (dict, list)) else v for k, v in query.items() if v is not None}
            )
        headers = {"Host": "docker"}
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        for attempt in (1, 2):
            fresh = self._line is None
            if fresh:
                self._line = _SocketConnection(self._path, self._timeout_s)
            try:
                self._line.request(method, target, body=data, headers=headers)
                answer = self._line.getresponse()
                return answer, answer.read()
            except socket.timeout as error:
                self.close()
                raise EngineError(
                    "the engine gave no answer to %s %s for %d s" % (method, path, self._timeout_s)
                ) from error
            except (OSError, http.client.HTTPException) as error:
                self.close()
                if fresh or attempt == 2:
                    raise EngineError(_unreachable(self._path, error)) from error
        raise AssertionError

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self.close()

    def close(self):
        if self._line is not None:
            self._line.close()
            self._line = None

    # What toolkit asks of it.

    def containers(self, label):
        """Every container with a label, running or not, as the list call gives them."""
        return self.get("/containers/json", all=1, filters={"label": [label]})

    def image(self, reference):
        """The image's inspection, or None where the engine has none of this name."""
        try:
            return self.get("/images/%s/json" % urllib.parse.quote(reference, safe="/:@"))
        except EngineError as error:
            if error.status == 404:
                return None
            raise

    def inspect(self, name):
        """The container's inspection, or None where there is none."""
        try:
            return self.get("/containers/%s/json" % name)
        except EngineError as error:
            if error.status == 404:
                return None
            raise

    def pull(self, repository, tag, platform=None):
        """Fetch an image from a registry; raises EngineError with the registry's words."""
        with Engine(self._path, timeout_s=600.0) as patient:
            lines = patient.post("/images/create", fromImage=repository, tag=tag, platform=platform)
        for line in lines if isinstance(lines, list) else [lines]:
            if isinstance(line, dict) and line.get("error"):
                raise EngineError("pull of %s:%s: %s" % (repository, tag, line["error"]), 500)

    def execute(self, name, command, timeout_s=20.0):
        """Run a command inside a container: its status and what it said."""
        made = self.post(
            "/containers/%s/exec" % name, {"AttachStdout": True, "AttachStderr": True, "Cmd": list(command)}
        )
        with Engine(self._path, timeout_s) as once:  # the answer's end is the end of its connection
            output = once.post("/exec/%s/start" % made["Id"], {"Detach": False, "Tty": False})
        status = self.get("/exec/%s/json" % made["Id"])["ExitCode"]
        return status, _frames(output or b"").decode(errors="replace")

    def last_words(self, name, lines=15):
        """The container's last lines, stdout and stderr together."""
        try:
            data = self.get("/containers/%s/logs" % name, stdout=1, stderr=1, tail=lines)
        except EngineError as error:
            return ["(no log: %s)" % error]
        return _frames(data or b"").decode(errors="replace").splitlines()[-lines:]


def _frames(data):
    """The payload of a multiplexed stream: frames of type, three zero bytes, length, bytes."""
    if not isinstance(data, bytes):
        return b""
    parts, at = [], 0
    while at + 8 <= len(data):
        kind, length = struct.unpack(">BxxxI", data[at : at + 8])
        if kind > 2:  # not framed: the container has a terminal
            return data
        parts.append(data[at + 8 : at + 8 + length])
        at += 8 + length
    return b"".join(parts)


def _numbers(version):
    major, _, minor = version.partition(".")
    return int(major), int(minor or 0)


def _message(data):
    try:
        return json.loads(data).get("message", "")
    except (ValueError, AttributeError):
        return data.decode(errors="replace").strip()


def _unreachable(path, error):
    if isinstance(error, FileNotFoundError):
        return "there is no engine socket %s: is a Docker engine running? try: systemctl status docker" % path
    if isinstance(error, PermissionError):
        return "%s may not be used by uid %d: become root, or join the group docker" % (path, os.getuid())
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens on %s: the engine has stopped; try: systemctl restart docker" % path
    return "the engine at %s broke off: %s" % (path, error or type(error).__name__)
