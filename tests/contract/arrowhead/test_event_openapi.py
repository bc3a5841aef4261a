"""The Event Handler's description of itself in each mode; every operation called with messages that fit it or not."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.node.processes import Bench, NodeProcess

from .local_cloud import NODE_PYTHON, ask
from .test_openapi import QUIET, call_with_made_up_messages, fitting, operations

MODES = {"direct": {"get", "post", "put"}, "enhanced": {"get", "put"}, "original": {"post", "put"}}


@pytest.fixture(params=MODES, scope="module")
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def handler(mode: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    bench = Bench(tmp_path_factory.mktemp(mode), NODE_PYTHON)
    settings = {"mode": mode, "publishing_tolerance": 0, "drain": 0.2}
    yield bench.event_handler(TOOLKIT_SETTINGS=json.dumps(settings))
    bench.close()
    assert "Traceback" not in bench.log("broker")


def description(handler: NodeProcess) -> dict[str, Any]:
    document: dict[str, Any] = ask(handler.port, "GET", "/api/openapi.json").json
    return document


def called(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """All but the stream, whose answer has no end."""
    return [place for place in operations(document) if "text/event-stream" not in json.dumps(place[2])]


def test_it_describes_what_its_mode_serves(handler: NodeProcess, mode: str) -> None:
    document = description(handler)
    assert document["openapi"] == "3.1.0"
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    served = set(document["paths"]["/eventhandler/subscription"])
    assert served == MODES[mode]
    for method in {"get", "post", "put", "delete", "patch"} - served:
        body = b"{}" if method in ("post", "put") else None
        answer = ask(handler.port, method.upper(), "/eventhandler/subscription", body=body)
        assert (answer.status, answer.json["exceptionType"]) == (405, "BAD_METHOD")


@pytest.mark.parametrize("wrong", [False, True], ids=["allowed", "not-allowed"])
def test_every_operation_with_made_up_messages(handler: NodeProcess, wrong: bool) -> None:
    document = description(handler)
    chosen = [place for place in called(document) if not wrong or "requestBody" in place[2]]
    assert len(chosen) >= (2 if wrong else 5)
    for place in chosen:
        call_with_made_up_messages(functools.partial(ask, handler.port), document, place, wrong=wrong)


def test_what_fits_is_taken(handler: NodeProcess) -> None:
    document = description(handler)

    @QUIET
    @given(st.data())
    def run(data: st.DataObject) -> None:
        for method, path, operation in called(document):
            if "requestBody" in operation and "parameters" not in operation:
                message = data.draw(
                    fitting(operation["requestBody"]["content"]["application/json"]["schema"], document)
                )
                answer = ask(handler.port, method.upper(), path, message)
                assert answer.status < 300, (method, path, message, answer.body)

    run()
