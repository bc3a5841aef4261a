"""`${NAME}` from the file's variables and `${env.NAME}` from the environment, put in before anything is checked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from toolkit.spec.findings import Findings
from toolkit.spec.names import did_you_mean
from toolkit.spec.yaml import Path, scalar

_REFERENCE = re.compile(r"\$?\$\{(?P<name>[^}]*)\}")
_REFERENCE_AS_TEXT = re.compile(r"\$\{[^}]*\}")
_NAME = re.compile(r"(?P<env>env\.)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)(:-(?P<default>.*))?")


def substitute(findings: Findings, environ: Mapping[str, str]) -> None:
    """Replace every reference in the document, outside `secrets`; `$${` stands for a literal `${`.

    A text that is nothing but one reference takes the value's type, in quotes too: inside `{…}` YAML asks for them.
    """
    document = findings.document
    if not document.references:
        return
    root = document.root
    known = root.get("variables") if isinstance(root, dict) else None
    values: dict[str, Any] = dict(known) if isinstance(known, dict) else {}
    order = sorted(document.references, key=lambda path: path[:1] != ("variables",))
    for path in order:
        if path[:1] == ("secrets",):
            continue
        text = _at(root, path)
        if not isinstance(text, str):
            continue
        told = _expand(text, path, values, environ, findings)
        whole = document.references[path] or _REFERENCE.fullmatch(text)
        value = scalar(told) if whole else told
        _put(root, path, value)
        if path[:1] == ("variables",):
            values[str(path[-1])] = value


def escaped(value: Any) -> Any:
    """The value with every `${…}` in it written so that it stays what it is."""
    if isinstance(value, str):
        return _REFERENCE_AS_TEXT.sub(lambda found: f"${found.group()}", value)
    if isinstance(value, dict):
        return {key: escaped(inner) for key, inner in value.items()}
    return [escaped(inner) for inner in value] if isinstance(value, list) else value


def _expand(text: str, path: Path, values: Mapping[str, Any], environ: Mapping[str, str], findings: Findings) -> str:
    def replace(found: re.Match[str]) -> str:
        if found.group().startswith("$$"):
            return found.group()[1:]
        name = _NAME.fullmatch(found["name"])
        if name is None:
            findings.add(
                path, f"{found.group()} is no reference; write ${{NAME}} or ${{env.NAME}} ($${{ for the signs)"
            )
            return ""
        table: Mapping[str, Any] = environ if name["env"] else values
        if name["name"] in table:
            return _text(table[name["name"]])
        if name["default"] is not None:
            return name["default"]
        if name["env"]:
            findings.add(
                path,
                f"environment variable {name['name']} is not set; export it, or write ${{{found['name']}:-default}}",
            )
        else:
            findings.add(
                path,
                f"undefined variable {name['name']!r}"
                + (did_you_mean(name["name"], values) or "; add it to `variables`"),
            )
        return ""

    return _REFERENCE.sub(replace, text)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _at(root: Any, path: Path) -> Any:
    for part in path:
        root = root[part]
    return root


def _put(root: Any, path: Path, value: Any) -> None:
    _at(root, path[:-1])[path[-1]] = value
