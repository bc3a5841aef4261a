# SPDX-License-Identifier: Apache-2.0
"""Containers of a node: made, replaced, started and removed by comparing the hash in their label.

Runs on nodes: Python 3.8 and later, standard library only.
"""

from __future__ import annotations

import io
import os

from ansible.module_utils.toolkit_engine import (
    LABEL_CONTENT,
    LABEL_HASH,
    LABEL_NODE,
    LABEL_ROLE,
    LABEL_SECRETS,
    LABEL_SERVICE,
    LABEL_TESTBED,
    EngineError,
)
from ansible.module_utils.toolkit_secrets import INSIDE

STOP_WITHIN_S = 5
LOG_LIMITS = {"max-size": "10m", "max-file": "3"}
HEALTH_AT_REST_S = 60.0
"""The engine repeats a health check this seldom, since each costs 50 ms of processor time on a PC and over a second on
a Pi 1. While a container starts, converge itself asks more often."""
LEAST_MEMORY_BYTES = 6 * 1024 * 1024
"""The engine accepts no lower limit."""


class Containers:
    """The testbed's containers on this node, as they were when looked at."""

    def __init__(self, bundle, engine, files, secrets, report):
        self._bundle = bundle
        self._engine = engine
        self._files = files
        self._secrets = secrets
        self._report = report
        self.existing = {}

    def look(self):
        listed = self._engine.containers("%s=%s" % (LABEL_TESTBED, self._bundle["testbed"]))
        self.existing = {entry["Names"][0].lstrip("/"): entry for entry in listed}

    def is_as_wanted(self, container):
        labels = (self.existing.get(container["name"]) or {}).get("Labels") or {}
        return labels.get(LABEL_HASH) == container["hash"] and labels.get(LABEL_SECRETS, "") == self._secrets.digest(
            container
        )

    def remove_unwanted(self):
        wanted = {container["name"] for container in self._bundle["containers"]}
        for name in sorted(set(self.existing) - wanted):
            if self._report.change("remove", name, "not in the bundle"):
                self._remove(self.existing.pop(name))

    def _remove(self, entry):
        """Let it end by itself for a while, then remove it and its anonymous volumes."""
        if entry.get("State") == "running":
            self._engine.call("POST", "/containers/%s/stop" % entry["Id"], {"t": STOP_WITHIN_S}, accept=(304, 404))
        self._engine.call("DELETE", "/containers/%s" % entry["Id"], {"force": 1, "v": 1}, accept=(404,))

    def start(self, container):
        """Create, replace or start a container; one that is as wanted and runs is left alone."""
        name = container["name"]
        entry = self.existing.get(name)
        if entry is None:
            self._report.change("create", name)
            self._make(container, None)
        elif not self.is_as_wanted(container):
            same = (entry.get("Labels") or {}).get(LABEL_HASH) == container["hash"]
            self._report.change("replace", name, "secret" if same else "specification")
            self._make(container, entry)
        elif entry["State"] in ("dead", "removing"):
            self._report.change("replace", name, entry["State"])
            self._make(container, entry)
        elif entry["State"] == "paused":
            # To the engine a paused container is unhealthy, and stays so until the next of its rare checks.
            self._again(entry, "paused", "unpause", "restart")
        elif entry["State"] != "running":
            self._again(entry, entry.get("Status") or entry["State"], "start")
        elif "(unhealthy)" in entry.get("Status", ""):
            self._again(entry, "unhealthy", "restart")

    def _again(self, entry, why, *calls):
        if self._report.change(calls[-1], entry["Names"][0].lstrip("/"), why):
            for call in calls:
                query = {"t": STOP_WITHIN_S} if call == "restart" else None
                self._engine.call("POST", "/containers/%s/%s" % (entry["Id"], call), query, accept=(304,))

    def _make(self, container, instead_of):
        folders = self._writable_folders(container)
        if self._report.check:
            return
        if instead_of is not None:
            self._remove(instead_of)
        made = self._create(container)
        try:
            self._own(made["Id"], container, folders)
            self._engine.post("/containers/%s/start" % made["Id"])
        except EngineError as error:
            # Half of it would count as all of it next time.
            self._engine.call("DELETE", "/containers/%s" % made["Id"], {"force": 1, "v": 1}, accept=(404, 409))
            hint = "; its image is for another architecture than this node's" if "exec format" in str(error) else ""
            raise EngineError("%s%s" % (error, hint), error.status) from error
        self._report.notes += ["%s: %s" % (container["name"], warning) for warning in made.get("Warnings") or []]

    def _create(self, container):
        body = container_body(self._bundle["testbed"], self._bundle["node"], container, self._files, self._secrets)
        path = "/containers/create"
        try:
            return self._engine.post(path, body, name=container["name"])
        except EngineError as error:
            if error.status != 409:
                raise
            other = self._engine.inspect(container["name"]) or {}
            if ((other.get("Config") or {}).get("Labels") or {}).get(LABEL_TESTBED) != self._bundle["testbed"]:
                raise EngineError(
                    "a container of this name that is not toolkit's is in the way; remove it", 409
                ) from error
            self._engine.delete("/containers/%s" % container["name"], force=1, v=1)
            return self._engine.post(path, body, name=container["name"])

    def _writable_folders(self, container):
        """Make the folders to be mounted that are missing; those that the service must be able to write to."""
        writable = []
        files = {self._files.path(file["path"]) for file in self._bundle["files"]}
        for source, _inside, mode in container["mounts"]:
            if os.path.isabs(source) and not self._files.owns(os.path.normpath(source)):
                continue
            full = os.path.normpath(os.path.join(self._files.root, source))
            if full not in files and not os.path.isfile(full):
                self._files.folder(full)
                if mode == "rw":
                    writable.append(full)
        return writable

    def _own(self, made, container, folders):
        """Give folders that are still root's to the user whom the image runs as."""
        folders = [folder for folder in folders if os.stat(folder).st_uid == 0]
        user = ((self._engine.image(container["image"]) or {}).get("Config") or {}).get("User") if folders else ""
        if not user or user.partition(":")[0] in ("0", "root"):
            return
        owner = self._numbers(made, user)
        for folder in folders:
            os.chown(folder, *owner)

    def _numbers(self, made, user):
        """`name:group` of an image in numbers, by the image's own passwd and group."""
        name, _, group = user.partition(":")
        passwd = {} if name.isdigit() and group.isdigit() else self._database(made, "/etc/passwd")
        uid = int(name) if name.isdigit() else int(passwd[name][2]) if name in passwd else 0
        if not group:
            by_number = {line[2]: line for line in passwd.values()}
            return uid, int(by_number[str(uid)][3]) if str(uid) in by_number else 0
        if group.isdigit():
            return uid, int(group)
        groups = self._database(made, "/etc/group")
        return uid, int(groups[group][2]) if group in groups else 0

    def _database(self, made, path):
        import tarfile

        try:
            data = self._engine.get("/containers/%s/archive" % made, path=path)
        except EngineError:
            return {}
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            text = archive.extractfile(archive.next()).read().decode(errors="replace")
        return {line.split(":")[0]: line.split(":") for line in text.splitlines() if line.count(":") >= 3}


def container_body(testbed, node, container, files, secrets):
    """The engine's words for one container of a bundle."""
    environment, mounts = _inputs(container, files, secrets)
    labels = {
        LABEL_TESTBED: testbed,
        LABEL_NODE: node,
        LABEL_SERVICE: container["service"],
        LABEL_ROLE: container["role"],
        LABEL_HASH: container["hash"],
        LABEL_CONTENT: container["content"],
        LABEL_SECRETS: secrets.digest(container),
    }
    body = {
        "Image": container["image"],
        "Env": ["%s=%s" % item for item in sorted(environment.items())],
        "Labels": {name: value for name, value in labels.items() if value},
        "HostConfig": _host_config(container, mounts),
    }
    if container["command"]:
        body["Cmd"] = list(container["command"])
    if container["health"]:
        body["Healthcheck"] = _health_check(container)
    return body


def _inputs(container, files, secrets):
    """Its variables and mounts, with the secrets among them."""
    environment = dict(container["environment"])
    mounts = [
        _mount(source if os.path.isabs(source) else files.path(source), inside, mode)
        for source, inside, mode in container["mounts"]
    ]
    for variable, value in secrets.of(container).items():
        if variable.endswith("_FILE"):
            environment[variable] = "%s/%s" % (INSIDE, variable)
            mounts.append(_mount(secrets.path(container, variable), environment[variable], "ro"))
        else:
            environment[variable] = value
    return environment, mounts


def _host_config(container, mounts):
    """What it has of the machine."""
    host = {
        "NetworkMode": "host",
        "Mounts": mounts,
        "CapAdd": list(container["capabilities"]),
        "RestartPolicy": {"Name": "unless-stopped"},
        "LogConfig": {"Type": "json-file", "Config": LOG_LIMITS},
    }
    if container["pid_host"]:
        host["PidMode"] = "host"
    if container["cpus"]:
        # The engine refuses more processors than there are.
        host["NanoCpus"] = int(min(container["cpus"], len(os.sched_getaffinity(0))) * 1e9)
    if container["memory_bytes"]:
        host["Memory"] = max(int(container["memory_bytes"]), LEAST_MEMORY_BYTES)
    return host


def _health_check(container):
    return {
        "Test": ["CMD", *container["health"]],
        "Interval": int(max(container["health_interval_s"], HEALTH_AT_REST_S) * 1e9),
        "Timeout": int(max(container["health_interval_s"], 10.0) * 1e9),
        "Retries": 2,
        "StartPeriod": int(container["health_within_s"] * 1e9),
    }


def _mount(source, target, mode):
    return {"Type": "bind", "Source": source, "Target": target, "ReadOnly": mode != "rw"}
