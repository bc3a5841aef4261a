from __future__ import annotations

import ansible.module_utils

from toolkit import paths

# What Ansible does on its way to a node: our modules stand beside its own.
ansible.module_utils.__path__.append(str(paths.PLAYBOOKS / "module_utils"))
