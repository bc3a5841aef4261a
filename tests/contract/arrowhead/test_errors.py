"""Every row of the framework's error table, and what every answer has in common."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.ports import await_port

from .local_cloud import ENTRY, GAUGE, PANEL, PRESS_GAUGE, LocalCloud, ask, free_port, request_form

REGISTER, QUERY, ORCHESTRATE = (
    "/serviceregistry/register",
    "/serviceregistry/query",
    "/orchestrator/orchestration",
)


def assert_error(answer: Any, status: int, kind: str, origin: str, *, code: int | None = None) -> None:
    assert answer.status == status, answer.body
    assert answer.headers["content-type"] == "application/json"
    document = answer.json
    assert list(document) == ["errorMessage", "errorCode", "exceptionType", "origin", "documentation"]
    assert document["errorMessage"]
    assert document["errorCode"] == (code or status)
    assert document["exceptionType"] == kind
    assert document["origin"] == origin
    assert_cors(answer)


def assert_cors(answer: Any) -> None:
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["access-control-allow-headers"] == "origin, content-type, accept, authorization"
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert answer.headers["access-control-allow-methods"] == "GET, POST, PUT, DELETE, OPTIONS, HEAD"
    assert answer.headers["access-control-max-age"] == "600"


def registry_url(cloud: LocalCloud, path: str) -> str:
    return f"http://127.0.0.1:{cloud.ports['service_registry']}{path}"


def test_empty_body(cloud: LocalCloud) -> None:
    for method, path in (("POST", REGISTER), ("PUT", QUERY)):
        answer = cloud.service_registry(method, path, body=b"")
        assert_error(answer, 400, "BAD_PAYLOAD", registry_url(cloud, path))


def test_get_and_delete_with_a_body(cloud: LocalCloud) -> None:
    answer = cloud.service_registry("GET", "/serviceregistry", body=b"{}")
    assert_error(answer, 400, "BAD_PAYLOAD", registry_url(cloud, "/serviceregistry"))
    answer = cloud.service_registry("DELETE", "/serviceregistry/mgmt/1", body=b"{}")
    assert_error(answer, 400, "BAD_PAYLOAD", registry_url(cloud, "/serviceregistry/mgmt/1"))


def test_violated_field_rules_are_listed(cloud: LocalCloud) -> None:
    entry = {**ENTRY, "provider": {"systemName": "no blanks", "address": "x", "port": 0}}
    answer = cloud.service_registry("POST", REGISTER, entry)
    assert_error(answer, 400, "BAD_PAYLOAD", registry_url(cloud, REGISTER))
    assert answer.json["errorMessage"] == (
        'provider.systemName: must match "[A-Za-z0-9-_:]+", provider.address: size must be between 3 and 255, '
        "provider.port: must be greater than or equal to 1, "
    )


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"endOfValidity": "2001-01-01T00:00:00"}, "endOfValidity: must be in the future, "),
        ({"provider": None}, "provider: must not be null, "),
        ({"providedService": {"serviceDefinition": " "}}, "providedService.serviceDefinition: must not be blank, "),
        ({"serviceURI": "x" * 256}, "serviceURI: size must be between 0 and 255, "),
        (
            {"providedService": {**GAUGE, "interfaces": [f"I{i}" for i in range(101)]}},
            "providedService.interfaces: size must be between 0 and 100, ",
        ),
        (
            {"providedService": {**GAUGE, "serviceMetadata": {"unit": None}}},
            "providedService.serviceMetadata[unit]: must not be null, ",
        ),
    ],
)
def test_each_field_rule(cloud: LocalCloud, change: dict[str, Any], text: str) -> None:
    answer = cloud.service_registry("POST", REGISTER, {**ENTRY, **change})
    assert (answer.status, answer.json["errorMessage"]) == (400, text)


def test_metadata_that_could_not_be_read_back(cloud: LocalCloud) -> None:
    service = {**GAUGE, "serviceMetadata": {"unit": "bar,psi"}}
    answer = cloud.service_registry("POST", REGISTER, {**ENTRY, "providedService": service})
    assert_error(answer, 400, "BAD_PAYLOAD", registry_url(cloud, REGISTER))


@pytest.mark.parametrize(
    "body",
    [
        b"{", b"[]", b"1", b'"x"', b"{} x", b"\xff\xfe", b'{"service": []}', b'{"service": {"interfaces": {}}}',
        b'{"service": {"serviceDefinition": {}}}', b'{"pingProviders": "perhaps"}', b'{"version": 99999999999}',
        b'{"version": 1e400}', b'{"service": {"serviceDefinition": "\\ud800"}}', b"[" * 100_000,
        b'{"service": {"serviceDefinition": "a\\u0000b"}}', b'{"version": NaN}',
    ],
)  # fmt: skip
def test_what_is_no_such_json(cloud: LocalCloud, body: bytes) -> None:
    answer = cloud.service_registry("PUT", QUERY, body=body)
    assert_error(answer, 400, "JSON_PROCESSING", registry_url(cloud, QUERY))


def test_null_is_no_payload(cloud: LocalCloud) -> None:
    assert_error(cloud.service_registry("PUT", QUERY, body=b"null"), 400, "BAD_PAYLOAD", registry_url(cloud, QUERY))


@pytest.mark.parametrize("path", ["/", "/serviceregistry/nothing", "/x/y/z", "/serviceregistry/query/more"])
def test_no_such_path(cloud: LocalCloud, path: str) -> None:
    for method in ("GET", "POST", "DELETE"):
        answer = cloud.service_registry(method, path, body=b"{}" if method == "POST" else None)
        assert_error(answer, 400, "BAD_URI", registry_url(cloud, "/"))


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PATCH"])
def test_no_such_method(cloud: LocalCloud, method: str) -> None:
    answer = cloud.service_registry(method, QUERY, body=b"{}" if method == "POST" else None)
    assert_error(answer, 405, "BAD_METHOD", registry_url(cloud, "/"))


def test_no_such_media_type(cloud: LocalCloud) -> None:
    answer = cloud.service_registry("PUT", QUERY, body=b"x=1", headers={"Content-Type": "text/plain"})
    assert_error(answer, 415, "BAD_MEDIA_TYPE", registry_url(cloud, QUERY), code=405)
    body = json.dumps({"service": GAUGE}).encode()
    for kind in ("application/json; charset=utf-8", "APPLICATION/JSON"):
        assert cloud.service_registry("PUT", QUERY, body=body, headers={"Content-Type": kind}).status == 200


def test_head_and_options(cloud: LocalCloud) -> None:
    head = cloud.service_registry("HEAD", "/serviceregistry")
    assert (head.status, head.body) == (200, b"")
    options = cloud.service_registry("OPTIONS", QUERY)
    assert (options.status, options.body) == (200, b"OPTIONS, PUT")
    assert_cors(options)
    assert_cors(cloud.service_registry("PUT", QUERY, {"service": GAUGE}))
    assert_cors(cloud.service_registry("PUT", "/serviceregistry/remove", {**ENTRY, "provider": PANEL}))


def test_origin_follows_the_host_header(cloud: LocalCloud) -> None:
    answer = cloud.service_registry("POST", REGISTER, body=b"", headers={"Host": "registry.example:8442"})
    assert answer.json["origin"] == f"http://registry.example:8442{REGISTER}"


class TestPeersAway:
    """What a consumer is told when a core system is missing."""

    def test_before_the_others_are_found_and_after_they_went(self, tmp_path: Path) -> None:
        cloud = LocalCloud("lonely", tmp_path)
        cloud.seed(
            registryEntries=[ENTRY],
            intraCloud=[{"consumer": PANEL, "providerList": [PRESS_GAUGE], "serviceList": [GAUGE]}],
        )
        cloud.environment["TOOLKIT_ARROWHEAD_GATEKEEPER"] = "0"
        cloud.start("service_registry", "orchestrator")
        try:
            cloud.await_ready("service_registry")
            await_port(cloud.ports["orchestrator"])
            await_port(cloud.metrics["orchestrator"])
            health = ask(cloud.metrics["orchestrator"], "GET", "/healthz")
            assert health.status == 503
            answer = cloud.orchestrator("POST", ORCHESTRATE, request_form())
            assert_error(answer, 500, "ARROWHEAD", orchestrator_url(cloud))
            cloud.start("authorization")
            cloud.await_ready("authorization", "orchestrator")
            assert cloud.orchestrator("POST", ORCHESTRATE, request_form()).status == 200

            form = request_form({"serviceDefinition": "Nowhere"})
            assert_error(cloud.orchestrator("POST", ORCHESTRATE, form), 404, "ARROWHEAD", orchestrator_url(cloud))
            form = request_form(triggerInterCloud=True)
            assert_error(cloud.orchestrator("POST", ORCHESTRATE, form), 500, "ARROWHEAD", orchestrator_url(cloud))

            assert len(registered(cloud, "InsecureAuthorizationControl")) == 1
            assert cloud.stop("authorization") == {"authorization": 0}
            assert registered(cloud, "InsecureAuthorizationControl") == []
            answer = cloud.orchestrator("POST", ORCHESTRATE, request_form(enableInterCloud=True))
            url = f"http://127.0.0.1:{cloud.ports['authorization']}/authorization/intracloud"
            assert_error(answer, 503, "UNAVAILABLE", url)
            cloud.start("authorization")
            cloud.await_ready("authorization", "orchestrator")
            assert cloud.orchestrator("POST", ORCHESTRATE, request_form()).status == 200

            # One that was killed finds its old entry and puts the new one in its place.
            cloud.processes["authorization"].kill()
            cloud.processes.pop("authorization").wait()
            (left,) = registered(cloud, "InsecureAuthorizationControl")
            cloud.start("authorization")
            cloud.await_ready("authorization", "orchestrator")
            (made,) = registered(cloud, "InsecureAuthorizationControl")
            assert made["id"] != left["id"]

            assert cloud.stop("service_registry") == {"service_registry": 0}
            answer = cloud.orchestrator("POST", ORCHESTRATE, request_form())
            assert_error(answer, 503, "UNAVAILABLE", registry_url(cloud, QUERY))
        finally:
            assert set(cloud.stop().values()) == {0}


def registered(cloud: LocalCloud, definition: str) -> list[dict[str, Any]]:
    form = {"service": {"serviceDefinition": definition}}
    found: list[dict[str, Any]] = cloud.service_registry("PUT", QUERY, form).json["serviceQueryData"]
    return found


def orchestrator_url(cloud: LocalCloud) -> str:
    return f"http://127.0.0.1:{cloud.ports['orchestrator']}{ORCHESTRATE}"


class TestReleases:
    """The quirks of one release or the other."""

    @pytest.mark.parametrize(
        ("version", "status", "matched", "interface", "unicode"),
        [("4.1.1", 404, 1, "JSON", 404), ("4.1.2", 400, 0, "HTTP-INSECURE-JSON", 201)],
    )
    def test_version(
        self, tmp_path: Path, version: str, status: int, matched: int, interface: str, unicode: int
    ) -> None:
        cloud = LocalCloud("quirky", tmp_path)
        cloud.seed(registryEntries=[ENTRY])
        cloud.environment["TOOLKIT_ARROWHEAD_VERSION"] = version
        cloud.start("service_registry", "authorization")
        try:
            cloud.await_ready("service_registry", "authorization")
            assert cloud.service_registry("PUT", QUERY, body=b"{").status == status
            assert cloud.service_registry("PUT", QUERY, {}).status == status
            asked = {"service": {**GAUGE, "interfaces": ["json"]}}
            assert len(cloud.service_registry("PUT", QUERY, asked).json["serviceQueryData"]) == matched
            own = {"service": {"serviceDefinition": "InsecureTokenGeneration", "interfaces": [interface]}}
            (entry,) = cloud.service_registry("PUT", QUERY, own).json["serviceQueryData"]
            assert entry["providedService"]["interfaces"] == [interface]
            assert (entry["serviceURI"], entry["provider"]["systemName"]) == ("authorization/token", "AUTHORIZATION")
            named = {**ENTRY, "provider": {**PRESS_GAUGE, "systemName": "Mérő-1"}}
            assert cloud.service_registry("POST", REGISTER, named).status == unicode
        finally:
            assert set(cloud.stop().values()) == {0}


def test_wrong_settings_are_told_and_end_the_process(tmp_path: Path) -> None:
    cloud = LocalCloud("wrong", tmp_path)
    for variable, value in (
        ("VERSION", "5.0"),
        ("PORT", "http"),
        ("DATABASE_URL", "nonsense"),
        ("SECURE", "1"),
        ("SEED", str(tmp_path / "no-such-file.json")),
    ):
        cloud.environment = {f"TOOLKIT_ARROWHEAD_{variable}": value}
        cloud.start("authorization")
        assert cloud.processes.pop("authorization").wait(20) == 2, variable
    text = (tmp_path / "authorization.log").read_text()
    assert "TOOLKIT_ARROWHEAD_VERSION is '5.0'; try one of 4.1, 4.1.1, 4.1.2" in text
    assert "Traceback" not in text


def test_a_port_in_use_ends_the_process(cloud: LocalCloud, tmp_path: Path) -> None:
    other = LocalCloud("taken", tmp_path)
    other.ports["authorization"] = cloud.ports["authorization"]
    other.metrics["authorization"] = free_port()
    other.start("authorization")
    assert other.processes.pop("authorization").wait(20) == 1
    assert f"cannot listen on 0.0.0.0:{cloud.ports['authorization']}" in (tmp_path / "authorization.log").read_text()
