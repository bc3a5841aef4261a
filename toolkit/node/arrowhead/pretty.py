"""JSON laid out as the Java systems lay it out: two spaces, `"key" : value`, arrays in one line."""

from __future__ import annotations

import re
from json.encoder import encode_basestring
from typing import Any

_CONTROL = re.compile(r"\\u00([0-9a-f]{2})")


def _quoted(text: str) -> str:
    quoted = encode_basestring(text)
    if "\\u00" in quoted:
        return _CONTROL.sub(lambda match: "\\u00" + match[1].upper(), quoted)
    return quoted


def pretty(value: Any, indent: str = "") -> str:  # noqa: PLR0911 - one for each kind of value
    """Write dicts, lists, strings, numbers, booleans and None; other types are a TypeError."""
    if isinstance(value, str):
        return _quoted(value)
    if value is True:
        return "true"
    if value is False:
        return "false"
    if value is None:
        return "null"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, dict):
        if not value:
            return "{ }"
        inner = indent + "  "
        lines = ",\n".join(f"{inner}{_quoted(key)} : {pretty(item, inner)}" for key, item in value.items())
        return "{\n" + lines + "\n" + indent + "}"
    if isinstance(value, list | tuple):
        if not value:
            return "[ ]"
        return "[ " + ", ".join(pretty(item, indent) for item in value) + " ]"
    raise TypeError(f"{type(value).__name__} has no JSON form")
