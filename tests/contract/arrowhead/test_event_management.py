"""The operator's access to the Event Handler's stored filters, and when an unsubscription finds its system."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.unit.node.processes import Bench, NodeProcess

from .local_cloud import NODE_PYTHON, Answered, ask

STORING = ("direct", "original")
FILTERS = "/eventhandler/mgmt/subscriptions"
SOURCE = {"systemName": "PressPub", "address": "10.20.0.71", "port": 8462}


def wanted(consumer: str, event_type: str = "pressure", **more: Any) -> dict[str, Any]:
    system = {"systemName": consumer, "address": "10.20.0.70", "port": 8464}
    return {"eventType": event_type, "consumer": system, "notifyUri": "notify", **more}


def handler_of(mode: str, factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    bench = Bench(factory.mktemp(mode), NODE_PYTHON)
    yield bench.event_handler(TOOLKIT_SETTINGS=json.dumps({"mode": mode, "drain": 0.2}))
    bench.close()
    assert "Traceback" not in bench.log("broker")


@pytest.fixture(params=STORING)
def call(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Answered]]:
    for handler in handler_of(request.param, tmp_path_factory):
        yield functools.partial(ask, handler.port)


def without_ids(document: dict[str, Any]) -> dict[str, Any]:
    """As it was sent."""
    systems = [document["consumer"], *document.get("sources", [])]
    assert all(isinstance(system.pop("id"), int) for system in systems)
    return {key: value for key, value in document.items() if key != "id"}


def test_filters_are_listed_and_found_by_their_number(call: Callable[..., Answered]) -> None:
    assert call("GET", "/eventhandler/mgmt").body == b"This is the Event Handler Arrowhead Core System."
    assert (call("GET", FILTERS).status, call("GET", FILTERS).body) == (200, b"[ ]")
    first = call("POST", "/eventhandler/subscription", wanted("AlarmBox", sources=[SOURCE])).json
    second = call("POST", "/eventhandler/subscription", wanted("AlarmBox", "heat")).json
    assert first["id"] != second["id"]
    assert first["consumer"]["id"] == second["consumer"]["id"] != first["sources"][0]["id"]
    assert call("GET", FILTERS).json == [first, second]
    assert call("GET", f"{FILTERS}/{second['id']}").json == second
    assert without_ids(first) == {
        **wanted("AlarmBox", sources=[SOURCE]), "filterMetadata": {}, "matchMetadata": False,
    }  # fmt: skip


def test_a_filter_is_changed_in_the_fields_given(call: Callable[..., Answered]) -> None:
    stored = call("POST", "/eventhandler/subscription", wanted("AlarmBox", sources=[SOURCE])).json
    other = call("POST", "/eventhandler/subscription", wanted("AlarmBox", "heat")).json
    path = f"{FILTERS}/{stored['id']}"
    change = wanted("AlarmBox", matchMetadata=True, filterMetadata={"unit": "bar"}) | {"notifyUri": None}
    changed = call("PUT", path, change)
    assert changed.status == 200
    assert changed.json == stored | {"matchMetadata": True, "filterMetadata": {"unit": "bar"}}
    assert call("GET", path).json == changed.json
    assert call("GET", FILTERS).json == [changed.json, other]
    dated = call("PUT", path, wanted("AlarmBox", endDate="2131-01-01T00:00:00Z", SOURCES=[])).json
    assert (dated["endDate"], dated["sources"]) == ("2131-01-01T00:00:00.000Z", [])
    moved = call("PUT", path, wanted("Horn", "noise")).json
    assert (moved["id"], moved["eventType"], moved["consumer"]["systemName"]) == (stored["id"], "noise", "Horn")
    again = call("PUT", path, wanted("AlarmBox", "heat"))
    assert (again.status, again.json["exceptionType"]) == (400, "DUPLICATE_ENTRY")
    assert call("GET", path).json == moved
    assert call("POST", "/eventhandler/subscription", wanted("AlarmBox")).status == 201  # its place is free


def test_a_filter_is_deleted_by_its_number(call: Callable[..., Answered]) -> None:
    number = call("POST", "/eventhandler/subscription", wanted("AlarmBox")).json["id"]
    gone = call("DELETE", f"{FILTERS}/{number}")
    assert (gone.status, gone.body) == (200, b"")
    assert call("GET", FILTERS).json == []
    for method, message in (("GET", None), ("PUT", wanted("AlarmBox")), ("DELETE", None)):
        answer = call(method, f"{FILTERS}/{number}", message)
        assert (answer.status, answer.json["exceptionType"]) == (404, "DATA_NOT_FOUND")
    assert call("POST", "/eventhandler/subscription", wanted("AlarmBox")).status == 201


@pytest.mark.parametrize(
    ("method", "path", "message", "status", "kind"),
    [
        ("PUT", f"{FILTERS}/1", {"eventType": "pressure"}, 400, "BAD_PAYLOAD"),
        ("PUT", f"{FILTERS}/1", wanted("AlarmBox", endDate="2001-01-01T00:00:00Z"), 400, "BAD_PAYLOAD"),
        ("PUT", f"{FILTERS}/1", wanted("AlarmBox", sources=1), 400, "JSON_PROCESSING"),
        ("PUT", f"{FILTERS}/1", None, 400, "BAD_PAYLOAD"),
        ("GET", f"{FILTERS}/one", None, 400, "BAD_URI"),
        ("GET", f"{FILTERS}/1/2", None, 400, "BAD_URI"),
        ("GET", f"{FILTERS}/{2**63}", None, 400, "BAD_URI"),
        ("POST", FILTERS, wanted("AlarmBox"), 405, "BAD_METHOD"),
        ("DELETE", FILTERS, None, 405, "BAD_METHOD"),
    ],
)
def test_what_cannot_be_is_refused(
    call: Callable[..., Answered], method: str, path: str, message: Any, status: int, kind: str
) -> None:
    assert call("POST", "/eventhandler/subscription", wanted("AlarmBox")).json["id"] == 1
    answer = call(method, path, message)
    assert (answer.status, answer.json["exceptionType"]) == (status, kind)
    assert answer.json["errorCode"] == status


def test_enhanced_has_no_filters_to_manage(tmp_path_factory: pytest.TempPathFactory) -> None:
    for handler in handler_of("enhanced", tmp_path_factory):
        assert ask(handler.port, "GET", FILTERS).json == []
        assert ask(handler.port, "DELETE", f"{FILTERS}/1").status == 404
        assert ask(handler.port, "PUT", "/eventhandler/subscription", wanted("AlarmBox")).status == 204


def test_an_unsubscription_is_200_once_a_system_of_that_name_exists(call: Callable[..., Answered]) -> None:
    def unsubscribe(consumer: str, event_type: str = "pressure") -> list[int]:
        path = f"/eventhandler/subscription/type/{event_type}/consumer/{consumer}"
        message = wanted(consumer, event_type)
        return [call("DELETE", path).status, call("PUT", "/eventhandler/subscription", message).status]

    assert unsubscribe("AlarmBox") == [204, 204]
    assert call("POST", "/eventhandler/subscription", wanted("AlarmBox", sources=[SOURCE])).status == 201
    assert unsubscribe("AlarmBox", "heat") == [200, 200]
    assert len(call("GET", FILTERS).json) == 1
    assert unsubscribe("AlarmBox") == [200, 200]
    assert call("GET", FILTERS).json == []
    assert unsubscribe("AlarmBox") == [200, 200]  # its last filter is gone, the system is not
    assert unsubscribe("PressPub") == [200, 200]  # a source is a system, too
    assert unsubscribe("Nobody") == [204, 204]
    elsewhere = wanted("AlarmBox") | {"consumer": {"systemName": "AlarmBox", "address": "10.20.0.99", "port": 1}}
    assert call("POST", "/eventhandler/subscription", wanted("AlarmBox")).status == 201
    assert call("POST", "/eventhandler/subscription", elsewhere).status == 201
    assert call("PUT", "/eventhandler/subscription", elsewhere).status == 200  # of every system of that name
    assert call("GET", FILTERS).json == []
