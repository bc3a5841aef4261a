"""The Event Handler's own description in OpenAPI 3.1, as its mode serves it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from toolkit import __version__
from toolkit.node.arrowhead.refusals import ERROR_MESSAGE

_SHORT, _LONG = 255, 2047
_TEXT: dict[str, Any] = {"type": "string", "maxLength": _SHORT}
_LONG_TEXT: dict[str, Any] = {"type": "string", "maxLength": _LONG}
_TYPE: dict[str, Any] = {"type": "string", "minLength": 1, "maxLength": _SHORT, "pattern": "\\S"}
_INSTANT: dict[str, Any] = {"type": "string", "format": "date-time", "description": "An instant with its zone"}
_NUMBER: dict[str, Any] = {"type": "integer", "format": "int64", "minimum": 0, "maximum": 2**63 - 1}
_SCHEMAS: dict[str, Any] = {
    "ArrowheadSystem": {
        "type": "object",
        "required": ["systemName", "address", "port"],
        "properties": {
            "systemName": {"type": "string", "maxLength": _SHORT, "pattern": "^[\\w:-]+$"},
            "address": {"type": "string", "minLength": 3, "maxLength": _SHORT, "pattern": "\\S"},
            "port": {"type": "integer", "minimum": 1, "maximum": 65_535},
            "authenticationInfo": _LONG_TEXT,
            "id": _NUMBER,
        },
    },
    "Event": {
        "type": "object",
        "required": ["type"],
        "properties": {
            "type": _TYPE,
            "payload": {"type": "string"},
            "timestamp": _INSTANT,
            "eventMetadata": {"type": "object", "additionalProperties": {"type": "string"}},
        },
    },
    "PublishEvent": {
        "type": "object",
        "required": ["source", "event"],
        "properties": {
            "source": {"$ref": "#/components/schemas/ArrowheadSystem"},
            "event": {"$ref": "#/components/schemas/Event"},
            "deliveryCompleteUri": _LONG_TEXT,
        },
    },
    "EventFilter": {
        "type": "object",
        "required": ["eventType", "consumer"],
        "properties": {
            "id": _NUMBER,
            "eventType": _TYPE,
            "consumer": {"$ref": "#/components/schemas/ArrowheadSystem"},
            "sources": {"type": "array", "maxItems": 100, "items": {"$ref": "#/components/schemas/ArrowheadSystem"}},
            "startDate": _INSTANT,
            "endDate": _INSTANT,
            "filterMetadata": {"type": "object", "additionalProperties": _LONG_TEXT},
            "notifyUri": _TEXT,
            "matchMetadata": {"type": "boolean"},
        },
    },
    "ErrorMessage": ERROR_MESSAGE,
}
_STREAM = {
    "200": {
        "description": "Events of the type, as they come",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}
_ALIVE = {"200": {"description": "OK", "content": {"text/plain": {"schema": {"type": "string"}}}}}


def describe(subscribed_by: Sequence[str], *, resumes_and_filters: bool) -> bytes:
    """The document, as JSON."""
    streams = {"get": _stream(resumes_and_filters=resumes_and_filters)} if "GET" in subscribed_by else {}
    stores = (
        {"post": _operation("Store a filter", "EventFilter", _answers(201, 204, made="EventFilter"))}
        if "POST" in subscribed_by
        else {}
    )
    removes = {"put": _operation("Remove a filter", "EventFilter", _answers(200, 204))}
    document = {
        "openapi": "3.1.0",
        "info": {"title": "Event Handler", "version": __version__},
        "paths": {
            "/eventhandler": {"get": _operation("Liveness", None, _ALIVE)},
            "/eventhandler/mgmt": {"get": _operation("Liveness", None, _ALIVE)},
            "/eventhandler/publish": {"post": _operation("Publish an event", "PublishEvent", _answers(200))},
            "/eventhandler/subscription": {**streams, **stores, **removes},
            "/eventhandler/subscription/type/{eventType}/consumer/{consumerName}": {
                "delete": {
                    **_operation("Remove a consumer's filters of a type", None, _answers(200, 204)),
                    "parameters": [_in_path("eventType"), _in_path("consumerName")],
                }
            },
            "/eventhandler/mgmt/subscriptions": {
                "get": _operation("List the filters", None, _answer({"type": "array", "items": _ref("EventFilter")}))
            },
            "/eventhandler/mgmt/subscriptions/{id}": {
                method: {**operation, "parameters": [_in_path("id")]}
                for method, operation in {
                    "get": _operation("Get a filter", None, _answer(_ref("EventFilter"))),
                    "put": _operation("Change the fields given", "EventFilter", _answer(_ref("EventFilter"))),
                    "delete": _operation("Delete a filter", None, _answers(200)),
                }.items()
            },
        },
        "components": {"schemas": _SCHEMAS},
    }
    return json.dumps(document, indent=2).encode()


def _operation(summary: str, accepts: str | None, answers: dict[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {"summary": summary}
    if accepts is not None:
        operation["requestBody"] = {"required": True, "content": _json(accepts)}
    refused = {"description": "An error document", "content": _json("ErrorMessage")}
    return operation | {"responses": {**answers, "default": refused}}


def _stream(*, resumes_and_filters: bool) -> dict[str, Any]:
    headers = {"eventtype": "The type to subscribe to"}
    if resumes_and_filters:
        headers |= {"eventfilter": "Fields of an EventFilter, as JSON", "last-event-id": "Events kept since that one"}
    parameters = [
        {
            "name": name,
            "in": "header",
            "required": name == "eventtype",
            "description": text,
            "schema": {"type": "string"},
        }
        for name, text in headers.items()
    ]
    return {**_operation("Open a stream of events", None, _STREAM), "parameters": parameters}


def _answers(*statuses: int, made: str | None = None) -> dict[str, Any]:
    """Empty ones, but for a 201 with what was `made`."""
    words = {200: "OK", 201: "Created", 204: "No Content"}
    answers: dict[str, Any] = {str(status): {"description": words[status]} for status in statuses}
    if made is not None:
        answers["201"]["content"] = _json(made)
    return answers


def _answer(schema: dict[str, Any]) -> dict[str, Any]:
    return {"200": {"description": "OK", "content": {"application/json": {"schema": schema}}}}


def _json(schema: str) -> dict[str, Any]:
    return {"application/json": {"schema": _ref(schema)}}


def _ref(schema: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{schema}"}


def _in_path(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
