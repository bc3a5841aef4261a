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

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.toolkit_task import perform


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
    result = perform(module.params, check=module.check_mode)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
