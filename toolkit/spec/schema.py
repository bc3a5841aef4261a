"""The file's types compiled to what checks a file fastest, and to JSON Schema.

Building validators from the types costs pydantic's import and some hundred classes' worth of work, twice the time of
everything else in a load. What comes out is plain data, so it is kept in the cache, under the hash of its sources.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from pydantic_core import SchemaValidator, __version__

from toolkit import paths

Schema = dict[str, Any]
REFERENCE: Schema = {"type": "string", "pattern": r"^\$\{[^}]+\}$", "description": "A variable or ${env.NAME}."}
_SOURCES = ("file.py", "options.py", "conditions.py", "settings.py", "quantities.py", "selectors.py", "schema.py")


@functools.cache
def compiled() -> dict[str, Schema]:
    """`file`, `settings:IMAGE` or `settings:IMAGE:ROLE` -> pydantic-core schema, plain JSON values."""
    folder = Path(__file__).parent
    digest = hashlib.sha256(__version__.encode())
    for source in _SOURCES:
        digest.update((folder / source).read_bytes())
    kept = paths.cache() / "spec" / f"{digest.hexdigest()[:24]}.json"
    with contextlib.suppress(OSError, ValueError):
        document: dict[str, Schema] = json.loads(kept.read_bytes())
        return document
    made = _compile()
    with contextlib.suppress(OSError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        draft = kept.with_suffix(f".{os.getpid()}")
        draft.write_text(json.dumps(made, separators=(",", ":")))
        draft.replace(kept)
    return made


@functools.cache
def validator(name: str) -> SchemaValidator:
    """The validator of that part; KeyError for an image without settings."""
    return SchemaValidator(compiled()[name])


def _compile() -> dict[str, Schema]:
    from pydantic import TypeAdapter

    from toolkit.spec.file import TestbedFile, WorkloadEntry
    from toolkit.spec.settings import SETTINGS

    types: dict[str, Any] = {"file": TestbedFile, "workload": WorkloadEntry} | {
        f"settings:{image}": kind for image, kind in SETTINGS.items()
    }
    return {name: _plain(TypeAdapter(kind).core_schema) for name, kind in types.items()}


def _plain(schema: Any) -> Any:
    """Without the Python classes, which checking does not need."""
    if isinstance(schema, dict):
        return {key: _fields(value) if key == "fields" else _plain(value) for key, value in schema.items()
                if key not in {"cls", "metadata"}}  # fmt: skip
    if isinstance(schema, (list, tuple)):
        return [_plain(value) for value in schema]
    return schema


def _fields(fields: Any) -> Any:
    """By name, and so with names that mean something elsewhere."""
    return {name: _plain(field) for name, field in fields.items()} if isinstance(fields, dict) else _plain(fields)


def json_schema() -> Schema:
    """JSON Schema 2020-12 of testbed files; `settings` are tied to the image or role of their service."""
    from pydantic import TypeAdapter

    from toolkit.spec.file import TestbedFile
    from toolkit.spec.services import DEFAULT_IMAGE
    from toolkit.spec.settings import SETTINGS

    schema = TypeAdapter(TestbedFile).json_schema()
    definitions = schema["$defs"]
    rules = []
    for key, kind in SETTINGS.items():
        image, _, of_role = key.partition(":")
        made = TypeAdapter(kind).json_schema()
        definitions |= made.pop("$defs", {})
        definitions[made["title"]] = made
        then = {"properties": {"settings": {"$ref": f"#/$defs/{made['title']}"}}}
        runs: Schema = {"image": {"const": image}} | ({"role": {"const": of_role}} if of_role else {})
        rules.append({"if": {"properties": runs, "required": list(runs)}, "then": then})
        for role in (r for r, default in DEFAULT_IMAGE.items() if default == image and of_role in ("", r)):
            plays = {"properties": {"role": {"const": role}, "image": False}, "required": ["role"]}
            rules.append({"if": plays, "then": then})
            schema["properties"]["services"].setdefault("properties", {})[role] = {
                "allOf": [{"$ref": "#/$defs/ServiceEntry"}],
                "if": {"properties": {"image": False, "role": False}},
                "then": then,
            }
    definitions["ServiceEntry"]["allOf"] = rules
    header: Schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "toolkit testbed, version 1"}
    body: Schema = _tidy(_or_reference({key: value for key, value in schema.items() if key not in header}))
    body["$defs"]["Reference"] = REFERENCE
    return header | body


def _or_reference(schema: Any) -> Any:
    """With a `${variable}` in the place of any value that is held to more than being text; names of keys stay."""
    if isinstance(schema, list):
        return [_or_reference(value) for value in schema]
    if not isinstance(schema, dict):
        return schema
    kind = schema.get("type")
    if kind in ("integer", "number", "boolean") or (kind == "string" and "pattern" in schema):
        about = {key: value for key, value in schema.items() if key in {"description", "title"}}
        held = {key: value for key, value in schema.items() if key not in about}
        return about | {"anyOf": [held, {"$ref": "#/$defs/Reference"}]}
    return {key: value if key in {"propertyNames", "required", "enum"} else _or_reference(value)
            for key, value in schema.items()}  # fmt: skip


def _tidy(schema: Any) -> Any:
    """Without the titles that only repeat a key."""
    if isinstance(schema, dict):
        return {key: _tidy(value) for key, value in schema.items() if not (key == "title" and isinstance(value, str))}
    return [_tidy(value) for value in schema] if isinstance(schema, list) else schema
