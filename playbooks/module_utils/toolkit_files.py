# SPDX-License-Identifier: Apache-2.0
"""Folders and files below the node root, and the manifest that says what was made of the node.

Runs on nodes: Python 3.8 and later, standard library only.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import stat
import tempfile
import time

from ansible.module_utils.toolkit_report import NodeError

MANIFEST = "manifest.json"
"""Below the node root: written last, so a node that has it was brought to its bundle whole."""


class Files:
    """The files of one testbed on this node."""

    def __init__(self, root, report):
        if not os.path.isabs(root) or os.path.normpath(root).count("/") < 3:
            raise NodeError("%s is no folder that toolkit may own" % root)
        self.root = os.path.normpath(root)
        self.report = report

    def path(self, relative):
        """Where a path of the bundle is; raises NodeError for one that leaves the root."""
        full = os.path.normpath(os.path.join(self.root, relative))
        if os.path.isabs(relative) or not self.owns(full):
            raise NodeError("%s is not below %s" % (relative, self.root))
        return full

    def owns(self, full):
        return full.startswith(self.root + "/")

    @contextlib.contextmanager
    def locked(self, within_s=30.0):
        """Nobody else works on this root meanwhile: an interrupted deploy may take a moment to end on the node."""
        if not os.path.isdir(self.root):
            yield
            return
        handle = os.open(self.root, os.O_RDONLY)
        try:
            deadline = time.monotonic() + within_s
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise NodeError("another converge has worked on %s for %g s" % (self.root, within_s)) from None
                    time.sleep(0.1)
            yield
        finally:
            os.close(handle)

    def converge(self, files):
        """Write what differs and remove what an earlier bundle left."""
        for file in files:
            self._file(file["path"], file["content"].encode(), file["mode"])
        wanted = {file["path"] for file in files}
        for path in read_manifest(self.root).get("files", {}):
            if path not in wanted:
                self.remove(path, "not in the bundle any more")

    def folder(self, full, mode=0o755):
        """Make a folder and the missing ones above it; True if it was not there."""
        if os.path.isdir(full):
            return False
        if self.report.change("create", full):
            os.makedirs(full, exist_ok=True)
            os.chmod(full, mode)
        return True

    def _file(self, path, data, mode):
        full = self.path(path)
        before = read(full)
        same_mode = before is not None and _mode(full) == mode
        if before == data and same_mode:
            return
        why = "new" if before is None else "mode" if before == data else "content"
        self.report.diff(path, before, data)
        if self.report.change("write", path, why):
            write_atomically(full, data, int(mode, 8))

    def remove(self, path, why):
        full = self.path(path)
        if os.path.lexists(full) and self.report.change("remove", path, why):
            os.unlink(full)

    def write_manifest(self, bundle, well):
        """`well`: container name -> [id, instant of the start at which it was found healthy]."""
        manifest = {
            "bundle": bundle.get("digest", ""),
            "testbed": bundle["testbed"],
            "node": bundle["node"],
            "files": {
                file["path"]: [hashlib.sha256(file["content"].encode()).hexdigest(), file["mode"]]
                for file in bundle["files"]
            },
            "well": well,
        }
        if not self.report.check and read_manifest(self.root) != manifest:
            data = json.dumps(manifest, indent=1, sort_keys=True).encode()
            write_atomically(os.path.join(self.root, MANIFEST), data, 0o644)

    def begin(self):
        """From here on until `write_manifest` the node is between two bundles; what it said no longer holds."""
        manifest = read_manifest(self.root)
        if not self.report.check and manifest.get("bundle"):
            data = json.dumps({**manifest, "bundle": ""}, indent=1, sort_keys=True).encode()
            write_atomically(os.path.join(self.root, MANIFEST), data, 0o644)


def read_manifest(root):
    try:
        return json.loads(read(os.path.join(root, MANIFEST)) or b"{}")
    except ValueError:
        return {}


def drift(root, manifest):
    """Files that are no longer as the last converge left them."""
    changed = []
    for path, (digest, mode) in sorted(manifest.get("files", {}).items()):
        full = os.path.join(root, path)
        data = read(full)
        if data is None or hashlib.sha256(data).hexdigest() != digest or _mode(full) != mode:
            changed.append(path)
    return changed


def read(full):
    """The file's bytes; None where there is no such file."""
    try:
        with open(full, "rb") as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None


def write_atomically(full, data, mode):
    """The file appears whole, with its mode, or stays as it was."""
    folder = os.path.dirname(full)
    os.makedirs(folder, exist_ok=True)
    handle, draft = tempfile.mkstemp(dir=folder, prefix=".toolkit-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            os.fchmod(file.fileno(), mode)
        os.replace(draft, full)
    except BaseException:
        os.unlink(draft)
        raise


def _mode(full):
    return "%04o" % stat.S_IMODE(os.stat(full).st_mode)
