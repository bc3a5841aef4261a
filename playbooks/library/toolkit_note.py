#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: note a change to a machine before it is made, so that teardown can undo it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: toolkit_note
short_description: Note changes to a machine that is not toolkit's alone
description:
  - With O(state=noted) it looks which of O(names) the next task is going to change, and writes them down on the node
    before they are. What is as wanted already is not noted, since it was not toolkit who made it so.
  - With O(state=forgotten) a note is struck out, after its change was undone.
options:
  kind:
    description: What is going to change.
    type: str
    choices: [package, service, idle service, folder, group, interface]
  names:
    description: Packages to install, services to stop or to start, folders, groups and interfaces that are to appear.
    type: list
    elements: str
    default: []
  testbed:
    description: For which testbed.
    type: str
  id:
    description: Of the note to strike out.
    type: int
  state:
    description: Note, or strike out.
    type: str
    choices: [noted, forgotten]
    default: noted
author: toolkit
"""

EXAMPLES = r"""
- name: Note which packages the engine brings
  toolkit_note:
    kind: package
    names: [docker.io]
    testbed: quickstart
"""

RETURN = r"""
noted:
  description: The note that was added, as a list of one or none.
  returned: state is noted
  type: list
found:
  description: Names that the next task is going to change.
  returned: state is noted
  type: list
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.toolkit_notes import FINDERS, UNDONE_AS, add_note, strike_note


def main():
    module = AnsibleModule(
        argument_spec={
            "kind": {"type": "str", "choices": sorted(FINDERS)},
            "names": {"type": "list", "elements": "str", "default": []},
            "testbed": {"type": "str"},
            "id": {"type": "int"},
            "state": {"type": "str", "choices": ["noted", "forgotten"], "default": "noted"},
        },
        required_if=[("state", "noted", ["kind", "names", "testbed"]), ("state", "forgotten", ["id"])],
        supports_check_mode=True,
    )
    given = module.params
    try:
        if given["state"] == "forgotten":
            struck = None if module.check_mode else strike_note(given["id"])
            changes = [{"action": "undo", "what": _words(struck), "why": "teardown"}] if struck else []
            module.exit_json(changed=bool(changes), changes=changes)
        found = FINDERS[given["kind"]](given["names"], module.run_command)
        note = None
        if found and not module.check_mode:
            note = add_note(UNDONE_AS.get(given["kind"], given["kind"]), found, given["testbed"])
    except (OSError, ValueError) as error:
        module.fail_json(msg="the note was not written, so nothing was changed: %s" % error)
    # Writing a note is no change to the machine; the next task makes one and says so.
    module.exit_json(changed=False, noted=[note] if note else [], found=[item["name"] for item in found])


def _words(note):
    return "%s %s" % (note["kind"], ", ".join(item["name"] for item in note["items"]))


if __name__ == "__main__":
    main()
