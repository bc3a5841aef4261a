"""Makes the certificates of Arrowhead local clouds: a master, a cloud under it, systems under the cloud.

Only common names count in the framework: `arrowhead.eu`, `<cloud>.<operator>.arrowhead.eu` and
`<system>.<cloud>.<operator>.arrowhead.eu`. Keys are RSA 2048, signatures SHA-256. Private keys are written readable to
their owner alone.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from toolkit.errors import UsageError

MASTER = "arrowhead.eu"
_KEY_BITS = 2048
_VALIDITY = timedelta(days=3650)
_NAME = re.compile(r"[A-Za-z0-9-]+")
_LONGEST_COMMON_NAME = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: rsa.RSAPrivateKey
    issuer: Identity | None = None
    """None: it signed itself."""

    @property
    def common_name(self) -> str:
        """Whom it is for."""
        return str(self.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)

    @property
    def certificate_pem(self) -> bytes:
        """The certificate alone."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def chain_pem(self) -> bytes:
        """The certificate and those above it, without the one that signed itself."""
        if self.issuer is None:
            return b""
        return self.certificate_pem + self.issuer.chain_pem

    @property
    def key_pem(self) -> bytes:
        """The private key, not encrypted."""
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


def make_master() -> Identity:
    """The top, which signs itself."""
    return _make(MASTER, issuer=None, is_authority=True)


def make_cloud(master: Identity, *, cloud: str, operator: str) -> Identity:
    """A local cloud; its certificate also identifies the cloud's Gatekeeper to others."""
    return _make(f"{_checked(cloud)}.{_checked(operator)}.{MASTER}", issuer=master, is_authority=True)


def make_system(cloud: Identity, *, system: str, addresses: Sequence[str] = ()) -> Identity:
    """A system of the cloud; underscores, which names in certificates cannot have, are left out of its name.

    `addresses` (IP addresses and host names) matter only to clients that check host names.
    """
    name = f"{_checked(system.replace('_', ''))}.{cloud.common_name}"
    return _make(name, issuer=cloud, is_authority=False, addresses=addresses)


def save(identity: Identity, folder: Path, name: str) -> tuple[Path, Path]:
    """Write `<name>.crt` (with the chain) and `<name>.key`; returns both paths."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
    certificate.write_bytes(identity.chain_pem or identity.certificate_pem)
    key.unlink(missing_ok=True)
    descriptor = os.open(key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(identity.key_pem)
    return certificate, key


def load(folder: Path, name: str, issuer: Identity | None = None) -> Identity:
    """Read what `save` wrote; raises OSError or ValueError."""
    certificate = x509.load_pem_x509_certificates((folder / f"{name}.crt").read_bytes())[0]
    key = serialization.load_pem_private_key((folder / f"{name}.key").read_bytes(), password=None)
    if not isinstance(key, rsa.RSAPrivateKey):
        raise ValueError(f"{folder / name}.key is no RSA key")  # noqa: TRY004 - the file's fault, not the caller's
    return Identity(certificate=certificate, key=key, issuer=issuer)


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} cannot stand in a certificate; use letters, digits and '-' (dots separate names)")
    return name


def _make(common_name: str, *, issuer: Identity | None, is_authority: bool, addresses: Sequence[str] = ()) -> Identity:
    if len(common_name) > _LONGEST_COMMON_NAME:
        raise UsageError(f"{common_name} is too long for a certificate: {len(common_name)} of 64 characters")
    key = rsa.generate_private_key(public_exponent=65537, key_size=_KEY_BITS)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    now = datetime.now(UTC)
    authority = x509.SubjectKeyIdentifier.from_public_key((issuer.key if issuer else key).public_key())
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # A node's clock may be behind until it is synchronised.
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + _VALIDITY)
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(_usage(is_authority=is_authority), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(authority),
            critical=False,
        )
    )
    if addresses:
        names = x509.SubjectAlternativeName([_general_name(address) for address in addresses])
        builder = builder.add_extension(names, critical=False)
    certificate = builder.sign(issuer.key if issuer else key, hashes.SHA256())
    return Identity(certificate=certificate, key=key, issuer=issuer)


def _usage(*, is_authority: bool) -> x509.KeyUsage:
    # A cloud's certificate signs systems and also opens TLS connections to other clouds.
    return x509.KeyUsage(
        digital_signature=True,
        key_encipherment=True,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(address: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(address))
    except ValueError:
        return x509.DNSName(address)
