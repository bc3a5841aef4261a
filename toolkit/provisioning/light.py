"""The converge module in a form that starts quickly: one file, without Ansible's own module library.

Ansible's usual module imports its library of 60 files from a fresh archive. That costs 0.25 s of processor time a node
on a PC, many times that on a Pi 1, and twice what converge itself needs. This form takes its arguments in Ansible's
oldest way, a JSON text put in place of a marker, and its code from the same `module_utils`.
"""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path

from toolkit import paths

MODULES = (
    "toolkit_engine",
    "toolkit_report",
    "toolkit_files",
    "toolkit_secrets",
    "toolkit_images",
    "toolkit_containers",
    "toolkit_health",
    "toolkit_notes",
    "toolkit_node",
    "toolkit_task",
)
"""In an order in which each comes after what it imports."""
_FRONT = '''#!/usr/bin/python3
"""toolkit_converge, rendered by toolkit from playbooks/module_utils; written anew by each deploy."""
import base64, json, sys, types, zlib

# Inside a JSON text three quotes never follow each other.
arguments = json.loads(r"""<<INCLUDE_ANSIBLE_MODULE_JSON_ARGS>>""")
package = "ansible" + ".module_utils"
for name in ("ansible", package):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = []
for name, source in json.loads(zlib.decompress(base64.b85decode({payload!r}))):
    module = types.ModuleType(name)
    sys.modules[package + "." + name] = module
    exec(compile(source, name, "exec"), module.__dict__)
result = module.perform(
    arguments,
    check=arguments.get("_ansible_check_mode", False),
)
print(json.dumps(result))
sys.exit(1 if result.get("failed") else 0)
'''


def write_light_playbook(playbook: str, directory: Path) -> Path:
    """A playbook that is `playbook` with this form of the module; Ansible looks for modules beside it first."""
    library = directory / "library"
    library.mkdir(parents=True, exist_ok=True)
    sources = [[name, (paths.PLAYBOOKS / "module_utils" / f"{name}.py").read_text()] for name in MODULES]
    payload = base64.b85encode(zlib.compress(json.dumps(sources).encode(), 9)).decode()
    (library / "toolkit_converge.py").write_text(_FRONT.replace("{payload!r}", repr(payload)))
    file = directory / Path(playbook).name
    file.write_text(json.dumps([{"import_playbook": str((paths.PLAYBOOKS / playbook).resolve())}]))
    return file
