"""The operator's Docker engine: one connection for all threads, and an error that says what to do where there is none.

The SDK takes half a second to import, so nothing imports it before an engine is really needed.
"""

from __future__ import annotations

import functools
import os
import socket
import sys
from typing import TYPE_CHECKING, Any

from toolkit.errors import UnreachableError
from toolkit.spec.testbed import architecture_of

if TYPE_CHECKING:
    import docker
    from docker import APIClient

TIMEOUT_S = 120
"""Longest silence of one call; a builder says something more often than that."""
CONNECTIONS = 32
USUAL_SOCKET = "unix:///var/run/docker.sock"
_KNOWS_ITS_OWN_CAPABILITIES = (1, 42)
"""API of Docker 23.0."""


@functools.cache
def connect(docker_host: str | None = None, timeout_s: int = TIMEOUT_S) -> docker.DockerClient:
    """A client of the engine at `docker_host` (None: `$DOCKER_HOST` or the usual socket) that has just answered.

    Raises UnreachableError saying whether the engine does not run, or may not be used, and what to try.
    """
    place = docker_host or os.environ.get("DOCKER_HOST") or USUAL_SOCKET
    _knock(place)
    import docker
    import requests

    try:
        if docker_host is None:
            client = docker.DockerClient.from_env(timeout=timeout_s, max_pool_size=CONNECTIONS)
        else:
            client = docker.DockerClient(base_url=docker_host, timeout=timeout_s, max_pool_size=CONNECTIONS)
        client.ping()
    except (docker.errors.DockerException, requests.exceptions.RequestException) as error:
        raise UnreachableError(
            f'the Docker engine at {place} does not answer ({_cause(error)}); try "docker version"'
        ) from error
    return client


def architecture(docker_host: str | None = None) -> str:
    """The engine's own architecture in Docker's words."""
    return architecture_of(connect(docker_host).info()["Architecture"])


def machine_powers(api: APIClient) -> dict[str, Any]:
    """What a container needs to be a machine with an engine of its own, as arguments of `create_host_config`.

    Without `--privileged`, which engines that lack CAP_SYS_RESOURCE themselves refuse. Those before 23.0 refuse "all
    capabilities" too unless it is taken out; later ones mean all they have, and refuse to take out what they lack.
    """
    knows_its_own = tuple(map(int, api.api_version.split("."))) >= _KNOWS_ITS_OWN_CAPABILITIES
    return {
        "cap_add": ["ALL"],
        "cap_drop": [] if knows_its_own else ["SYS_RESOURCE"],
        "security_opt": ["seccomp=unconfined", "apparmor=unconfined"],
        "cgroupns": "private",
    }


def inspect_image(reference: str, docker_host: str | None = None) -> dict[str, Any] | None:
    """What the engine knows of an image; None where it does not have it."""
    from docker.errors import NotFound

    api: Any = connect(docker_host).api
    try:
        found: dict[str, Any] = api.inspect_image(reference)
    except NotFound:
        return None
    return found


def pull(reference: str, architecture: str, timeout_s: int = TIMEOUT_S) -> None:
    """An image from its registry; raises UnreachableError with what the engine said. `timeout_s`: longest silence."""
    import docker
    import requests

    repository, tag = split_reference(reference)
    try:
        api = connect(timeout_s=timeout_s).api
        lines = list(api.pull(repository, tag=tag, platform=f"linux/{architecture}", stream=True, decode=True))
    except (docker.errors.APIError, requests.exceptions.RequestException) as error:
        raise UnreachableError(str(getattr(error, "explanation", None) or error)) from error
    if errors := [line["error"] for line in lines if "error" in line]:
        raise UnreachableError(str(errors[0]))


def split_reference(reference: str) -> tuple[str, str]:
    """Repository and tag (or digest) of an image's reference."""
    if "@" in reference:
        repository, _, digest = reference.partition("@")
        return repository, digest
    repository, colon, tag = reference.rpartition(":")
    return (repository, tag) if colon and "/" not in tag else (reference, "latest")


def said(error: BaseException) -> str:
    """What went wrong with the engine, in its own words; empty for an error that is not of an engine."""
    sdk, requests = sys.modules.get("docker.errors"), sys.modules.get("requests.exceptions")
    if sdk and isinstance(error, sdk.DockerException):
        return str(getattr(error, "explanation", None) or error)
    return _cause(error) if requests and isinstance(error, requests.RequestException) else ""


def _cause(error: BaseException) -> str:
    """What the system said, below what the SDK makes of it."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, OSError) and inner.strerror:
            return inner.strerror
        inner = inner.__cause__ or inner.__context__
    return str(error)


def _knock(place: str) -> None:
    """The usual troubles with a local engine, seen before the SDK is even imported."""
    if not place.startswith("unix://"):
        return
    try:
        with socket.socket(socket.AF_UNIX) as knocking:
            knocking.connect(place.removeprefix("unix://"))
    except PermissionError as error:
        raise UnreachableError(
            f"this user may not use the Docker engine at {place}; "
            'try "sudo usermod -aG docker $USER" and log in again, or run as root'
        ) from error
    except OSError as error:
        raise UnreachableError(
            f'no Docker engine runs at {place} ({error.strerror}); "make setup" installs and starts it'
        ) from error
