"""The testbed registry: a container on the operator's loopback from which nodes pull images, in parallel and by layer.

It has no password, so it listens on 127.0.0.1 only; nodes reach it through their SSH connection.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

from toolkit import engine, paths
from toolkit.errors import UnreachableError
from toolkit.events import Emit, Event
from toolkit.parallel import on_each
from toolkit.provisioning.render import ImageReference

LABEL = "org.toolkit.registry"
NAME = "toolkit-registry"
PORT = 5000
"""Another free port is taken where somebody has this one."""
INSIDE = "5000/tcp"
STORAGE = "/var/lib/docker-registry"
READY_WITHIN_S = 30.0
PARALLEL = 4
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """A registry that answers."""

    port: int

    def digest(self, reference: str) -> str | None:
        """The digest under which the registry has this image; None where it has not."""
        repository, tag = engine.split_reference(reference)
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/v2/{repository}/manifests/{tag}", method="HEAD", headers={"Accept": MANIFEST}
        )
        try:
            with _OPENER.open(request, timeout=10) as answer:
                return str(answer.headers["Docker-Content-Digest"])
        except urllib.error.HTTPError:
            return None

    def push(self, images: Sequence[ImageReference], emit: Emit) -> dict[str, str]:
        """Reference -> digest of each image, pushed where the registry does not have it.

        A name that does not say the content may stand for another one than when it was pushed: it is pushed again,
        which costs little where the layers are there.
        """
        digests = on_each(images, lambda image: self._push(image, emit), at_once=PARALLEL)
        return dict(zip([image.reference for image in images], digests, strict=True))

    def _push(self, image: ImageReference, emit: Emit) -> str:
        from docker.errors import APIError, ImageNotFound

        reference = image.reference
        if reference.endswith(f":{image.content}") and (digest := self.digest(reference)):
            return digest
        started = time.monotonic()
        api = engine.connect().api
        repository, tag = engine.split_reference(reference)
        here = f"127.0.0.1:{self.port}/{repository}"
        try:
            api.tag(reference, here, tag)
            for line in api.push(here, tag=tag, stream=True, decode=True):
                if "error" in line:
                    raise UnreachableError(
                        f"image {reference} cannot be pushed to the testbed registry: {line['error']}"
                    )
        except ImageNotFound as error:
            raise UnreachableError(
                f'the operator\'s engine has no image {reference}; try "toolkit images build"'
            ) from error
        finally:
            with contextlib.suppress(APIError):
                api.remove_image(f"{here}:{tag}")
        digest = self.digest(reference)
        if digest is None:
            raise UnreachableError(f"image {reference} was pushed, but the testbed registry does not have it")
        emit(
            Event(
                stage="images",
                state="done",
                changed=True,
                message=f"pushed {reference} to the testbed registry",
                duration_s=time.monotonic() - started,
            )
        )
        return digest


def find_registry() -> Registry | None:
    """The registry that runs, if one does."""
    for container in _containers():
        for port in container["Ports"]:
            if container["State"] == "running" and port.get("PublicPort"):
                return Registry(port=int(port["PublicPort"]))
    return None


def start_registry(image: str, emit: Emit) -> Registry:
    """The registry, found or started; its images outlive its container in a volume."""
    with _one_at_a_time():
        if (running := find_registry()) and _answers(running.port):
            return running
        _remove_containers()
        return _start(image, emit)


def _start(image: str, emit: Emit) -> Registry:
    from docker.errors import APIError
    from docker.types import Mount

    api = engine.connect().api
    for port in (PORT, _free_port()):
        config = api.create_host_config(
            port_bindings={INSIDE: ("127.0.0.1", port)},
            mounts=[Mount(STORAGE, NAME, type="volume", labels={LABEL: "images"})],
        )
        container = api.create_container(
            image, name=NAME, ports=[(5000, "tcp")], labels={LABEL: ""}, host_config=config
        )
        try:
            api.start(container["Id"])
        except APIError:  # somebody has the port
            api.remove_container(container["Id"], force=True)
            continue
        return _await(Registry(port=port), container["Id"], emit)
    raise UnreachableError(f"the testbed registry cannot get port {PORT} nor another one on 127.0.0.1")


@contextlib.contextmanager
def registry_in_use() -> Iterator[None]:
    """Nobody removes the registry while a deploy of any workspace is inside this."""
    with _lock_file("registry.in-use") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


def registry_parts() -> list[str]:
    """Names of what `remove_registry` would remove."""
    return [
        *(container["Names"][0].removeprefix("/") for container in _containers()),
        *(f"volume {volume['Name']}" for volume in _volumes()),
    ]


def remove_registry(*, keep_images: bool = False) -> list[str]:
    """Remove the registry and, unless they are to be kept, the images in it; returns the names of what was removed.

    Where a deploy, of whichever workspace, pulls from it, it stays: the last one to end its testbeds removes it.
    """
    from docker.errors import APIError

    with _one_at_a_time(), _lock_file("registry.in-use") as users:
        try:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return []
        removed = _remove_containers()
        for volume in [] if keep_images else _volumes():
            with contextlib.suppress(APIError):
                engine.connect().api.remove_volume(volume["Name"])
                removed.append(f"volume {volume['Name']}")
    return removed


def _remove_containers() -> list[str]:
    from docker.errors import NotFound

    removed = []
    for container in _containers():
        with contextlib.suppress(NotFound):
            engine.connect().api.remove_container(container["Id"], force=True)
            removed.append(container["Names"][0].removeprefix("/"))
    return removed


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    """All testbeds of this machine share the registry."""
    with _lock_file("registry.lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _lock_file(name: str) -> IO[str]:
    paths.cache().mkdir(parents=True, exist_ok=True)
    return (paths.cache() / name).open("w")


_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Whatever proxy the operator uses, loopback is not behind it."""


def _containers() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = engine.connect().api.containers(all=True, filters={"label": [LABEL]})
    return found


def _volumes() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = engine.connect().api.volumes(filters={"label": [LABEL]})["Volumes"] or []
    return found


def _await(registry: Registry, container: str, emit: Emit) -> Registry:
    deadline = time.monotonic() + READY_WITHIN_S
    while not _answers(registry.port):
        if time.monotonic() > deadline:
            log = engine.connect().api.logs(container, tail=20).decode(errors="replace").strip()
            raise UnreachableError(
                f"the testbed registry does not answer on 127.0.0.1:{registry.port}; its log ends:\n{log}"
            )
        time.sleep(0.05)
    emit(Event(stage="images", state="done", changed=True, message=f"testbed registry on 127.0.0.1:{registry.port}"))
    return registry


def _answers(port: int) -> bool:
    try:
        with _OPENER.open(f"http://127.0.0.1:{port}/v2/", timeout=2) as answer:
            return bool(answer.status == http.client.OK)
    except OSError:
        return False


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
