#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: bring a node to its bundle, or clear a testbed from it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: toolkit_converge
short_description: Bring a node to what its bundle says
description:
  - Makes the folders, files and containers that a bundle asks for, in one interpreter start per node.
  - Containers are compared by a label that carries the hash of their specification, so a second run changes nothing.
  - With O(state=absent) everything of the testbed is removed, and what is left is looked for and returned.
options:
  bundle:
    description: The bundle as a JSON document. With O(state=absent) its C(testbed), C(node) and C(root) are enough.
    type: str
    required: true
  state:
    description: Whether the node is to run the bundle, or nothing of its testbed.
    type: str
    choices: [present, absent]
    default: present
  secrets:
    description: Values of the secrets that containers name, as container -> variable -> value.
    type: dict
    default: {}
  registry:
    description: host:port, as seen from the node, of a registry with the bundle's images.
    type: str
  platform:
    description: The platform to ask the registry for, such as C(linux/arm/v6).
    type: str
author: toolkit
"""

EXAMPLES = r"""
- name: Converge the node
  toolkit_converge:
    bundle: "{{ lookup('ansible.builtin.file', toolkit_bundle_file) }}"
    registry: 127.0.0.1:5000
"""

RETURN = r"""
changes:
  description: What was done (in check mode - would be done), each with action, what and why.
  returned: always
  type: list
left:
  description: With O(state=absent), what is still there afterwards.
  returned: state is absent
  type: list
machine_changes:
  description: With O(state=absent), notes about the machine itself that are now to be undone, newest first.
  returned: state is absent
  type: list
notes:
  description: Remarks of the engine, such as limits that its kernel cannot impose.
  returned: always
  type: list
timings:
  description: Seconds spent in each step.
  returned: always
  type: dict
"""

import json

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.toolkit_engine import Engine, EngineError
from ansible.module_utils.toolkit_node import clear, converge
from ansible.module_utils.toolkit_notes import notes_to_undo
from ansible.module_utils.toolkit_report import NodeError, Report


def main():
    module = AnsibleModule(
        argument_spec={
            "bundle": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "secrets": {"type": "dict", "default": {}, "no_log": True},
            "registry": {"type": "str"},
            "platform": {"type": "str"},
        },
        supports_check_mode=True,
    )
    given = module.params
    bundle = json.loads(given["bundle"])
    report = Report(check=module.check_mode)
    # Without this the whole bundle would come back in each result.
    result = {"invocation": {"module_args": {"state": given["state"], "registry": given["registry"]}}}
    failures = []
    try:
        with Engine() as engine:
            if given["state"] == "absent":
                result["left"] = clear(bundle, engine, report)
                result["machine_changes"] = [] if module.check_mode else notes_to_undo()
            else:
                wanted = {name: given[name] for name in ("secrets", "registry", "platform")}
                converge(bundle, engine, report, **wanted)
    except NodeError as error:
        failures = error.failures
    except EngineError as error:
        failures = [str(error)]
    except OSError as error:
        failures = ["%s: %s" % (error.filename or "the node", error.strerror or error)]
    result.update(
        changed=bool(report.changes),
        changes=report.changes,
        diff=report.diffs,
        notes=report.notes,
        timings=report.timings,
    )
    if failures:
        module.fail_json(msg="\n".join(failures), failures=failures, **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
