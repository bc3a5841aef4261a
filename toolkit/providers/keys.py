"""Keys of machines that toolkit makes: the operator's for each testbed, and a host key for each node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

IDENTITY = "id_ed25519"
KNOWN_HOSTS = "known_hosts"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPair:
    """An Ed25519 key in OpenSSH's forms."""

    private: bytes = field(repr=False)
    public: str
    """`ssh-ed25519 AAAA…`, without a comment."""


def make_key() -> KeyPair:
    """A new key."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return KeyPair(private=private, public=public.decode())


def identity(directory: Path) -> KeyPair:
    """The key with which the operator enters this testbed's machines: made at the first call, then read."""
    file = directory / IDENTITY
    public = file.with_suffix(".pub")
    if not (file.is_file() and public.is_file()):
        directory.mkdir(parents=True, exist_ok=True)
        key = make_key()
        _write(file, key.private, 0o600)
        _write(public, f"{key.public} toolkit\n".encode(), 0o644)
    return KeyPair(private=file.read_bytes(), public=" ".join(public.read_text().split()[:2]))


def remove_identity(directory: Path) -> list[Path]:
    """Delete the testbed's key; returns the files that were there."""
    files = [file for file in (directory / IDENTITY, directory / f"{IDENTITY}.pub") if file.is_file()]
    for file in files:
        file.unlink()
    return files


def know_hosts(directory: Path, host_keys: Mapping[str, str], forget: frozenset[str] = frozenset()) -> Path:
    """Note address -> public host key in the testbed's known_hosts; lines of other addresses stay, `forget` go."""
    file = directory / KNOWN_HOSTS
    before = file.read_text() if file.is_file() else ""
    replaced = host_keys.keys() | forget
    lines = [line for line in before.splitlines() if line.split(" ", 1)[0] not in replaced]
    lines += [f"{address} {key}" for address, key in sorted(host_keys.items())]
    after = "".join(f"{line}\n" for line in lines)
    if after != before or not file.is_file():
        directory.mkdir(parents=True, exist_ok=True)
        _write(file, after.encode(), 0o644)
    return file


def _write(file: Path, content: bytes, mode: int) -> None:
    """Whole or not at all, and never readable by others for a moment."""
    draft = file.with_name(f"{file.name}.new")
    draft.unlink(missing_ok=True)
    draft.touch(mode=mode)
    draft.write_bytes(content)
    draft.replace(file)
