"""The Debian system under every image: from a registry where one answers, otherwise made from Debian's packages.

Whichever it was is written down in the cache and not asked again, so that content hashes stay what they are.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import json
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from toolkit import engine, paths
from toolkit.errors import UnreachableError
from toolkit.events import Emit, Event

UPSTREAM = "debian:bookworm-slim"
SUITE = "bookworm"
SILENT_AT_MOST_S = 15
"""A registry that says nothing for so long counts as none."""
DEBIAN = {"amd64": "amd64", "arm64": "arm64", "arm/v7": "armhf", "arm/v6": "armel"}
"""Docker's platform word -> Debian's architecture. A Raspberry Pi 1 (ARMv6) runs armel; Debian's armhf is ARMv7."""
LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """A base system in the operator's engine."""

    reference: str
    """toolkit/base:bookworm-<architecture>, wherever it came from."""
    identity: str
    """Digest of what it was made of; another one means that every image changes."""
    source: str
    """registry or packages."""


def known_base(architecture: str) -> Base | None:
    """The base of an earlier call; None where none was made yet."""
    file = _note(architecture)
    return Base(**json.loads(file.read_text())) if file.is_file() else None


def provide_base(architecture: str, emit: Emit) -> Base:
    """The base system in the engine; made at the first call, which takes from seconds (registry) to minutes (arm)."""
    with _one_at_a_time():
        known = known_base(architecture)
        if known and engine.inspect_image(known.reference):
            return known
        base = _make(architecture, emit)
        _note(architecture).write_text(json.dumps(asdict(base)))
        return base


def _make(architecture: str, emit: Emit) -> Base:
    archive = _archive(architecture)
    reference = f"toolkit/base:{SUITE}-{_slug(architecture)}"
    if not archive.is_file() and (identity := _pull(reference, architecture, emit)):
        return Base(reference=reference, identity=identity, source="registry")
    if not archive.is_file():
        _debootstrap(archive, architecture, emit)
    return Base(reference=reference, identity=_import(archive, reference, architecture), source="packages")


def _pull(reference: str, architecture: str, emit: Emit) -> str | None:
    """Identity of the base that a registry gave, under our name; None where none answers soon."""
    started = time.monotonic()
    emit(Event(stage="images", state="started", message=f"asking a registry for {UPSTREAM}"))
    try:
        engine.pull(UPSTREAM, architecture, timeout_s=SILENT_AT_MOST_S)
    except UnreachableError as error:
        emit(Event(stage="images", message=f"no registry gives {UPSTREAM} ({error}); making it from Debian's packages"))
        return None
    found = engine.inspect_image(UPSTREAM)
    if found is None:
        return None
    repository, tag = engine.split_reference(reference)
    engine.connect().api.tag(UPSTREAM, repository, tag)
    emit(
        Event(
            stage="images",
            state="done",
            changed=True,
            message=f"got {UPSTREAM} for {architecture} from a registry",
            duration_s=time.monotonic() - started,
        )
    )
    return str(found["Id"]).removeprefix("sha256:")


def _debootstrap(archive: Path, architecture: str, emit: Emit) -> None:
    """A minimal Debian as a tar archive."""
    if shutil.which("mmdebstrap") is None:
        raise UnreachableError(
            f"no registry offers {UPSTREAM} and mmdebstrap, which could make it from packages, is not installed; "
            'try "make setup" or "sudo apt-get install mmdebstrap"'
        )
    started = time.monotonic()
    emit(
        Event(stage="images", state="started", message=f"making a Debian {SUITE} for {architecture} from its packages")
    )
    draft = archive.with_suffix(".new.tar")
    command = [
        "mmdebstrap",
        "--variant=minbase",
        f"--architectures={DEBIAN[architecture]}",
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT),
        "--dpkgopt=path-include=/usr/share/doc/*/copyright",
        '--aptopt=Acquire::Languages "none"',
        SUITE,
        str(draft),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        draft.unlink(missing_ok=True)
        last = "\n".join(_why(done.stderr))
        raise UnreachableError(
            f"Debian {SUITE} for {architecture} cannot be made; does its mirror answer? mmdebstrap said:\n{last}"
        )
    draft.replace(archive)
    emit(
        Event(
            stage="images",
            state="done",
            changed=True,
            message=f"made a Debian {SUITE} for {architecture}",
            duration_s=time.monotonic() - started,
        )
    )


def _why(said: str) -> list[str]:
    """What apt and dpkg call errors, without what went well; the end of it all where they say none."""
    lines = said.strip().splitlines()
    return [line for line in lines if line.startswith(("E: ", "Err:", "dpkg: error"))][-10:] or lines[-10:]


def _import(archive: Path, reference: str, architecture: str) -> str:
    """Hand the archive to the engine as an image of this architecture; returns its digest.

    `docker load` rather than `docker import`, because the latter writes down the engine's own architecture whatever it
    is told, and a build for another one then refuses its own base.
    """
    with archive.open("rb") as content:
        identity = hashlib.file_digest(content, "sha256").hexdigest()
    name, _, variant = architecture.partition("/")
    config = {
        "architecture": name,
        **({"variant": variant} if variant else {}),
        "os": "linux",
        "config": {
            "Cmd": ["bash"],
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "Labels": {"org.toolkit.image": "base", "org.toolkit.content": identity[:16]},
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{identity}"]},
        "history": [{"created_by": "mmdebstrap --variant=minbase"}],
    }
    manifest = [{"Config": "config.json", "RepoTags": [reference], "Layers": ["layer.tar"]}]
    with tempfile.TemporaryFile(dir=archive.parent) as image:
        with tarfile.open(fileobj=image, mode="w") as packed:
            for path, value in (("config.json", config), ("manifest.json", manifest)):
                text = json.dumps(value).encode()
                entry = tarfile.TarInfo(path)
                entry.size = len(text)
                packed.addfile(entry, io.BytesIO(text))
            packed.add(archive, "layer.tar")
        image.seek(0)
        said = "".join(str(line.get("stream") or line.get("error", "")) for line in _load(image))
    if engine.inspect_image(reference) is None:
        raise UnreachableError(f"the engine does not take the base system {archive}: {said.strip()}")
    return identity


def _load(image: IO[bytes]) -> list[dict[str, Any]]:
    api: Any = engine.connect().api
    return list(api.load_image(image) or ())


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Several images, and several toolkit processes, want the same base at the same time."""
    paths.cache().mkdir(parents=True, exist_ok=True)
    with (paths.cache() / "base.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _archive(architecture: str) -> Path:
    return paths.cache() / f"base-{SUITE}-{_slug(architecture)}.tar"


def _note(architecture: str) -> Path:
    return paths.cache() / f"base-{SUITE}-{_slug(architecture)}.json"


def _slug(architecture: str) -> str:
    return architecture.replace("/", "")
