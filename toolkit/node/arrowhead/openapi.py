"""A system's own description in OpenAPI 3.1, made of its routes and messages."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import Enum
from http import HTTPStatus
from typing import Any

from toolkit import __version__
from toolkit.node.arrowhead.fields import Rules, json_name, rules_of
from toolkit.node.arrowhead.refusals import ERROR_MESSAGE
from toolkit.node.arrowhead.routes import Route

_NAME_PATTERN = "^[A-Za-z0-9\\-_:]+$"


def describe(title: str, routes: Iterable[Route]) -> dict[str, Any]:
    """The document, as JSON values."""
    schemas: dict[str, Any] = {"ErrorMessage": ERROR_MESSAGE}
    paths: dict[str, Any] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": __version__},
        "paths": paths,
        "components": {"schemas": dict(sorted(schemas.items()))},
    }


def _operation(route: Route, schemas: dict[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {"summary": route.summary}
    parameters = re.findall(r"\{(\w+)\}", route.path)
    if parameters:
        operation["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
            for name in parameters
        ]
    if route.accepts is not None:
        content = {"application/json": {"schema": _schema(route.accepts, Rules(), schemas)}}
        operation["requestBody"] = {"required": True, "content": content}
    responses: dict[str, Any] = {str(status): _response(route, status, schemas) for status in route.statuses}
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorMessage"}}}
    responses["default"] = {"description": "An error document", "content": error}
    operation["responses"] = responses
    return operation


def _response(route: Route, status: int, schemas: dict[str, Any]) -> dict[str, Any]:
    response: dict[str, Any] = {"description": HTTPStatus(status).phrase}
    if route.answers is str:
        response["content"] = {"text/plain": {"schema": {"type": "string"}}}
    elif route.answers is not None and status != HTTPStatus.NO_CONTENT:
        response["content"] = {"application/json": {"schema": _schema(route.answers, Rules(), schemas)}}
    return response


def _schema(hint: Any, rules: Rules, schemas: dict[str, Any]) -> dict[str, Any]:
    if isinstance(hint, types.UnionType):
        hint = next(option for option in typing.get_args(hint) if option is not type(None))
    origin = typing.get_origin(hint)
    if origin in {list, tuple}:
        schema = {"type": "array", "items": _schema(typing.get_args(hint)[0], Rules(), schemas)}
        return schema | _bounds("Items", rules)
    if origin is not None and issubclass(origin, Mapping):
        of_values = Rules(longest=rules.longest_value, least=rules.least_value)
        value = _schema(typing.get_args(hint)[1], of_values, schemas)
        return {"type": "object", "additionalProperties": value} | _bounds("Properties", rules)
    if dataclasses.is_dataclass(hint):
        return _reference(typing.cast("type[Any]", hint), schemas)
    return _scalar(hint, rules)


def _scalar(hint: Any, rules: Rules) -> dict[str, Any]:
    if hint is str:
        pattern = {"pattern": _NAME_PATTERN} if rules.is_name else {"pattern": "\\S"} if rules.not_blank else {}
        return {"type": "string"} | pattern | _bounds("Length", rules)
    if hint is bool:
        return {"type": "boolean"}
    if hint is int:
        schema: dict[str, Any] = {"type": "integer", "format": "int64" if rules.long else "int32"}
        bound = 2**63 if rules.long else 2**31
        schema["minimum"] = -bound if rules.least is None else rules.least
        schema["maximum"] = bound - 1 if rules.most is None else rules.most
        return schema
    if hint is datetime:
        return {"type": "string", "description": "Local date and time without a zone, as 2031-01-01T00:00:00"}
    if isinstance(hint, type) and issubclass(hint, Enum):
        return {"type": "string", "enum": [option.value for option in hint]}
    return {"type": "object"}


def _bounds(noun: str, rules: Rules) -> dict[str, int]:
    least = {f"min{noun}": rules.shortest} if rules.shortest else {}
    return least | ({f"max{noun}": rules.longest} if rules.longest is not None else {})


def _reference(kind: type[Any], schemas: dict[str, Any]) -> dict[str, Any]:
    if kind.__name__ not in schemas:
        schemas[kind.__name__] = {}
        hints = typing.get_type_hints(kind)
        fields = dataclasses.fields(kind)
        schema: dict[str, Any] = {
            "type": "object",
            "description": (kind.__doc__ or "").strip(),
            "properties": {json_name(field): _schema(hints[field.name], rules_of(field), schemas) for field in fields},
        }
        if required := [json_name(field) for field in fields if rules_of(field).required]:
            schema["required"] = required
        schemas[kind.__name__] = schema
    return {"$ref": f"#/components/schemas/{kind.__name__}"}
