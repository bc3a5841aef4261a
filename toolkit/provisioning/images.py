"""Images that nodes run: toolkit's own, built when their content changed, and other people's, pulled when missing.

An image is named by what went into it: `toolkit/<name>:<content>`, where content is a hash over its Dockerfile, the
files that it copies, its base and its architecture. So "is it up to date?" is "is there such a tag?".
"""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import io
import json
import re
import shutil
import tarfile
import textwrap
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit import engine, paths
from toolkit.errors import ToolkitError, UnreachableError, UsageError
from toolkit.events import Emit, Event
from toolkit.parallel import on_each
from toolkit.provisioning import base_system
from toolkit.provisioning.registry import Registry, start_registry
from toolkit.provisioning.render import ImageReference
from toolkit.spec.testbed import Image

CONTENT = "org.toolkit.content"
NAME = "org.toolkit.image"
REPOSITORY = "toolkit/"
UNTAGGED = "<none>:<none>"
"""What older engines call an image without a reference."""
PARALLEL = 3
NODE_SOURCES = ("__init__.py", "errors.py", "contract", "node")
"""The part of the package that runs on nodes, and all of it that an image can copy."""
EMULATORS = {"amd64": "qemu-x86_64", "arm64": "qemu-aarch64", "arm/v7": "qemu-arm", "arm/v6": "qemu-arm"}
"""Architecture -> what Debian calls its emulator, also in the kernel's list."""
BINFMT = Path("/proc/sys/fs/binfmt_misc")
RUNS_ALSO = {"arm64": frozenset({"arm/v7", "arm/v6"}), "arm/v7": frozenset({"arm/v6"})}
"""Machine -> what else it runs without emulation."""

Wanted = tuple[str, str]
"""(image name, architecture)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What one of toolkit's images is made of."""

    name: str
    files: Mapping[str, tuple[bytes, int]]
    """Path in the build context -> content and mode, read once, so that what is hashed is what is built."""
    parent: str | None
    """The image of ours that it is built on; None: the base system."""

    @property
    def dockerfile(self) -> str:
        """Path in the build context."""
        return f"images/{self.name}/Dockerfile"


def available_images() -> list[str]:
    """Names of the images that toolkit can build."""
    return sorted(file.parent.name for file in paths.IMAGES.glob("*/Dockerfile"))


def recipe(name: str) -> Recipe:
    """The Dockerfile of an image and exactly the files that it copies; raises UsageError for an unknown name."""
    folder = paths.IMAGES / name
    if not (folder / "Dockerfile").is_file():
        raise UsageError(f"there is no image {name!r} in {paths.IMAGES}; known: {', '.join(available_images())}")
    text = (folder / "Dockerfile").read_text()
    patterns = _copied(text)
    folders = {name, *(pattern.split("/")[1] for pattern in patterns if pattern.startswith("images/"))}
    offered = {f"images/{each}/{path}": file for each in folders for path, file in _walk(paths.IMAGES / each)}
    for source in NODE_SOURCES if any(p.startswith(("toolkit", ".", "*")) for p in patterns) else ():
        offered |= {f"toolkit/{source}{path and '/' + path}": file for path, file in _walk(paths.SOURCE / source)}
    if any(pattern.startswith("templates/") for pattern in patterns):
        offered |= {f"templates/{path}": file for path, file in _walk(paths.TEMPLATES)}
    copied = {path: file for path, file in offered.items() if any(_covers(pattern, path) for pattern in patterns)}
    files = {f"images/{name}/Dockerfile": folder / "Dockerfile", **copied}
    parent = re.search(rf"^ARG\s+BASE={REPOSITORY}([\w.-]+)", text, re.MULTILINE)
    return Recipe(
        name=name,
        files={path: _read(file) for path, file in sorted(files.items())},
        parent=parent[1] if parent else None,
    )


def content_of(made_of: Recipe, base: str, architecture: str) -> str:
    """The image's content hash: 16 hex digits over base, architecture and every file with its executable bit."""
    digest = hashlib.sha256(f"{architecture}\n{base}\n".encode())
    for path, (content, mode) in made_of.files.items():
        digest.update(f"{path}\n{mode:o}\n{len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()[:16]


class Builder:
    """Gets images into the operator's engine and, from there, to nodes.

    `images` says what the file's image names mean; a name that is not in it is a folder of `images/` or, failing that,
    a reference of its own.
    """

    def __init__(self, emit: Emit, images: Iterable[Image] = ()) -> None:
        self._emit = emit
        self._images = {image.name: image for image in images}
        self._recipes: dict[str, Recipe] = {}

    def references(self, wanted: Iterable[Wanted]) -> dict[Wanted, ImageReference]:
        """How each image is, or would be, called; nothing is built, pulled or asked of the engine for our own."""
        return {key: self._reference(*key) for key in sorted(set(wanted))}

    def build(self, wanted: Iterable[Wanted]) -> dict[Wanted, ImageReference]:
        """Every image in the engine; what is there already costs one question. Reports all failures together."""
        keys = sorted(set(wanted))
        own = [key for key in keys if self._folder(key[0])]
        for architecture in sorted({a for _, a in own if base_system.known_base(a) is None}):
            check_runnable(architecture)
            base_system.provide_base(architecture, self._emit)
        for rank in self._ranks(own):
            _all_or_raise([key for key, there in self._present(rank).items() if not there], self._build)
        others = [key for key in keys if not self._folder(key[0])]
        _all_or_raise(others, self._pull)
        return self.references(keys)

    def registry(self, references: Iterable[ImageReference]) -> int:
        """The testbed registry's port on this machine's loopback, with these images pushed to it."""
        registry = self.start_registry()
        registry.push(list(references), self._emit)
        return registry.port

    def start_registry(self) -> Registry:
        """The testbed registry, started where it does not run."""
        native = (("registry", engine.architecture()),)
        return start_registry(self.build(native)[native[0]].reference, self._emit)

    # -- own images ----------------------------------------------------------------------------------------------------

    def _folder(self, name: str) -> str | None:
        """The folder of an image of ours; None for somebody else's."""
        image = self._images.get(name)
        if image is not None and (image.build or image.reference):
            return image.build
        return name if (paths.IMAGES / name / "Dockerfile").is_file() else None

    def _recipe(self, name: str) -> Recipe:
        if name not in self._recipes:
            self._recipes[name] = recipe(name)
        return self._recipes[name]

    def _reference(self, name: str, architecture: str) -> ImageReference:
        folder = self._folder(name)
        if folder is None:
            return self._external(name, architecture)
        return self._own(folder, architecture)

    def _own(self, folder: str, architecture: str) -> ImageReference:
        made_of = self._recipe(folder)
        if made_of.parent:
            below = self._own(made_of.parent, architecture).content
        else:
            base = base_system.known_base(architecture)
            below = base.identity if base else "not made yet"
        content = content_of(made_of, below, architecture)
        return ImageReference(reference=f"{REPOSITORY}{folder}:{content}", content=content)

    def _ranks(self, keys: Collection[Wanted]) -> Iterator[list[Wanted]]:
        """Keys (with the parents they need) in the order of building; those of one rank do not need each other."""
        ranks: dict[Wanted, int] = {}

        def rank(folder: str, architecture: str) -> int:
            parent = self._recipe(folder).parent
            ranks[folder, architecture] = 0 if parent is None else rank(parent, architecture) + 1
            return ranks[folder, architecture]

        for name, architecture in keys:
            rank(self._folder(name) or name, architecture)
        for number in range(max(ranks.values(), default=-1) + 1):
            yield sorted(key for key, place in ranks.items() if place == number)

    def _present(self, keys: Collection[Wanted]) -> dict[Wanted, bool]:
        """Whether the engine has them. Asked one by one, since a listing takes half a second where it is long."""
        references = [self._own(*key).reference for key in keys]
        found = on_each(references, engine.inspect_image, at_once=len(references))
        return {key: image is not None for key, image in zip(keys, found, strict=True)}

    def _build(self, key: Wanted) -> None:
        folder, architecture = key
        check_runnable(architecture)
        made_of, named = self._recipe(folder), self._own(folder, architecture)
        started = time.monotonic()
        self._emit(Event(stage="images", state="started", message=f"building {folder} for {architecture}"))
        base = (
            self._own(made_of.parent, architecture).reference
            if made_of.parent
            else base_system.provide_base(architecture, self._emit).reference
        )
        log: list[str] = []
        answer = engine.connect().api.build(
            fileobj=_context(made_of),
            custom_context=True,
            dockerfile=made_of.dockerfile,
            tag=named.reference,
            buildargs={"BASE": base},
            labels={CONTENT: named.content, NAME: folder},
            platform=None if architecture == engine.architecture() else f"linux/{architecture}",
            rm=True,
            forcerm=True,
            decode=True,
        )
        for line in answer:
            self._follow(folder, line, log)
        self._emit(
            Event(
                stage="images",
                state="done",
                changed=True,
                message=f"built {named.reference} for {architecture}",
                duration_s=time.monotonic() - started,
            )
        )

    def _follow(self, folder: str, line: Mapping[str, Any], log: list[str]) -> None:
        text = str(line.get("stream", "")).strip()
        if text:
            log.append(text)
        if text.startswith("Step "):
            self._emit(Event(stage="images", message=f"{folder}: {textwrap.shorten(text, 100, placeholder=' …')}"))
        if "error" in line:
            last = "\n".join("\n".join(log).splitlines()[-15:])
            raise UnreachableError(
                f"image {folder} (images/{folder}/Dockerfile) cannot be built: {line['error']}; "
                f"the build's log ends:\n{last}"
            )

    # -- images of other people ----------------------------------------------------------------------------------------

    def _upstream(self, name: str) -> str:
        image = self._images.get(name)
        return image.reference if image and image.reference else name

    def _external(self, name: str, architecture: str) -> ImageReference:
        """As the engine knows it; content is empty while it does not."""
        reference = self._upstream(name)
        found = engine.inspect_image(reference)
        content = str(found["Id"]).removeprefix("sha256:")[:16] if found and _fits(found, architecture) else ""
        return ImageReference(reference=reference, content=content)

    def _pull(self, key: Wanted) -> None:
        name, architecture = key
        if self._external(name, architecture).content:
            return
        pull(self._upstream(name), architecture, self._emit)


def pull(reference: str, architecture: str, emit: Emit) -> None:
    """Somebody else's image into the operator's engine; raises UnreachableError that says why not and what to try."""
    started = time.monotonic()
    emit(Event(stage="images", state="started", message=f"pulling {reference} for {architecture}"))
    try:
        engine.pull(reference, architecture)
    except UnreachableError as error:
        raise UnreachableError(
            f"image {reference} for {architecture} cannot be had: {error}; check the name, or bring it here with "
            '"docker load" and run this again'
        ) from error
    found = engine.inspect_image(reference)
    if found is None or not _fits(found, architecture):
        raise UnreachableError(f"image {reference} has no variant for {architecture}; name another one in the file")
    emit(
        Event(
            stage="images",
            state="done",
            changed=True,
            message=f"pulled {reference} for {architecture}",
            duration_s=time.monotonic() - started,
        )
    )


def check_runnable(architecture: str) -> None:
    """Raises UnreachableError where the engine's machine can run nothing of this architecture, not even emulated."""
    native = engine.architecture()
    if architecture == native or architecture in RUNS_ALSO.get(native, ()):
        return
    emulator = EMULATORS[architecture]
    handler = BINFMT / emulator
    if handler.is_file() and "enabled" in handler.read_text():
        return
    mount = "" if (BINFMT / "register").exists() else f"mount -t binfmt_misc none {BINFMT} && "
    advice = (
        f"sudo sh -c '{mount}update-binfmts --enable {emulator}'"
        if shutil.which(f"{emulator}-static")
        else "sudo apt-get install qemu-user-static binfmt-support"
    )
    raise UnreachableError(
        f"images for {architecture} cannot be built on this {native} machine without emulation; try: {advice}"
    )


def unused_images() -> list[str]:
    """Built images that no container on this machine is made of: references, and the numbers of those that lost theirs.

    An image loses its reference when another one is built under the same.
    """
    used = {container["Image"] for container in engine.connect().api.containers(all=True)}
    return sorted(_built() - used)


def remove_images() -> list[str]:
    """Remove them; the engine itself guards what has come into use meanwhile. Returns what was removed."""
    from docker.errors import APIError

    removed = []
    for name in unused_images():
        with contextlib.suppress(APIError):
            engine.connect().api.remove_image(name)
            removed.append(name)
    return removed


def _built() -> frozenset[str]:
    """References of all images of ours in the engine, and the numbers of those without."""
    found = engine.connect().api.images(filters={"label": CONTENT})
    named = {image["Id"]: [tag for tag in image["RepoTags"] or () if tag != UNTAGGED] for image in found}
    references = {tag for tags in named.values() for tag in tags if tag.startswith(REPOSITORY)}
    return frozenset(references | {number for number, tags in named.items() if not tags})


def _fits(found: Mapping[str, Any], architecture: str) -> bool:
    name, _, variant = architecture.partition("/")
    return bool(found["Architecture"] == name and (not variant or found.get("Variant", variant) <= variant))


def _copied(dockerfile: str) -> list[str]:
    """Every source of COPY and ADD that lies in the build context."""
    sources: list[str] = []
    for line in re.sub(r"\\\n", " ", dockerfile).splitlines():
        word, _, rest = line.strip().partition(" ")
        if word.upper() not in {"COPY", "ADD"}:
            continue
        rest = re.sub(r"^(--\S+\s+)+", lambda m: "--from " if "--from" in m[0] else "", rest.strip())
        if rest.startswith("--from"):
            continue
        words = json.loads(rest) if rest.startswith("[") else rest.split()
        sources += [source.removeprefix("./").strip("/") or "." for source in words[:-1]]
    return sources


def _covers(pattern: str, path: str) -> bool:
    return pattern in (".", path) or path.startswith(f"{pattern}/") or fnmatch.fnmatch(path, pattern)


def _walk(place: Path) -> Iterator[tuple[str, Path]]:
    if place.is_file():
        yield "", place
        return
    for file in sorted(place.rglob("*")):
        if file.is_file() and "__pycache__" not in file.parts and file.suffix != ".pyc":
            yield file.relative_to(place).as_posix(), file


def _read(file: Path) -> tuple[bytes, int]:
    """Content and mode; of the mode only what an image keeps on every machine."""
    return file.read_bytes(), 0o755 if file.stat().st_mode & 0o100 else 0o644


def _context(made_of: Recipe) -> io.BytesIO:
    """The build context as an archive that is the same whoever makes it and whenever."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, (content, mode) in made_of.files.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(content), mode
            archive.addfile(entry, io.BytesIO(content))
    buffer.seek(0)
    return buffer


def _all_or_raise(keys: Collection[Wanted], action: Callable[[Wanted], None]) -> None:
    """`action` on all keys, several at a time; one error that holds every failure."""

    def attempt(key: Wanted) -> str:
        try:
            action(key)
        except ToolkitError as error:
            return str(error)
        return ""

    if problems := [problem for problem in on_each(keys, attempt, at_once=PARALLEL) if problem]:
        raise UnreachableError("\n".join(problems))
