# SPDX-License-Identifier: Apache-2.0
"""Brings a node to what its bundle says: directories, files, images, containers; each change is reported.

Runs on nodes: Python 3.8 and later, standard library only. In check mode everything is looked at and nothing is done.
"""

from __future__ import annotations

import calendar
import difflib
import hashlib
import hmac
import io
import json
import os
import shutil
import stat
import tarfile
import tempfile
import time

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
from ansible.module_utils.toolkit_look import MANIFEST, read_manifest

IMAGES_NOTE = "images.json"
"""Below the node root: images that toolkit brought here, so that teardown takes them away again."""
SECRETS = "secrets"
"""Folder below the node root; nobody but root enters it."""
SECRETS_INSIDE = "/run/secrets"
STOP_WITHIN_S = 5
SETTLED_AFTER_S = 0.7
"""A container without a health check counts as well when it has run this long without a restart."""
RESTARTS_TOO_MANY = 6
POLL_S = 0.15
LOG_LIMITS = {"max-size": "10m", "max-file": "3"}
MIB = 1024 * 1024


class NodeError(Exception):
    """The node could not be brought to its bundle; `failures` has a line (or several) for each part."""

    def __init__(self, failures):
        super().__init__("\n".join(failures))
        self.failures = failures


class Node:
    """One node and what was done to it so far."""

    def __init__(self, bundle, engine, secrets=None, registry=None, platform=None, check=False, clock=time):
        self.bundle = bundle
        self.root = bundle["root"]
        self.engine = engine
        self.secrets = secrets or {}
        self.registry = registry
        self.platform = platform
        self.check = check
        self.clock = clock
        self.changes = []
        self.diffs = []
        self.notes = []
        self.timings = {}
        self.runs = {}

    # -- the story ----------------------------------------------------------------------------------------------------

    def converge(self):
        """Make the node as the bundle says; raises NodeError when parts of it failed, after trying all parts."""
        if not os.path.isabs(self.root) or os.path.normpath(self.root).count("/") < 3:
            raise NodeError(["%s is no folder that toolkit may own" % self.root])
        self._timed("files", self._files)
        self._timed("engine", self.engine.negotiate)
        existing = self._timed("look", self._existing)
        without_image = self._timed("images", self._images, existing)
        self._timed("remove", self._remove_unwanted, existing)
        failures = self._timed("containers", self._containers, existing, without_image)
        if failures:
            raise NodeError(failures)
        self._manifest()

    def _timed(self, name, step, *arguments):
        start = self.clock.monotonic()
        try:
            return step(*arguments)
        finally:
            self.timings[name] = round(self.clock.monotonic() - start, 3)

    def _note(self, action, what, why=""):
        self.changes.append({"action": action, "what": what, "why": why})

    # -- files --------------------------------------------------------------------------------------------------------

    def _files(self):
        self._folder(self.root, 0o755)
        for file in self.bundle["files"]:
            self._file(file["path"], file["content"], file["mode"])
        wanted = {file["path"] for file in self.bundle["files"]}
        for path in read_manifest(self.root).get("files", {}):
            if path not in wanted:
                self._remove_file(path)
        self._secret_files()

    def _inside(self, path):
        full = os.path.normpath(os.path.join(self.root, path))
        if os.path.isabs(path) or not full.startswith(self.root.rstrip("/") + "/"):
            raise NodeError(["%s is not below %s" % (path, self.root)])
        return full

    def _folder(self, path, mode):
        """Make a folder and the missing ones above it; True if it is new."""
        if os.path.isdir(path):
            return False
        self._note("create", path)
        if not self.check:
            os.makedirs(path, exist_ok=True)
            os.chmod(path, mode)
        return True

    def _file(self, path, content, mode):
        full = self._inside(path)
        data = content.encode()
        try:
            with open(full, "rb") as file:
                before = file.read()
            same_mode = "%04o" % stat.S_IMODE(os.stat(full).st_mode) == mode
        except FileNotFoundError:
            before, same_mode = None, False
        if before == data and same_mode:
            return
        self._note("write", path, "new" if before is None else "content" if before != data else "mode")
        self._diff(path, before, data)
        if not self.check:
            write_atomically(full, data, int(mode, 8))

    def _remove_file(self, path):
        full = self._inside(path)
        if os.path.exists(full):
            self._note("remove", path, "not in the bundle any more")
            if not self.check:
                os.unlink(full)

    def _diff(self, path, before, after):
        old = (before or b"").decode(errors="replace").splitlines(keepends=True)
        new = after.decode(errors="replace").splitlines(keepends=True)
        lines = list(difflib.unified_diff(old, new, "%s (on the node)" % path, "%s (bundle)" % path, n=1))
        self.diffs.append({"prepared": "".join(lines[:200])})

    def _manifest(self):
        """Written last: a node with this file was brought to its bundle whole."""
        manifest = {
            "bundle": self.bundle.get("digest", ""),
            "testbed": self.bundle["testbed"],
            "node": self.bundle["node"],
            "containers": {c["name"]: c["hash"] for c in self.bundle["containers"]},
            "files": {
                f["path"]: [hashlib.sha256(f["content"].encode()).hexdigest(), f["mode"]] for f in self.bundle["files"]
            },
        }
        if read_manifest(self.root) != manifest and not self.check:
            data = json.dumps(manifest, indent=1, sort_keys=True).encode()
            write_atomically(os.path.join(self.root, MANIFEST), data, 0o644)

    # -- secrets ------------------------------------------------------------------------------------------------------

    def _secret_path(self, container, variable):
        return os.path.join(self.root, SECRETS, container, variable)

    def _secret_files(self):
        """Variables that end in _FILE get a file; files of other containers and variables go away."""
        folder = os.path.join(self.root, SECRETS)
        wanted = {}
        for container in self.bundle["containers"]:
            values = self._values(container)
            for variable in values:
                if variable.endswith("_FILE"):
                    wanted[self._secret_path(container["name"], variable)] = values[variable].encode()
        if wanted and self._folder(folder, 0o700) and not self.check:
            os.chmod(folder, 0o700)
        for path, data in sorted(wanted.items()):
            if _read(path) != data:
                self._note("write", os.path.relpath(path, self.root), "secret")
                if not self.check:
                    # Only root gets through the folder on the node; inside, the service may run as anybody.
                    write_atomically(path, data, 0o444)
        for top, _folders, files in os.walk(folder):
            for name in files:
                path = os.path.join(top, name)
                if path not in wanted and name != "key":
                    self._note("remove", os.path.relpath(path, self.root), "secret")
                    if not self.check:
                        os.unlink(path)

    def _values(self, container):
        given = self.secrets.get(container["name"], {})
        missing = [name for name in container["secrets"] if name not in given]
        if missing:
            raise NodeError(["%s: no value was given for secret %s" % (container["name"], ", ".join(missing))])
        return {name: given[name] for name in container["secrets"]}

    def _secrets_digest(self, container):
        """Tells a changed secret without telling the secret: an HMAC under a key that never leaves the node."""
        if not container["secrets"]:
            return ""
        path = os.path.join(self.root, SECRETS, "key")
        key = _read(path)
        if key is None:
            key = os.urandom(32)
            if not self.check:
                if not os.path.isdir(os.path.dirname(path)):
                    os.makedirs(os.path.dirname(path), 0o700)
                os.chmod(os.path.dirname(path), 0o700)
                write_atomically(path, key, 0o400)
        text = json.dumps(self._values(container), sort_keys=True).encode()
        return hmac.new(key, text, hashlib.sha256).hexdigest()[:16]

    # -- images -------------------------------------------------------------------------------------------------------

    def _existing(self):
        label = "%s=%s" % (LABEL_TESTBED, self.bundle["testbed"])
        return {entry["Names"][0].lstrip("/"): entry for entry in self.engine.containers(label)}

    def _images(self, existing):
        """Fetch what is missing; container name -> why it cannot be had."""
        failures, done = {}, {}
        for container in self.bundle["containers"]:
            if self._as_wanted(container, existing.get(container["name"])):
                continue  # it could not be there without its image
            reference = container["image"]
            if reference not in done:
                try:
                    done[reference] = self._image(reference, container["content"])
                except EngineError as error:
                    done[reference] = str(error)
            if done[reference]:
                failures[container["name"]] = "%s: image %s: %s" % (container["name"], reference, done[reference])
        return failures

    def _image(self, reference, content):
        """Have an image under a reference; returns why it cannot be had, or an empty text."""
        found = self.engine.image(reference)
        if found is not None and _same_content(found, content):
            return ""
        if not self.registry:
            return "it is not on this node, and no registry was given to fetch it from"
        self._note("pull", reference, "missing" if found is None else "another content")
        if self.check:
            return ""
        name, tag = _name_and_tag(reference)
        source = "%s/%s" % (self.registry, name)
        before = None if found is None else found["Id"]
        self._brought(reference, before)
        try:
            self.engine.pull(source, tag, self.platform)
        except EngineError as error:
            return "registry %s does not give it: %s" % (self.registry, error)
        self.engine.post("/images/%s:%s/tag" % (source, tag), repo=name, tag=tag)
        self.engine.delete("/images/%s:%s" % (source, tag))
        found = self.engine.image(reference)
        if found is None or not _same_content(found, content):
            return "the registry gave another content than %s" % content
        return ""

    def _brought(self, reference, before):
        """Note an image before it is fetched; one that was here before us is not ours to remove."""
        path = os.path.join(self.root, IMAGES_NOTE)
        noted = json.loads(_read(path) or b"[]")
        if before is None and reference not in noted:
            write_atomically(path, json.dumps(sorted([*noted, reference])).encode(), 0o644)

    # -- containers ---------------------------------------------------------------------------------------------------

    def _as_wanted(self, container, entry):
        labels = (entry or {}).get("Labels") or {}
        return (
            entry is not None
            and labels.get(LABEL_HASH) == container["hash"]
            and labels.get(LABEL_SECRETS, "") == self._secrets_digest(container)
        )

    def _remove_unwanted(self, existing):
        wanted = {container["name"] for container in self.bundle["containers"]}
        for name in sorted(set(existing) - wanted):
            self._note("remove", name, "not in the bundle")
            if not self.check:
                self._remove(existing.pop(name))

    def _remove(self, entry):
        """Let it end by itself for a while, then remove it and its anonymous volumes."""
        if entry.get("State") == "running":
            self.engine.call("POST", "/containers/%s/stop" % entry["Id"], {"t": STOP_WITHIN_S}, accept=(304, 404))
        self.engine.call("DELETE", "/containers/%s" % entry["Id"], {"force": 1, "v": 1}, accept=(404,))

    def _containers(self, existing, failed):
        """Start everything in its order and wait until it is well; returns further failures."""
        waiting = {c["name"]: c for c in self.bundle["containers"] if c["name"] not in failed}
        services = {c["service"] for c in self.bundle["containers"]}
        unwell_services = {c["service"] for c in self.bundle["containers"] if c["name"] in failed}
        pending, failures, starting, deadlines = dict(waiting), {}, {}, {}
        while pending or starting:
            for name, container in list(pending.items()):
                needs = [s for s in container["after"] if s in services and s != container["service"]]
                if any(s in unwell_services for s in needs):
                    failures[name] = "%s was not started: %s is not well" % (
                        name,
                        ", ".join(s for s in needs if s in unwell_services),
                    )
                elif any(c["service"] in needs for c in [*pending.values(), *starting.values()]):
                    continue
                else:
                    try:
                        self._start(container, existing.get(name))
                        starting[name] = container
                        deadlines[name] = self.clock.monotonic() + container["health_within_s"]
                    except EngineError as error:
                        failures[name] = "%s: %s" % (name, error)
                del pending[name]
                if name in failures:
                    unwell_services.add(container["service"])
            if pending and not starting:
                stuck = sorted(pending)
                failures.update({n: "%s was not started: its `after` goes round in a circle" % n for n in stuck})
                break
            for name, container in list(starting.items()):
                verdict = "" if self.check else self._verdict(container, deadlines[name])
                if verdict is None:
                    continue
                del starting[name]
                if verdict:
                    failures[name] = verdict
                    unwell_services.add(container["service"])
            if starting:
                self.clock.sleep(POLL_S)
        return list(failed.values()) + list(failures.values())

    def _start(self, container, entry):
        """Create, replace or start a container; one that is as wanted and runs is left alone."""
        name = container["name"]
        if self._as_wanted(container, entry):
            if entry["State"] == "running" and "(unhealthy)" not in entry.get("Status", ""):
                return
            if entry["State"] == "running":
                self._note("restart", name, "unhealthy")
                path, query = "restart", {"t": STOP_WITHIN_S}
            elif entry["State"] == "paused":
                self._note("start", name, "paused")
                path, query = "unpause", None
            elif entry["State"] in ("dead", "removing"):
                self._replace(container, entry, entry["State"])
                return
            else:
                self._note("start", name, entry.get("Status") or entry["State"])
                path, query = "start", None
            if not self.check:
                self.engine.call("POST", "/containers/%s/%s" % (entry["Id"], path), query, accept=(304,))
            return
        self._replace(container, entry, "")

    def _replace(self, container, entry, why):
        name = container["name"]
        if entry is None:
            self._note("create", name)
        else:
            labels = entry.get("Labels") or {}
            same = labels.get(LABEL_HASH) == container["hash"]
            self._note("replace", name, why or ("secret" if same else "specification"))
        folders = self._mount_folders(container)
        if self.check:
            return
        if entry is not None:
            self._remove(entry)
        made = self._create(container)
        try:
            self._own(made["Id"], container, folders)
            self.engine.post("/containers/%s/start" % made["Id"])
        except EngineError as error:
            hint = _architecture_hint(str(error))
            # Half of it would count as all of it next time.
            self.engine.call("DELETE", "/containers/%s" % made["Id"], {"force": 1, "v": 1}, accept=(404, 409))
            raise EngineError("%s%s" % (error, hint), error.status) from error
        for warning in made.get("Warnings") or []:
            self.notes.append("%s: %s" % (name, warning))

    def _create(self, container):
        body = container_body(self.bundle, container, self._values(container), self._secrets_digest(container))
        path = "/containers/create"
        try:
            return self.engine.post(path, body, name=container["name"])
        except EngineError as error:
            if error.status != 409:
                raise
            # A container of this name without our label: half made by an interrupted deploy, or somebody's.
            other = self.engine.inspect(container["name"])
            labels = ((other or {}).get("Config") or {}).get("Labels") or {}
            if labels.get(LABEL_TESTBED) != self.bundle["testbed"]:
                raise EngineError(
                    "a container of this name that is not toolkit's is in the way; docker rm it, or rename it", 409
                ) from error
            self.engine.delete("/containers/%s" % container["name"], force=1, v=1)
            return self.engine.post(path, body, name=container["name"])

    def _mount_folders(self, container):
        """Folders below the root that are to be mounted and are not there yet; those that are new and writable."""
        fresh = []
        for source, _inside, mode in container["mounts"]:
            full = source if os.path.isabs(source) else self._inside(source)
            ours = full.startswith(self.root.rstrip("/") + "/")
            if ours and not os.path.exists(full):
                self._folder(full, 0o755)
                if mode == "rw":
                    fresh.append(full)
            elif ours and mode == "rw" and os.path.isdir(full) and os.stat(full).st_uid == 0:
                fresh.append(full)
        return fresh

    def _own(self, made, container, folders):
        """Give new writable folders to the user whom the image runs as."""
        if not folders:
            return
        user = ((self.engine.image(container["image"]) or {}).get("Config") or {}).get("User", "")
        owner = self._numeric(made, user)
        for folder in folders:
            if owner != (0, 0):
                os.chown(folder, *owner)

    def _numeric(self, made, user):
        name, _, group = user.partition(":")
        if not name or name == "root":
            return 0, 0
        if name.isdigit() and (group.isdigit() or not group):
            return int(name), int(group or 0)
        entries = {}
        for file in ("passwd", "group"):
            data = self.engine.get("/containers/%s/archive" % made, path="/etc/" + file)
            with tarfile.open(fileobj=io.BytesIO(data)) as archive:
                lines = archive.extractfile(archive.next()).read().decode(errors="replace").splitlines()
            entries[file] = {line.split(":")[0]: line.split(":") for line in lines if line.count(":") >= 3}
        line = entries["passwd"].get(name)
        uid = int(name) if name.isdigit() else int(line[2]) if line else 0
        gid = int(line[3]) if line else 0
        if group:
            gid = int(group) if group.isdigit() else int(entries["group"].get(group, ["", "", "0"])[2])
        return uid, gid

    # -- health -------------------------------------------------------------------------------------------------------

    def _verdict(self, container, deadline):
        """Empty: well. None: not yet. Otherwise why it is not, with its last words."""
        name = container["name"]
        seen = self.engine.inspect(name)
        if seen is None:
            return "%s vanished while it was starting" % name
        state = seen["State"]
        health = (state.get("Health") or {}).get("Status", "none")
        restarts = seen.get("RestartCount", 0)
        if state["Status"] == "running" and not state.get("Restarting"):
            if health == "healthy" or (health == "none" and self._ran_s(container, state) >= SETTLED_AFTER_S):
                return ""
        code = state.get("ExitCode", 0)
        ended = state["Status"] in ("exited", "dead", "restarting") or state.get("Restarting")
        if ended and code == 132:  # 128 + SIGILL
            return self._failure(container, "was stopped by SIGILL: its image is for a newer processor than this one")
        if restarts >= RESTARTS_TOO_MANY:
            return self._failure(container, "ended %d times, last with status %d" % (restarts, code))
        if self.clock.monotonic() < deadline:
            return None
        if health != "none" and state["Status"] == "running":
            log = (state.get("Health") or {}).get("Log") or [{}]
            said = (log[-1].get("Output") or "").strip()[-300:]
            return self._failure(
                container, "is %s after %g s; its check says: %s" % (health, container["health_within_s"], said or "-")
            )
        return self._failure(container, "is %s (status %d)" % (state["Status"], code))

    def _ran_s(self, container, state):
        """Seconds of this run that we saw: from a start that did not change since."""
        started = state.get("StartedAt")
        if _age_s(started, self.clock.time()) > SETTLED_AFTER_S:
            return SETTLED_AFTER_S
        first, seen_at = self.runs.setdefault(container["name"], (started, self.clock.monotonic()))
        if first != started:
            self.runs[container["name"]] = (started, seen_at := self.clock.monotonic())
        return self.clock.monotonic() - seen_at

    def _failure(self, container, why):
        words = self.engine.last_words(container["name"])
        return "\n".join(["%s %s" % (container["name"], why), *("    " + line for line in words)])

    # -- nothing left -------------------------------------------------------------------------------------------------

    def absent(self):
        """Remove the testbed from this node; returns what is left of it, found by looking."""
        label = "%s=%s" % (LABEL_TESTBED, self.bundle["testbed"])
        left = []
        brought = json.loads(_read(os.path.join(self.root, IMAGES_NOTE)) or b"[]")
        try:
            self.engine.negotiate()
        except EngineError as error:
            if os.path.isdir("/var/lib/docker/containers") and os.listdir("/var/lib/docker/containers"):
                left.append("containers, perhaps: %s" % error)
        else:
            left += self._absent_from_engine(label, brought)
        if os.path.isdir(self.root):
            self._note("remove", self.root)
            if not self.check:
                shutil.rmtree(self.root, ignore_errors=True)
                if os.path.exists(self.root):
                    left.append("files: %s" % self.root)
        parent = os.path.dirname(self.root.rstrip("/"))
        if os.path.isdir(parent) and not os.listdir(parent) and not self.check:
            os.rmdir(parent)
        return left

    def _absent_from_engine(self, label, brought):
        for entry in self.engine.containers(label):
            name = entry["Names"][0].lstrip("/")
            self._note("remove", name)
            if not self.check:
                self.engine.call("DELETE", "/containers/%s" % entry["Id"], {"force": 1, "v": 1}, accept=(404, 409))
        filters = {"label": [label]}
        for network in self.engine.get("/networks", filters=filters) or []:
            self._note("remove", "network %s" % network["Name"])
            if not self.check:
                self.engine.call("DELETE", "/networks/%s" % network["Id"], accept=(403, 404))
        for volume in (self.engine.get("/volumes", filters=filters) or {}).get("Volumes") or []:
            self._note("remove", "volume %s" % volume["Name"])
            if not self.check:
                self.engine.call("DELETE", "/volumes/%s" % volume["Name"], accept=(404, 409))
        for reference in brought:
            if self.engine.image(reference) is None:
                continue
            self._note("remove", "image %s" % reference)
            if not self.check:
                answer = self.engine.call("DELETE", "/images/%s" % reference, accept=(404, 409))
                if isinstance(answer, dict) and "message" in answer and self.engine.image(reference):
                    self.changes.pop()
                    self.notes.append("image %s stays: %s" % (reference, answer["message"]))
        if self.check:
            return []
        left = ["container: %s" % entry["Names"][0].lstrip("/") for entry in self.engine.containers(label)]
        left += ["network: %s" % entry["Name"] for entry in self.engine.get("/networks", filters=filters) or []]
        volumes = (self.engine.get("/volumes", filters=filters) or {}).get("Volumes") or []
        return left + ["volume: %s" % entry["Name"] for entry in volumes]


def container_body(bundle, container, secrets, secrets_digest):
    """The engine's words for one container of a bundle."""
    root = bundle["root"]
    environment = dict(container["environment"])
    mounts = [
        _mount(source if os.path.isabs(source) else os.path.join(root, source), inside, mode)
        for source, inside, mode in container["mounts"]
    ]
    for variable, value in secrets.items():
        if variable.endswith("_FILE"):
            inside = "%s/%s" % (SECRETS_INSIDE, variable)
            mounts.append(_mount(os.path.join(root, SECRETS, container["name"], variable), inside, "ro"))
            environment[variable] = inside
        else:
            environment[variable] = value
    labels = {
        LABEL_TESTBED: bundle["testbed"],
        LABEL_NODE: bundle["node"],
        LABEL_SERVICE: container["service"],
        LABEL_ROLE: container["role"],
        LABEL_HASH: container["hash"],
    }
    if container["content"]:
        labels[LABEL_CONTENT] = container["content"]
    if secrets_digest:
        labels[LABEL_SECRETS] = secrets_digest
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
        host["NanoCpus"] = int(min(container["cpus"], len(os.sched_getaffinity(0))) * 1e9)
    if container["memory_bytes"]:
        host["Memory"] = max(int(container["memory_bytes"]), 6 * MIB)  # the engine takes no less
    body = {
        "Image": container["image"],
        "Env": ["%s=%s" % item for item in sorted(environment.items())],
        "Labels": labels,
        "HostConfig": host,
    }
    if container["command"]:
        body["Cmd"] = list(container["command"])
    if container["health"]:
        interval = max(container["health_interval_s"], 0.1)
        body["Healthcheck"] = {
            "Test": ["CMD", *container["health"]],
            "Interval": int(interval * 1e9),
            "Timeout": int(max(interval, 10.0) * 1e9),
            "Retries": 3,
            "StartPeriod": int(container["health_within_s"] * 1e9),
        }
    return body


def write_atomically(path, data, mode):
    """The file appears whole, with its mode, or stays as it was."""
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        os.makedirs(folder)
    handle, draft = tempfile.mkstemp(dir=folder, prefix=".toolkit-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            os.fchmod(file.fileno(), mode)
        os.replace(draft, path)
    except BaseException:
        os.unlink(draft)
        raise


def _mount(source, target, mode):
    return {"Type": "bind", "Source": source, "Target": target, "ReadOnly": mode != "rw"}


def _read(path):
    try:
        with open(path, "rb") as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _same_content(image, content):
    """By label; an image of somebody else's has none and is known by its reference alone."""
    label = ((image.get("Config") or {}).get("Labels") or {}).get(LABEL_CONTENT)
    return not content or label is None or label == content


def _name_and_tag(reference):
    name, colon, tag = reference.rpartition(":")
    return (name, tag) if colon and "/" not in tag else (reference, "latest")


def _architecture_hint(message):
    if "exec format error" in message:
        return "; its image is for another architecture than this machine's"
    return ""


def _age_s(started, now):
    """Seconds since an instant in the engine's words, such as 2026-01-02T03:04:05.678901234Z."""
    try:
        instant = time.strptime((started or "")[:19], "%Y-%m-%dT%H:%M:%S")
    except ValueError:
        return 0.0
    return now - calendar.timegm(instant)
