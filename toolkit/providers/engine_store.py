"""Golden stores: image sets that new virtual nodes are born with, loaded once and then shared by links.

A golden store is a volume that holds an engine's /var/lib/docker after the images were loaded and the engine was
stopped. It is complete when no builder container of its name exists any more; so a build that was cut off shows
itself and is done again.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit import engine, paths
from toolkit.errors import UnreachableError
from toolkit.events import Emit, Event, counted
from toolkit.providers.base import NodeImage, Resource
from toolkit.providers.lock_files import held

if TYPE_CHECKING:
    from docker.api import APIClient

LABEL = "org.toolkit.store"
CONTENTS = "org.toolkit.images"
REFERENCES = "org.toolkit.references"
PREFIX = "toolkit-store-"
"""Begins the name of a store's volume; its key follows."""
BUILD_WITHIN_S = 600
KEPT = 3
"""Stores that stay for a next time although no node uses them; older ones go when a new one is made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """A prepared engine store."""

    key: str
    volume: str
    contents: frozenset[str]
    """Content hashes of its images."""
    references: frozenset[str]


@contextlib.contextmanager
def prepared(api: APIClient, images: Sequence[NodeImage], node_image: str, emit: Emit) -> Iterator[Store | None]:
    """The golden store of this set of images (None: of no images), built where there is none.

    Until the caller's block ends nobody removes it; after that the nodes that mount it keep it.
    """
    if not images:
        yield None
        return
    contents = frozenset(image.content for image in images)
    references = frozenset(image.reference for image in images)
    key = hashlib.sha256("\n".join([*sorted(contents), *sorted(references)]).encode()).hexdigest()[:12]
    wanted = Store(key=key, volume=f"{PREFIX}{key}", contents=contents, references=references)
    while True:
        store = _holding(api, wanted) or wanted
        with _locked(store.volume, fcntl.LOCK_SH):
            if _holding(api, wanted) == store:
                yield store
                return
        with _locked(wanted.volume, fcntl.LOCK_EX):
            if _holding(api, wanted) is None:
                with _nearest(api, wanted) as start:
                    _build(api, wanted, start, node_image, emit)
                newest = sorted(_volumes(api), key=lambda volume: str(volume["CreatedAt"]), reverse=True)[:KEPT]
                remove_unused_stores(api, keep=frozenset(volume["Labels"][LABEL] for volume in newest))


def stores(api: APIClient) -> list[Resource]:
    """Every golden store (and what is left of builds that were cut off)."""
    return [
        *(Resource(kind="volume", name=v["Name"]) for v in _volumes(api)),
        *(Resource(kind="container", name=c["Names"][0].removeprefix("/")) for c in _builders(api)),
    ]


def unused_stores(api: APIClient, keep: frozenset[str] = frozenset()) -> list[Resource]:
    """Golden stores (but for the keys in `keep`) that no node uses."""

    def is_used(name: str) -> bool:
        users = api.containers(all=True, filters={"volume": name})
        return any(f"/{name}" not in user["Names"] for user in users)  # its own builder, cut off, does not count

    volumes = [volume["Name"] for volume in _volumes(api) if volume["Labels"][LABEL] not in keep]
    return [Resource(kind="volume", name=name) for name in volumes if not is_used(name)]


def remove_unused_stores(api: APIClient, keep: frozenset[str] = frozenset()) -> list[Resource]:
    """Remove them; the engine itself guards those that have come into use meanwhile."""
    from docker.errors import APIError

    removed = []
    for store in unused_stores(api, keep):
        with contextlib.suppress(BlockingIOError, APIError), _locked(store.name, fcntl.LOCK_EX | fcntl.LOCK_NB):
            _drop_builder(api, store.name)
            api.remove_volume(store.name)
            removed.append(store)
    _remove_locks(but={volume["Name"] for volume in _volumes(api)})
    return removed


def _volumes(api: APIClient) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = api.volumes(filters={"label": [LABEL]})["Volumes"] or []
    return found


def _builders(api: APIClient, name: str = "") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = api.containers(all=True, filters={"label": [LABEL + "-builder"]})
    return [c for c in found if not name or f"/{name}" in c["Names"]]


def _complete(api: APIClient) -> list[Store]:
    """Every store that is not being built, nor was when its builder was cut off."""
    unfinished = {name.removeprefix("/") for builder in _builders(api) for name in builder["Names"]}
    return [
        Store(
            key=volume["Labels"][LABEL],
            volume=volume["Name"],
            contents=frozenset(volume["Labels"].get(CONTENTS, "").split(",")),
            references=frozenset(volume["Labels"].get(REFERENCES, "").split(",")),
        )
        for volume in _volumes(api)
        if volume["Name"] not in unfinished
    ]


def _holding(api: APIClient, wanted: Store) -> Store | None:
    """The smallest store with all these images; more than are needed do no harm."""
    enough = [s for s in _complete(api) if s.contents >= wanted.contents and s.references >= wanted.references]
    return min(enough, key=lambda store: (len(store.references), store.key), default=None)


@contextlib.contextmanager
def _nearest(api: APIClient, wanted: Store) -> Iterator[Store | None]:
    """A store to start from, because copying is faster than loading; None where none has an image that is wanted."""

    def waste(store: Store) -> int:
        return len(store.references - wanted.references) - len(store.references & wanted.references)

    useful = [s for s in _complete(api) if s.references & wanted.references and waste(s) <= 0]
    nearest = min(useful, key=lambda store: (waste(store), store.key), default=None)
    if nearest is None:
        yield None
        return
    with _locked(nearest.volume, fcntl.LOCK_SH):
        yield nearest if nearest in _complete(api) else None


def _drop_builder(api: APIClient, name: str) -> None:
    for container in _builders(api, name):
        api.remove_container(container["Id"], v=True, force=True)


def _build(api: APIClient, store: Store, start: Store | None, node_image: str, emit: Emit) -> None:
    from docker.errors import APIError, NotFound

    started = time.monotonic()
    images = counted(len(store.references), "image")
    emit(Event(stage="acquire", state="started", message=f"preparing an engine store with {images}"))
    _drop_builder(api, store.volume)
    with contextlib.suppress(NotFound):
        api.remove_volume(store.volume)
    missing = sorted(store.references - start.references if start else store.references)
    builder = _create_builder(api, store, start, node_image)
    try:
        if missing:
            api.put_archive(builder, "/load", _saved(api, missing))
        api.start(builder)
        status = api.wait(builder, timeout=BUILD_WITHIN_S)["StatusCode"]
    except APIError as error:
        raise UnreachableError(f"the engine store cannot be prepared: {error.explanation}") from error
    if status:
        log = api.logs(builder, tail=25).decode(errors="replace").strip()
        raise UnreachableError(f"the engine store cannot be prepared (code {status}); the builder's log ends:\n{log}")
    api.remove_container(builder, v=True, force=True)
    emit(
        Event(
            stage="acquire",
            state="done",
            changed=True,
            message=f"prepared an engine store with {images} ({len(missing)} loaded)",
            duration_s=time.monotonic() - started,
        )
    )


def _create_builder(api: APIClient, store: Store, start: Store | None, node_image: str) -> str:
    """A container that starts an engine on the new volume, beside the store it begins with; returns its id."""
    from docker.types import LogConfig, Mount

    labels = {
        LABEL: store.key,
        CONTENTS: ",".join(sorted(store.contents)),
        REFERENCES: ",".join(sorted(store.references)),
    }
    config: dict[str, Any] = api.create_host_config(
        **engine.machine_powers(api),
        network_mode="none",
        tmpfs={"/run": "exec,mode=755"},
        mounts=[
            Mount("/var/lib/docker", store.volume, type="volume", no_copy=True, labels=labels),
            Mount("/load", None, type="volume", no_copy=True),
            *([Mount("/store", start.volume, type="volume", no_copy=True, read_only=True)] if start else []),
        ],
        log_config=LogConfig(type="json-file", config={}),
    )
    unwanted = sorted(start.references - store.references if start else ())
    made: str = api.create_container(
        node_image,
        entrypoint=["/usr/lib/toolkit/store", "build"],
        name=store.volume,
        labels={LABEL + "-builder": store.key},
        environment={"TOOLKIT_UNWANTED": " ".join(unwanted)},
        host_config=config | {"MaskedPaths": [], "ReadonlyPaths": []},
    )["Id"]
    return made


def _saved(api: APIClient, references: Sequence[str]) -> Iterator[bytes]:
    """One archive of all images, each shared layer once, streamed; the SDK itself can only ask for one image."""
    address = f"{api.base_url}/v{api.api_version}/images/get"
    with api.get(address, params={"names": list(references)}, stream=True) as response:
        if not response.ok:
            raise UnreachableError(
                f"the operator's engine cannot hand over {', '.join(references)}: {response.json().get('message')}; "
                'try "toolkit images build"'
            )
        yield from response.iter_content(1 << 20)


# -- locks ------------------------------------------------------------------------------------------------------------


def _locked(volume: str, how: int) -> contextlib.AbstractContextManager[None]:
    """Held shared by those who make nodes of a store, alone by those who build or remove it."""
    return held(_lock_file(volume), how)


def _remove_locks(but: Collection[str]) -> None:
    """The files of stores that are gone, unless somebody is about to build one of them."""
    for file in paths.cache().glob(_lock_file(f"{PREFIX}*").name):
        if file.stem not in but:
            with contextlib.suppress(BlockingIOError), _locked(file.stem, fcntl.LOCK_EX | fcntl.LOCK_NB):
                file.unlink()


def _lock_file(volume: str) -> Path:
    return paths.cache() / f"{volume}.lock"
