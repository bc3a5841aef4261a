"""What somebody probably meant by a value or a key that cannot stand where it does, as the end of an error."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from toolkit.spec.names import NAME_PATTERN, as_name, did_you_mean
from toolkit.spec.quantities import BY_PATTERN, Quantity
from toolkit.spec.schema import compiled
from toolkit.spec.testbed import architecture_of
from toolkit.spec.yaml import Path, scalar

Schema = Mapping[str, Any]
Bare = Callable[[Schema], Schema]
"""Takes off a schema what wraps it."""

_WORDS = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}
"""YAML 1.1 took these for true and false."""
_ELSEWHERE = {
    "armhf": "arm/v7",
    "armel": "arm/v6",
    "i386": "amd64",
    "docker": "container",
    "linux/armv6": "linux/arm/v6",
}
"""What other tools call a value."""
_SYNONYMS = {
    "depends_on": "after", "env": "environment", "ip": "address", "host": "address", "hostname": "address",
    "arch": "architecture", "ram": "memory", "mem": "memory", "bandwidth": "rate", "latency": "delay",
    "ssh_key": "identity_file", "key_file": "identity_file", "bastion": "jump", "number": "count", "params": "settings",
    "login": "user", "username": "user",
}  # fmt: skip
"""What other tools, and people, call a key."""


def of_value(schema: Schema, value: Any, path: Path) -> str:
    """A hint on the value at a path; `schema` is what it was checked against, without what wraps it. Or nothing."""
    kind, pattern = schema["type"], schema.get("pattern", "")
    if kind == "literal":
        return _of_choice(list(schema["expected"]), value)
    if quantity := BY_PATTERN.get(pattern):
        return _of_quantity(quantity, value)
    if pattern == NAME_PATTERN and isinstance(value, str):
        return _of_name(value, path)
    if isinstance(value, str):
        return _of_text(kind, value)
    if kind == "str" and not pattern and isinstance(value, (bool, int, float)):
        return f"; write it in quotes: {json.dumps(json.dumps(value))}"
    return ""


def _of_name(value: str, path: Path) -> str:
    if path[:1] == ("services",) and path[-1] == "image":
        return "; declare somebody else's image in `images`, with its reference and platforms, and name it here"
    near = as_name(value)
    return f"; did you mean {near!r}?" if near else ""


def _of_text(kind: str, value: str) -> str:
    """Text where something else is expected."""
    if kind == "list":
        return f"; write [{value}]"
    if kind == "bool" and value.lower() in _WORDS:
        return f"; did you mean {_WORDS[value.lower()]}? In YAML 1.2 {value} is text"
    plain = scalar(value.strip().replace("_", ""))
    if isinstance(plain, bool) or kind not in {"int", "float"}:
        return ""
    return f"; did you mean {plain}?" if isinstance(plain, int if kind == "int" else (int, float)) else ""


def _of_choice(choices: list[Any], value: Any) -> str:
    if not isinstance(value, str):
        as_text = str(value)
        return f'; write it in quotes: "{as_text}"' if as_text in choices else ""
    texts = [str(choice) for choice in choices]
    for meant in (architecture_of(value), _ELSEWHERE.get(value.lower(), "")):
        if meant in texts:
            return f"; did you mean {meant!r}?"
    near = did_you_mean(value, texts)
    return near if near.startswith("; did") else ""


def _of_quantity(quantity: Quantity, value: Any) -> str:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return "; a number needs its unit"
    if not isinstance(value, str):
        return ""
    if value.startswith("-"):
        return "; it cannot be negative"
    meant = quantity.meant(value)
    return f"; did you mean {meant!r}?" if meant else ""


def of_key(key: str, path: Path, schema: Schema, bare: Bare) -> str:
    """A hint on a key that the mapping at a path does not take; `schema` is the mapping's."""
    if key == "<<":
        return "; YAML 1.2 has no merge keys: share by `kinds`, `groups` or `defaults`"
    if space := missing_space(key):
        return space
    known = schema.get("fields", {})
    deeper = next((place for place in _below(schema, bare) if place[-1] == key), ())
    if deeper or _SYNONYMS.get(key) in known:
        return f"; did you mean {'.'.join(deeper) or _SYNONYMS[key]!r}?"
    hint = did_you_mean(key, known)
    in_service = len(path) == 2 and path[0] == "services"  # noqa: PLR2004 - a service, and nothing in it
    if in_service and not hint.startswith("; did") and any(key in fields for fields in _settings()):
        return f"; did you mean 'settings.{key}'?"
    return hint


def missing_space(key: str) -> str:
    """What is wrong with `kind:pi3`, or nothing."""
    glued = re.match(r"[A-Za-z_][A-Za-z0-9_-]*:(?=\S)", key)
    return f"; a space is missing behind {glued.group()!r}" if glued else ""


def _below(schema: Schema, bare: Bare) -> Iterator[tuple[str, ...]]:
    """Every place below a mapping's own keys, those near the top first."""
    level: list[tuple[tuple[str, ...], Schema]] = [((), schema)]
    while level:
        inside: list[tuple[tuple[str, ...], Schema]] = []
        for path, part in level:
            for choice in part["choices"] if part["type"] == "union" else [part]:
                fields = bare(choice).get("fields", {}) if bare(choice)["type"] == "typed-dict" else {}
                inside += [((*path, name), bare(field["schema"])) for name, field in fields.items()]
        yield from (path for path, _ in inside if len(path) > 1)
        level = inside


def _settings() -> Iterator[Mapping[str, Any]]:
    """Keys of each image's settings."""
    for name, part in compiled().items():
        schema: Schema = part
        while "schema" in schema:
            schema = schema["schema"]
        if name.startswith("settings:"):
            yield schema.get("fields", {})
