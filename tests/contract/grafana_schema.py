"""A JSON Schema of classic dashboards, made from the types that Grafana publishes in its foundation SDK."""

from __future__ import annotations

import ast
import builtins
import enum
import inspect
import textwrap
import types
import typing
import warnings
from typing import Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # it prefers dashboards of another kind than ours
    from grafana_foundation_sdk.cog import variants
    from grafana_foundation_sdk.models import common, dashboard, heatmap, prometheus, stat, statetimeline, timeseries

PANELS = {
    "heatmap": (heatmap.Options, heatmap.FieldConfig),
    "stat": (stat.Options, None),
    "state-timeline": (statetimeline.Options, statetimeline.FieldConfig),
    "timeseries": (timeseries.Options, timeseries.FieldConfig),
}
"""Type of panel -> its options and the `custom` part of its field configuration; no other type is valid here."""
SCALARS = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}
Schema = dict[str, Any]


def dashboard_schema() -> Schema:
    """The whole schema; an object may have no key that its type does not name."""
    definitions: dict[str, Schema] = {}
    top = _reference(dashboard.Dashboard, definitions)
    panel = definitions[_name(dashboard.Panel)]
    panel["properties"]["type"] = {"enum": sorted(PANELS)}
    panel["allOf"] = [_only_of(kind, *parts, definitions) for kind, parts in PANELS.items()]
    definitions[_name(dashboard.RowPanel)]["properties"]["type"] = {"const": "row"}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **top, "$defs": definitions}


def _only_of(kind: str, options: type, custom: type | None, definitions: dict[str, Schema]) -> Schema:
    """What holds beside the common part for panels of one type."""
    own = _reference(custom, definitions) if custom else {"type": "object", "maxProperties": 0}
    defaults = {"properties": {"custom": own}}
    return {
        "if": {"properties": {"type": {"const": kind}}},
        "then": {
            "properties": {
                "options": _reference(options, definitions),
                "fieldConfig": {"properties": {"defaults": defaults}},
            }
        },
    }


def _reference(kind: type, definitions: dict[str, Schema]) -> Schema:
    name = _name(kind)
    if name not in definitions:
        definitions[name] = {}  # named first: types refer to themselves
        definitions[name] |= _object(kind, definitions)
    return {"$ref": f"#/$defs/{name}"}


def _name(kind: type) -> str:
    return f"{kind.__module__.rpartition('.')[2]}.{kind.__name__}"


def _object(kind: type, definitions: dict[str, Schema]) -> Schema:
    hints = typing.get_type_hints(kind)
    required, optional = _keys(kind)
    fields = required | optional
    return {
        "type": "object",
        "additionalProperties": False,
        "required": sorted(required),
        "properties": {
            key: _schema(hints[attribute], definitions, nullable=key in required) for key, attribute in fields.items()
        },
    }


def _keys(kind: type) -> tuple[dict[str, str], dict[str, str]]:
    """JSON key -> attribute of what is always written, and of what is written when it is set.

    Only the code of `to_json` knows how Grafana spells a key, so it is read from there.
    """
    tree = ast.parse(textwrap.dedent(inspect.getsource(kind.to_json)))  # type: ignore[attr-defined]
    required: dict[str, str] = {}
    optional: dict[str, str] = {}
    for node in ast.walk(tree):
        match node:
            case ast.Dict(keys=keys, values=values):
                pairs = zip(keys, values, strict=True)
                required |= {ast.literal_eval(k): v.attr for k, v in pairs if k and isinstance(v, ast.Attribute)}
            case ast.Assign(
                targets=[ast.Subscript(slice=ast.Constant(value=str(key)))], value=ast.Attribute(attr=attr)
            ):
                optional[key] = attr
    return required, optional


def _schema(hint: Any, definitions: dict[str, Schema], *, nullable: bool = False) -> Schema:
    """`nullable`: a key that is always written says null for None; the others are left out then."""
    if hint in SCALARS:
        return {"type": SCALARS[hint]}
    if hint in {object, Any}:
        return {}
    if typing.get_origin(hint):
        return _composed(hint, definitions, nullable=nullable)
    assert isinstance(hint, type), hint
    if issubclass(hint, enum.Enum):
        return {"enum": [member.value for member in hint]}
    if hint is variants.Dataquery:
        hint = prometheus.Dataquery
    assert hint.__module__.startswith(common.__name__.rpartition(".")[0]), hint
    return _reference(hint, definitions)


def _composed(hint: Any, definitions: dict[str, Schema], *, nullable: bool) -> Schema:
    arguments = typing.get_args(hint)
    match typing.get_origin(hint):
        case typing.Literal:
            return {"enum": list(arguments)}
        case builtins.list:
            return {"type": "array", "items": _schema(arguments[0], definitions)}
        case builtins.dict:
            return {"type": "object", "additionalProperties": _schema(arguments[1], definitions)}
        case typing.Union | types.UnionType:
            kinds = [kind for kind in arguments if nullable or kind is not type(None)]
            found = [_schema(kind, definitions) for kind in kinds]
            return found[0] if len(found) == 1 else {"anyOf": found}
    raise AssertionError(hint)
