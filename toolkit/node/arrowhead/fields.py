"""How the fields of a message are declared: JSON name, and the rules its value must meet."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import Any

_WORD = re.compile(r"_([a-z])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What must hold for one field; sizes count characters, elements or pairs."""

    name: str | None = None
    """JSON name where it is not the Python name in camel case."""
    required: bool = False
    shortest: int = 0
    longest: int | None = None
    least: int | None = None
    most: int | None = None
    is_name: bool = False
    """Only letters, digits, `-`, `_`, `:`."""
    not_blank: bool = False
    future: bool = False
    long: bool = False
    """64 bits instead of 32."""
    omit_empty: bool = False
    drop_invalid: bool = False
    """Elements that break their rules are left out instead of refusing the document."""
    longest_value: int | None = None
    least_value: int | None = None


_NONE = Rules()


def _field(rules: Rules, **default: Any) -> Any:
    return dataclasses.field(metadata={"rules": rules}, **default)


def optional(default: Any = None, **rules: Any) -> Any:
    """A field that may be absent."""
    return _field(Rules(**rules), default=default)


def required(**rules: Any) -> Any:
    """A field that must be there and not null."""
    return _field(Rules(required=True, **rules))


def mapping(**rules: Any) -> Any:
    """An object of any keys, empty when absent."""
    return _field(Rules(**rules), default_factory=dict)


def required_name() -> Any:
    """A system, cloud or operator name."""
    return required(not_blank=True, longest=255, is_name=True)


def rules_of(field: dataclasses.Field[Any]) -> Rules:
    """The declared rules, or none."""
    rules: Rules = field.metadata.get("rules", _NONE)
    return rules


def json_name(field: dataclasses.Field[Any]) -> str:
    """`system_name` is `systemName` on the wire unless the field says otherwise."""
    return rules_of(field).name or _WORD.sub(lambda match: match[1].upper(), field.name)
