"""How brokers are entered: what their clients are told, and the secrets of both, which toolkit makes at deploy.

A broker's certificate is one of a cloud called `brokers` (`toolkit.provisioning.certificates`), or of the local cloud
that an Event Handler is a system of; it is for the addresses of its nodes, and clients trust the master above it. Where
a broker knows its clients by certificates, each service of clients is a system of its cloud. All are kept in the
testbed's state folder.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.provisioning.kept import kept_identity, kept_password
from toolkit.provisioning.prosody import prosody_login
from toolkit.spec.services import IMAGES, built_in, system_name
from toolkit.spec.testbed import Service, Testbed
from toolkit.state import Host

if TYPE_CHECKING:
    from toolkit.provisioning.certificates import Identity

CERTIFICATE, KEY, AUTHORITY = "TOOLKIT_TLS_CERTIFICATE_FILE", "TOOLKIT_TLS_KEY_FILE", "TOOLKIT_TLS_AUTHORITY_FILE"
HANDLER_TLS = tuple(f"TOOLKIT_EVENT_HANDLER_TLS_{name}_FILE" for name in ("CERTIFICATE", "KEY", "CLOUD_CA"))
"""Of an Event Handler: its certificate, the key, and the cloud whose systems it lets in."""
SYSTEM = "TOOLKIT_SYSTEM"
"""Of a client: the name in its certificate, by which it calls itself."""
LOGIN = "TOOLKIT_LOGIN_FILE"
"""Of a broker: who may enter, in the broker's own words."""
COOKIE = "TOOLKIT_COOKIE_FILE"
"""Of a RabbitMQ node: what makes it one of its cluster."""
INSIDE = "/run/secrets"
OPEN_LOGIN = "toolkit", "toolkit"
"""User and password of RabbitMQ and Prosody where no login was declared: AMQP and XMPP know no anonymous publisher."""
BROKERS = "brokers"
"""The cloud, and its operator, that brokers' certificates are of."""
_LONGEST_SYSTEM = 30
"""Characters of a service in the name of its certificate; clients look at the addresses."""
_LONGEST_COMMON_NAME = 64
_MASTER = "arrowhead.eu"
_CloudName = tuple[str, str]
"""(cloud, operator)"""
ENTRY_OPTIONS = frozenset({"tls", "ca_file", "check_hostname", "user", "password_variable"})
"""Options of orders that are for the broker alone, not for what stands between it and a client."""
CERTIFICATES = "certificates"
_ITERATIONS = 101


def password_variable(broker: str) -> str:
    """The variable by which clients find the password of a broker."""
    return f"TOOLKIT_PASSWORD_{broker.upper().replace('-', '_')}_FILE"


def entry_options(broker: Service) -> dict[str, Any]:
    """What clients of a broker are told, as options of their orders; nothing secret."""
    options: dict[str, Any] = {}
    if broker.tls:
        options |= {"tls": True, "ca_file": f"{INSIDE}/{AUTHORITY}", "check_hostname": True}
    if broker.login:
        options |= {"user": broker.login.user, "password_variable": password_variable(broker.name)}
    if "in_flight" in broker.settings:
        options["prefetch"] = broker.settings["in_flight"]
    return options


def upstream_options(broker: Service) -> dict[str, Any]:
    """The part of them that gateways and hubs need."""
    return {key: value for key, value in entry_options(broker).items() if key in ENTRY_OPTIONS}


def broker_variables(broker: Service) -> tuple[str, ...]:
    """Variables of a broker's container whose values are made."""
    certificates = HANDLER_TLS if IMAGES[broker.image.name].knows_clients else (CERTIFICATE, KEY)
    return (
        *(certificates if broker.tls else ()),
        *((LOGIN,) if broker.login else ()),
        *((COOKIE,) if IMAGES[broker.image.name].clusters and len(broker.nodes) > 1 else ()),
    )


def client_variables(testbed: Testbed) -> tuple[str, ...]:
    """Variables of every client's container whose values are made."""
    brokers = guarded(testbed)
    return (
        *((AUTHORITY,) if any(broker.tls for broker in brokers) else ()),
        *((CERTIFICATE, KEY) if _knows_clients(testbed) else ()),
        *(password_variable(broker.name) for broker in brokers if broker.login),
    )


def client_environment(testbed: Testbed, service: Service) -> dict[str, str]:
    """What is not secret of how a service enters brokers."""
    return {SYSTEM: client_system(testbed, service)} if is_client(service) and _knows_clients(testbed) else {}


def client_system(testbed: Testbed, service: Service) -> str:
    """By which certificates name the clients of a service."""
    room = _LONGEST_COMMON_NAME - len(f".{'.'.join(_handlers_cloud(testbed))}.{_MASTER}")
    return service.name[: min(room, _LONGEST_SYSTEM)]


def _handlers(testbed: Testbed) -> tuple[Service, ...]:
    return tuple(broker for broker in guarded(testbed) if broker.tls and IMAGES[broker.image.name].knows_clients)


def _knows_clients(testbed: Testbed) -> bool:
    return bool(_handlers(testbed))


def _handlers_cloud(testbed: Testbed) -> _CloudName:
    """The cloud of the clients of Event Handlers."""
    return _cloud_of(testbed, next(iter(_handlers(testbed)), None))


def _cloud_of(testbed: Testbed, broker: Service | None) -> _CloudName:
    if broker is None or broker.cloud is None:
        return BROKERS, BROKERS
    return broker.cloud, testbed.clouds[broker.cloud].operator


def guarded(testbed: Testbed) -> tuple[Service, ...]:
    """Brokers that are not entered by anybody."""
    return tuple(s for s in testbed.services if s.tls or s.login)


def is_client(service: Service) -> bool:
    """Whether a service may have to enter brokers."""
    known = built_in(service.image.name)
    return bool(known and known.exports and not known.in_cloud) and service.role != "broker"


def made_variables(testbed: Testbed, service: Service) -> tuple[str, ...]:
    """Variables of a service whose values are made; those that the file gives go before."""
    names: tuple[str, ...] = ()
    if built_in(service.image.name) and IMAGES[service.image.name].guards:
        names = broker_variables(service)
    elif is_client(service):
        names = client_variables(testbed)
    return tuple(name for name in names if name not in service.secrets)


def file_secrets(testbed: Testbed) -> frozenset[str]:
    """Names of the file's secrets that these values need."""
    return frozenset(broker.login.secret for broker in testbed.services if broker.login)


def access_secrets(
    testbed: Testbed, hosts: Mapping[str, Host], folder: Path, given: Callable[[str], str]
) -> dict[str, dict[str, str]]:
    """Service -> variable -> value; certificates and cookies are made where `folder` (the testbed's state) has none.

    `given`: the value of a secret of the file's.
    """
    values: dict[str, dict[str, str]] = {}
    of_clients = {
        **({AUTHORITY: _master(folder).certificate_pem.decode()} if AUTHORITY in client_variables(testbed) else {}),
        **{password_variable(b.name): given(b.login.secret) for b in guarded(testbed) if b.login},
    }
    for service in testbed.services:
        wanted = made_variables(testbed, service)
        if not wanted:
            continue
        made: dict[str, str] = {}
        if is_client(service):
            made |= of_clients
            if CERTIFICATE in wanted:
                made |= _pair(_system(_handlers_cloud(testbed), service, client_system(testbed, service), (), folder))
        if service.tls:
            cloud = _cloud_of(testbed, service)
            name = system_name(service) if service.cloud else service.name[:_LONGEST_SYSTEM]
            addresses = [hosts[node].address for node in service.nodes if node in hosts]
            made |= _pair(_system(cloud, service, name, addresses, folder))
            of_handler = made[CERTIFICATE], made[KEY], _authority(cloud, folder).certificate_pem.decode()
            made |= dict(zip(HANDLER_TLS, of_handler, strict=True))
        if service.login:
            login = service.login.user, given(service.login.secret)
            made[LOGIN] = _LOGIN_FILES[service.image.name](service, login)
        if COOKIE in wanted:
            made[COOKIE] = kept_password(folder, f"{service.name}-cookie")
        values[service.name] = {name: made[name] for name in wanted}
    return values


def _pair(identity: Identity) -> dict[str, str]:
    return {CERTIFICATE: identity.chain_pem.decode(), KEY: identity.key_pem.decode()}


def _master(folder: Path) -> Identity:
    from toolkit.provisioning import certificates

    return kept_identity(folder / CERTIFICATES, "master", certificates.MASTER, None, certificates.make_master)


def _authority(cloud: _CloudName, folder: Path) -> Identity:
    from toolkit.provisioning import certificates

    master = _master(folder)
    name, operator = cloud
    return kept_identity(
        folder / CERTIFICATES,
        name,
        f"{name}.{operator}.{certificates.MASTER}",
        master,
        lambda: certificates.make_cloud(master, cloud=name, operator=operator),
    )


def _system(cloud: _CloudName, service: Service, name: str, addresses: Sequence[str], folder: Path) -> Identity:
    from toolkit.provisioning import certificates

    authority = _authority(cloud, folder)
    of_brokers = cloud == (BROKERS, BROKERS)
    return kept_identity(
        folder / CERTIFICATES,
        f"{BROKERS}.{service.name}" if of_brokers else f"{cloud[0]}.{service.name}.{name}",
        f"{name}.{authority.common_name}",
        authority,
        lambda: certificates.make_system(authority, system=name, addresses=addresses),
        addresses=addresses,
    )


# -- who may enter, in each broker's words ----------------------------------------------------------------------------


def _salt(service: Service, login: tuple[str, str], size: int) -> bytes:
    """The same for the same login, so that a second deploy changes nothing; tells nothing of the password."""
    return hashlib.sha256(f"salt of {service.name}\0{login[0]}\0{login[1]}".encode()).digest()[:size]


def mosquitto_passwords(service: Service, login: tuple[str, str]) -> str:
    """A password file of Mosquitto 2: PBKDF2 with SHA-512."""
    salt = _salt(service, login, 12)
    digest = hashlib.pbkdf2_hmac("sha512", login[1].encode(), salt, _ITERATIONS)
    return f"{login[0]}:$7${_ITERATIONS}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}\n"


def rabbitmq_definitions(service: Service, login: tuple[str, str]) -> str:
    """RabbitMQ's definitions: one user, one virtual host, and the bound of every queue."""
    salt = _salt(service, login, 4)
    digest = base64.b64encode(salt + hashlib.sha256(salt + login[1].encode()).digest()).decode()
    user = {
        "name": login[0],
        "password_hash": digest,
        "hashing_algorithm": "rabbit_password_hashing_sha256",
        "tags": "administrator",
    }
    everything = {"user": login[0], "vhost": "/", "configure": ".*", "write": ".*", "read": ".*"}
    limit = service.settings["queue_limit"]
    bound = {
        "vhost": "/",
        "name": "bound",
        "pattern": ".*",
        "apply-to": "queues",
        "definition": {"max-length": limit, "overflow": service.settings["overflow"]},
    }
    return json.dumps(
        {
            "users": [user],
            "vhosts": [{"name": "/"}],
            "permissions": [everything],
            "policies": [bound] if limit else [],
        },
        indent=1,
    )


def activemq_credentials(_: Service, login: tuple[str, str]) -> str:
    """A file of Java properties, every letter of the password escaped."""
    escaped = "".join(f"\\u{unit:04x}" for unit in _utf_16(login[1]))
    return f"toolkit.user={login[0]}\ntoolkit.password={escaped}\n"


def _utf_16(text: str) -> list[int]:
    data = text.encode("utf-16-be")
    return [int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2)]


_LOGIN_FILES: Mapping[str, Callable[[Service, tuple[str, str]], str]] = {
    "mosquitto": mosquitto_passwords,
    "rabbitmq": rabbitmq_definitions,
    "activemq": activemq_credentials,
    "prosody": lambda _, login: prosody_login(*login),
}
