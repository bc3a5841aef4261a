"""TLS contexts of secure mode: a certificate chain per cloud, and client certificates required."""

from __future__ import annotations

import ssl
from pathlib import Path

from toolkit.errors import UsageError


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
