"""Prosody's configuration and its account, held against our own client's half of SCRAM."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json

from toolkit.node.drivers.sasl import Exchange
from toolkit.provisioning.prosody import prosody_config, prosody_login


def test_the_verifier_fits_what_a_client_proves_and_tells_nothing_else() -> None:
    account = json.loads(prosody_login("lab", "s3cret"))
    assert "s3cret" not in json.dumps(account)
    assert prosody_login("lab", "s3cret") == prosody_login("lab", "s3cret"), "a second deploy changes nothing"
    assert account["salt"] != json.loads(prosody_login("lab", "other"))["salt"]
    exchange = Exchange("SCRAM-SHA-256", "lab", "s3cret", nonce="n")
    challenge = f"r=nserver,s={account['salt']},i={account['rounds']}"
    without_proof, _, proof = exchange.answer(challenge.encode()).rpartition(b",p=")
    signed = b"n=lab,r=n," + challenge.encode() + b"," + without_proof
    stored = base64.b64decode(account["stored_key"])
    signature = hmac.digest(stored, signed, "sha256")
    client_key = bytes(a ^ b for a, b in zip(base64.b64decode(proof), signature, strict=True))
    assert hashlib.sha256(client_key).digest() == stored
    server = hmac.digest(base64.b64decode(account["server_key"]), signed, "sha256")
    exchange.finish(b"v=" + base64.b64encode(server))


def test_settings_get_prosodys_names_and_units() -> None:
    config = prosody_config({"max_stanza_size": "2M", "resume_within": "90s"}, port=5222, user="toolkit")
    assert "c2s_stanza_size_limit = 2097152" in config
    assert "smacks_hibernation_time = 90" in config
    assert "smacks_max_queue_size = 1000" in config
    assert "c2s_ports = { 5222 }" in config
    assert "direct_tls" not in config


def test_with_a_certificate_nothing_is_listened_for_but_tls() -> None:
    config = prosody_config({}, port=5223, user="lab", certificate="/c", key="/k")
    assert "c2s_ports = {}" in config
    assert "c2s_direct_tls_ports = { 5223 }" in config
    assert "c2s_require_encryption = true" in config
    assert 'admins = { "lab@localhost" }' in config
