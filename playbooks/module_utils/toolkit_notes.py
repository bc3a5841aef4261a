# SPDX-License-Identifier: Apache-2.0
"""The notes on a node about changes to the machine itself, newest last; written before each change, read by teardown.

Runs on nodes: Python 3.8 and later, standard library only.
"""

from __future__ import annotations

import grp
import json
import os
import tempfile
import time

HOME = "/var/lib/toolkit"
FILE = os.path.join(HOME, "changes.json")


def read_notes(file=FILE):
    """Every note; raises ValueError where the file cannot be understood, since then it must not be overwritten."""
    try:
        with open(file, encoding="utf-8") as handle:
            return json.load(handle)
    except FileNotFoundError:
        return []


def add_note(kind, items, testbed, file=FILE):
    """Write a note down, safe against a power cut; returns it, or the equal one that an interrupted deploy left."""
    notes = read_notes(file)
    for note in notes:
        if note["kind"] == kind and note["items"] == items:
            return note
    note = {
        "id": max([note["id"] for note in notes], default=0) + 1,
        "kind": kind,
        "items": items,
        "testbed": testbed,
        "at": int(time.time()),
    }
    _write([*notes, note], file)
    return note


def strike_note(number, file=FILE):
    """Take a note out; the last one takes the file and an empty folder with it. Returns the note, or None."""
    notes = read_notes(file)
    struck = next((note for note in notes if note["id"] == number), None)
    left = [note for note in notes if note["id"] != number]
    if left:
        _write(left, file)
    elif struck:
        os.unlink(file)
        folder = os.path.dirname(file)
        if not os.listdir(folder):
            os.rmdir(folder)
    return struck


def notes_to_undo(home=HOME):
    """Notes that nobody needs any more, newest first: none while another testbed has a folder here."""
    others = [entry for entry in os.scandir(home) if entry.is_dir()] if os.path.isdir(home) else []
    return [] if others else read_notes(os.path.join(home, "changes.json"))[::-1]


def _write(notes, file):
    os.makedirs(os.path.dirname(file), exist_ok=True)
    handle, draft = tempfile.mkstemp(dir=os.path.dirname(file), prefix=".changes-")
    with os.fdopen(handle, "w") as stream:
        json.dump(notes, stream, indent=1)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(draft, file)


def _new_packages(names, run):
    """The packages that installing these would add, those they depend on included."""
    status, output, error = run(["apt-get", "--simulate", "--no-install-recommends", "-y", "install", *names])
    if status != 0:
        lines = (error or output).strip().splitlines() or ["no reason given"]
        raise ValueError("apt-get cannot install %s: %s" % (" ".join(names), lines[-1]))
    gone = [line.split()[1] for line in output.splitlines() if line.startswith("Remv ")]
    if gone:
        wanted = (" ".join(gone), " ".join(names))
        raise ValueError("apt-get would remove %s to install %s; settle by hand which of them stays" % wanted)
    lines = [line.split() for line in output.splitlines() if line.startswith("Inst ")]
    # `Inst name [old version] (new version …)` is an upgrade and cannot be undone by removing.
    return [{"name": words[1]} for words in lines if not words[2].startswith("[")]


def _running_services(names, run):
    """Services that run or would run at the next boot, and which of the two."""
    return [state for state in _services(names, run) if state["active"] or state["enabled"]]


def _idle_services(names, run):
    """Services that do not run, or would not at the next boot."""
    return [state for state in _services(names, run) if not (state["active"] and state["enabled"])]


def _services(names, run):
    """Whether each service that is there runs, and is enabled; each by its own name and once.

    A name may be another one's alias, as chronyd is of chrony, and an alias is gone when its service is disabled.
    """
    units = [name if "." in name else name + ".service" for name in names]
    status, output, _error = run(["systemctl", "show", "--property=Id,ActiveState,UnitFileState,LoadState", *units])
    found = {}
    for block in output.split("\n\n") if status == 0 else ():
        state = dict(line.partition("=")[::2] for line in block.splitlines())
        name = state.get("Id", "")
        if state.get("LoadState") == "loaded":
            active = state.get("ActiveState") in ("active", "activating", "reloading")
            enabled = state.get("UnitFileState") == "enabled"
            found[name] = {"name": name.replace(".service", ""), "active": active, "enabled": enabled}
    return list(found.values())


def _missing_folders(names, _run):
    return [{"name": name} for name in names if not os.path.lexists(name)]


def _missing_groups(names, _run):
    present = {entry.gr_name for entry in grp.getgrall()}
    return [{"name": name} for name in names if name not in present]


def _missing_interfaces(names, _run):
    return [{"name": name} for name in names if not os.path.exists("/sys/class/net/" + name)]


FINDERS = {
    "package": _new_packages,
    "service": _running_services,
    "idle service": _idle_services,
    "folder": _missing_folders,
    "group": _missing_groups,
    "interface": _missing_interfaces,
}
"""kind -> which of the names are going to change."""
UNDONE_AS = {"idle service": "service"}
"""kind -> that of the note, where it is another one: what was stopped or started is put back alike."""
