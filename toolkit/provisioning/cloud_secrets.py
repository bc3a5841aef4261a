"""Secrets that toolkit makes itself, at the first deploy: certificates of local clouds and passwords of databases.

They stay in the testbed's state folder, readable to their owner alone, and reach nodes the way all secrets do.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.provisioning.databases import password_source, password_variable
from toolkit.provisioning.kept import kept_identity, kept_password
from toolkit.provisioning.local_clouds import (
    AUTHORIZATION_KEY,
    made_secrets,
    tls_variables,
)
from toolkit.spec.services import CLOUD_ROLES, system_name
from toolkit.spec.testbed import Service, Testbed

if TYPE_CHECKING:
    from toolkit.provisioning.certificates import Identity

CERTIFICATES = "certificates"
PASSWORDS = "passwords"
OPERATOR = "sysop"
"""The system operator of a cloud, who alone may use its management interfaces."""


def cloud_secrets(testbed: Testbed, folder: Path, given: Callable[[str], str]) -> dict[str, dict[str, str]]:
    """Service -> variable -> value, made where it is not in `folder` (the testbed's state) yet.

    `given`: the value of a secret of the file's.
    """
    return {
        service.name: _values(testbed, service, folder, given)
        for service in testbed.services
        if made_secrets(testbed, service)
    }


def cloud_file_secrets(testbed: Testbed) -> frozenset[str]:
    """Names of the file's secrets that these values need."""
    sources = (password_source(testbed, service) for service in testbed.services if made_secrets(testbed, service))
    return frozenset(source[1] for source in sources if source is not None and source[1] is not None)


def _values(testbed: Testbed, service: Service, folder: Path, given: Callable[[str], str]) -> dict[str, str]:
    values: dict[str, str] = {}
    source, variable = password_source(testbed, service), password_variable(testbed, service)
    if source is not None and variable is not None:
        server, secret = source
        values[variable] = given(secret) if secret else kept_password(folder, server)
    if service.cloud is not None and service.role in CLOUD_ROLES and testbed.clouds[service.cloud].secure:
        values |= _tls(testbed, service, folder / CERTIFICATES)
    return {name: value for name, value in values.items() if name in made_secrets(testbed, service)}


def _tls(testbed: Testbed, service: Service, folder: Path) -> dict[str, str]:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    from toolkit.provisioning import certificates

    cloud = testbed.clouds[service.cloud or ""]
    master = kept_identity(folder, "master", certificates.MASTER, None, certificates.make_master)
    above = kept_identity(
        folder,
        cloud.name,
        f"{cloud.name}.{cloud.operator}.{certificates.MASTER}",
        master,
        lambda: certificates.make_cloud(master, cloud=cloud.name, operator=cloud.operator),
    )

    def of(system: str) -> Identity:
        return kept_identity(
            folder,
            f"{cloud.name}.{system}",
            f"{system}.{above.common_name}",
            above,
            lambda: certificates.make_system(above, system=system),
        )

    if service.role == "service-registry":
        of(OPERATOR)  # for people, who find it in the folder
    own = of(system_name(service))
    texts = (own.chain_pem, own.key_pem, above.certificate_pem, above.chain_pem, above.key_pem, master.certificate_pem)
    values = dict(zip(tls_variables(service), (text.decode() for text in texts), strict=False))
    public = of("authorization").key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return values | {AUTHORIZATION_KEY: base64.b64encode(public).decode()}
