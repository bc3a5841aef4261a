"""The public key in a certificate, read with the standard library alone: not every image has `cryptography`."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Iterator
from pathlib import Path

_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
_VERSION, _LONG = 0xA0, 0x80
"""In DER: the tag of a certificate's version, which old ones lack; the bit of a length that does not fit one byte."""
_KEY_PLACE = 5
"""After serial number, algorithm, issuer, validity and subject."""


def public_key(certificate: Path) -> str:
    """The key of the first certificate in a PEM file as systems tell it: base64 of its DER SubjectPublicKeyInfo."""
    text = certificate.read_text()
    first = text[text.index(_BEGIN) : text.index(_END) + len(_END)]
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
