"""The client's half of SASL: SCRAM (RFC 5802, 7677) and PLAIN (RFC 4616); values in, values out."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Collection

from toolkit.errors import WorkloadError

_HASHES = {"SCRAM-SHA-256": "sha256", "SCRAM-SHA-1": "sha1"}
_MOST_ROUNDS = 1_000_000


class Exchange:
    """One authentication: `first` is said at once, `answer` after each challenge, `finish` sees that it ended well."""

    def __init__(self, mechanism: str, user: str, password: str, *, nonce: str | None = None) -> None:
        self.mechanism = mechanism
        self._user = user
        self._password = password
        self._nonce = nonce or secrets.token_urlsafe(18)
        self._bare = f"n={_escaped(user)},r={self._nonce}"
        self._expected: bytes | None = None

    @property
    def first(self) -> bytes:
        """The initial response."""
        if self.mechanism == "PLAIN":
            return f"\0{self._user}\0{self._password}".encode()
        return f"n,,{self._bare}".encode()

    def answer(self, challenge: bytes) -> bytes:
        """The proof that we know the password; raises WorkloadError for a challenge that is none."""
        said = _attributes(challenge)
        try:
            nonce, salt, rounds = said["r"], base64.b64decode(said["s"], validate=True), int(said["i"])
        except (KeyError, ValueError, binascii.Error) as error:
            raise WorkloadError(f"not a challenge of {self.mechanism}: {challenge[:80]!r}") from error
        if not nonce.startswith(self._nonce) or not 0 < rounds <= _MOST_ROUNDS:
            raise WorkloadError(f"a challenge of {self.mechanism} that was not made for us")
        name = _HASHES[self.mechanism]
        salted = hashlib.pbkdf2_hmac(name, self._password.encode(), salt, rounds)
        client_key = hmac.digest(salted, b"Client Key", name)
        without_proof = f"c=biws,r={nonce}"
        signed = f"{self._bare},{challenge.decode()},{without_proof}".encode()
        signature = hmac.digest(hashlib.new(name, client_key).digest(), signed, name)
        proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
        self._expected = hmac.digest(hmac.digest(salted, b"Server Key", name), signed, name)
        return f"{without_proof},p={base64.b64encode(proof).decode()}".encode()

    def finish(self, last: bytes) -> None:
        """Raises WorkloadError for a server that does not know the password itself."""
        if self.mechanism == "PLAIN":
            return
        signature = base64.b64decode(_attributes(last).get("v", ""))
        if self._expected is None or not hmac.compare_digest(signature, self._expected):
            raise WorkloadError(f"the server did not prove by {self.mechanism} that it knows the password")


def choose(offered: Collection[str], *, tls: bool) -> str:
    """The best mechanism that both sides know; a password goes over the wire as it is only inside TLS."""
    known = [*_HASHES, "PLAIN"] if tls else [*_HASHES]
    for mechanism in known:
        if mechanism in offered:
            return mechanism
    raise WorkloadError(
        f"no common SASL mechanism: offered {', '.join(sorted(offered)) or 'none'}; known {', '.join(known)}"
        + ("" if tls else " (PLAIN only over TLS)")
    )


def _escaped(name: str) -> str:
    return name.replace("=", "=3D").replace(",", "=2C")


def _attributes(said: bytes) -> dict[str, str]:
    parts = (part.partition("=") for part in said.decode("utf-8", "replace").split(","))
    return {name: value for name, equals, value in parts if equals}
