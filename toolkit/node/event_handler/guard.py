"""Secure mode: TLS in which every client shows a certificate, and who may publish, subscribe and unsubscribe by it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from toolkit.errors import UsageError
from toolkit.node.arrowhead import tls
from toolkit.node.arrowhead.access import Caller, common_name_of, is_cloud_name
from toolkit.node.arrowhead.public_keys import public_key
from toolkit.node.event_handler.problems import Problem
from toolkit.node.event_handler.settings import HandlerSettings
from toolkit.node.tls_sockets import TlsSocket


class Guard:
    """One Event Handler's certificates, and the cloud that they belong to."""

    def __init__(self, settings: HandlerSettings) -> None:
        """Raises UsageError for files that cannot be used."""
        files = tuple(map(Path, (settings.tls_certificate_file, settings.tls_key_file, settings.tls_cloud_ca_file)))
        self.server_context = tls.server_context(*files)
        self.client_context = tls.client_context(*files, verify_host=False)  # the framework never looks at host names
        for context in (self.server_context, self.client_context):
            context.sslsocket_class = TlsSocket
        self.public_key = public_key(files[0])
        """The own one, as systems tell it: base64 of the DER SubjectPublicKeyInfo."""
        authorities = map(common_name_of, self.client_context.get_ca_certs())
        self._cloud = next(filter(is_cloud_name, authorities), "")
        if not self._cloud:
            raise UsageError(f"{files[2]} holds no certificate of a cloud, <cloud>.<operator>.arrowhead.eu")

    def caller(self, certificate: Mapping[str, Any] | None) -> Caller:
        """Who showed this certificate."""
        return Caller(common_name=common_name_of(certificate), server_cloud=self._cloud)


def unauthorized(caller: Caller, url: str) -> Problem:
    """What a caller hears who may not do this."""
    return Problem(401, "AUTH", f"{caller.common_name} is unauthorized to access {url}")
