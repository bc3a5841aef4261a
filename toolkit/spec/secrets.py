"""Where secrets come from, and their values at the last moment: a testbed only ever carries names."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from toolkit.errors import FileInvalidError, Problem, UsageError
from toolkit.spec.findings import Findings
from toolkit.spec.names import did_you_mean
from toolkit.spec.testbed import Secret
from toolkit.spec.yaml import parse

VAULT_HEADER = b"$ANSIBLE_VAULT;"
LOOKS_SECRET = re.compile(r"pass(word|wd|phrase)|secret|token|api_?key|private_?key|credential", re.IGNORECASE)
"""Names of variables and settings whose values nobody should write into a testbed file."""

_FROM_ENVIRONMENT = re.compile(r"\$\{env\.([A-Za-z_][A-Za-z0-9_]*)\}")


def resolve_secrets(file: Mapping[str, Any], findings: Findings) -> dict[str, Secret]:
    """Name -> source; a value written out in the file, or a vault that is not encrypted, is reported."""
    secrets: dict[str, Secret] = {}
    for name, entry in file.get("secrets", {}).items():
        here = ("secrets", name)
        if isinstance(entry, str):
            found = _FROM_ENVIRONMENT.fullmatch(entry)
            if found is None:
                message = f"secret {name!r} in plain text; write ${{env.VARIABLE}}, or {{vault: FILE, key: KEY}}"
                findings.add(here, message)
                continue
            secrets[name] = Secret(name=name, variable=found[1])
            continue
        vault = findings.document.folder / Path(entry["vault"]).expanduser()
        if not vault.is_file():
            findings.add(
                (*here, "vault"), f"there is no file {entry['vault']}; make it with: ansible-vault create {vault}"
            )
        elif not _is_encrypted(vault):
            message = f"{entry['vault']} holds secrets in plain text; encrypt it with: ansible-vault encrypt {vault}"
            findings.add((*here, "vault"), message)
        secrets[name] = Secret(name=name, vault=str(vault), key=entry.get("key", name))
    return secrets


def _is_encrypted(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(len(VAULT_HEADER)) == VAULT_HEADER


def read_secrets(
    secrets: Mapping[str, Secret],
    names: Iterable[str],
    *,
    vault_password_file: Path | None = None,
    environ: Mapping[str, str] = os.environ,
) -> dict[str, str]:
    """Values of the named secrets; each vault is opened once.

    The vault's password comes from `vault_password_file`, else from $ANSIBLE_VAULT_PASSWORD_FILE.
    Raises UsageError naming every variable that is not set, every key that is missing, and vaults that do not open.
    """
    wanted = [secrets[name] for name in names]
    password = vault_password_file or (Path(p) if (p := environ.get("ANSIBLE_VAULT_PASSWORD_FILE")) else None)
    vaults: dict[str, Mapping[str, Any]] = {}
    values: dict[str, str] = {}
    wrong: list[str] = []
    for secret in wanted:
        if secret.variable is not None:
            if secret.variable in environ:
                values[secret.name] = environ[secret.variable]
            else:
                wrong.append(f"secret {secret.name}: environment variable {secret.variable} is not set; export it")
        elif secret.vault is not None and secret.key is not None:
            if secret.vault not in vaults:
                vaults[secret.vault] = _open_vault(Path(secret.vault), password)
            opened = vaults[secret.vault]
            if secret.key in opened:
                values[secret.name] = str(opened[secret.key])
            else:
                hint = did_you_mean(secret.key, opened)
                wrong.append(f"secret {secret.name}: no key {secret.key!r} in {secret.vault}{hint}")
    if wrong:
        raise UsageError("\n".join(wrong))
    return values


def _open_vault(file: Path, password_file: Path | None) -> Mapping[str, Any]:
    import subprocess
    import sys

    if password_file is None:
        raise UsageError(f"{file} is encrypted; name its password's file: export ANSIBLE_VAULT_PASSWORD_FILE=FILE")
    program = Path(sys.executable).with_name("ansible-vault")
    command = [
        str(program) if program.exists() else "ansible-vault",
        "view",
        "--vault-password-file",
        str(password_file.expanduser().resolve()),
        str(file),
    ]
    environ = os.environ | {"PAGER": "cat", "ANSIBLE_NOCOLOR": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, env=environ)
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise UsageError(
            f"{file} does not open with the password in {password_file}: {said[-1] if said else 'no reason given'}"
        )
    try:
        content = parse(done.stdout, str(file), typed=False).root
    except FileInvalidError as error:
        places = ", ".join(f"line {problem.line}" for problem in error.problems)
        raise FileInvalidError(
            [Problem(file=str(file), line=1, column=1, message=f"its content is not YAML ({places})")]
        ) from None
    if not isinstance(content, dict):
        raise FileInvalidError(
            [Problem(file=str(file), line=1, column=1, message="its content is not a mapping NAME: VALUE")]
        )
    return content
