"""Authorisation tokens: made by the Authorization system, taken along by a consumer, checked by a provider.

A token is a small JSON document encrypted for the provider; its signature, over the encrypted bytes, is the
Authorization system's.
"""

from __future__ import annotations

import base64
import binascii
import json
import time
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from toolkit.errors import UsageError
from toolkit.node.arrowhead.messages import ArrowheadService
from toolkit.node.arrowhead.pretty import pretty

LONGEST_TOKEN = 244
"""Characters of the document: what RSA 2048 with this padding can carry, less one."""
_KEY_BITS = 2048


class TokenError(Exception):
    """A token cannot be made for this provider, or is not good for this consumer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """What travels; both base64."""

    token: str
    signature: str


def load_signing_key(path: Path | None) -> rsa.RSAPrivateKey:
    """Read the Authorization's key, or make one for as long as this process lives."""
    if path is None:
        return rsa.generate_private_key(public_exponent=65537, key_size=_KEY_BITS)
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"{path} holds no private key that can be used: {error}") from None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise UsageError(f"{path} holds no RSA key; tokens are signed with RSA")
    return key


def public_text(key: rsa.RSAPublicKey) -> str:
    """A public key as systems tell it: base64 of the DER SubjectPublicKeyInfo."""
    encoded = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(encoded).decode()


def public_key_from(text: str | None) -> rsa.RSAPublicKey:
    """The key told by `public_text`; raises TokenError."""
    try:
        key = serialization.load_der_public_key(base64.b64decode(text or "", validate=True))
    except (ValueError, binascii.Error, UnsupportedAlgorithm) as error:
        raise TokenError(f"authenticationInfo is no public key: {error}") from None
    if not isinstance(key, rsa.RSAPublicKey):
        raise TokenError("authenticationInfo is no RSA key")
    return key


def make_token(
    *, service: ArrowheadService, consumer: str, duration_ms: int, provider_key: str | None, signer: rsa.RSAPrivateKey
) -> Token:
    """A token for `consumer` (`<system>.<cloud>.<operator>`); `duration_ms` 0 is for ever. Raises TokenError."""
    name = service.service_definition
    if service.interfaces:
        name = f"{service.interfaces[0]}.{name}"
    expiry_ms = time.time_ns() // 1_000_000 + duration_ms if duration_ms > 0 else 0
    document = pretty({"s": name, "c": consumer, "e": expiry_ms})
    if len(document.encode()) > LONGEST_TOKEN:
        raise TokenError(f"the names in the token are too long: {len(document.encode())} of {LONGEST_TOKEN} bytes")
    key = public_key_from(provider_key)
    try:
        encrypted = key.encrypt(document.encode(), padding.PKCS1v15())
    except ValueError as error:
        raise TokenError(f"the provider's key is too short: {error}") from None
    signature = signer.sign(encrypted, padding.PKCS1v15(), hashes.SHA256())
    return Token(token=base64.b64encode(encrypted).decode(), signature=base64.b64encode(signature).decode())


def check_token(
    token: Token, *, consumer: str, provider_key: rsa.RSAPrivateKey, authorization_key: rsa.RSAPublicKey
) -> str:
    """The service that the token is for; raises TokenError unless it is good for the consumer of that name now.

    Spaces count as `+`, which query strings lose.
    """
    try:
        encrypted = base64.b64decode(token.token.replace(" ", "+"), validate=True)
        signature = base64.b64decode(token.signature.replace(" ", "+"), validate=True)
        authorization_key.verify(signature, encrypted, padding.PKCS1v15(), hashes.SHA256())
        document = json.loads(provider_key.decrypt(encrypted, padding.PKCS1v15()))
        owner, expiry_ms, service = str(document["c"]), int(document["e"]), str(document["s"])
    except InvalidSignature:
        raise TokenError("the token is not signed by the Authorization system") from None
    except (ValueError, KeyError, TypeError) as error:
        raise TokenError(f"the token cannot be read: {error}") from None
    if owner.partition(".")[0].lower() != consumer.lower():
        raise TokenError(f"the token belongs to {owner}, not to {consumer}")
    if expiry_ms and expiry_ms <= time.time_ns() // 1_000_000:
        raise TokenError("the token has expired")
    return service
