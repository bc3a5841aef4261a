"""The key that systems tell of themselves, beside what `cryptography` reads in the same certificates."""

from __future__ import annotations

import base64
import datetime as dt
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from toolkit.node.arrowhead.public_keys import public_key
from toolkit.provisioning import certificates

KEYS = {
    "rsa-2048": lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "rsa-4096": lambda: rsa.generate_private_key(public_exponent=65537, key_size=4096),
    "p-256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
}


@pytest.mark.parametrize("kind", KEYS)
def test_it_is_read_whatever_kind_it_is_of(kind: str, tmp_path: Path) -> None:
    key = KEYS[kind]()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "x" * 60)])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + dt.timedelta(days=1))
        .sign(key, None if kind == "ed25519" else hashes.SHA256())
    )
    file = tmp_path / "one.crt"
    file.write_text("what people write above it\n" + certificate.public_bytes(Encoding.PEM).decode())
    der = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert public_key(file) == base64.b64encode(der).decode()


def test_of_a_chain_it_is_the_systems_own(tmp_path: Path) -> None:
    cloud = certificates.make_cloud(certificates.make_master(), cloud="hall", operator="plant")
    system = certificates.make_system(cloud, system="one", addresses=("10.0.0.1", "one"))
    file, _ = certificates.save(system, tmp_path, "one")
    assert file.read_text().count("BEGIN CERTIFICATE") == 2
    der = system.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert public_key(file) == base64.b64encode(der).decode()
