"""What the systems of Arrowhead local clouds are told: their variables, and what the stores begin with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from toolkit.contract.arrowhead import ENVIRONMENT, PORTS
from toolkit.provisioning.databases import cloud_url, password_variable
from toolkit.spec.quantities import duration_s, size_bytes
from toolkit.spec.services import CLOUD_ROLES, CORE_ROLES
from toolkit.spec.testbed import Cloud, Service, Testbed
from toolkit.state import Host

SEED_DIR = "/etc/toolkit"
_TLS = tuple(f"{ENVIRONMENT}TLS_{name}_FILE" for name in ("CERTIFICATE", "KEY", "CLOUD_CA"))
_GATEKEEPER_TLS = tuple(f"{ENVIRONMENT}TLS_{name}_FILE" for name in ("CLOUD_CERTIFICATE", "CLOUD_KEY", "MASTER_CA"))
AUTHORIZATION_KEY = "TOOLKIT_PROVIDER_AUTHORIZATION_KEY"
_DEFAULT_INTERFACES = ("JSON",)
_DEFAULT_METADATA = {"unit": "celsius"}


def port_of(testbed: Testbed, service: Service) -> int:
    """Where a system listens; of the Gatekeeper the port that other clouds call."""
    secure = service.cloud is not None and testbed.clouds[service.cloud].secure
    return int(service.settings.get("port") or PORTS[service.role.replace("-", "_")][secure])


def address_of(testbed: Testbed, hosts: Mapping[str, Host], cloud: str, role: str) -> str | None:
    """host:port of a system of a cloud; None where there is none."""
    service = testbed.system(cloud, role)
    if service is None or not service.nodes or service.nodes[0] not in hosts:
        return None
    return f"{hosts[service.nodes[0]].address}:{port_of(testbed, service)}"


def offer_of(provider: Service) -> dict[str, Any]:
    """Definition, interfaces and metadata of the service that a provider offers."""
    return {
        "serviceDefinition": provider.settings["service"],
        "interfaces": list(provider.settings.get("interfaces", _DEFAULT_INTERFACES)),
        "serviceMetadata": dict(provider.settings.get("metadata", _DEFAULT_METADATA)),
    }


def request_options(testbed: Testbed, consumer: Service, address: str) -> dict[str, Any]:
    """Who a consumer is and what it asks for, as the options of its order."""
    providers = testbed.service_of_role("provider")
    own = [service for service in providers if service.cloud == consumer.cloud]
    offered = [offer_of(service) for service in (*own, *providers) if service.cloud]
    given = consumer.settings
    options: dict[str, Any] = {"system": given["system"], "address": address, "port": given["port"]}
    if offered:
        options |= {"service": offered[0]["serviceDefinition"], "metadata": offered[0]["serviceMetadata"]}
    return options | {key: given[key] for key in ("service", "interfaces", "metadata") if key in given}


# -- variables --------------------------------------------------------------------------------------------------------


def system_environment(testbed: Testbed, hosts: Mapping[str, Host], service: Service, node: str) -> dict[str, str]:
    """The variables of one system's container, without its secrets."""
    cloud = testbed.clouds[service.cloud or ""]
    given = {
        "ADDRESS": hosts[node].address,
        "CLOUD": cloud.name,
        "SECURE": "1" if cloud.secure else "0",
        "VERSION": cloud.version,
    }
    if registry := address_of(testbed, hosts, cloud.name, "service-registry"):
        given["SR_ADDRESS"] = registry
    if service.role != "consumer":
        given["PORT"] = str(port_of(testbed, service))
    if service.role in CORE_ROLES:
        given |= _core_settings(testbed, hosts, service, cloud)
    environment = {ENVIRONMENT + name: value for name, value in given.items()}
    if service.role == "provider":
        environment |= _offered(service)
    return environment


def membership_environment(testbed: Testbed, hosts: Mapping[str, Host], handler: Service, node: str) -> dict[str, str]:
    """What an Event Handler is told of its local cloud."""
    if handler.cloud is None:
        return {}
    given = {"REGISTERED_ADDRESS": hosts[node].address, "VERSION": testbed.clouds[handler.cloud].version}
    if registry := address_of(testbed, hosts, handler.cloud, "service-registry"):
        given["REGISTRY"] = registry
    return {f"TOOLKIT_EVENT_HANDLER_{name}": value for name, value in given.items()}


def _core_settings(testbed: Testbed, hosts: Mapping[str, Host], service: Service, cloud: Cloud) -> dict[str, str]:
    written = service.settings
    given = {
        "DATABASE_URL": cloud_url(testbed, hosts, cloud),
        "DATABASE_POOL": str(written["database_pool"]),
        "DATABASE_TIMEOUT_S": f"{duration_s(written['database_timeout']):g}",
        "PEER_TIMEOUT_S": f"{duration_s(written['peer_timeout']):g}",
        "BODY_BYTES": str(size_bytes(written["largest_body"])),
        "REQUEST_S": f"{duration_s(written['request_timeout']):g}",
        "SQL_LOG": "1" if written["sql_log"] else "0",
    }
    if service.role == "service-registry":
        given["SEED"] = f"{SEED_DIR}/seed.json"
        for name in ("ping_timeout", "ping_interval", "ttl_interval"):
            given[f"{name.upper()}_S"] = f"{duration_s(written[name]):g}"
    if service.role == "authorization":
        given["AUTH_FOR_CLOUD"] = "1" if written["auth_for_cloud"] else "0"
    if service.role == "orchestrator":
        given["GATEKEEPER"] = "1" if testbed.system(cloud.name, "gatekeeper") else "0"
    if service.role == "gatekeeper":
        given["OUTBOUND_PORT"] = str(written.get("outbound_port") or PORTS["gatekeeper_outbound"][cloud.secure])
        given["GSD"] = written["gsd"]
        given["STRICT_CLOUD"] = "1" if written["strict_cloud"] else "0"
    return given


def _offered(provider: Service) -> dict[str, str]:
    offer = offer_of(provider)
    return {
        "TOOLKIT_PROVIDER_SYSTEM": provider.settings["system"],
        "TOOLKIT_PROVIDER_SERVICE": offer["serviceDefinition"],
        "TOOLKIT_PROVIDER_INTERFACES": ",".join(offer["interfaces"]),
        "TOOLKIT_PROVIDER_METADATA": ",".join(f"{key}={value}" for key, value in offer["serviceMetadata"].items()),
        "TOOLKIT_PROVIDER_URI": provider.settings["uri"],
    }


# -- secrets ----------------------------------------------------------------------------------------------------------


def made_secrets(testbed: Testbed, service: Service) -> tuple[str, ...]:
    """Variables of a service whose values toolkit makes, or takes from the secret of its database."""
    password = password_variable(testbed, service)
    names: tuple[str, ...] = () if password is None else (password,)
    if service.cloud is not None and service.role in CLOUD_ROLES and testbed.clouds[service.cloud].secure:
        names += _TLS
        if service.role == "gatekeeper":
            names += _GATEKEEPER_TLS
        if service.role == "provider" and offer_of(service)["serviceMetadata"].get("security") == "token":
            names += (AUTHORIZATION_KEY,)
    return names


def tls_variables(service: Service) -> tuple[str, ...]:
    """Certificate, key and cloud's certificate; the Gatekeeper's also for the cloud's own pair and the master."""
    return _TLS + (_GATEKEEPER_TLS if service.role == "gatekeeper" else ())


# -- stores -----------------------------------------------------------------------------------------------------------


def seed_document(testbed: Testbed, hosts: Mapping[str, Host], cloud: Cloud) -> str:
    """The file that fills a cloud's stores, from the systems that the testbed places and what the cloud adds."""
    stores = _Stores(testbed, hosts, cloud)
    document = {
        "ownCloud": stores.cloud(cloud.name),
        "neighborClouds": [found for name in cloud.neighbours if (found := stores.cloud(name))],
        "systems": [*stores.placed("consumer"), *map(_written_system, cloud.systems)],
        "services": [
            *stores.offers(),
            *({"serviceDefinition": name, "interfaces": list(how)} for name, how in cloud.definitions.items()),
        ],
        "registryEntries": [stores.registered(entry) for entry in cloud.entries],
        "intraCloud": stores.intracloud(),
        "interCloud": stores.intercloud(),
        "store": [stores.stored(entry) for entry in cloud.store],
        "fillerEntries": cloud.filler_entries,
    }
    return json.dumps({key: value for key, value in document.items() if value is not None}, indent=1) + "\n"


def _written_system(entry: Mapping[str, Any]) -> dict[str, Any]:
    system = {"systemName": entry["name"], "address": entry["address"], "port": entry["port"]}
    return system | ({"authenticationInfo": entry["key"]} if "key" in entry else {})


class _Stores:
    """The words of the file in the framework's."""

    def __init__(self, testbed: Testbed, hosts: Mapping[str, Host], cloud: Cloud) -> None:
        self._testbed = testbed
        self._hosts = hosts
        self._cloud = cloud

    def cloud(self, name: str) -> dict[str, Any] | None:
        """A cloud as others know it; None for one of ours without a Gatekeeper, whom nobody can ask."""
        cloud = self._testbed.clouds[name]
        address, port = cloud.address, cloud.port
        if address is None:
            known = address_of(self._testbed, self._hosts, name, "gatekeeper")
            if known is None and name == self._cloud.name:  # it has a name in tokens though nobody can call it
                known = address_of(self._testbed, self._hosts, name, "service-registry")
            if known is None:
                return None
            address, _, text = known.rpartition(":")
            port = int(text)
        return {
            "operator": cloud.operator,
            "cloudName": name,
            "address": address,
            "port": port,
            "gatekeeperServiceURI": "gatekeeper",
            "secure": cloud.secure,
        }

    def placed(self, role: str) -> list[dict[str, Any]]:
        """The cloud's consumers or providers, one for each node."""
        return [
            system
            for service in self._testbed.services
            if service.cloud == self._cloud.name and service.role == role
            for system in self._systems(service.name)
        ]

    def offers(self) -> list[dict[str, Any]]:
        """What the cloud's providers offer, each definition once."""
        found: dict[str, dict[str, Any]] = {}
        for service in self._testbed.services:
            if service.cloud == self._cloud.name and service.role == "provider":
                offer = offer_of(service)
                found.setdefault(offer["serviceDefinition"], {key: offer[key] for key in _DEFINITION})
        return list(found.values())

    def intracloud(self) -> list[dict[str, Any]]:
        """The rules within the cloud."""
        if self._cloud.intracloud is not None:
            return [
                {
                    "consumer": consumer,
                    "providerList": [system for each in rule["providers"] for system in self._systems(each)],
                    "serviceList": [self._definition(name) for name in rule["services"]],
                }
                for rule in self._cloud.intracloud
                for consumer in self._systems(rule["consumer"])
            ]
        return [
            {
                "consumer": consumer,
                "providerList": self._systems(provider.name),
                "serviceList": [self._definition(provider.settings["service"])],
            }
            for consumer in self.placed("consumer")
            for provider in self._testbed.services
            if provider.cloud == self._cloud.name and provider.role == "provider"
        ]

    def intercloud(self) -> list[dict[str, Any]]:
        """The rules for neighbours."""
        if self._cloud.intercloud is not None:
            asked = [(rule["cloud"], [self._definition(name) for name in rule["services"]])
                     for rule in self._cloud.intercloud]  # fmt: skip
        else:
            asked = [(name, self.offers()) for name in self._cloud.neighbours]
        return [
            {"cloud": found, "serviceList": services}
            for name, services in asked
            if services and (found := self.cloud(name))
        ]

    def registered(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        """A registry entry."""
        document: dict[str, Any] = {
            "providedService": {
                "serviceDefinition": entry["service"],
                "interfaces": entry.get("interfaces", list(_DEFAULT_INTERFACES)),
                "serviceMetadata": entry.get("metadata", {}),
            },
            "provider": self._systems(entry["provider"])[0],
        }
        names = {"uri": "serviceURI", "version": "version", "valid_until": "endOfValidity"}
        return document | {names[key]: entry[key] for key in names if key in entry}

    def stored(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        """An entry of the orchestration store."""
        document: dict[str, Any] = {
            "service": self._definition(entry["service"], entry.get("interfaces")),
            "consumer": self._systems(entry["consumer"])[0],
            "providerSystem": self._systems(entry["provider"])[0],
            "priority": entry["priority"],
            "defaultEntry": entry.get("default", False),
        }
        if "cloud" in entry:
            document["providerCloud"] = self.cloud(entry["cloud"])
        return document | {key: entry[key] for key in ("name", "instruction", "attributes") if key in entry}

    def _definition(self, name: str, interfaces: list[str] | None = None) -> dict[str, Any]:
        known = {offer["serviceDefinition"]: offer for offer in self.offers()}
        given = interfaces or self._cloud.definitions.get(name) or list(_DEFAULT_INTERFACES)
        return known[name] if name in known and interfaces is None else {"serviceDefinition": name, "interfaces": given}

    def _systems(self, reference: str | Mapping[str, Any]) -> list[dict[str, Any]]:
        """A system written out, or those of a service of the file."""
        if not isinstance(reference, str):
            return [_written_system(reference)]
        service = next(service for service in self._testbed.services if service.name == reference)
        port = service.settings["port"] if service.role == "consumer" else port_of(self._testbed, service)
        return [
            {"systemName": service.settings["system"], "address": self._hosts[node].address, "port": port}
            for node in service.nodes
            if node in self._hosts
        ]


_DEFINITION = ("serviceDefinition", "interfaces")
