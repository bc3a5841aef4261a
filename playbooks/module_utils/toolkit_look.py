# SPDX-License-Identifier: Apache-2.0
"""What a node is and runs right now, as one JSON document; changes nothing.

Runs on nodes: Python 3.8 and later, standard library only.
"""

from __future__ import annotations

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
from ansible.module_utils.toolkit_files import drift, read_manifest

HEALTH = re.compile(r"\((?:health: )?(\w+)\)$")


def look(testbed, root, clock_port=9101, engine=None):
    """Containers of a testbed, engine, clock, disks, memory and Python of this machine."""
    manifest = read_manifest(root)
    return {
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
        "disk": {path: _disk(path) for path in ("/", "/var/lib/docker") if os.path.isdir(path)},
        "memory": _memory(),
        "bundle": manifest.get("bundle", ""),
        "drift": drift(root, manifest),
        "clock": _clock(clock_port),
        **_engine(engine or Engine(timeout_s=20.0), testbed, manifest.get("well", {})),
    }


def _engine(engine, testbed, known_well):
    try:
        engine.negotiate()
        listed = engine.containers("%s=%s" % (LABEL_TESTBED, testbed))
        containers = {entry["Names"][0].lstrip("/"): _container(entry) for entry in listed}
        for name, seen in containers.items():
            if seen["health"] == "starting" and _was_found_well(engine, name, known_well.get(name)):
                seen["health"] = "healthy"
    except EngineError as error:
        return {"engine": None, "engine_error": str(error), "containers": {}}
    finally:
        engine.close()
    return {
        "engine": {"version": engine.version},
        "engine_error": "",
        "containers": containers,
    }


def _was_found_well(engine, name, run):
    """The engine's first own check comes late; converge asked earlier, and that holds until the container restarts."""
    seen = engine.inspect(name) if run else None
    return seen is not None and run == [seen["Id"], seen["State"].get("StartedAt")]


def _container(entry):
    labels = entry.get("Labels") or {}
    health = HEALTH.search(entry.get("Status", ""))
    return {
        "service": labels.get(LABEL_SERVICE, ""),
        "role": labels.get(LABEL_ROLE, ""),
        "hash": labels.get(LABEL_HASH, ""),
        "content": labels.get(LABEL_CONTENT, ""),
        "image": entry.get("Image", ""),
        "state": entry.get("State", ""),
        "status": entry.get("Status", ""),
        "health": health.group(1) if health and entry.get("State") == "running" else "",
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
