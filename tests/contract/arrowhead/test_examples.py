"""Every example of the framework's wire documents, replayed against running systems."""

from __future__ import annotations

import socket
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.ports import free_port
from tests.waiting import until

from .local_cloud import ASKED_GAUGE, ENTRY, GAUGE, PANEL, PRESS_GAUGE, LocalCloud, request_form


def entry_of(name: str, **changes: Any) -> dict[str, Any]:
    """An entry of a service of its own."""
    provider = {"systemName": f"prov-{name}", "address": "10.20.0.31", "port": 8460}
    return {**ENTRY, "providedService": {**GAUGE, "serviceDefinition": name}, "provider": provider, **changes}


@pytest.mark.parametrize(
    ("system", "path"),
    [
        ("service_registry", "/serviceregistry"),
        ("service_registry", "/serviceregistry/mgmt"),
        ("authorization", "/authorization"),
        ("authorization", "/authorization/mgmt"),
        ("orchestrator", "/orchestrator/orchestration"),
        ("orchestrator", "/orchestrator/mgmt"),
        ("gatekeeper", "/gatekeeper"),
        ("outbound", "/gatekeeper"),
        ("outbound", "/gatekeeper/mgmt/"),
    ],
)
def test_liveness_is_a_text(cloud: LocalCloud, system: str, path: str) -> None:
    answer = getattr(cloud, system)("GET", path)
    assert (answer.status, answer.headers["content-type"]) == (200, "text/plain")
    assert answer.body


class TestServiceRegistry:
    def test_register_answers_the_stored_entry(self, cloud: LocalCloud) -> None:
        entry = entry_of("Registered")
        answer = cloud.service_registry("POST", "/serviceregistry/register", entry)
        stored = answer.json
        assert answer.status == 201
        assert isinstance(stored.pop("id"), int)
        assert isinstance(stored["provider"].pop("id"), int)
        assert stored == entry
        assert answer.body.startswith(b'{\n  "id" : ')
        assert b'"interfaces" : [ "JSON" ]' in answer.body

    def test_again_is_a_duplicate_until_removed(self, cloud: LocalCloud) -> None:
        entry = entry_of("Twice")
        assert cloud.service_registry("POST", "/serviceregistry/register", entry).status == 201
        again = cloud.service_registry("POST", "/serviceregistry/register", entry)
        assert (again.status, again.json["exceptionType"]) == (400, "DUPLICATE_ENTRY")
        removed = cloud.service_registry("PUT", "/serviceregistry/remove", entry)
        assert (removed.status, removed.json["serviceURI"]) == (200, "pressure")
        nothing = cloud.service_registry("PUT", "/serviceregistry/remove", entry)
        assert (nothing.status, nothing.body) == (204, b"")
        assert cloud.service_registry("POST", "/serviceregistry/register", entry).status == 201

    def test_the_last_registration_decides_the_interfaces(self, cloud: LocalCloud) -> None:
        entry = entry_of("Shared")
        cloud.service_registry("POST", "/serviceregistry/register", entry)
        other = {**entry, "provider": {**PRESS_GAUGE, "systemName": "other"}}
        other["providedService"] = {**entry["providedService"], "interfaces": ["XML", "CBOR"]}
        cloud.service_registry("POST", "/serviceregistry/register", other)
        found = query(cloud, "Shared").json["serviceQueryData"]
        assert [one["providedService"]["interfaces"] for one in found] == [["XML", "CBOR"]] * 2

    def test_query_finds_the_example(self, cloud: LocalCloud) -> None:
        form = {"service": GAUGE, "pingProviders": False, "metadataSearch": True}
        answer = cloud.service_registry("PUT", "/serviceregistry/query", form)
        assert answer.status == 200
        (entry,) = answer.json["serviceQueryData"]
        assert entry["provider"]["systemName"] == "PressGauge01"
        assert entry["providedService"] == GAUGE

    def test_unknown_definition_is_206(self, cloud: LocalCloud) -> None:
        answer = query(cloud, "NobodyKnowsThis")
        assert (answer.status, answer.body) == (206, b'{\n  "serviceQueryData" : [ ]\n}')

    def test_known_definition_without_match_is_200(self, cloud: LocalCloud) -> None:
        form = {"service": {**GAUGE, "serviceMetadata": {"unit": "psi"}}, "metadataSearch": True}
        answer = cloud.service_registry("PUT", "/serviceregistry/query", form)
        assert (answer.status, answer.json) == (200, {"serviceQueryData": []})

    @pytest.mark.parametrize(
        ("metadata", "found"), [({"unit": "bar"}, True), ({}, False), ({"unit": "bar", "more": "x"}, False)]
    )
    def test_metadata_match_whole_or_not(self, cloud: LocalCloud, metadata: dict[str, str], found: bool) -> None:
        form = {"service": {**GAUGE, "serviceMetadata": metadata}, "metadataSearch": True}
        answer = cloud.service_registry("PUT", "/serviceregistry/query", form)
        assert bool(answer.json["serviceQueryData"]) is found

    @pytest.mark.parametrize(
        ("wanted", "found"),
        [
            ({"version": 3}, True),
            ({"version": 2}, False),
            ({"metadata": {"minVersion": "2", "maxVersion": "4"}}, True),
            ({"metadata": {"minVersion": "4"}}, False),
            ({"metadata": {"maxVersion": "2"}}, False),
        ],
    )
    def test_versions(self, cloud: LocalCloud, wanted: dict[str, Any], found: bool) -> None:
        cloud.service_registry("POST", "/serviceregistry/register", entry_of("Versioned", version=3))
        service = {"serviceDefinition": "Versioned", "serviceMetadata": wanted.get("metadata", {})}
        form = {"service": service, **({"version": wanted["version"]} if "version" in wanted else {})}
        answer = cloud.service_registry("PUT", "/serviceregistry/query", form)
        assert bool(answer.json["serviceQueryData"]) is found

    def test_ping_drops_the_unreachable(self, cloud: LocalCloud) -> None:
        alive = {"systemName": "alive", "address": "127.0.0.1", "port": cloud.ports["orchestrator"]}
        dead = {"systemName": "dead", "address": "127.0.0.1", "port": 1}
        for provider in (dead, alive):
            entry = entry_of("Pinged", provider=provider)
            assert cloud.service_registry("POST", "/serviceregistry/register", entry).status == 201
        form = {"service": {"serviceDefinition": "Pinged"}, "pingProviders": True}
        found = cloud.service_registry("PUT", "/serviceregistry/query", form).json["serviceQueryData"]
        assert [one["provider"]["systemName"] for one in found] == ["alive"]

    def test_names_are_case_insensitive_and_unknown_ones_ignored(self, cloud: LocalCloud) -> None:
        entry = entry_of("Lenient")
        entry["serviceUri"] = entry.pop("serviceURI")
        entry |= {"somethingNew": [1, {}], "PROVIDER": {**entry.pop("provider"), "port": "8460"}}
        answer = cloud.service_registry("POST", "/serviceregistry/register", entry)
        assert (answer.status, answer.json["serviceURI"]) == (201, "pressure")
        assert answer.json["provider"]["port"] == 8460


class TestAuthorization:
    def test_intracloud_answers_by_system_string(self, cloud: LocalCloud) -> None:
        message = {"consumer": PANEL, "providers": [PRESS_GAUGE, {**PRESS_GAUGE, "port": 1}], "service": GAUGE}
        answer = cloud.authorization("PUT", "/authorization/intracloud", message)
        assert answer.status == 200
        assert answer.json == {
            "authorizationState": {"PressGauge01,10.20.0.31,8460,null": True, "PressGauge01,10.20.0.31,1,null": False}
        }

    def test_the_key_has_the_given_authentication_info(self, cloud: LocalCloud) -> None:
        message = {"consumer": PANEL, "providers": [{**PRESS_GAUGE, "authenticationInfo": "abc"}], "service": GAUGE}
        answer = cloud.authorization("PUT", "/authorization/intracloud", message)
        assert answer.json["authorizationState"] == {"PressGauge01,10.20.0.31,8460,abc": True}

    def test_unknown_consumer_is_404_and_unknown_service_false(self, cloud: LocalCloud) -> None:
        stranger = {"consumer": {**PANEL, "port": 9}, "providers": [PRESS_GAUGE], "service": GAUGE}
        answer = cloud.authorization("PUT", "/authorization/intracloud", stranger)
        assert (answer.status, answer.json["exceptionType"]) == (404, "DATA_NOT_FOUND")
        unknown = {"consumer": PANEL, "providers": [PRESS_GAUGE], "service": {"serviceDefinition": "Nothing"}}
        answer = cloud.authorization("PUT", "/authorization/intracloud", unknown)
        assert answer.json == {"authorizationState": {"PressGauge01,10.20.0.31,8460,null": False}}

    def test_intercloud(self, cloud: LocalCloud, other_cloud: LocalCloud) -> None:
        service = {"serviceDefinition": "IndoorTemperature", "interfaces": ["JSON"]}
        ask_two = lambda message: other_cloud.authorization("PUT", "/authorization/intercloud", message)  # noqa: E731
        assert ask_two({"cloud": cloud.own, "service": service}).json == {"authorized": True}
        assert ask_two({"cloud": cloud.own, "service": GAUGE}).json == {"authorized": False}
        stranger = ask_two({"cloud": {**cloud.own, "cloudName": "nowhere"}, "service": service})
        assert (stranger.status, stranger.json["exceptionType"]) == (404, "DATA_NOT_FOUND")

    def test_rules_are_made_once(self, cloud: LocalCloud) -> None:
        message = {
            "consumer": {**PANEL, "systemName": "newcomer"},
            "providerList": [PRESS_GAUGE, {**PRESS_GAUGE, "systemName": "Second"}],
            "serviceList": [GAUGE, {"serviceDefinition": "Brand-New"}],
        }
        made = cloud.authorization("POST", "/authorization/mgmt/intracloud", message)
        assert (made.status, len(made.json)) == (201, 4)
        assert made.json[0]["consumer"]["systemName"] == "newcomer"
        again = cloud.authorization("POST", "/authorization/mgmt/intracloud", message)
        assert (again.status, again.body) == (201, b"[ ]")
        path = f"/authorization/mgmt/intracloud/{made.json[0]['id']}"
        assert cloud.authorization("GET", path).json == made.json[0]
        assert cloud.authorization("DELETE", path).status == 200
        assert cloud.authorization("DELETE", path).status == 204
        assert cloud.authorization("GET", path).status == 404


class TestOrchestration:
    def test_the_example(self, cloud: LocalCloud) -> None:
        answer = cloud.orchestrator("POST", "/orchestrator/orchestration", request_form())
        assert answer.status == 200
        (form,) = answer.json["response"]
        assert isinstance(form["provider"].pop("id"), int)
        assert form == {"service": GAUGE, "provider": PRESS_GAUGE, "serviceURI": "pressure", "warnings": []}

    def test_unlimited_validity_is_warned_of(self, cloud: LocalCloud) -> None:
        entry = entry_of("Unlimited")
        del entry["endOfValidity"]
        allow(cloud, entry)
        form = request_form({**ASKED_GAUGE, "serviceDefinition": "Unlimited"})
        answer = cloud.orchestrator("POST", "/orchestrator/orchestration", form)
        assert answer.json["response"][0]["warnings"] == ["TTL_UNKNOWN"]

    def test_preferred_providers_and_matchmaking(self, cloud: LocalCloud) -> None:
        providers = [{**PRESS_GAUGE, "systemName": name} for name in ("first", "second", "third")]
        for provider in providers:
            allow(cloud, entry_of("Chosen", provider=provider))

        def names(preferred: list[Any], **flags: bool) -> list[str]:
            form = request_form({**ASKED_GAUGE, "serviceDefinition": "Chosen"}, **flags)
            form["preferredProviders"] = preferred
            answer = cloud.orchestrator("POST", "/orchestrator/orchestration", form)
            return [one["provider"]["systemName"] for one in answer.json["response"]]

        preferred = [{"providerSystem": providers[2]}, {"providerSystem": providers[1]}, {"providerSystem": {}}, {}]
        assert names([]) == ["first", "second", "third"]
        assert names(preferred, onlyPreferred=True) == ["third", "second"]
        assert names(preferred, matchmaking=True) == ["third"]
        assert names([], matchmaking=True) == ["first"]

    def test_not_found_without_inter_cloud(self, cloud: LocalCloud) -> None:
        form = request_form({"serviceDefinition": "Nowhere"}, enableInterCloud=False)
        answer = cloud.orchestrator("POST", "/orchestrator/orchestration", form)
        assert (answer.status, answer.json["exceptionType"]) == (404, "DATA_NOT_FOUND")
        assert answer.json["origin"].endswith("/orchestrator/orchestration")

    def test_unknown_consumer_has_the_origin_of_the_authorization(self, cloud: LocalCloud) -> None:
        form = request_form(enableInterCloud=False)
        form["requesterSystem"]["port"] = 9
        answer = cloud.orchestrator("POST", "/orchestrator/orchestration", form)
        assert (answer.status, answer.json["exceptionType"]) == (404, "DATA_NOT_FOUND")
        assert answer.json["origin"] == f"http://127.0.0.1:{cloud.ports['authorization']}/authorization/intracloud"

    @pytest.mark.parametrize(
        "change",
        [
            {"requestedService": None},
            {"orchestrationFlags": {"overrideStore": True, "onlyPreferred": True}},
            {"orchestrationFlags": {"overrideStore": True, "enableQoS": True}},
        ],
    )
    def test_rules_between_fields(self, cloud: LocalCloud, change: dict[str, Any]) -> None:
        answer = cloud.orchestrator("POST", "/orchestrator/orchestration", {**request_form(), **change})
        assert (answer.status, answer.json["exceptionType"]) == (400, "BAD_PAYLOAD")

    def test_other_cloud_answers(self, cloud: LocalCloud, other_cloud: LocalCloud) -> None:
        service = {"serviceDefinition": "IndoorTemperature", "interfaces": ["json"]}
        service["serviceMetadata"] = {"unit": "celsius"}
        for flags in ({}, {"triggerInterCloud": True}):
            answer = cloud.orchestrator("POST", "/orchestrator/orchestration", request_form(service, **flags))
            assert answer.status == 200, answer.body
            (form,) = answer.json["response"]
            assert form["provider"]["systemName"] == "therm-1"
            assert form["warnings"] == ["FROM_OTHER_CLOUD"]
            assert form["serviceURI"] == "temperature"

    def test_only_a_preferred_cloud(self, cloud: LocalCloud, other_cloud: LocalCloud) -> None:
        service = {"serviceDefinition": "IndoorTemperature", "interfaces": ["json"]}
        form = request_form(service, onlyPreferred=True, triggerInterCloud=True, metadataSearch=False)
        form["preferredProviders"] = [{"providerCloud": other_cloud.own}]
        answer = cloud.orchestrator("POST", "/orchestrator/orchestration", form)
        assert answer.status == 200, answer.body
        elsewhere = {**other_cloud.own, "cloudName": "hall-9", "port": 1}
        form["preferredProviders"] = [{"providerCloud": elsewhere}]
        answer = cloud.orchestrator("POST", "/orchestrator/orchestration", form)
        assert (answer.status, answer.json["exceptionType"]) == (503, "ARROWHEAD")

    def test_other_cloud_refuses(self, cloud: LocalCloud, other_cloud: LocalCloud) -> None:
        answer = cloud.orchestrator(
            "POST", "/orchestrator/orchestration", request_form({"serviceDefinition": "Forbidden"})
        )
        assert answer.status == 401
        assert answer.json["exceptionType"] == "ARROWHEAD"


class TestStore:
    def entry(self, definition: str, **changes: Any) -> dict[str, Any]:
        return {
            "service": {**GAUGE, "serviceDefinition": definition},
            "consumer": PANEL,
            "providerSystem": entry_of(definition)["provider"],
            "priority": 1,
            "instruction": "read slowly",
            **changes,
        }

    def test_store_orchestration(self, cloud: LocalCloud, other_cloud: LocalCloud) -> None:
        allow(cloud, entry_of("Stored"))
        entries = [
            self.entry("Stored", priority=1, providerSystem={**PRESS_GAUGE, "systemName": "gone"}),
            self.entry("Stored", priority=2),
        ]
        made = cloud.orchestrator("POST", "/orchestrator/mgmt/store", entries)
        assert (made.status, len(made.json)) == (200, 2)
        assert made.json[0]["attributes"] == {"unit": "bar"}
        assert cloud.orchestrator("POST", "/orchestrator/mgmt/store", entries).json == []
        form = request_form({**ASKED_GAUGE, "serviceDefinition": "Stored"}, overrideStore=False)
        answer = cloud.orchestrator("POST", "/orchestrator/orchestration", form)
        (found,) = answer.json["response"]
        assert found["provider"]["systemName"] == "prov-Stored"
        assert found["instruction"] == "read slowly"
        assert found["warnings"] == []

    def test_an_entry_of_another_cloud(self, cloud: LocalCloud, other_cloud: LocalCloud) -> None:
        service = {"serviceDefinition": "IndoorTemperature", "interfaces": ["JSON"]}
        provider = {"systemName": "therm-1", "address": "10.30.0.8", "port": 8460}
        entry = {**self.entry("x"), "service": service, "providerSystem": provider, "providerCloud": other_cloud.own}
        assert len(cloud.orchestrator("POST", "/orchestrator/mgmt/store", [entry]).json) == 1
        form = request_form(service, overrideStore=False, metadataSearch=False)
        answer = cloud.orchestrator("POST", "/orchestrator/orchestration", form)
        (found,) = answer.json["response"]
        assert (found["warnings"], found["instruction"]) == (["FROM_OTHER_CLOUD"], "read slowly")

    def test_default_entries(self, cloud: LocalCloud) -> None:
        allow(cloud, entry_of("Default"))
        made = cloud.orchestrator("POST", "/orchestrator/mgmt/store", [self.entry("Default", defaultEntry=True)])
        (entry,) = made.json
        form = request_form(overrideStore=False, metadataSearch=False)
        del form["requestedService"]
        answer = cloud.orchestrator("POST", "/orchestrator/orchestration", form)
        assert [one["provider"]["systemName"] for one in answer.json["response"]] == ["prov-Default"]
        same = cloud.orchestrator("GET", f"/orchestrator/orchestration/{entry['consumer']['id']}")
        assert same.json == answer.json
        toggled = cloud.orchestrator("GET", f"/orchestrator/mgmt/store/default/{entry['id']}")
        assert toggled.json["defaultEntry"] is False
        assert cloud.orchestrator("POST", "/orchestrator/orchestration", form).status == 404

    @pytest.mark.parametrize("path", ["query", "query/servicedef/GaugeReading"])
    def test_entries_by_certificate_need_one(self, cloud: LocalCloud, path: str) -> None:
        answer = cloud.orchestrator("GET", f"/orchestrator/store/{path}")
        assert (answer.status, answer.json["errorCode"], answer.json["exceptionType"]) == (401, 401, "ARROWHEAD")

    def test_no_default_entry_in_another_cloud(self, cloud: LocalCloud, other_cloud: LocalCloud) -> None:
        entry = self.entry("Never", defaultEntry=True, providerCloud=other_cloud.own)
        answer = cloud.orchestrator("POST", "/orchestrator/mgmt/store", [entry])
        assert (answer.status, answer.json["exceptionType"]) == (400, "BAD_PAYLOAD")

    def test_priorities(self, cloud: LocalCloud) -> None:
        consumer = {**PANEL, "systemName": "exchanging"}
        entries = [self.entry("Exchanged", consumer=consumer, priority=priority) for priority in (1, 2, 3)]
        one, two, three = cloud.orchestrator("POST", "/orchestrator/mgmt/store", entries).json
        path = "/orchestrator/mgmt/store/priorities"
        query = {"requesterSystem": consumer, "requestedService": one["service"]}

        def order() -> list[int]:
            return [entry["id"] for entry in cloud.orchestrator("PUT", "/orchestrator/mgmt/store", query).json]

        exchanged = cloud.orchestrator("PUT", path, {"priorities": {two["id"]: 1, one["id"]: 2}})
        assert exchanged.status == 200, exchanged.body
        assert exchanged.json == [{**two, "priority": 1}, {**one, "priority": 2}]
        assert order() == [two["id"], one["id"], three["id"]]
        for priorities, status, kind in (
            ({one["id"]: 3}, 400, "DUPLICATE_ENTRY"),
            ({one["id"]: 9, 10**9: 8}, 404, "DATA_NOT_FOUND"),
            ({one["id"]: 9, two["id"]: 0}, 400, "BAD_PAYLOAD"),
            ({one["id"]: 9, "two": 1}, 400, "BAD_PAYLOAD"),
            ({one["id"]: 9, "-1": 1}, 400, "BAD_PAYLOAD"),
            ({}, 400, "BAD_PAYLOAD"),
            ({one["id"]: "much"}, 400, "JSON_PROCESSING"),
        ):
            refused = cloud.orchestrator("PUT", path, {"priorities": priorities})
            assert (refused.status, refused.json["exceptionType"]) == (status, kind), (priorities, refused.body)
        assert cloud.orchestrator("PUT", path, {}).status == 400
        assert order() == [two["id"], one["id"], three["id"]]

    def test_management(self, cloud: LocalCloud) -> None:
        consumer = {**PANEL, "systemName": "managed"}
        (entry,) = cloud.orchestrator(
            "POST", "/orchestrator/mgmt/store", [self.entry("Managed", consumer=consumer)]
        ).json
        path = f"/orchestrator/mgmt/store/{entry['id']}"
        assert cloud.orchestrator("GET", path).json == entry
        changed = cloud.orchestrator(
            "PUT", f"/orchestrator/mgmt/store/update/{entry['id']}", self.entry("Managed", priority=7, name="n")
        )
        assert (changed.status, changed.json["priority"], changed.json["name"]) == (202, 7, "n")
        query = {"requesterSystem": consumer, "requestedService": entry["service"]}
        assert len(cloud.orchestrator("PUT", "/orchestrator/mgmt/store", query).json) == 1
        assert cloud.orchestrator("GET", "/orchestrator/store/consumername/managed/servicedef/Managed").status == 200
        assert (
            cloud.orchestrator("DELETE", f"/orchestrator/mgmt/store/consumerId/{entry['consumer']['id']}").status == 200
        )
        assert cloud.orchestrator("GET", path).status == 404
        assert cloud.orchestrator("DELETE", path).status == 204


class TestGatekeeper:
    SERVICE: ClassVar[dict[str, Any]] = {
        "serviceDefinition": "IndoorTemperature",
        "interfaces": ["json"],
        "serviceMetadata": {"unit": "celsius"},
    }

    def test_init_gsd_and_icn(self, cloud: LocalCloud, other_cloud: LocalCloud) -> None:
        form = {
            "requestedService": self.SERVICE,
            "searchPerimeter": [],
            "registryFlags": {"metadataSearch": True, "pingProviders": False},
        }
        found = cloud.outbound("PUT", "/gatekeeper/init_gsd", form)
        assert found.status == 200, found.body
        (answer,) = found.json["response"]
        assert answer["requestedService"] == self.SERVICE
        assert isinstance(answer["providerCloud"].pop("id"), int)
        assert answer["providerCloud"] == other_cloud.own
        proposal = {
            "requestedService": self.SERVICE,
            "targetCloud": other_cloud.own,
            "requesterSystem": {**PANEL, "authenticationInfo": "null"},
            "preferredSystems": [],
            "negotiationFlags": {
                "metadataSearch": True,
                "pingProviders": False,
                "onlyPreferred": False,
                "externalServiceRequest": True,
            },
        }
        result = cloud.outbound("PUT", "/gatekeeper/init_icn", proposal)
        (form,) = result.json["orchResponse"]["response"]
        assert (form["provider"]["systemName"], form["warnings"]) == ("therm-1", [])

    def test_gsd_poll(self, cloud: LocalCloud, other_cloud: LocalCloud) -> None:
        poll = {"requestedService": self.SERVICE, "requesterCloud": cloud.own}
        poll["registryFlags"] = {"metadataSearch": True, "pingProviders": False}
        assert other_cloud.gatekeeper("PUT", "/gatekeeper/gsd_poll", poll).status == 200
        denied = other_cloud.gatekeeper("PUT", "/gatekeeper/gsd_poll", {**poll, "requestedService": GAUGE})
        assert (denied.status, denied.json["exceptionType"]) == (401, "AUTH")
        psi = {**self.SERVICE, "serviceMetadata": {"unit": "kelvin"}}
        nothing = other_cloud.gatekeeper("PUT", "/gatekeeper/gsd_poll", {**poll, "requestedService": psi})
        assert (nothing.status, nothing.json["exceptionType"]) == (404, "DATA_NOT_FOUND")

    def test_a_gateway_is_refused(self, cloud: LocalCloud, other_cloud: LocalCloud) -> None:
        flags = {"metadataSearch": True, "pingProviders": False, "onlyPreferred": False, "externalServiceRequest": True}
        proposal = {
            "requestedService": self.SERVICE,
            "requesterCloud": cloud.own,
            "requesterSystem": PANEL,
            "negotiationFlags": {**flags, "useGateway": True},
            "preferredBrokers": [{"address": "10.1.1.1", "port": 5671, "secure": True}],
            "timeout": 30000,
            "gatewayPublicKey": "AAAA",
        }
        path = "/gatekeeper/icn_proposal"
        refused = other_cloud.gatekeeper("PUT", path, proposal)
        assert (refused.status, refused.json["exceptionType"]) == (500, "ARROWHEAD")
        assert refused.json["errorMessage"].startswith("The requester cloud wants a gateway, and this cloud has none; ")
        assert refused.json["errorCode"] == 500
        assert refused.json["origin"] == f"http://127.0.0.1:{other_cloud.ports['gatekeeper']}{path}"
        stranger = {**proposal, "requestedService": GAUGE}
        denied = other_cloud.gatekeeper("PUT", path, stranger)
        assert (denied.status, denied.json["exceptionType"]) == (401, "AUTH")
        without = {**proposal, "negotiationFlags": {**flags, "useGateway": False}}
        assert len(other_cloud.gatekeeper("PUT", path, without).json["orchResponse"]["response"]) == 1
        # The own side never asks for one, whatever the Orchestrator says.
        asked = {
            "requestedService": self.SERVICE,
            "targetCloud": other_cloud.own,
            "requesterSystem": PANEL,
            "negotiationFlags": {**flags, "useGateway": True},
        }
        assert cloud.outbound("PUT", "/gatekeeper/init_icn", asked).status == 200

    def test_the_sides_answer_on_their_own_ports(self, cloud: LocalCloud) -> None:
        answer = cloud.outbound("PUT", "/gatekeeper/gsd_poll", {})
        assert (answer.status, answer.json["exceptionType"]) == (400, "BAD_URI")
        answer = cloud.gatekeeper("PUT", "/gatekeeper/init_gsd", {})
        assert (answer.status, answer.json["exceptionType"]) == (400, "BAD_URI")

    def test_neighbours_and_brokers(self, other_cloud: LocalCloud) -> None:
        new = {"cloud": {**other_cloud.own, "cloudName": "hall-5", "port": 9}}
        path = "/gatekeeper/mgmt/neighborhood"
        made = other_cloud.outbound("POST", path, [new])
        assert (made.status, len(made.json)) == (201, 1)
        assert other_cloud.outbound("POST", path, [new]).status == 204
        named = f"{path}/operator/plant-op/cloudname/hall-5"
        moved = other_cloud.outbound("PUT", path, {"cloud": {**new["cloud"], "port": 10}})
        assert (moved.status, moved.json["cloud"]["port"]) == (202, 10)
        assert other_cloud.outbound("GET", named).json["cloud"]["port"] == 10
        assert len(other_cloud.outbound("GET", path).json) == 2
        assert other_cloud.outbound("DELETE", named).status == 200
        assert other_cloud.outbound("DELETE", named).status == 204
        broker = {"address": "10.1.1.1", "port": 5671, "secure": True}
        assert other_cloud.outbound("GET", "/gatekeeper/mgmt/brokers").status == 404
        (stored,) = other_cloud.outbound("POST", "/gatekeeper/mgmt/brokers", [broker]).json
        path = f"/gatekeeper/mgmt/brokers/{stored['id']}"
        assert other_cloud.outbound("PUT", path, {**broker, "port": 1}).json == {**stored, "port": 1}
        assert other_cloud.outbound("DELETE", path).status == 200


def test_a_registry_that_cleans_up_and_is_emptied(tmp_path: Path) -> None:
    """Who does not answer and what has ended goes; what is left goes when the operator says so."""
    cloud = LocalCloud("clean", tmp_path)
    cloud.environment |= {
        "TOOLKIT_ARROWHEAD_PING_INTERVAL_S": "0.3",
        "TOOLKIT_ARROWHEAD_TTL_INTERVAL_S": "0.3",
        "TOOLKIT_ARROWHEAD_DATABASE_POOL": "2",
    }
    cloud.seed()
    cloud.start("service_registry")
    try:
        cloud.await_ready("service_registry")
        ends = datetime.now() + timedelta(seconds=5)  # noqa: DTZ005 - a LocalDateTime has no zone
        with socket.create_server(("127.0.0.1", 0)) as listening:
            here = {**PRESS_GAUGE, "address": "127.0.0.1", "port": listening.getsockname()[1]}
            for name, change in (
                ("Stays", {"provider": here}),
                ("Ends", {"provider": here, "endOfValidity": ends.isoformat(timespec="seconds")}),
                ("Away", {"provider": {**here, "port": free_port()}}),
            ):
                entry = {**ENTRY, "providedService": {**GAUGE, "serviceDefinition": name}, **change}
                assert cloud.service_registry("POST", "/serviceregistry/register", entry).status == 201

            def left() -> set[str]:
                entries = cloud.service_registry("GET", "/serviceregistry/mgmt/all").json["serviceQueryData"]
                return {entry["providedService"]["serviceDefinition"] for entry in entries}

            until(lambda: left() == {"Stays"}, instead=left)
            assert cloud.service_registry("DELETE", "/serviceregistry/mgmt/all").status == 200
            assert cloud.service_registry("DELETE", "/serviceregistry/mgmt/all").status == 204
            assert cloud.service_registry("GET", "/serviceregistry/mgmt/all").status == 204
    finally:
        assert set(cloud.stop().values()) == {0}


class TestManagement:
    def test_registry(self, cloud: LocalCloud) -> None:
        entry = entry_of("Managed")
        stored = cloud.service_registry("POST", "/serviceregistry/register", entry).json
        mgmt = lambda method, path, message=None: cloud.service_registry(  # noqa: E731
            method, f"/serviceregistry/mgmt/{path}", message
        )
        assert any(one["id"] == stored["id"] for one in mgmt("GET", "all").json["serviceQueryData"])
        assert mgmt("GET", f"id/{stored['id']}").json == stored
        assert mgmt("GET", f"systemId/{stored['provider']['id']}").json == [stored]
        assert mgmt("GET", "servicedef/Managed").json == [stored]
        assert mgmt("PUT", f"update/{stored['id']}", {**entry, "serviceURI": "elsewhere"}).status == 202
        assert mgmt("GET", f"id/{stored['id']}").json["serviceURI"] == "elsewhere"
        for form, count in (
            ({"fieldName": "serviceDefinition", "regularExpression": "^manag"}, 1),
            ({"fieldName": "serviceDefinition", "regularExpression": "manag", "partialMatch": False}, 0),
            ({"regularExpression": "Managed"}, 1),
            ({"fieldName": "systemName", "regularExpression": "PROV-managed$"}, 1),
        ):
            assert len(mgmt("PUT", "query", [form]).json) == count, form
        assert mgmt("PUT", "query", [{"regularExpression": "("}]).json["exceptionType"] == "BAD_PAYLOAD"
        assert mgmt("DELETE", str(stored["id"])).status == 200
        assert mgmt("DELETE", str(stored["id"])).status == 404
        assert mgmt("GET", "id/x").json["exceptionType"] == "BAD_URI"

    @pytest.mark.parametrize("prefix", ["", "/authorization"])
    @pytest.mark.parametrize(
        ("noun", "message", "change"),
        [
            ("services", {"serviceDefinition": "Kept", "interfaces": ["A"]}, {"interfaces": ["B"]}),
            ("systems", {"systemName": "kept", "address": "10.0.0.1", "port": 7}, {"authenticationInfo": "k"}),
            (
                "clouds",
                {
                    "operator": "o",
                    "cloudName": "kept",
                    "address": "10.0.0.1",
                    "port": 7,
                    "gatekeeperServiceURI": "gatekeeper",
                    "secure": False,
                },
                {"address": "10.0.0.2"},
            ),
        ],
    )
    def test_shared_resources(
        self, cloud: LocalCloud, prefix: str, noun: str, message: dict[str, Any], change: dict[str, Any]
    ) -> None:
        path = f"{prefix}/mgmt/{noun}"
        made = cloud.authorization("POST", path, [message])
        assert made.status == 201
        (stored,) = made.json
        assert stored == {**message, "id": stored["id"]}
        assert cloud.authorization("POST", path, [message]).status == 204
        assert stored in cloud.authorization("GET", path).json
        changed = cloud.authorization("PUT", f"{path}/{stored['id']}", {**message, **change})
        assert (changed.status, changed.json) == (202, {**stored, **change})
        assert cloud.authorization("PUT", path, message).status == 202
        assert cloud.authorization("DELETE", f"{path}/{stored['id']}").status == 200
        assert cloud.authorization("GET", f"{path}/{stored['id']}").status == 404


def query(cloud: LocalCloud, definition: str) -> Any:
    return cloud.service_registry("PUT", "/serviceregistry/query", {"service": {"serviceDefinition": definition}})


def allow(cloud: LocalCloud, entry: dict[str, Any]) -> None:
    """Register an entry and let the panel use it."""
    assert cloud.service_registry("POST", "/serviceregistry/register", entry).status == 201
    rule = {"consumer": PANEL, "providerList": [entry["provider"]], "serviceList": [entry["providedService"]]}
    assert cloud.authorization("POST", "/authorization/mgmt/intracloud", rule).status == 201
