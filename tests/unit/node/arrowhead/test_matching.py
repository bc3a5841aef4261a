"""The Orchestrator's choices."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from toolkit.node.arrowhead import matching
from toolkit.node.arrowhead.access import Caller, only, operator
from toolkit.node.arrowhead.messages import (
    ArrowheadCloud,
    ArrowheadService,
    ArrowheadSystem,
    GSDAnswer,
    OrchestratorWarning,
    PreferredProvider,
    ServiceRequestForm,
)
from toolkit.node.arrowhead.refusals import Refusal

SERVICE = ArrowheadService(service_definition="s", interfaces=("JSON",))
SYSTEM = ArrowheadSystem(system_name="p", address="10.0.0.1", port=1)


def cloud(name: str) -> ArrowheadCloud:
    return ArrowheadCloud(
        operator="o", cloud_name=name, address="10.0.0.1", port=1, gatekeeper_service_uri="gatekeeper"
    )


@pytest.mark.parametrize(
    ("wanted", "provided", "common"),
    [(("json",), ("XML", "JSON"), True), ((), (), True), (("JSON",), (), False), ((), ("JSON",), False)],
)
def test_interfaces_whatever_the_case(wanted: tuple[str, ...], provided: tuple[str, ...], common: bool) -> None:
    asked = ArrowheadService(service_definition="s", interfaces=wanted)
    offered = ArrowheadService(service_definition="s", interfaces=provided)
    assert matching.has_common_interface(asked, offered) is common


def test_validity() -> None:
    now = datetime(2030, 1, 1)  # noqa: DTZ001
    assert matching.ttl_warnings(None, now) == (OrchestratorWarning.TTL_UNKNOWN,)
    assert matching.ttl_warnings(now - timedelta(seconds=1), now) == (OrchestratorWarning.TTL_EXPIRED,)
    assert matching.ttl_warnings(now + timedelta(minutes=2), now) == (OrchestratorWarning.TTL_EXPIRING,)
    assert matching.ttl_warnings(now + timedelta(minutes=2, seconds=1), now) == ()


def test_target_cloud() -> None:
    answers = [GSDAnswer(requested_service=SERVICE, provider_cloud=cloud(name)) for name in ("a", "b")]
    assert matching.target_cloud(answers, [], only_preferred=False).cloud_name == "a"
    assert matching.target_cloud(answers, [cloud("c"), cloud("b")], only_preferred=True).cloud_name == "b"
    with pytest.raises(Refusal, match="No preferred cloud"):
        matching.target_cloud(answers, [cloud("c")], only_preferred=True)
    with pytest.raises(Refusal, match="No other cloud"):
        matching.target_cloud([], [], only_preferred=False)


def test_missing_flags_are_false_and_invalid_preferences_go() -> None:
    form = ServiceRequestForm(
        requester_system=SYSTEM,
        orchestration_flags={"matchmaking": True},
        preferred_providers=(PreferredProvider(), PreferredProvider(provider_system=SYSTEM)),
    )
    done = matching.completed(form)
    assert sum(done.orchestration_flags.values()) == 1
    assert len(done.orchestration_flags) == 9
    assert len(done.preferred_providers) == 1


def test_keys_of_an_authorization_state() -> None:
    state = {"a,10.0.0.1,7,null": True, "b,10.0.0.1,7,key": False, "nonsense": True, "c,d,x": True}
    assert matching.allowed_keys(state) == {("a", "10.0.0.1", 7)}


def test_common_names() -> None:
    def caller(name: str) -> Caller:
        return Caller(common_name=name, server_cloud="TestCloud.op.arrowhead.eu")

    assert operator(caller("sysop.testcloud.OP.arrowhead.eu"), None)
    assert not operator(caller("sysop.other.op.arrowhead.eu"), None)
    assert not operator(caller("sysop.testcloud.op.group.arrowhead.eu"), None)
    assert only("certificate_authority")(caller("CertificateAuthority.testcloud.op.arrowhead.eu"), None)
    assert caller("pressgauge.testcloud.op.arrowhead.eu").is_named("Press_Gauge")
    assert caller("testcloud.op.arrowhead.eu").is_cloud
    assert not caller("a.testcloud.op.arrowhead.eu").is_cloud
    assert not caller("").is_local
