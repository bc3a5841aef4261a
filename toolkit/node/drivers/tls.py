"""The TLS of clients: PEM files by the options `ca_file`, `certificate_file`, `key_file`, or else by variables.

Imported only where TLS is asked for: it costs a Pi 1 half a second.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from toolkit.errors import WorkloadError
from toolkit.node.tls_sockets import TlsSocket

_VARIABLES = {
    "ca_file": "TOOLKIT_TLS_CA_FILE",
    "certificate_file": "TOOLKIT_TLS_CERTIFICATE_FILE",
    "key_file": "TOOLKIT_TLS_KEY_FILE",
}


def client_context(options: Mapping[str, Any]) -> ssl.SSLContext:
    """For connections that we open; raises WorkloadError for files that cannot be used."""
    context = ssl.create_default_context(cafile=_file(options, "ca_file"))
    context.check_hostname = bool(options.get("check_hostname", False))
    return _filled(context, options)


def server_context(options: Mapping[str, Any]) -> ssl.SSLContext:
    """For connections that we take: whoever comes shows a certificate; raises WorkloadError."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=_file(options, "ca_file"))
    context.verify_mode = ssl.CERT_REQUIRED
    return _filled(context, options)


def _filled(context: ssl.SSLContext, options: Mapping[str, Any]) -> ssl.SSLContext:
    context.sslsocket_class = TlsSocket
    # The certificate of a local cloud is an anchor although another one signed it.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    certificate, key = _file(options, "certificate_file"), _file(options, "key_file")
    if certificate is not None:
        try:
            context.load_cert_chain(certificate, key)
        except (OSError, ssl.SSLError) as error:
            raise WorkloadError(f"{certificate} and {key} cannot be used for TLS: {error}; give PEM files") from error
    return context


def _file(options: Mapping[str, Any], name: str) -> str | None:
    found = options.get(name) or os.environ.get(_VARIABLES[name])
    if found and not Path(found).is_file():
        raise WorkloadError(f"{found} ({name}, or {_VARIABLES[name]}) is not there, and TLS needs it")
    return found or None
