"""Golden disks of virtual machines: one for each content of the image `vm`, under the disks of all machines made of it.

A machine's own disk holds only what differs from its golden disk, which therefore stays as long as any testbed, of
whichever workspace, has such a disk: each is noted beside the golden disk.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from toolkit import engine, paths
from toolkit.errors import UnreachableError
from toolkit.events import Emit, Event
from toolkit.providers.base import Resource
from toolkit.providers.lock_files import held

DISK_BYTES = 8 << 30
"""Of each machine; the file is sparse."""
BLOCK_BYTES = 512
"""What st_blocks counts in, whatever the file system's own blocks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenDisk:
    """The files in one folder that machines are made of and boot from."""

    folder: Path

    @property
    def image(self) -> Path:
        """The disk, raw."""
        return self.folder / "disk.raw"

    @property
    def kernel(self) -> Path:
        """What boots it."""
        return self.folder / "vmlinuz"

    @property
    def ram_disk(self) -> Path:
        """What the kernel finds the disk with."""
        return self.folder / "initrd.img"

    @property
    def is_complete(self) -> bool:
        """Whether its making came to the end."""
        return self._complete.is_file()

    @property
    def stamp(self) -> str:
        """Another one for each making: a disk over one that was made again would be garbled."""
        return f"{self.folder} {self._complete.stat().st_mtime_ns}"

    def add_user(self, overlay: Path) -> None:
        """Note, here and beside it, that a machine's new disk lies over this one."""
        _made_from(overlay).write_text(self.stamp)
        path = os.fsencode(overlay.absolute())
        self._users.mkdir(exist_ok=True)
        (self._users / hashlib.sha256(path).hexdigest()[:16]).write_bytes(path)

    def lies_under(self, overlay: Path) -> bool:
        """Whether a machine's disk is there and was made over this one as it is."""
        note = _made_from(overlay)
        return self.is_complete and overlay.is_file() and note.is_file() and note.read_text() == self.stamp

    def has_users(self) -> bool:
        """Whether it lies under any of the disks that were noted."""
        notes = self._users.iterdir() if self._users.is_dir() else ()
        return any(self.lies_under(Path(os.fsdecode(note.read_bytes()))) for note in notes)

    def finish(self) -> None:
        """Its making came to the end."""
        self._complete.touch()

    def bytes_taken(self) -> int:
        """Of the file system, which is less than the sparse disk's length."""
        return sum(file.stat().st_blocks * BLOCK_BYTES for file in self.folder.rglob("*") if file.is_file())

    @property
    def _complete(self) -> Path:
        return self.folder / "complete"

    @property
    def _users(self) -> Path:
        return self.folder / "users"


@contextlib.contextmanager
def prepared(image: str, emit: Emit) -> Iterator[GoldenDisk]:
    """The golden disk of an image `vm`, made where there is none; until the caller's block ends nobody removes it."""
    disk = GoldenDisk(folder=_folder() / content_of(image))
    while True:
        with held(_lock_file(disk), fcntl.LOCK_SH):
            if disk.is_complete:
                yield disk
                return
        with held(_lock_file(disk), fcntl.LOCK_EX):
            if not disk.is_complete:
                _make(disk, image, emit)


def content_of(image: str) -> str:
    """The content hash in an image's reference, which its golden disk is called by."""
    return image.rpartition(":")[2]


def unused_disks(in_use: Collection[Path], keep: Collection[str] = ()) -> list[Resource]:
    """Golden disks (but for the contents in `keep`) over which no machine's disk lies.

    `in_use`: kernels that machines run now.
    """
    return [_resource(disk) for disk in _unused(in_use, keep)]


def remove_unused_disks(in_use: Collection[Path], keep: Collection[str] = ()) -> list[Resource]:
    """Remove them, but for those that somebody is about to use."""
    removed = []
    for disk in _unused(in_use, keep):
        lock = _lock_file(disk)
        with contextlib.suppress(BlockingIOError), held(lock, fcntl.LOCK_EX | fcntl.LOCK_NB):
            if not disk.has_users():
                removed.append(_resource(disk))
                shutil.rmtree(disk.folder)
                lock.unlink()
    return removed


def _make(disk: GoldenDisk, image: str, emit: Emit) -> None:
    """In a container, since its files belong to many users."""
    from docker.errors import DockerException

    started = time.monotonic()
    emit(Event(stage="acquire", message="making the disk of virtual machines", state="started"))
    disk.folder.mkdir(parents=True, exist_ok=True)
    try:
        engine.connect().containers.run(
            image,
            [str(DISK_BYTES), f"{os.getuid()}:{os.getgid()}"],
            volumes={str(disk.folder): {"bind": "/out", "mode": "rw"}},
            network_mode="none",
            remove=True,
        )
    except DockerException as error:
        raise UnreachableError(f"the disk of virtual machines cannot be made: {error}") from error
    disk.finish()
    emit(
        Event(
            stage="acquire",
            message="made the disk of virtual machines",
            state="done",
            changed=True,
            duration_s=time.monotonic() - started,
        )
    )


def _unused(in_use: Collection[Path], keep: Collection[str]) -> list[GoldenDisk]:
    folders = sorted(folder for folder in _folder().glob("*") if folder.is_dir() and folder.name not in keep)
    disks = [GoldenDisk(folder=folder) for folder in folders]
    return [disk for disk in disks if disk.kernel not in in_use and not disk.has_users()]


def _made_from(overlay: Path) -> Path:
    return overlay.with_name("made-from")


def _resource(disk: GoldenDisk) -> Resource:
    return Resource(kind="disk", name=str(disk.folder), size_bytes=disk.bytes_taken())


def _folder() -> Path:
    return paths.cache() / "vm"


def _lock_file(disk: GoldenDisk) -> Path:
    return disk.folder.with_suffix(".lock")
