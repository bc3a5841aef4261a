"""The console's own JavaScript modules, run outside a browser: in the Node that Playwright brings along."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import playwright

from toolkit.provisioning.pages import HOME

NODE = Path(playwright.__file__).parent / "driver" / "node"


def run_module(name: str, expression: str, *names: str) -> Any:
    """The value of a JavaScript expression with these names imported from one of the console's modules."""
    address = (HOME / "static" / name).as_uri()
    program = (
        f"import {{ {', '.join(names)} }} from {json.dumps(address)};\n"
        f"const value = {expression};\nprocess.stdout.write(JSON.stringify(value ?? null));"
    )
    ran = subprocess.run(
        [NODE, "--no-warnings", "--input-type=module", "--eval", program], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)
