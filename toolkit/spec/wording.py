"""What a failed check says to people: where, what was expected, and the nearest thing that would have been right."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from typing import Any

from pydantic_core import ErrorDetails, ValidationError

from toolkit.errors import Problem
from toolkit.spec import conditions, hints
from toolkit.spec.names import NAME_PATTERN
from toolkit.spec.quantities import BY_PATTERN
from toolkit.spec.yaml import Document, Path

Schema = Mapping[str, Any]
_Located = list[tuple[tuple[int | str, ...], ErrorDetails]]

_PATTERNS = {
    NAME_PATTERN: "a name of small letters, digits and dashes, a letter first, at most 40 long",
    "^[A-Za-z_][A-Za-z0-9_]*$": "the name of a variable: letters, digits and underscores",
    r"^[0-9]{1,3}(\.[0-9]{1,3}){3}$": "an IPv4 address such as 192.168.60.10",
    r"^[0-9]{1,3}(\.[0-9]{1,3}){3}-[0-9]{1,3}$": "a range of addresses such as 192.168.60.21-27",
    r"^[0-9]{1,3}(\.[0-9]{1,3}){3}/[0-9]{1,2}$": "a subnet such as 10.77.0.0/24",
    "^[A-Z][A-Z_]*$": "a Linux capability such as NET_ADMIN",
    "^[^,=]{1,255}$": "text without ',' and '=', at most 255 long",
    "^[^,]{1,255}$": "text without ',', at most 255 long",
    "^[A-Za-z0-9_:-]{1,255}$": "a system's name: letters, digits, '-', '_' and ':'",
    "^[A-Za-z0-9_:-]{1,63}$": "a system's name: letters, digits, '-', '_' and ':', at most 63 long",
    "^[A-Za-z0-9-]{1,40}$": "letters, digits and '-', at most 40 long",
    r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d$": "an instant such as 2031-01-01T00:00:00",
    conditions.PATTERN: 'a condition such as "== 0" or "< 10ms"',
}
_TYPES = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "list": "a list [A, B]",
    "dict": "a mapping KEY: VALUE",
    "typed-dict": "a mapping KEY: VALUE",
}


def explain(
    error: ValidationError, schema: Schema, value: Any, document: Document, base: Path = (), *, but: Container[str] = ()
) -> list[Problem]:
    """Every error as a problem at its place; `value` was checked against `schema` and stands at `base`.

    Errors of the types in `but` are left out.
    """
    definitions = {}
    if schema["type"] == "definitions":
        definitions = {definition["ref"]: definition for definition in schema["definitions"]}
        schema = schema["schema"]
    located: _Located = [(tuple(details["loc"]), details) for details in error.errors(include_url=False)]
    located = [(location, details) for location, details in located if details["type"] not in but]
    told = _Teller(document, definitions)
    return list(told.tell(located, schema, value, base))


class _Teller:
    """Walks schema and value along the errors' locations."""

    def __init__(self, document: Document, definitions: Mapping[str, Schema]) -> None:
        self._document = document
        self._definitions = definitions

    def tell(self, errors: _Located, schema: Schema, value: Any, path: Path) -> Iterator[Problem]:
        schema = self._bare(schema)
        if schema["type"] == "union":
            yield from self._tell_union(errors, schema, value, path)
            return
        by_part: dict[int | str, _Located] = {}
        for location, details in errors:
            if location and location != ("[key]",):
                by_part.setdefault(location[0], []).append((location[1:], details))
            else:
                yield self._problem(details, schema, value, path, of_key=bool(location))
        for part, inner in by_part.items():
            yield from self._tell_part(part, inner, schema, value, path)

    def _tell_part(
        self, part: int | str, errors: _Located, schema: Schema, value: Any, path: Path
    ) -> Iterator[Problem]:
        here = (*path, part)
        kind = errors[0][1]["type"]
        if kind == "missing" and not errors[0][0]:
            message = f"{_title(path)}{part!r} is missing; add it"
            if not path and "experiments" in value:
                message += ", or `testbed: FILE` if these experiments are for a testbed of another file"
            yield self._document.problem(path, message, at_key=True)
        elif kind == "extra_forbidden" and not errors[0][0]:
            hint = hints.of_key(str(part), path, schema, self._bare)
            message = f"unknown key {part!r}" + (f" in {_dotted(path)}" if path else "") + hint
            yield self._document.problem(here, message, at_key=True)
        elif schema["type"] == "typed-dict":
            yield from self.tell(errors, schema["fields"][part]["schema"], value[part], here)
        elif schema["type"] == "dict":
            of_key = [e for e in errors if e[0] == ("[key]",)]
            yield from self.tell(of_key, schema["keys_schema"], part, here)
            rest = [e for e in errors if e[0] != ("[key]",)]
            yield from self.tell(rest, schema.get("values_schema", {"type": "any"}), value[part], here)
        else:
            yield from self.tell(errors, schema["items_schema"], value[int(part)], here)

    def _tell_union(self, errors: _Located, schema: Schema, value: Any, path: Path) -> Iterator[Problem]:
        """Only what the branch meant by the value's type says; if none is meant, what any would take."""
        branches: dict[int | str, _Located] = {}
        for location, details in errors:
            branches.setdefault(location[0], []).append((location[1:], details))
        for choice, located in zip(schema["choices"], branches.values(), strict=False):
            if _shape(self._bare(choice)["type"]) == _shape_of(value) and any(location for location, _ in located):
                yield from self.tell(located, choice, value, path)
                return
        expected = " or ".join(self._expected(choice) for choice in schema["choices"])
        choices = [bare for choice in schema["choices"] if (bare := self._bare(choice))["type"] != "list"]
        found = (hints.of_value(choice, value, path) for choice in choices)
        message = f"{_title(path)}expected {expected}, got {_shown(value)}{next(filter(None, found), '')}"
        yield self._document.problem(path, message)

    def _problem(self, details: ErrorDetails, schema: Schema, value: Any, path: Path, *, of_key: bool) -> Problem:
        context = details.get("ctx", {})
        expected = self._expected(schema)
        limit = {
            "greater_than_equal": ("ge", "at least"),
            "less_than_equal": ("le", "at most"),
            "greater_than": ("gt", "more than"),
        }
        kind = details["type"]
        if kind == "too_short":
            return self._document.problem(path, f"{_title(path)}at least one is needed")
        if kind in limit:
            key, words = limit[kind]
            bound = context[key]
            expected = f"{expected}, {words} {bound if isinstance(bound, int) else format(bound, 'g')}"
        hint = hints.of_value(self._bare(schema), value, path)
        if of_key:
            hint = hints.missing_space(str(value)) or hint
        title = _title(path[:-1] if of_key else path)  # of a key it would say again what was got
        message = f"{title}expected {expected}, got {_shown(value)}{hint}"
        return self._document.problem(path, message, at_key=of_key)

    def _bare(self, schema: Schema) -> Schema:
        while True:
            if schema["type"] in {"nullable", "default"}:
                schema = schema["schema"]
            elif schema["type"] == "definition-ref":
                schema = self._definitions[schema["schema_ref"]]
            else:
                return schema

    def _expected(self, schema: Schema) -> str:
        schema = self._bare(schema)
        if schema["type"] == "literal":
            return "one of " * (len(schema["expected"]) > 1) + ", ".join(
                _shown(choice) for choice in schema["expected"]
            )
        if schema["type"] == "union":
            return " or ".join(self._expected(choice) for choice in schema["choices"])
        pattern = schema.get("pattern", "")
        if quantity := BY_PATTERN.get(pattern):
            return f"{quantity.name}, such as {quantity.example}"
        if "role|kind" in pattern:
            return "a selector: all, a node's name, kind:pi1, group:worker, !NAME, or several with commas"
        return _PATTERNS.get(pattern) or _TYPES.get(schema["type"], str(schema["type"]))


def _shape(kind: str) -> str:
    return {"list": "list", "dict": "mapping", "typed-dict": "mapping"}.get(kind, "scalar")


def _shape_of(value: Any) -> str:
    return "mapping" if isinstance(value, dict) else "list" if isinstance(value, list) else "scalar"


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (dict, list)):
        return "a mapping" if isinstance(value, dict) else "a list"
    return repr(value)


def _dotted(path: Path) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")


def _title(path: Path) -> str:
    return f"{_dotted(path)}: " if path else ""
