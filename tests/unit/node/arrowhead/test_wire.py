"""Messages to and from JSON."""

from __future__ import annotations

import dataclasses
import json
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.node.arrowhead import consumer, messages, wire
from toolkit.node.arrowhead.messages import ArrowheadSystem, ServiceRegistryEntry, TokenGenerationRequest
from toolkit.node.arrowhead.pretty import pretty
from toolkit.node.arrowhead.quirks import QUIRKS
from toolkit.node.arrowhead.refusals import Refusal, refusal_from

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=20,
)


@given(JSON_VALUES)
def test_pretty_is_json(value: object) -> None:
    assert json.loads(pretty(value)) == value


def test_pretty_has_the_java_layout() -> None:
    value = {"a": [], "b": {}, "c": [1, {"d": "é\x1f\n"}], "e": True}
    assert pretty(value) == (
        '{\n  "a" : [ ],\n  "b" : { },\n  "c" : [ 1, {\n    "d" : "é\\u001F\\n"\n  } ],\n  "e" : true\n}'
    )


def test_the_published_request_has_its_published_size() -> None:
    options = {"metadata": {"unit": "celsius"}, "address": "192.168.1.10"}
    body = wire.write(consumer.request_form(options))
    assert 680 <= len(body) <= 700  # the address is not published
    assert list(json.loads(body)) == [
        "requesterSystem",
        "requestedService",
        "orchestrationFlags",
        "preferredProviders",
        "requestedQoS",
        "commands",
    ]


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("2031-01-01T00:00:00", "2031-01-01T00:00:00"),
        ("2031-01-01T10:15", "2031-01-01T10:15:00"),
        ("2031-01-01T10:15:30.120", "2031-01-01T10:15:30.12"),
        ("2031-01-01T10:15:30.123456789", "2031-01-01T10:15:30.123456"),
    ],
)
def test_local_dates(text: str, written: str) -> None:
    body = json.dumps(
        {
            "providedService": {"serviceDefinition": "s"},
            "provider": {"systemName": "p", "address": "abc", "port": 1},
            "endOfValidity": text,
        }
    ).encode()
    entry = wire.read(ServiceRegistryEntry, body)
    assert json.loads(wire.write(entry))["endOfValidity"] == written


def test_local_date_time_without_fraction() -> None:
    assert wire.local_date_time(datetime(2030, 1, 2, 3, 4, 5)) == "2030-01-02T03:04:05"  # noqa: DTZ001


def test_empty_maps_and_lists_are_written_but_not_empty_metadata() -> None:
    service = messages.ArrowheadService(service_definition="s")
    assert wire.document_of(service) == {"serviceDefinition": "s", "interfaces": []}
    assert wire.document_of(messages.GSDRequestForm(requested_service=service))["searchPerimeter"] == []


def test_sets_keep_their_first_copy() -> None:
    body = b'{"serviceDefinition": "s", "interfaces": ["A", "B", "A"]}'
    assert wire.read(messages.ArrowheadService, body).interfaces == ("A", "B")


def test_invalid_entries_of_an_answer_are_dropped() -> None:
    good = {
        "providedService": {"serviceDefinition": "s"},
        "provider": {"systemName": "p", "address": "abc", "port": 1},
    }
    expired = {**good, "endOfValidity": "2001-01-01T00:00:00"}
    body = json.dumps({"serviceQueryData": [expired, good, {}]}).encode()
    assert len(wire.read(messages.ServiceQueryResult, body).service_query_data) == 1


def test_a_default_that_breaks_its_rule_must_be_sent() -> None:
    system = {"systemName": "p", "address": "abc", "port": 1}
    body = json.dumps({"service": {"serviceDefinition": "s"}, "consumer": system, "providerSystem": system}).encode()
    with pytest.raises(Refusal, match="priority: must be greater than or equal to 1"):
        wire.read(messages.OrchestrationStore, body)


def test_empty_lists_that_must_not_be() -> None:
    body = json.dumps(
        {
            "consumer": {"systemName": "p", "address": "abc", "port": 1},
            "providers": [],
            "service": {"serviceDefinition": "s"},
        }
    ).encode()
    with pytest.raises(Refusal, match="providers: must not be empty"):
        wire.read(TokenGenerationRequest, body)


@pytest.mark.parametrize(("version", "kind"), [("4.1.1", None), ("4.1.2", "BAD_PAYLOAD")])
def test_blank_entries(version: str, kind: str | None) -> None:
    body = b'{"serviceDefinition": "s", "interfaces": [" "], "serviceMetadata": {"k": ""}}'
    if kind is None:
        assert wire.read(messages.ArrowheadService, body, QUIRKS[version]).interfaces == (" ",)
        return
    with pytest.raises(Refusal) as caught:
        wire.read(messages.ArrowheadService, body, QUIRKS[version])
    assert caught.value.kind == kind
    assert caught.value.message.count("must not be blank") == 2


@given(
    st.builds(
        ArrowheadSystem,
        id=st.none() | st.integers(0, 2**63 - 1),
        system_name=st.from_regex(r"[A-Za-z0-9_:-]{1,255}", fullmatch=True),
        address=st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=3, max_size=20).filter(
            lambda text: bool(text.strip())
        ),
        port=st.integers(1, 65535),
        authentication_info=st.none() | st.text(st.characters(codec="utf-8", exclude_characters="\0")),
    )
)
def test_what_is_written_is_read_back(system: ArrowheadSystem) -> None:
    assert wire.read(ArrowheadSystem, wire.write(system)) == system


def test_a_remote_refusal_keeps_its_code_message_and_origin() -> None:
    first = Refusal("DATA_NOT_FOUND", "nothing", origin="http://a/b")
    again = refusal_from(404, first.document("http://other"), "http://c/d")
    assert (again.kind, again.status, again.message, again.origin) == ("DATA_NOT_FOUND", 404, "nothing", "http://a/b")
    odd = refusal_from(502, None, "http://c/d")
    assert (odd.kind, odd.status, odd.origin) == ("ARROWHEAD", 502, "http://c/d")


def test_messages_are_values() -> None:
    kinds = [kind for kind in vars(messages).values() if dataclasses.is_dataclass(kind)]
    assert len(kinds) > 25
    assert all(kind.__dataclass_params__.frozen for kind in kinds)
