"""A base system is an image of the architecture that it is for, and so is what is built on it."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from toolkit import engine, paths
from toolkit.provisioning import images

pytestmark = pytest.mark.docker


def test_what_is_built_for_a_pi_1_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    with tarfile.open(cache / "base-bookworm-armv6.tar", "w") as archive:
        entry = tarfile.TarInfo("hello")
        entry.size = 2
        archive.addfile(entry, io.BytesIO(b"hi"))
    (tmp_path / "test-arm").mkdir()
    (tmp_path / "test-arm/Dockerfile").write_text("ARG BASE\nFROM ${BASE}\nENV A=1\nCOPY toolkit/errors.py /x\n")
    monkeypatch.setenv("TOOLKIT_CACHE", str(cache))
    monkeypatch.setattr(paths, "IMAGES", tmp_path)
    monkeypatch.setattr(images, "check_runnable", lambda _: None)  # nothing is run in it
    key = ("test-arm", "arm/v6")
    built = images.Builder(lambda _: None).build([key])[key]
    client = engine.connect()
    try:
        found = engine.inspect_image(built.reference)
        assert found is not None
        assert (found["Architecture"], found["Variant"]) == ("arm", "v6")
        assert found["Config"]["Labels"]["org.toolkit.content"] == built.content
    finally:
        client.images.remove(built.reference)
        client.images.remove("toolkit/base:bookworm-armv6")
