# SPDX-License-Identifier: Apache-2.0
"""One converge task: its arguments in, its result out, in Ansible's words.

Runs on nodes: Python 3.8 and later, standard library only.
"""

from __future__ import annotations

import json

from ansible.module_utils.toolkit_engine import Engine, EngineError
from ansible.module_utils.toolkit_node import clear, converge
from ansible.module_utils.toolkit_notes import notes_to_undo
from ansible.module_utils.toolkit_report import NodeError, Report


def perform(given, *, check):
    """Do what the arguments of `toolkit_converge` say; a failure is a result with `failed` and `msg`."""
    bundle = json.loads(given["bundle"])
    report = Report(check=check)
    # The bundle does not come back in the result, and secrets never do.
    shown = {"state": given.get("state", "present"), "registry": given.get("registry")}
    result = {"invocation": {"module_args": shown}}
    failures = []
    try:
        with Engine() as engine:
            if shown["state"] == "absent":
                result["left"] = clear(bundle, engine, report)
                result["machine_changes"] = [] if check else notes_to_undo()
            else:
                wanted = {name: given.get(name) for name in ("secrets", "registry", "platform")}
                converge(bundle, engine, report, **wanted)
    except NodeError as error:
        failures = error.failures
    except EngineError as error:
        failures = [str(error)]
    except OSError as error:
        failures = ["%s: %s" % (error.filename or "the node", error.strerror or error)]
    if failures:
        result.update(failed=True, msg="\n".join(failures), failures=failures)
    return {
        **result,
        "changed": bool(report.changes),
        "changes": report.changes,
        "diff": report.diffs,
        "notes": report.notes,
        "timings": report.timings,
    }
