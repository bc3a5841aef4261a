"""Images on their way to nodes: built by content, pushed to the testbed registry, there under their digest."""

from __future__ import annotations

import io
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from toolkit import engine, paths
from toolkit.errors import UnreachableError
from toolkit.events import Event
from toolkit.provisioning.images import Builder
from toolkit.provisioning.registry import Registry, find_registry, registry_in_use, remove_registry
from toolkit.provisioning.render import ImageReference

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def image() -> ImageReference:
    """Three kilobytes, so that a push takes no time."""
    client = engine.connect()
    reference = "toolkit/test-tiny:0123456789abcdef"
    client.images.build(fileobj=io.BytesIO(b"FROM scratch\nLABEL a=b\nENV A=1\n"), tag=reference, rm=True)
    return ImageReference(reference=reference, content="0123456789abcdef")


@pytest.fixture
def registry() -> Registry:
    return Builder(lambda _: None).start_registry()


@pytest.fixture(scope="module", autouse=True)
def _removed(image: ImageReference) -> Iterator[None]:
    yield
    engine.connect().images.remove(image.reference)


def test_an_unchanged_image_is_not_built(registry: Registry) -> None:
    key = ("registry", engine.architecture())
    engine.connect()
    events: list[Event] = []
    builder = Builder(events.append)
    builder.build([key])
    assert events == []


def test_what_is_pushed_is_there_under_its_digest_and_pushed_once(registry: Registry, image: ImageReference) -> None:
    events: list[Event] = []
    first = registry.push([image], events.append)
    again: list[Event] = []
    assert registry.push([image], again.append) == first
    assert again == []
    digest = registry.digest(image.reference)
    assert digest is not None
    assert digest.startswith("sha256:")
    assert first == {image.reference: digest}
    tags = [tag for found in engine.connect().images.list() for tag in found.tags]
    assert not any(tag.startswith("127.0.0.1:") and "test-tiny" in tag for tag in tags)


def test_it_is_started_once_and_listens_on_loopback_only(registry: Registry) -> None:
    assert Builder(lambda _: None).start_registry() == registry == find_registry()
    with socket.create_connection(("127.0.0.1", registry.port), timeout=2):
        pass
    with pytest.raises(OSError, match="refused"):  # the whole of 127/8 is this machine, and only .1 was asked for
        socket.create_connection(("127.0.0.2", registry.port), timeout=2)


def test_it_stays_while_the_deploy_of_another_workspace_pulls_from_it(registry: Registry) -> None:
    with registry_in_use():
        assert remove_registry(keep_images=True) == []
    assert find_registry() == registry


def test_an_image_that_is_not_here_cannot_be_pushed(registry: Registry) -> None:
    missing = ImageReference(reference="toolkit/test-absent:0", content="0")
    with pytest.raises(UnreachableError, match="toolkit images build"):
        registry.push([missing], lambda _: None)


def test_an_image_that_nobody_has_says_what_to_try() -> None:
    with pytest.raises(UnreachableError, match="docker load"):
        Builder(lambda _: None).build([("toolkit.invalid/nobody/nothing:1", engine.architecture())])


def test_a_build_that_fails_ends_with_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/Dockerfile").write_text("ARG BASE\nFROM ${BASE}\nRUN echo deep trouble && exit 7\n")
    monkeypatch.setattr(paths, "IMAGES", tmp_path)
    with pytest.raises(
        UnreachableError, match=r"(?s)images/broken/Dockerfile.*returned a non-zero code: 7.*deep trouble"
    ):
        Builder(lambda _: None).build([("broken", engine.architecture())])
