# SPDX-License-Identifier: Apache-2.0
"""Brings a node to what its bundle says, or clears a testbed from it; in check mode it only says what it would do.

Runs on nodes: Python 3.8 and later, standard library only.
"""

from __future__ import annotations

import os
import shutil
import time

from ansible.module_utils.toolkit_containers import Containers
from ansible.module_utils.toolkit_engine import LABEL_TESTBED, EngineError
from ansible.module_utils.toolkit_files import Files, read_manifest
from ansible.module_utils.toolkit_health import Health
from ansible.module_utils.toolkit_images import Images
from ansible.module_utils.toolkit_report import NodeError
from ansible.module_utils.toolkit_secrets import Secrets


def converge(bundle, engine, report, *, secrets=None, registry=None, platform=None, clock=time):
    """Make the node as the bundle says; raises NodeError where parts of it failed, after every part was tried."""
    files = Files(bundle["root"], report)
    files.folder(files.root)
    with files.locked():
        _converge(bundle, engine, files, report, secrets=secrets, registry=registry, platform=platform, clock=clock)


def _converge(bundle, engine, files, report, *, secrets, registry, platform, clock):
    hidden = Secrets(secrets or {}, files, report)
    containers = Containers(bundle, engine, files, hidden, report)
    images = Images(engine, files, report, registry=registry, platform=platform)
    health = Health(engine, read_manifest(files.root).get("well"), clock)
    with report.timed("files"):
        files.converge(bundle["files"])
        hidden.converge(bundle["containers"])
    with report.timed("look"):
        engine.negotiate()
        containers.look()
    if report.changes or any(not containers.is_as_wanted(container) for container in bundle["containers"]):
        files.begin()
    with report.timed("images"):
        # What runs as wanted has its image; the others may lack theirs.
        new = [container for container in bundle["containers"] if not containers.is_as_wanted(container)]
        failures = images.missing(new)
    with report.timed("containers"):
        containers.remove_unwanted()
        failures.update(_start_in_order(bundle["containers"], containers, health, failures, report.check))
    if failures:
        raise NodeError(*failures.values())
    names = {container["name"] for container in bundle["containers"]}
    files.write_manifest(bundle, {name: run for name, run in sorted(health.well.items()) if name in names})


def _start_in_order(wanted, containers, health, failed, check):
    """Start each container when those it is to come after are well; container name -> why it is not well."""
    pending = [container for container in wanted if container["name"] not in failed]
    unwell = {container["service"] for container in wanted if container["name"] in failed}
    starting, failures = [], {}
    while pending or starting:
        for container in _startable(pending, starting):
            pending.remove(container)
            lacking = sorted(unwell & set(container["after"]))
            why = "not started, since %s is not well" % ", ".join(lacking) if lacking else _start(container, containers)
            if why:
                failures[container["name"]] = "%s: %s" % (container["name"], why)
                unwell.add(container["service"])
            else:
                health.expect(container)
                starting.append(container)
        if pending and not starting and not _startable(pending, starting):
            failures.update({c["name"]: "%s: its `after` goes round in a circle" % c["name"] for c in pending})
            return failures
        for container in list(starting):
            verdict = "" if check else health.verdict(container)
            if verdict is not None:
                starting.remove(container)
            if verdict:
                failures[container["name"]] = verdict
                unwell.add(container["service"])
        if starting:
            health.pause()
    return failures


def _start(container, containers):
    try:
        containers.start(container)
    except EngineError as error:
        return str(error)
    return ""


def _startable(pending, starting):
    """Those of the pending that wait for none of the others on this node."""
    unsettled = {container["service"] for container in [*pending, *starting]}
    return [container for container in pending if not (unsettled - {container["service"]}) & set(container["after"])]


def clear(bundle, engine, report):
    """Remove the testbed from this node; returns what is left of it, found by looking."""
    files = Files(bundle["root"], report)
    with files.locked():
        return _clear(bundle, engine, files, report)


def _clear(bundle, engine, files, report):
    left = []
    try:
        engine.negotiate()
    except EngineError as error:
        if os.path.isdir("/var/lib/docker/containers") and os.listdir("/var/lib/docker/containers"):
            left.append("containers, perhaps: %s" % error)
    else:
        label = "%s=%s" % (LABEL_TESTBED, bundle["testbed"])
        _clear_engine(engine, label, report)
        images = Images(engine, files, report)
        images.remove(images.brought())
        left += [] if report.check else ["%s: %s" % (kind, name) for kind, name, _path in _labelled(engine, label)]
    if os.path.isdir(files.root) and report.change("remove", files.root):
        shutil.rmtree(files.root, ignore_errors=True)
        if os.path.exists(files.root):
            left.append("files: %s" % files.root)
    parent = os.path.dirname(files.root)
    if os.path.isdir(parent) and not os.listdir(parent) and not report.check:
        os.rmdir(parent)
    return left


def _clear_engine(engine, label, report):
    for kind, name, path in _labelled(engine, label):
        if report.change("remove", name if kind == "container" else "%s %s" % (kind, name)):
            query = {"force": 1, "v": 1} if kind == "container" else None
            engine.call("DELETE", path, query, accept=(403, 404, 409))


def _labelled(engine, label):
    """(kind, name, path) of everything in the engine that carries a label; containers first: they hold the rest."""
    filters = {"label": [label]}
    found = [("container", c["Names"][0].lstrip("/"), "/containers/" + c["Id"]) for c in engine.containers(label)]
    found += [("network", n["Name"], "/networks/" + n["Id"]) for n in engine.get("/networks", filters=filters) or []]
    volumes = (engine.get("/volumes", filters=filters) or {}).get("Volumes") or []
    return found + [("volume", volume["Name"], "/volumes/" + volume["Name"]) for volume in volumes]
