"""Secure mode: TLS in which every client shows a certificate, and who may publish, subscribe and unsubscribe by it."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from toolkit.errors import UsageError
from toolkit.node.arrowhead import tls
from toolkit.node.arrowhead.access import Caller, common_name_of, is_cloud_name
from toolkit.node.event_handler.problems import Problem
from toolkit.node.event_handler.settings import HandlerSettings
from toolkit.node.tls_sockets import TlsSocket

_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
_VERSION, _LONG = 0xA0, 0x80
"""In DER: the tag of a certificate's version, which old ones lack; the bit of a length that does not fit one byte."""
_KEY_PLACE = 5
"""After serial number, algorithm, issuer, validity and subject."""


class Guard:
    """One Event Handler's certificates, and the cloud that they belong to."""

    def __init__(self, settings: HandlerSettings) -> None:
        """Raises UsageError for files that cannot be used."""
        files = tuple(map(Path, (settings.tls_certificate_file, settings.tls_key_file, settings.tls_cloud_ca_file)))
        self.server_context = tls.server_context(*files)
        self.client_context = tls.client_context(*files, verify_host=False)  # the framework never looks at host names
        for context in (self.server_context, self.client_context):
            context.sslsocket_class = TlsSocket
        self.public_key = public_key(files[0].read_text())
        """The own one, as systems tell it: base64 of the DER SubjectPublicKeyInfo."""
        authorities = map(common_name_of, self.client_context.get_ca_certs())
        self._cloud = next(filter(is_cloud_name, authorities), "")
        if not self._cloud:
            raise UsageError(f"{files[2]} holds no certificate of a cloud, <cloud>.<operator>.arrowhead.eu")

    def caller(self, certificate: Mapping[str, Any] | None) -> Caller:
        """Who showed this certificate."""
        return Caller(common_name=common_name_of(certificate), server_cloud=self._cloud)


def public_key(certificate: str) -> str:
    """The key of the first certificate in a PEM text, base64 of its DER SubjectPublicKeyInfo."""
    first = certificate[certificate.index(_BEGIN) : certificate.index(_END) + len(_END)]
    to_be_signed = list(_elements(next(_elements(ssl.PEM_cert_to_DER_cert(first)))))
    has_version = to_be_signed[0][0] == _VERSION
    return base64.b64encode(to_be_signed[_KEY_PLACE + has_version]).decode()


def _elements(der: bytes) -> Iterator[bytes]:
    """The elements that a constructed DER element consists of."""
    at, end = _extent(der, 0)
    while at < end:
        after = _extent(der, at)[1]
        yield der[at:after]
        at = after


def _extent(der: bytes, at: int) -> tuple[int, int]:
    """Where the contents of the element at `at` begin, and where they end."""
    begin, length = at + 2, der[at + 1]
    if length & _LONG:
        size = length ^ _LONG
        begin, length = begin + size, int.from_bytes(der[begin : begin + size], "big")
    return begin, begin + length


def unauthorized(caller: Caller, url: str) -> Problem:
    """What a caller hears who may not do this."""
    return Problem(401, "AUTH", f"{caller.common_name} is unauthorized to access {url}")
