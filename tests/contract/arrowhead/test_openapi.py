"""Every operation that a system describes, called with what its description allows and with what it does not."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .local_cloud import Answered, LocalCloud

PORTS = ("service_registry", "authorization", "orchestrator", "gatekeeper", "outbound")
LEFT_ALONE = {("delete", "/serviceregistry/mgmt/all")}
"""It would empty the registry under the other tests; `test_examples` has a registry for it."""
EXAMPLES = 4
"""For each operation."""
QUIET = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
NAMES = st.from_regex(r"fuzz-[A-Za-z0-9_:-]{0,6}", fullmatch=True)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture(autouse=True, scope="module")
def clean_neighbourhood(cloud: LocalCloud) -> Iterator[None]:
    """Other tests should not ask the clouds that are made up here."""
    yield
    for neighbour in cloud.outbound("GET", "/gatekeeper/mgmt/neighborhood").json:
        if neighbour["cloud"]["cloudName"] != "hall-2":
            names = neighbour["cloud"]["operator"], neighbour["cloud"]["cloudName"]
            path = "/gatekeeper/mgmt/neighborhood/operator/{}/cloudname/{}".format(*map(quote, names))
            assert cloud.outbound("DELETE", path).status == 200


def description(cloud: LocalCloud, system: str) -> dict[str, Any]:
    document: dict[str, Any] = getattr(cloud, system)("GET", "/api/openapi.json").json
    return document


def fitting(schema: dict[str, Any], document: dict[str, Any]) -> st.SearchStrategy[Any]:  # noqa: PLR0911
    """Values that the schema allows, of small size."""
    if "$ref" in schema:
        return fitting(document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]], document)
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    kind = schema.get("type")
    if kind == "object" and "properties" in schema:
        required = set(schema.get("required", ()))
        values = {name: fitting(each, document) for name, each in schema["properties"].items()}
        return st.fixed_dictionaries(
            {name: value for name, value in values.items() if name in required},
            optional={name: value for name, value in values.items() if name not in required},
        )
    if kind == "object":
        values = fitting(schema.get("additionalProperties", {"type": "string"}), document)
        return st.dictionaries(NAMES, values, max_size=2)
    if kind == "array":
        return st.lists(fitting(schema["items"], document), min_size=schema.get("minItems", 0), max_size=2)
    if kind == "integer":
        return st.integers(schema["minimum"], schema["maximum"])
    if kind == "boolean":
        return st.booleans()
    if schema.get("format") == "date-time":
        return st.datetimes().map(lambda moment: moment.replace(year=max(moment.year, 2100)).isoformat() + "Z")
    if "Local date" in schema.get("description", ""):
        return st.datetimes().map(lambda moment: moment.replace(year=max(moment.year, 2100)).isoformat())
    least = schema.get("minLength", 0)
    return NAMES if "pattern" in schema or least else TEXTS


@functools.cache
def broken(value_json: str) -> st.SearchStrategy[Any]:
    """The value with one part of it replaced by anything."""
    value = json.loads(value_json)

    def replace(path: list[Any], anything: Any) -> Any:
        copy = json.loads(value_json)
        if not path:
            return anything
        target = copy
        for key in path[:-1]:
            target = target[key]
        target[path[-1]] = anything
        return copy

    paths = list(_paths(value))
    return st.builds(replace, st.sampled_from(paths), ANYTHING)


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Any:
    yield list(path)
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _paths(item, (*path, key))
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _paths(item, (*path, index))


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if (method, path) not in LEFT_ALONE:
                yield method, path, operation


def check(
    ask: Callable[..., Answered], document: dict[str, Any], place: tuple[str, str, dict[str, Any]], data: st.DataObject,
    *, wrong: bool,
) -> None:  # fmt: skip
    method, path, operation = place
    for parameter in operation.get("parameters", ()):
        value = data.draw(st.integers(10**5, 10**6).map(str) | TEXTS.filter(lambda text: text.strip("/.0123456789")))
        path = path.replace("{" + parameter["name"] + "}", quote(value, safe=""))
    message: Any = None
    body = None
    if "requestBody" in operation:
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        message = data.draw(fitting(schema, document))
        if wrong:
            message = data.draw(broken(json.dumps(message)))
        body = json.dumps(message).encode()
    answer = ask(method.upper(), path, body=body)
    told = operation["responses"].get(str(answer.status), operation["responses"]["default"])
    if "content" in told:
        kind, content = next(iter(told["content"].items()))
        assert answer.headers["content-type"] == kind
        if kind == "application/json":
            schema = {**content["schema"], "components": document["components"]}
            jsonschema.validate(answer.json, schema)
    else:
        assert answer.body == b""
    if str(answer.status) not in operation["responses"]:
        assert answer.status >= 400, (answer.status, answer.body)
        assert answer.json["exceptionType"] != "GENERIC", (method, path, message, answer.body)


def call_with_made_up_messages(
    ask: Callable[..., Answered], document: dict[str, Any], place: tuple[str, str, dict[str, Any]], *, wrong: bool
) -> None:
    @QUIET
    @given(st.data())
    def run(data: st.DataObject) -> None:
        check(ask, document, place, data, wrong=wrong)

    run()


@pytest.mark.parametrize("wrong", [False, True], ids=["allowed", "not-allowed"])
@pytest.mark.parametrize("system", PORTS)
def test_every_operation_with_made_up_messages(cloud: LocalCloud, system: str, wrong: bool) -> None:
    document = description(cloud, system)
    chosen = [place for place in operations(document) if not wrong or "requestBody" in place[2]]
    assert len(chosen) >= (2 if wrong else 4)
    for place in chosen:
        call_with_made_up_messages(getattr(cloud, system), document, place, wrong=wrong)


@pytest.mark.parametrize("system", PORTS)
def test_the_description_is_openapi(cloud: LocalCloud, system: str) -> None:
    document = description(cloud, system)
    assert document["openapi"] == "3.1.0"
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    references = set()

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            if "$ref" in value:
                references.add(value["$ref"].rsplit("/", 1)[1])
            for item in value.values():
                walk(item)
        elif isinstance(value, list):
            for item in value:
                walk(item)

    walk(document)
    assert references <= set(document["components"]["schemas"])
