"""Whose certificates of systems and clouds are."""

from __future__ import annotations

from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import NameOID

from toolkit.errors import UsageError
from toolkit.node.arrowhead.access import is_cloud_name, is_system_name
from toolkit.node.arrowhead.settings import TlsFiles


def own_name(files: TlsFiles) -> str:
    """The common name of the system's certificate; raises UsageError when it is malformed."""
    name = _common_name(files.certificate)
    if not is_system_name(name):
        raise UsageError(f"{files.certificate} is for {name!r}; expected <system>.<cloud>.<operator>.arrowhead.eu")
    return name


def cloud_name(certificate: Path) -> str:
    """The common name of a cloud's certificate; raises UsageError when it is malformed."""
    name = _common_name(certificate)
    if not is_cloud_name(name):
        raise UsageError(f"{certificate} is for {name!r}; expected <cloud>.<operator>.arrowhead.eu")
    return name


def _common_name(certificate: Path) -> str:
    try:
        subject = x509.load_pem_x509_certificate(certificate.read_bytes()).subject
    except ValueError as error:
        raise UsageError(f"{certificate} holds no certificate: {error}") from None
    names = subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else ""
