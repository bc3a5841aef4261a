"""What toolkit makes once for a testbed and keeps in its state folder, readable to its owner alone."""

from __future__ import annotations

import ipaddress
import os
import secrets
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from toolkit.provisioning.certificates import Identity

PASSWORDS = "passwords"
_RENEW_BEFORE = timedelta(days=30)


def kept_password(folder: Path, name: str) -> str:
    """A password of that name, made where there is none."""
    place = folder / PASSWORDS
    place.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = place / name
    if not file.is_file():
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
            opened.write(secrets.token_urlsafe(24))
    return file.read_text()


def kept_identity(
    folder: Path,
    name: str,
    common_name: str,
    issuer: Identity | None,
    make: Callable[[], Identity],
    *,
    addresses: Sequence[str] = (),
) -> Identity:
    """The identity in the folder, or a new one where there is none, or it is for others, or about to end."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.x509 import ExtensionNotFound

    from toolkit.provisioning import certificates

    try:
        found = certificates.load(folder, name, issuer)
        if issuer is not None:
            found.certificate.verify_directly_issued_by(issuer.certificate)
        lasts = found.certificate.not_valid_after_utc - datetime.now(UTC) > _RENEW_BEFORE
        if found.common_name == common_name and lasts and _is_for(found, addresses):
            return found
    except (OSError, ValueError, TypeError, InvalidSignature, ExtensionNotFound):
        pass
    made = make()
    certificates.save(made, folder, name)
    return made


def _is_for(identity: Identity, addresses: Sequence[str]) -> bool:
    from cryptography import x509

    if not addresses:
        return True
    names = identity.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    covered = {str(address) for address in names.get_values_for_type(x509.IPAddress)}
    return {str(ipaddress.ip_address(address)) for address in addresses} <= covered
