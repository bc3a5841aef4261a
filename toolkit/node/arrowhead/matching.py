"""The Orchestrator's choices, without asking anybody: which offers fit, which is preferred, what to warn of."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from toolkit.node.arrowhead.messages import (
    FLAGS,
    ArrowheadCloud,
    ArrowheadService,
    ArrowheadSystem,
    GSDAnswer,
    OrchestrationForm,
    OrchestrationStore,
    OrchestratorWarning,
    PreferredProvider,
    ServiceRegistryEntry,
    ServiceRequestForm,
)
from toolkit.node.arrowhead.refusals import bad_payload, not_found

_EXPIRING = timedelta(minutes=2)


def completed(form: ServiceRequestForm) -> ServiceRequestForm:
    """The form with every flag and only valid preferred providers; raises Refusal where rules between fields break."""
    preferred = tuple(one for one in form.preferred_providers if one.is_local or one.is_global)
    flags = {name: form.flag(name) for name in FLAGS}
    if flags["overrideStore"] and form.requested_service is None:
        raise bad_payload("requestedService is needed when overrideStore is true")
    if flags["onlyPreferred"] and not preferred:
        raise bad_payload("onlyPreferred is true, but there is no valid preferred provider")
    if flags["enableQoS"] and not (form.requested_qos and form.commands):
        raise bad_payload("enableQoS is true, but requestedQoS or commands is empty")
    return dataclasses.replace(form, orchestration_flags=flags, preferred_providers=preferred)


def has_common_interface(wanted: ArrowheadService, provided: ArrowheadService) -> bool:
    """Whatever the case; a service without interfaces fits only a request without."""
    if not provided.interfaces:
        return not wanted.interfaces
    return bool({name.lower() for name in wanted.interfaces} & {name.lower() for name in provided.interfaces})


def local_preferred(preferred: Iterable[PreferredProvider]) -> list[ArrowheadSystem]:
    """The preferred systems of the own cloud."""
    return [one.provider_system for one in preferred if one.provider_system is not None and one.is_local]


def preferred_clouds(preferred: Iterable[PreferredProvider]) -> list[ArrowheadCloud]:
    """The preferred clouds, each once."""
    clouds = {one.provider_cloud.key: one.provider_cloud for one in preferred if one.provider_cloud is not None}
    return list(clouds.values())


def preferred_of_cloud(preferred: Iterable[PreferredProvider], cloud: ArrowheadCloud) -> list[ArrowheadSystem]:
    """The preferred systems of one cloud."""
    return [
        one.provider_system
        for one in preferred
        if one.provider_system is not None and one.provider_cloud is not None and one.provider_cloud.key == cloud.key
    ]


def only_preferred(
    entries: Sequence[ServiceRegistryEntry], systems: Sequence[ArrowheadSystem]
) -> list[ServiceRegistryEntry]:
    """The entries of preferred systems, in the order of preference; raises Refusal 404 when there are none."""
    by_provider: dict[tuple[str, str, int], list[ServiceRegistryEntry]] = {}
    for entry in entries:
        by_provider.setdefault(entry.provider.key, []).append(entry)
    kept = [entry for system in systems for entry in by_provider.get(system.key, ())]
    if not kept:
        raise not_found("None of the preferred providers offers the service")
    return kept


def best_entry(entries: Sequence[ServiceRegistryEntry], systems: Sequence[ArrowheadSystem]) -> ServiceRegistryEntry:
    """The entry of the first preferred system that has one, else the first entry."""
    by_provider = {entry.provider.key: entry for entry in reversed(entries)}
    return next((by_provider[system.key] for system in systems if system.key in by_provider), entries[0])


def best_form(forms: Sequence[OrchestrationForm], systems: Sequence[ArrowheadSystem]) -> OrchestrationForm:
    """The form of the first preferred system that has one, else the first form."""
    by_provider = {form.provider.key: form for form in reversed(forms)}
    return next((by_provider[system.key] for system in systems if system.key in by_provider), forms[0])


def target_cloud(
    answers: Sequence[GSDAnswer], clouds: Sequence[ArrowheadCloud], *, only_preferred: bool
) -> ArrowheadCloud:
    """The first preferred cloud among the answers, else the first answer's; raises Refusal 404."""
    answered = {answer.provider_cloud.key: answer.provider_cloud for answer in answers}
    for cloud in clouds:
        if cloud.key in answered:
            return answered[cloud.key]
    if only_preferred or not answers:
        raise not_found("No other cloud offers the service" if not answers else "No preferred cloud offers the service")
    return answers[0].provider_cloud


def ttl_warnings(end_of_validity: datetime | None, now: datetime) -> tuple[OrchestratorWarning, ...]:
    """What to say of an entry's validity."""
    if end_of_validity is None:
        return (OrchestratorWarning.TTL_UNKNOWN,)
    if end_of_validity < now:
        return (OrchestratorWarning.TTL_EXPIRED,)
    return (OrchestratorWarning.TTL_EXPIRING,) if end_of_validity - now <= _EXPIRING else ()


def form_of(entry: ServiceRegistryEntry, warnings: tuple[OrchestratorWarning, ...] = ()) -> OrchestrationForm:
    """What the consumer is told of an entry."""
    return OrchestrationForm(
        service=dataclasses.replace(entry.provided_service, id=None),
        provider=entry.provider,
        service_uri=entry.service_uri,
        warnings=warnings,
    )


def stored_form(entry: OrchestrationStore, offer: ServiceRegistryEntry) -> OrchestrationForm:
    """What the consumer is told of a store entry whose provider makes this offer."""
    return dataclasses.replace(form_of(offer), instruction=entry.instruction)


def system_from_key(key: str) -> tuple[str, str, int] | None:
    """Name, address and port in a key of an authorization state; None for a text that is no such key."""
    parts = key.split(",")
    if len(parts) < 3 or not parts[2].strip().isdigit():  # noqa: PLR2004 - a number of the protocol
        return None
    return parts[0], parts[1], int(parts[2])


def allowed_keys(state: Mapping[str, bool]) -> set[tuple[str, str, int]]:
    """The providers that an authorization state lets through."""
    return {key for text, may in state.items() if may and (key := system_from_key(text)) is not None}
