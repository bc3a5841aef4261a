"""TLS contexts of secure mode: a certificate chain per cloud, and client certificates required."""

from __future__ import annotations

import base64
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from toolkit.errors import UsageError
from toolkit.node.arrowhead.access import is_cloud_name, is_system_name
from toolkit.node.arrowhead.settings import TlsFiles


def server_context(certificate: Path, key: Path, trusted: Path) -> ssl.SSLContext:
    """For a server: clients must show a certificate under `trusted`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    context.options |= ssl.OP_NO_RENEGOTIATION
    return _filled(context, certificate, key, trusted)


def client_context(certificate: Path, key: Path, trusted: Path, *, verify_host: bool) -> ssl.SSLContext:
    """For a client: servers must show a certificate under `trusted`; their host name only with `verify_host`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = verify_host
    return _filled(context, certificate, key, trusted)


def _filled(context: ssl.SSLContext, certificate: Path, key: Path, trusted: Path) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # A cloud's certificate is an anchor although another one signed it: siblings under the same master stay outside.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_cert_chain(certificate, key)
        context.load_verify_locations(trusted)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(
            f"{certificate}, {key} or {trusted} cannot be used for TLS: {error}; each must be a PEM file"
        ) from None
    return context


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


def public_key(certificate: Path) -> str:
    """The certificate's key as systems tell it: base64 of the DER SubjectPublicKeyInfo."""
    key = x509.load_pem_x509_certificate(certificate.read_bytes()).public_key()
    return base64.b64encode(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()
