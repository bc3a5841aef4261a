# SPDX-License-Identifier: Apache-2.0
"""Secrets of containers: variables, or files where the variable's name ends in _FILE.

Runs on nodes: Python 3.8 and later, standard library only.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os

from ansible.module_utils.toolkit_files import read, write_atomically
from ansible.module_utils.toolkit_report import NodeError

FOLDER = "secrets"
"""Below the node root; only root enters it."""
KEY = "key"
INSIDE = "/run/secrets"


class Secrets:
    """The secrets of one node: container name -> variable -> value."""

    def __init__(self, values, files, report):
        self._values = values
        self._files = files
        self._report = report
        self._folder = files.path(FOLDER)

    def of(self, container):
        """Variable -> value; raises NodeError where one was not given."""
        given = self._values.get(container["name"], {})
        missing = [name for name in container["secrets"] if name not in given]
        if missing:
            raise NodeError("%s: no value was given for secret %s" % (container["name"], ", ".join(missing)))
        return {name: given[name] for name in container["secrets"]}

    def path(self, container, variable):
        return os.path.join(self._folder, container["name"], variable)

    def converge(self, containers):
        """Write the files that containers mount; remove those that none mounts any more."""
        wanted = {
            self.path(container, variable): value.encode()
            for container in containers
            for variable, value in self.of(container).items()
            if variable.endswith("_FILE")
        }
        if any(container["secrets"] for container in containers):
            self._files.folder(self._folder, 0o700)
        for full, data in sorted(wanted.items()):
            if read(full) != data and self._report.change("write", self._shown(full), "secret"):
                # Only root gets through the folder on the node; inside, a service may run as anybody.
                write_atomically(full, data, 0o444)
        for top, _folders, names in os.walk(self._folder):
            for full in (os.path.join(top, name) for name in names if name != KEY):
                if full not in wanted and self._report.change("remove", self._shown(full), "secret"):
                    os.unlink(full)

    def _shown(self, full):
        return os.path.relpath(full, self._files.root)

    def digest(self, container):
        """Tells that a secret changed without telling the secret: an HMAC under a key that never leaves the node."""
        if not container["secrets"]:
            return ""
        full = os.path.join(self._folder, KEY)
        key = read(full)
        if key is None:
            key = os.urandom(32)
            if not self._report.check:
                write_atomically(full, key, 0o400)
        text = json.dumps(self.of(container), sort_keys=True).encode()
        return hmac.new(key, text, hashlib.sha256).hexdigest()[:16]
