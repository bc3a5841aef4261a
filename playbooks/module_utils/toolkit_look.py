# SPDX-License-Identifier: Apache-2.0
"""What a node is and runs right now, as one JSON document; changes nothing.

Runs on nodes: Python 3.8 and later, standard library only.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import platform
import re
import shutil

from ansible.module_utils.toolkit_engine import (
    LABEL_CONTENT,
    LABEL_HASH,
    LABEL_ROLE,
    LABEL_SERVICE,
    LABEL_TESTBED,
    Engine,
    EngineError,
)

MANIFEST = "manifest.json"
"""Below the node root: what the last converge made of this node."""
HEALTH = re.compile(r"\((?:health: )?(\w+)\)$")


def look(testbed, root, clock_port=9101, engine=None):
    """Containers of a testbed, engine, clock, disks and identity of this machine."""
    manifest = read_manifest(root)
    return {
        "boot_id": _text("/proc/sys/kernel/random/boot_id"),
        "uptime_s": float((_text("/proc/uptime") or "0").split()[0]),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
        "disk": {path: _disk(path) for path in ("/", "/var/lib/docker") if os.path.isdir(path)},
        "memory": _memory(),
        "bundle": manifest.get("bundle", ""),
        "drift": drift(root, manifest),
        "clock": _clock(clock_port),
        **_engine(engine or Engine(timeout_s=20.0), testbed),
    }


def read_manifest(root):
    try:
        with open(os.path.join(root, MANIFEST), encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError):
        return {}


def drift(root, manifest):
    """Files that are no longer as the last converge left them."""
    changed = []
    for path, (digest, mode) in sorted(manifest.get("files", {}).items()):
        full = os.path.join(root, path)
        try:
            with open(full, "rb") as file:
                same = hashlib.sha256(file.read()).hexdigest() == digest
            same = same and "%04o" % (os.stat(full).st_mode & 0o7777) == mode
        except OSError:
            same = False
        if not same:
            changed.append(path)
    return changed


def _engine(engine, testbed):
    try:
        engine.negotiate()
        listed = engine.containers("%s=%s" % (LABEL_TESTBED, testbed))
    except EngineError as error:
        return {"engine": None, "engine_error": str(error), "containers": {}}
    finally:
        engine.close()
    return {
        "engine": {"version": engine.version, "api": engine.api},
        "engine_error": "",
        "containers": {entry["Names"][0].lstrip("/"): _container(entry) for entry in listed},
    }


def _container(entry):
    labels = entry.get("Labels") or {}
    health = HEALTH.search(entry.get("Status", ""))
    return {
        "id": entry["Id"][:12],
        "service": labels.get(LABEL_SERVICE, ""),
        "role": labels.get(LABEL_ROLE, ""),
        "hash": labels.get(LABEL_HASH, ""),
        "content": labels.get(LABEL_CONTENT, ""),
        "image": entry.get("Image", ""),
        "state": entry.get("State", ""),
        "status": entry.get("Status", ""),
        "health": health.group(1) if health and entry.get("State") == "running" else "",
        "created": entry.get("Created", 0),
    }


def _clock(port):
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=3)
    try:
        line.request("GET", "/clock")
        answer = line.getresponse()
        return json.loads(answer.read()) if answer.status == 200 else None
    except (OSError, ValueError, http.client.HTTPException):
        return None
    finally:
        line.close()


def _disk(path):
    usage = shutil.disk_usage(path)
    return {"total_bytes": usage.total, "free_bytes": usage.free}


def _memory():
    found = dict(re.findall(r"^(MemTotal|MemAvailable): +(\d+) kB", _text("/proc/meminfo"), re.MULTILINE))
    return {
        "total_bytes": int(found.get("MemTotal", 0)) * 1024,
        "available_bytes": int(found.get("MemAvailable", 0)) * 1024,
    }


def _text(path):
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""
